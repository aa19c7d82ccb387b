"""What Dagster serves, held against a snapshot; and what loading it costs."""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from signals_core.errors import SettingsError
from signals_core.settings_loading import load_settings
from signals_dagster.definitions import defs
from signals_dagster.partitions import KEY_LIMIT, build_partitions
from tests.conftest import PROJECT

SNAPSHOT = Path(__file__).parent / "definitions.json"
ROOT = Path(__file__).parents[2]


def describe() -> dict:
    graph = defs.resolve_asset_graph()
    assets = {}
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        partitions = node.partitions_def
        assets[key.to_user_string()] = {
            "group": node.group_name,
            "owners": list(node.owners),
            "kinds": sorted(node.kinds),
            "described": bool(node.description),
            "upstream": sorted(parent.to_user_string() for parent in node.parent_keys),
            "partitions": None
            if partitions is None
            else {
                d.name: [d.partitions_def.get_partition_keys()[0], d.partitions_def.get_partition_keys()[-1]]
                for d in partitions.partitions_defs
            },
        }
    repository = defs.get_repository_def()
    return {
        "assets": assets,
        "checks": {
            f"{check.asset_key.to_user_string()}:{check.name}": {"blocking": graph.get(check).blocking}
            for check in sorted(graph.asset_check_keys, key=str)
        },
        "jobs": sorted(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")),
        "schedules": {
            s.name: [s.cron_schedule, s.execution_timezone, s.job_name, s.default_status.value]
            for s in repository.schedule_defs
        },
        "sensors": {
            s.name: [s.minimum_interval_seconds, *(t.job_name for t in s.targets), s.default_status.value]
            for s in repository.sensor_defs
        },
    }


def test_assets_partitions_jobs_schedules_sensors_and_checks_are_as_recorded():
    """After an intended change: SIGNALS_HOME=tests/project python -m tests.assets.test_definitions writes it anew."""
    assert describe() == json.loads(SNAPSHOT.read_text())


def test_importing_the_definitions_loads_no_model_library():
    code = (
        "import sys, signals_dagster.definitions;"
        "print([m for m in ('xgboost', 'sklearn', 'optuna', 'talib', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_the_library_never_imports_dagster():
    code = (
        "import pkgutil, importlib, sys, signals_core;"
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(signals_core.__path__, 'signals_core.')];"
        "print('dagster' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "False"


def test_500_symbols_of_ten_years_by_month_stay_below_the_key_limit():
    settings = _settings(500, "month")
    partitions = build_partitions(settings)
    dates = partitions.symbol_date.get_partitions_def_for_dimension("date").get_partition_keys()
    assert (dates[0], dates[-1], len(dates)) == ("2010-01-01", "2019-12-01", 120)
    assert 500 * len(dates) <= KEY_LIMIT


def test_500_symbols_by_day_are_refused_with_what_to_change():
    with pytest.raises(SettingsError, match=r"features would have 1,\d{3},000 partition keys.*date_grain"):
        build_partitions(_settings(500, "day"))


def test_a_window_is_a_partition_only_once_its_whole_test_span_has_passed():
    partitions = build_partitions(load_settings(PROJECT).settings)
    keys = partitions.scope_window.get_partitions_def_for_dimension("date").get_partition_keys()
    assert keys == ["2021-01-01", "2021-04-01", "2021-07-01", "2021-10-01", "2022-01-01"]


def test_a_pooled_window_depends_on_every_ticker_and_a_ticker_s_own_on_it_alone():
    graph = defs.resolve_asset_graph()
    windows, matrix = dg.AssetKey("validation_windows"), dg.AssetKey("feature_matrix")
    mapping = graph.get_partition_mapping(windows, matrix)

    def upstream(key: str) -> set[str]:
        found = mapping.get_upstream_mapped_partitions_result_for_partitions(
            graph.get(windows).partitions_def.subset_with_partition_keys([key]),
            graph.get(windows).partitions_def,
            graph.get(matrix).partitions_def,
        )
        return set(found.partitions_subset.get_partition_keys())

    years = ("2020-01-01", "2021-01-01")  # trained on 2020, tested on the first half of 2021
    assert upstream("2021-01-01|UNIVERSE") == {f"{year}|{t}" for year in years for t in ("AAA", "BBB")}
    assert upstream("2021-01-01|AAA") == {f"{year}|AAA" for year in years}


def test_jobs_run_in_this_process():
    assert defs.resolve_job_def("features_job").executor_def.name == "in_process"


def _settings(tickers: int, grain: str):
    names = json.dumps([f"T{n:03}" for n in range(tickers)])
    environment = {
        "SA_UNIVERSE__TICKERS": names,
        "SA_ML__SCOPES": '["UNIVERSE"]',
        "SA_PARTITIONS__START": "2010-01-01",
        "SA_PARTITIONS__END": "2020-01-01",
        "SA_PARTITIONS__DATE_GRAIN": grain,
    }
    return load_settings(PROJECT, environ=environment).settings


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(describe(), indent=1, sort_keys=True) + "\n")
