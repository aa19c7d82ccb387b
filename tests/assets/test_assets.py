"""Assets called directly and through `materialize`, on the tests' project with synthetic bars."""

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from signals_core.errors import MissingPrerequisite
from signals_core.ml.bundle import read_manifest
from signals_core.settings_loading import load_settings
from signals_core.strategy.backtest_report import version_of_week
from signals_core.strategy.covariance import adjusted_closes, covariance_of
from signals_core.strategy.ml_strategy import session_signals
from signals_core.strategy.targets import targets_of_session
from signals_core.strategy.walk_forward import follow_windows
from signals_core.workspace import Workspace
from signals_dagster.assets.backtest import strategy_backtest
from signals_dagster.assets.drift import drift_report_asset
from signals_dagster.assets.features import CATEGORY_ASSETS, feature_matrix, technical_features
from signals_dagster.assets.market_data import bars, reference_bars
from signals_dagster.assets.model import TrainingConfig, calibrated_model
from signals_dagster.assets.signals import signals
from signals_dagster.assets.target import target
from signals_dagster.assets.validation import validation_windows
from signals_dagster.checks import CHECKS, bars_schema, feature_matrix_schema, no_lookahead, promotion_gate
from signals_dagster.partitions import range_tags
from signals_dagster.resources import WorkspaceResource
from tests.conftest import PROJECT
from tests.project.bars import write_bars

BARS = [reference_bars, bars]
FEATURES = [*CATEGORY_ASSETS, feature_matrix, target]
SUNDAY, LAST_SESSION = "2022-07-03", "2022-07-01"


def materialize(
    assets: list, home: Path, first: str, last: str | None = None, config: dict | None = None
) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            assets,
            instance=instance,
            resources={"workspace": WorkspaceResource(home=str(home))},
            partition_key=None if last else first,
            tags=range_tags(first, last) if last else None,
            run_config=config,
            raise_on_error=True,
        )


