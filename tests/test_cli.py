"""The command line: data on stdout, exit codes that mean something."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SIGNALS = [sys.executable, "-m", "signals_core.cli"]


def run(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SIGNALS_HOME": str(home), **environment}
    return subprocess.run([*SIGNALS, *arguments], capture_output=True, text=True, env=env, cwd=home)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project taken by the commands from bars to models."""
    import shutil

    from tests.conftest import PROJECT
    from tests.project.bars import write_bars

    home = tmp_path_factory.mktemp("cli")
    shutil.copytree(PROJECT / "config", home / "config")
    write_bars(home / "data" / "bars")
    for command in ("ingest", "features", "validate"):
        done = run(home, command, "--json")
        assert done.returncode == 0, done.stderr
    return home


def test_help_names_every_command_and_loads_no_library():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "signals_core.cli", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    for command in (
        "demo",
        "ui",
        "config",
        "doctor",
        "ingest",
        "data",
        "features",
        "train",
        "validate",
        "models",
        "predict",
        "drift",
        "orders",
        "positions",
        "monitor",
    ):
        assert command in done.stdout
    assert [name for name in ("pandas", "xgboost", "dagster", "pydantic") if f" {name}\n" in done.stderr] == []


def test_config_show_names_the_variable_a_value_came_from(project: Path):
    done = run(project, "config", "show", "--json", SA_ML__XGB_PARAMS__N_ESTIMATORS="500")
    rows = {row["key"]: row for row in json.loads(done.stdout)}
    assert rows["ml.xgb_params.n_estimators"] == {
        "key": "ml.xgb_params.n_estimators",
        "value": 500,
        "origin": "environment SA_ML__XGB_PARAMS__N_ESTIMATORS",
    }
    assert rows["ml.prediction_horizon"]["origin"] == "built-in default"
    assert rows["tuning.trials"]["origin"] == "config/settings.yaml"


def test_config_show_hides_passwords(project: Path):
    done = run(project, "config", "show", SA_STORES__MARKET_URL="postgresql+psycopg2://me:secret@localhost/db")
    assert "secret" not in done.stdout + done.stderr
    assert "me:***@localhost" in done.stdout


def test_a_wrong_setting_ends_with_2_and_names_key_and_variable(project: Path):
    done = run(project, "config", "show", SA_ML__PREDICTION_HORIZN="3")
    assert done.returncode == 2
    assert "ml.prediction_horizn (from environment SA_ML__PREDICTION_HORIZN)" in done.stderr
    assert "did you mean prediction_horizon?" in done.stderr


def test_an_unknown_command_ends_with_2(project: Path):
    assert run(project, "nonsense").returncode == 2


def test_features_before_bars_end_with_4_and_say_what_to_run(project: Path):
    done = run(project, "features")
    assert (done.returncode, "run `signals ingest`" in done.stderr) == (4, True)


def test_training_before_windows_ends_with_4(project: Path):
    for command in ("ingest", "features"):
        assert run(project, command).returncode == 0
    done = run(project, "train")
    assert done.returncode == 4
    assert "signals validate" in done.stderr


