"""The main job as a process: it is idempotent, reproducible, and can be killed at any moment."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from signals_core.ml.monitoring import DriftStore
from signals_core.settings_loading import load_settings
from signals_core.strategy.ml_strategy import SignalStore
from signals_core.workspace import Workspace
from signals_dagster.definitions import defs
from signals_dagster.resources import WorkspaceResource
from tests.conftest import PROJECT
from tests.project.bars import write_bars

ROOT = Path(__file__).parents[1]
DEMO = [sys.executable, "-m", "signals_core.cli", "demo", "--json"]


def new_project(home: Path) -> Path:
    shutil.copytree(PROJECT / "config", home / "config")
    write_bars(home / "data" / "bars")
    return home


def start(home: Path, **environment: str) -> subprocess.Popen[str]:
    env = {**os.environ, "SIGNALS_HOME": str(home), "SA_COMPUTE__WORKERS": "2", **environment}
    return subprocess.Popen(DEMO, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home)


def run(home: Path, **environment: str) -> dict:
    process = start(home, **environment)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out)


def state(home: Path) -> dict:
    """All that a main job leaves behind that must not depend on how often it was interrupted."""
    with Workspace(load_settings(home)) as workspace:
        journal = [(e.action, e.version_id, e.reason) for e in workspace.registry.journal()]
        versions = [(v.version_id, v.digest, v.active) for v in workspace.registry.list_versions()]
        day = workspace.last_session
        signals = {s: SignalStore(workspace.data / "signals").load(s, day).to_csv() for s in ("UNIVERSE", "AAA")}
        drift = {s: DriftStore(workspace.data / "drift").load(s, str(day)) for s in ("UNIVERSE", "AAA")}
    files = {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("features", "target", "validation")
        for path in sorted((home / "data" / folder).rglob("*.parquet"))
    }
    with dg.DagsterInstance.from_config(str(home / "data" / "dagster_home")) as instance:
        recorded = {
            key.to_user_string(): sorted(instance.get_materialized_partitions(key))
            for key in defs.resolve_asset_graph().get_all_asset_keys()
        }
        unfinished = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    return {
        "journal": sorted(journal),
        "versions": versions,
        "signals": signals,
        "drift": drift,
        "files": files,
        "recorded": recorded,
        "unfinished": len(unfinished),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = new_project(tmp_path_factory.mktemp("undisturbed") / "project")
    run(home)
    return home


def test_a_second_run_finds_its_work_done_and_changes_nothing(undisturbed: Path):
    before = state(undisturbed)
    report = run(undisturbed)
    assert [part["run_id"] for part in report["parts"]] == [None] * 5
    assert state(undisturbed) == before
    assert before["unfinished"] == 0


def test_each_scope_has_exactly_one_model_in_service(undisturbed: Path):
    active = [version for version, _, is_active in state(undisturbed)["versions"] if is_active]
    assert [version.split("-")[1] for version in active] == ["AAA", "UNIVERSE"]


def test_a_restated_bar_makes_its_own_month_and_what_rests_on_it_stale_and_nothing_earlier(
    undisturbed: Path, tmp_path: Path
):
    home = tmp_path / "project"
    shutil.copytree(undisturbed, home)
    path = home / "data" / "bars" / "BBB.csv"
    bars = pd.read_csv(path)
    bars.loc[bars["date"] == "2022-03-01", "volume"] *= 3
    bars.to_csv(path, index=False)
    env = {**os.environ, "SIGNALS_HOME": str(home)}
    subprocess.run([sys.executable, "-m", "signals_core.cli", "ingest"], env=env, check=True, capture_output=True)
    before = state(home)["files"]
    run(home)
    after = state(home)["files"]
    changed = {name for name in before if before[name] != after[name]}
    assert any("technical/symbol=BBB/year=2022" in name for name in changed)
    assert not [name for name in changed if "symbol=AAA" in name or "year=2021" in name or "scope=AAA" in name]
    windows = {name.partition("window=")[2] for name in changed if "scope=UNIVERSE/window=" in name}
    assert windows == {"2021-10-01.parquet", "2022-01-01.parquet"}, "those that train or test on March 2022"


def test_the_weekly_retrain_job_takes_an_empty_project_to_models_signals_and_reports(project: Path):
    job = defs.resolve_job_def("weekly_retrain_job")
    resources = {"workspace": WorkspaceResource(home=str(project))}
    home = project / "dagster_home"
    home.mkdir()
    previous = os.environ["SIGNALS_HOME"]
    os.environ["SIGNALS_HOME"] = str(project)  # the runs inside open their own workspace
    try:
        with dg.DagsterInstance.local_temp(str(home)) as instance:
            tags = {"signals/cause": "schedule"}
            result = job.execute_in_process(instance=instance, resources=resources, tags=tags)
            recorded = {
                name: len(instance.get_materialized_partitions(dg.AssetKey(name)))
                for name in ("feature_matrix", "validation_windows", "calibrated_model", "signals")
            }
    finally:
        os.environ["SIGNALS_HOME"] = previous
    assert result.success
    assert recorded == {"feature_matrix": 6, "validation_windows": 10, "calibrated_model": 2, "signals": 2}
    with Workspace(load_settings(project)) as workspace:
        registered = [e for e in workspace.registry.journal() if e.action == "registered"]
        assert {e.reason for e in registered} == {"schedule"}


def _any(pattern: str, count: int = 1) -> Callable[[Path], bool]:
    return lambda home: sum(1 for _ in home.glob(pattern)) >= count


def _journal_lines(count: int) -> Callable[[Path], bool]:
    def reached(home: Path) -> bool:
        path = home / "models" / "journal.jsonl"
        return path.exists() and path.read_bytes().count(b"\n") >= count

    return reached


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "the market store appears": _any("data/market.sqlite"),
    "the first feature file is written": _any("data/features/*/symbol=*/*.parquet"),
    "the matrix is half written": _any("data/features/matrix/symbol=*/*.parquet", 2),
    "some windows are computed": _any("data/validation/scope=*/window=*.parquet", 3),
    "a model bundle is being written": _any("models/.*.tmp"),
    "a model bundle is whole but has not its name yet": _any("models/.*.tmp/manifest.json"),
    "a bundle is written": _any("models/[!.]*/manifest.json"),
    "a model is registered": _journal_lines(1),
    "a model is promoted": _journal_lines(2),
    "the first drift report is written": _any("data/drift/scope=*/*.json"),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_when(moment: str, undisturbed: Path, tmp_path: Path):
    """kill -9 at that moment, then a rerun, ends in the same state as an undisturbed run."""
    home = new_project(tmp_path / "project")
    process = start(home)
    deadline = time.monotonic() + 120
    while not MOMENTS[moment](home):
        assert process.poll() is None, "the run ended before the moment came"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    run(home)
    assert state(home) == state(undisturbed)


@pytest.mark.slow
def test_two_runs_from_empty_write_the_same_bytes_and_the_same_models(undisturbed: Path, tmp_path: Path):
    home = new_project(tmp_path / "project")
    run(home)
    first, second = state(undisturbed), state(home)
    assert first["files"] == second["files"]
    assert first["versions"] == second["versions"]


@pytest.mark.slow
def test_the_demo_on_real_bars_ends_with_one_model_in_service_for_each_scope(tmp_path: Path):
    report = run(
        ROOT,
        SIGNALS_CONFIG="config/demo.yaml",
        SA_PATHS__DATA=str(tmp_path / "data"),
        SA_PATHS__MODELS=str(tmp_path / "models"),
    )
    assert [(s["scope"], s["active"]["version_id"] == s["newest"]["version_id"]) for s in report["scopes"]] == [
        ("UNIVERSE", True),
        ("AAPL", True),
    ]
    assert {row["symbol"]: row["sessions"] for row in report["symbols"]} == {
        **dict.fromkeys(("AAPL", "IBM", "MSFT", "AMZN", "NVDA"), 3270),
        "GOOG": 2148,
    }
    pooled = report["scopes"][0]
    assert {"vix_level", "pe_ratio", "days_to_cover"} <= set(pooled["features_without_data"])
    assert [w["start"] for w in pooled["windows"]][:2] == ["2002-03-01", "2002-06-01"]
    assert len(pooled["windows"]) == 43
    assert all(-0.1 < w["gain"] < 0.1 for w in pooled["windows"]), "more would be a leak"
    assert {row["symbol"] for row in pooled["signals"]} == {"IBM", "MSFT", "AMZN", "NVDA", "GOOG"}


@pytest.mark.services
def test_on_postgresql_and_redis_the_models_are_the_same(undisturbed: Path, tmp_path: Path):
    import redis
    import sqlalchemy as sa

    postgres, server = os.environ.get("SIGNALS_TEST_POSTGRES_URL"), os.environ.get("SIGNALS_TEST_REDIS_URL")
    if not postgres or not server:
        pytest.skip("SIGNALS_TEST_POSTGRES_URL and SIGNALS_TEST_REDIS_URL are not set")
    url = sa.make_url(postgres)
    database = f"signals_test_{os.getpid()}"
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    client = redis.Redis.from_url(server)
    assert client.dbsize() == 0, f"{server} is not empty: name a database for tests alone"
    with admin.connect() as connection:
        connection.execute(sa.text(f"create database {database}"))
    try:
        home = new_project(tmp_path / "project")
        stores = {
            "SA_STORES__MARKET_URL": url.set(database=database).render_as_string(hide_password=False),
            "SA_STORES__REDIS_URL": server,
            "SA_STORES__DAGSTER_URL": url.set(database=database).render_as_string(hide_password=False),
        }
        report = run(home, **stores)
        assert run(home, **stores)["parts"][1]["run_id"] is None
        assert not (home / "data" / "market.sqlite").exists()
        assert not (home / "data" / "redis").exists()
        assert not list((home / "data" / "dagster_home").rglob("runs.db"))
        active = sorted((s["active"]["version_id"], s["active"]["digest"]) for s in report["scopes"])
        assert active == [(v, d) for v, d, is_active in state(undisturbed)["versions"] if is_active]
        assert client.exists("ml:active:UNIVERSE")
        kinds = [entry[b"kind"] for _, entry in client.xrange("ml:drift:events")]
        # ^VIX has no bars, and there are two scopes.
        assert sorted(map(json.loads, kinds)) == ["alert", "drift_report", "drift_report"]
    finally:
        client.flushdb()
        with admin.connect() as connection:
            connection.execute(sa.text(f"drop database {database} with (force)"))
        admin.dispose()