def metadata(result: dg.ExecuteInProcessResult, node: str) -> dict[str, dict]:
    return {
        event.partition: {name: value.value for name, value in event.metadata.items()}
        for event in result.asset_materializations_for_node(node)
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every asset has been materialised once."""
    home = tmp_path_factory.mktemp("finished")
    shutil.copytree(PROJECT / "config", home / "config")
    write_bars(home / "data" / "bars")
    materialize([*BARS, *FEATURES, *CHECKS[:3]], home, "2020-01-01|AAA", "2022-01-01|BBB")
    materialize([validation_windows], home, "2021-01-01|UNIVERSE", "2022-01-01|AAA")
    config = {"ops": {"calibrated_model": {"config": {"cause": "a test"}}}}
    materialize([calibrated_model], home, f"{SUNDAY}|UNIVERSE", f"{SUNDAY}|AAA", config)
    return home


@pytest.fixture
def opened(finished: Path) -> Iterator[Workspace]:
    with Workspace(load_settings(finished)) as workspace:
        yield workspace


def test_bars_of_one_partition_carry_that_partition_s_row_count(project: Path):
    result = materialize(BARS, project, "2021-01-01|AAA")
    assert metadata(result, "bars")["2021-01-01|AAA"]["dagster/row_count"] == 252


def test_an_instrument_without_data_is_reported_missing(project: Path):
    result = materialize(BARS, project, "2021-01-01|AAA")
    described = metadata(result, "reference_bars")[None]
    assert described["missing"] == 1
    assert any(record.data["problem"] == "files has no bars of ^VIX" for record in described["loaded"].records)


def test_a_feature_asset_called_directly_returns_its_partition_s_metadata(project: Path):
    materialize(BARS, project, "2020-01-01|AAA")
    resource = WorkspaceResource(home=str(project))
    context = dg.build_asset_context(partition_key=dg.MultiPartitionKey({"symbol": "AAA", "date": "2020-01-01"}))
    result = technical_features(context, workspace=resource)
    resource.close()
    assert result.metadata["dagster/row_count"] == 253
    assert 0.1 < result.metadata["missing_share"] < 0.3


def test_every_partition_of_a_range_run_is_recorded_with_its_own_figures(project: Path):
    result = materialize([*BARS, *FEATURES], project, "2020-01-01|AAA", "2022-01-01|BBB")
    rows = {key: found["dagster/row_count"] for key, found in metadata(result, "feature_matrix").items()}
    assert rows == {
        f"{year}-01-01|{t}": n for t in ("AAA", "BBB") for year, n in ((2020, 253), (2021, 252), (2022, 125))
    }


def test_one_key_at_a_time_writes_the_same_bytes_as_a_range(project: Path, tmp_path_factory: pytest.TempPathFactory):
    other = tmp_path_factory.mktemp("keys") / "project"
    shutil.copytree(project, other)
    materialize([*BARS, *FEATURES], project, "2020-01-01|AAA", "2022-01-01|AAA")
    for year in ("2021-01-01", "2020-01-01", "2022-01-01"):
        materialize([*BARS, *FEATURES], other, f"{year}|AAA")
    files = sorted(p.relative_to(project) for p in project.glob("data/features/*/symbol=AAA/*.parquet"))
    assert len(files) == 6 * 3
    assert [f for f in files if (project / f).read_bytes() != (other / f).read_bytes()] == []


def test_windows_say_what_they_scored_and_a_second_run_computes_none(finished: Path):
    result = materialize([validation_windows], finished, "2021-01-01|UNIVERSE", "2022-01-01|AAA")
    described = metadata(result, "validation_windows")
    assert len(described) == 10
    assert {found["computed"] for found in described.values()} == {"0 of 10"}
    assert 0 < described["2021-04-01|UNIVERSE"]["UNIVERSE/log_loss"] < 2
    assert described["2022-01-01|UNIVERSE"]["test_end"] == "2022-07-01"
    assert described["2021-04-01|UNIVERSE"]["rows"]["purged"] == 2 * 5
    assert [r.data["challenger"] for r in described["2021-04-01|UNIVERSE"]["challengers"].records] == ["logistic"]
    searched = {r.data["figure"]: r.data["value"] for r in described["2021-04-01|UNIVERSE"]["overfitting"].records}
    assert (searched["trials"], searched["probability"]) == (1, "")
    assert searched["reason"] == "finished trials of the chosen columns: 1, at least 3 are needed"
    assert searched["reason"] in described["2021-01-01|AAA"]["overfitting_AAA"]
    pooled = {r.data["challenger"]: r.data["verdict"] for r in described["2021-01-01|AAA"]["challengers_AAA"].records}
    assert list(pooled) == ["prior", "logistic"]
    assert described["2021-01-01|AAA"]["xgboost_earned_its_place_AAA"] is (
        set(pooled.values()) == {"XGBoost is better"}
    )
    assert "data:image/png;base64," in described["2021-01-01|AAA"]["window_metrics_AAA"]


def test_each_scope_has_a_registered_version_with_the_cause_of_the_run(opened: Workspace):
    versions = opened.registry.list_versions()
    assert sorted(v.scope for v in versions) == ["AAA", "UNIVERSE"]
    registered = [event for event in opened.registry.journal() if event.action == "registered"]
    assert {event.reason for event in registered} == {"a test"}


def test_the_model_asset_called_directly_finds_its_version_trained_already(finished: Path, opened: Workspace):
    resource = WorkspaceResource(home=str(finished))
    context = dg.build_asset_context(partition_key=dg.MultiPartitionKey({"scope": "UNIVERSE", "date": SUNDAY}))
    result = calibrated_model(context, config=TrainingConfig(), workspace=resource)
    resource.close()
    (version,) = opened.registry.list_versions("UNIVERSE")
    assert result.metadata["version"] == version.version_id
    assert result.metadata["in_service"] == version.active


def test_drift_and_signals_of_the_last_session_name_every_ticker_once(finished: Path, opened: Workspace):
    for version in opened.registry.list_versions():
        opened.registry.promote(version.version_id, "for this test")
    result = materialize([drift_report_asset, signals], finished, f"{LAST_SESSION}|UNIVERSE", f"{LAST_SESSION}|AAA")
    described = metadata(result, "signals")
    symbols = {key: [r.data["symbol"] for r in found["signals"].records] for key, found in described.items()}
    assert symbols == {f"{LAST_SESSION}|UNIVERSE": ["BBB"], f"{LAST_SESSION}|AAA": ["AAA"]}
    drift = metadata(result, "drift_report")
    described = drift[f"{LAST_SESSION}|AAA"]
    assert described["verdict"] == "insufficient: 20 rows in 20 sessions, 100 are needed"
    assert (described["feed_faults"], described["signal_dead"]) == ("none found", False)
    assert Path(described["page"]).read_text().startswith("<!doctype html>")
    assert "data:image/png;base64," in described["psi_by_week"]


def test_signals_without_a_model_in_service_say_what_to_do(project: Path):
    materialize([*BARS, *FEATURES], project, "2020-01-01|AAA", "2022-01-01|BBB")
    with pytest.raises(MissingPrerequisite, match="UNIVERSE: no model is in service: train one"):
        materialize([signals], project, f"{LAST_SESSION}|UNIVERSE")


@pytest.fixture
def three_versions(finished: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the project with versions of UNIVERSE by the date they are as of; the oldest was registered last."""
    home = tmp_path / "project"
    shutil.copytree(finished, home, ignore=shutil.ignore_patterns("redis"))
    for as_of, sunday in (("2022-06-29", "2022-06-26"), ("2022-06-19", "2022-06-19")):
        config = {"ops": {"calibrated_model": {"config": {"as_of": as_of}}}}
        materialize([calibrated_model], home, f"{sunday}|UNIVERSE", config=config)
    with Workspace(load_settings(home)) as workspace:
        versions = workspace.registry.list_versions("UNIVERSE")
        by_date = {read_manifest(workspace.models / v.model_path)["as_of"]: v.version_id for v in versions}
    assert list(by_date) == [SUNDAY, "2022-06-29", "2022-06-19"]
    return home, by_date


def test_a_sunday_s_backtest_is_of_the_newest_version_as_of_it(three_versions: tuple[Path, dict[str, str]]):
    home, versions = three_versions
    result = materialize([strategy_backtest], home, "2022-06-12|UNIVERSE", f"{SUNDAY}|UNIVERSE")
    described = {key.partition("|")[0]: found for key, found in metadata(result, "strategy_backtest").items()}
    assert described["2022-06-12"] == {
        "refused": "UNIVERSE: no model was trained as of 2022-06-12 or an earlier Sunday: `signals train`"
    }
    # A retrain on Wednesday belongs to the week of the Sunday before it.
    expected = {"2022-06-19": "2022-06-19", "2022-06-26": "2022-06-29", SUNDAY: SUNDAY}
    pages = home / "data" / "reports" / "backtest"
    for sunday, as_of in expected.items():
        version = versions[as_of]
        assert described[sunday]["version"] == version
        assert described[sunday]["page"] == str(pages / "UNIVERSE" / f"{version}.html")
        assert version in Path(described[sunday]["page"]).read_text()
    assert sorted(path.stem for path in pages.rglob("*") if path.is_file()) == sorted(versions.values())


def test_a_damaged_version_gives_way_to_the_one_before(three_versions: tuple[Path, dict[str, str]]):
    home, versions = three_versions
    (home / "models" / versions[SUNDAY] / "manifest.json").unlink()
    with Workspace(load_settings(home)) as workspace:
        assert version_of_week(workspace, "UNIVERSE", date(2022, 7, 3)).version_id == versions["2022-06-29"]


def test_a_volatility_target_is_kept_by_windows_signals_and_targets(finished: Path, tmp_path: Path):
    home, target = tmp_path / "project", 0.01
    shutil.copytree(finished, home, ignore=shutil.ignore_patterns("redis"))
    environment = {"SA_SIZING__TARGET_VOLATILITY": str(target), "SA_STRATEGY__RULE": "expected_return"}
    with Workspace(load_settings(home, environ=environment)) as workspace:
        closes = adjusted_closes(workspace, ["AAA", "BBB"])

        def volatility(weights: pd.Series, day: pd.Timestamp) -> float:
            own = weights.reindex(["AAA", "BBB"]).fillna(0.0).to_numpy()
            return float(np.sqrt(252 * own @ covariance_of(closes, ["AAA", "BBB"], day) @ own))

        for version in workspace.registry.list_versions():
            workspace.registry.promote(version.version_id, "for this test")
        followed = follow_windows(workspace, "UNIVERSE")
        rows = followed.frame.set_index("symbol")
        assert max(volatility(own["weight"], day) for day, own in rows.groupby("date")) == pytest.approx(target)
        assert rows["binding"].str.contains("target_volatility").sum() > 50
        assert followed.run.backtest.exposure["gross"].max() > 0

        day = pd.Timestamp(workspace.last_session)
        for scope in ("UNIVERSE", "AAA"):
            weights = session_signals(workspace, scope, day.date()).frame.set_index("symbol")["weight"]
            assert 0 < volatility(weights, day) <= target * (1 + 1e-9)
        targets = targets_of_session(workspace, day.date()).set_index("symbol")
        assert volatility(targets["weight"], day) == pytest.approx(target, rel=1e-3)
        assert targets["reason"].str.contains("target_volatility of the whole book").any()


def test_checks_pass_on_what_the_assets_made(finished: Path, opened: Workspace):
    resource = WorkspaceResource(home=str(finished))
    for check in (bars_schema, feature_matrix_schema, no_lookahead):
        assert check(workspace=resource).passed
    resource.close()


def test_the_lookahead_check_fails_on_features_shifted_one_day_ahead(project: Path):
    materialize([*BARS, *FEATURES], project, "2020-01-01|AAA", "2022-01-01|BBB")
    with Workspace(load_settings(project)) as workspace:
        for ticker in ("AAA", "BBB"):
            matrix = workspace.features._matrix
            frame = matrix.load(ticker, workspace.settings.partitions.start, workspace.settings.partitions.end)
            matrix.save(ticker, frame.assign(rsi_14=frame["rsi_14"].shift(-1)), matrix.digests(ticker))
    resource = WorkspaceResource(home=str(project))
    result = no_lookahead(workspace=resource)
    resource.close()
    assert not result.passed
    assert {record.data["feature"] for record in result.metadata["leaks"].records} == {"rsi_14"}


def test_bars_that_break_the_schema_block_the_features(project: Path):
    import sqlalchemy as sa

    materialize(BARS, project, "2020-01-01|AAA", "2022-01-01|BBB")
    with Workspace(load_settings(project)) as workspace, workspace.market.database.write() as connection:
        connection.execute(sa.text("update bars set high = low / 2 where symbol = 'BBB' and date = '2021-03-01'"))
    with Workspace(load_settings(project)) as workspace:
        assert workspace.market.load_bars("BBB").loc["2021-03-01", "high"] < 90
    resource = WorkspaceResource(home=str(project))
    result = bars_schema(workspace=resource)
    resource.close()
    assert not result.passed
    (problem,) = result.metadata["problems"].records
    assert problem.data["symbol"] == "BBB"
    assert "2021-03-01" in problem.data["problem"]


def test_the_gate_check_warns_while_a_scope_has_no_model(project: Path):
    resource = WorkspaceResource(home=str(project))
    result = promotion_gate(workspace=resource)
    resource.close()
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN, "nothing is served, so nothing has to be stopped"
    decisions = [record.data["decision"] for record in result.metadata["scopes"].records]
    assert decisions == ["no version was trained"] * 2


def test_the_gate_check_shows_the_numbers_of_each_decision(finished: Path):
    resource = WorkspaceResource(home=str(finished))
    result = promotion_gate(workspace=resource)
    resource.close()
    rows = [record.data for record in result.metadata["last_decisions"].records]
    assert {row["decision"] for row in rows} <= {"promoted", "rejected"}
    assert rows
    for row in rows:
        assert row["gain_over_prior_low"] < row["gain_over_prior"] < row["gain_over_prior_high"]
        assert row["why"]


def test_nothing_is_written_outside_the_project(finished: Path):
    assert sorted(path.name for path in finished.iterdir()) == ["config", "data", "models"]