def test_a_redis_that_does_not_answer_ends_with_5(project: Path):
    done = run(project, "models", "list", SA_STORES__REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 5
    assert "stores.redis_url" in done.stderr


def test_a_postgres_that_does_not_answer_ends_with_5_and_hides_the_password(project: Path):
    done = run(project, "ingest", SA_STORES__MARKET_URL="postgresql+psycopg2://me:secret@127.0.0.1:1/db")
    assert done.returncode == 5
    assert "stores.market_url" in done.stderr
    assert "secret" not in done.stderr


def test_from_windows_to_signals(built: Path):
    trained = run(built, "train", "--cause", "a test", "--json")
    versions = json.loads(trained.stdout)
    assert trained.returncode == (0 if all(v["active"] for v in versions) else 3)
    listed = json.loads(run(built, "models", "list", "--json").stdout)
    assert {v["version_id"] for v in listed} == {v["version_id"] for v in versions}
    for version in listed:
        assert run(built, "models", "promote", version["version_id"]).returncode == 0
    shown = json.loads(run(built, "models", "show", listed[0]["version_id"]).stdout)
    assert shown["manifest"]["cause"] == "a test"
    predicted = json.loads(run(built, "predict", "--json").stdout)
    assert {(row["symbol"], row["scope"]) for row in predicted} == {("AAA", "AAA"), ("BBB", "UNIVERSE")}
    for row in predicted:
        assert row["p_down"] + row["p_flat"] + row["p_up"] == pytest.approx(1)
    (served,) = [v["version_id"] for v in listed if v["scope"] == "UNIVERSE"]
    (followed,) = json.loads(run(built, "backtest", "--scope", "UNIVERSE", "--json").stdout)
    assert followed["page"] == str(built / "data" / "reports" / "backtest" / "UNIVERSE" / f"{served}.html")
    assert served in Path(followed["page"]).read_text()
    drift = run(built, "drift", "--json")
    assert [report["scope"] for report in json.loads(drift.stdout)] == ["UNIVERSE", "AAA"]
    shown = run(built, "monitor", "show", "--json")
    assert json.loads(shown.stdout) == json.loads(drift.stdout)
    (written,) = json.loads(run(built, "monitor", "report", "--scope", "AAA", "--json").stdout)
    assert written["scope"] == "AAA"
    assert "Insufficient: 20 rows" in Path(written["markdown"]).read_text()
    assert Path(written["html"]).read_text().startswith("<!doctype html>")
    absent = run(built, "monitor", "show", "--day", "2020-01-01")
    assert (absent.returncode, "no drift report of 2020-01-01" in absent.stderr) == (4, True)


def test_progress_goes_to_stderr_and_json_alone_to_stdout(built: Path):
    done = run(built, "validate", "--json")
    assert all(not row["computed"] for row in json.loads(done.stdout))
    assert "validation windows" in done.stderr


def test_rollback_without_an_earlier_version_ends_with_4(project: Path):
    done = run(project, "models", "rollback")
    assert (done.returncode, "no version served" in done.stderr) == (4, True)


def test_doctor_finds_a_sound_installation(project: Path):
    done = run(project, "doctor", "--json")
    findings = {f["name"]: f for f in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert {"Python", "market store", "Redis", "registry", "disk", "xgboost"} <= set(findings)


def test_doctor_ends_with_3_and_a_remedy_where_redis_is_down(project: Path):
    done = run(project, "doctor", "--json", SA_STORES__REDIS_URL="redis://127.0.0.1:1/0")
    wrong = [f for f in json.loads(done.stdout) if not f["ok"]]
    assert done.returncode == 3
    assert {f["name"] for f in wrong} == {"Redis", "registry"}
    assert all(f["remedy"] for f in wrong)


def test_ingest_of_facts_without_a_source_ends_with_2_and_names_the_setting(project: Path):
    done = run(project, "ingest", "short_interest")
    assert (done.returncode, "market_data.short_interest.provider" in done.stderr) == (2, True)
    done = run(project, "ingest", "membership")
    assert (done.returncode, "universe.membership" in done.stderr) == (2, True)


def test_ingest_offers_every_dataset_of_the_market_store():
    from signals_core.cli.data import Dataset
    from signals_core.market_data.tables import FACTS

    assert [dataset.value for dataset in Dataset] == ["bars", *FACTS, "membership"]


def test_data_commands_show_quality_runs_actions_and_refused_rows(project: Path):
    path = project / "data" / "bars" / "AAA.csv"
    lines = path.read_text().splitlines()
    lines[0] += ",dividend"
    lines[1:] = [line + (",0.25" if line.startswith("2022-06-10") else ",0") for line in lines[1:]]
    broken = next(i for i, line in enumerate(lines) if line.startswith("2022-06-15"))
    lines[broken] = lines[broken].replace("2022-06-15", "2022-06-19")
    path.write_text("\n".join(lines))
    loaded = {row["symbol"]: row for row in json.loads(run(project, "ingest", "--json").stdout)}
    assert (loaded["AAA"]["rows"], loaded["AAA"]["rejected"], loaded["AAA"]["problem"]) == (629, 1, None)
    assert "has no bars of ^VIX" in loaded["^VIX"]["problem"]

    quality = run(project, "data", "quality", "--json")
    by_symbol = {row["symbol"]: row for row in json.loads(quality.stdout)["bars"]}
    assert quality.returncode == 3, "a session of AAA is missing"
    assert (by_symbol["AAA"]["missing"], by_symbol["AAA"]["behind"], by_symbol["BBB"]["complete"]) == (1, 0, True)
    assert run(project, "data", "quality").returncode == 3
    assert json.loads(run(project, "data", "rejected", "--json").stdout) == [
        {"symbol": "AAA", "row": broken - 1, "item": "2022-06-19", "reason": "exchange was closed"}
    ]
    actions = json.loads(run(project, "data", "actions", "AAA", "--json").stdout)
    assert actions == [{"ex_date": "2022-06-10", "kind": "dividend", "value": 0.25}]
    (made,) = json.loads(run(project, "data", "runs", "--json").stdout)
    assert (made["dataset"], made["provider"], made["symbols"], made["problems"]) == ("bars", "files", 5, 1)
