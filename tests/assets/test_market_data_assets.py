"""Assets of market data: facts from a source, what a late one concerns, quality, membership; and their schedules."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from signals_core import steps
from signals_core.errors import DataError, MissingPrerequisite
from signals_core.features.catalog import CATEGORIES
from signals_core.settings_loading import load_settings
from signals_core.workspace import Workspace
from signals_dagster.assets.market_data import (
    FACT_ASSETS,
    bars,
    data_quality,
    fundamentals,
    reference_bars,
    universe_membership,
)
from signals_dagster.definitions import defs
from signals_dagster.schedules import biweekly_altdata_schedule, daily_bars_schedule, weekly_fundamentals_schedule
from tests.assets.test_assets import materialize
from tests.project.facts import quarter, write_facts

SPAN = (date(2020, 1, 1), date(2022, 7, 2))
QUARTERS = [
    quarter("2021-02-01T22:00:00+00:00", "2020-12-31", "Q4", 100.0),
    quarter("2021-05-03T22:00:00+00:00", "2021-03-31", "Q1", 110.0),
    quarter("2021-08-02T22:00:00+00:00", "2021-06-30", "Q2", 120.0),
]


def unpartitioned(assets: list, home: Path) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(assets, instance=instance, resources={"workspace": _resource(home)})


def _resource(home: Path) -> Any:
    from signals_dagster.resources import WorkspaceResource

    return WorkspaceResource(home=str(home))


def shown(result: dg.ExecuteInProcessResult, node: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(node)
    return {name: value.value for name, value in event.metadata.items()}


def rows(value: Any) -> list[dict[str, Any]]:
    return [record.data for record in value.records] if hasattr(value, "records") else [r.data for r in value]


@pytest.fixture
def with_bars(project: Path) -> Path:
    materialize([reference_bars, bars], project, "2020-01-01|AAA", "2022-01-01|BBB")
    return project


def build_features(home: Path) -> None:
    with Workspace(load_settings(home)) as workspace:
        for category in CATEGORIES:
            steps.build_category(workspace, category, ["AAA", "BBB"], *SPAN)
        steps.build_matrix(workspace, ["AAA", "BBB"], *SPAN)
        steps.build_target(workspace, ["AAA", "BBB"], *SPAN)


def stale(home: Path, symbol: str) -> dict[str, set[str]]:
    with Workspace(load_settings(home)) as workspace:
        found = steps.stale_months(workspace, symbol, *SPAN)
    return {kind: months for kind, months in found.items() if months}


def months(first: str, last: str = "2022-07") -> set[str]:
    return {str(month) for month in pd.period_range(first, last, freq="M")}


def test_without_a_source_the_facts_say_so_and_nothing_fails(with_bars: Path):
    result = unpartitioned([*FACT_ASSETS, universe_membership], with_bars)
    assert shown(result, "fundamentals")["source"] == "none: market_data.fundamentals"
    assert shown(result, "universe_membership")["source"] == "none: universe.membership"


def test_facts_are_stored_once_and_tell_what_was_new_refused_and_restated(with_bars: Path):
    bad = quarter("2021-01-01", "2021-09-30", "Q3", 1.0)
    write_facts(with_bars, "fundamentals", "AAA", [*QUARTERS, bad])
    first = shown(unpartitioned([fundamentals], with_bars), "fundamentals")
    assert (first["new"], first["restated"], first["rejected"], first["problems"]) == (3, 0, 1, 1)
    again = shown(unpartitioned([fundamentals], with_bars), "fundamentals")
    assert (again["new"], again["restated"], again["dagster/row_count"]) == (0, 0, 3)
    write_facts(with_bars, "fundamentals", "AAA", [*QUARTERS[:2], {**QUARTERS[2], "revenue": 121.0}])
    silently = shown(unpartitioned([fundamentals], with_bars), "fundamentals")
    assert (silently["new"], silently["restated"]) == (0, 1), "what a source rewrites is knowable from now on"


def test_when_no_symbol_has_facts_the_asset_fails_with_every_reason(with_bars: Path):
    write_facts(with_bars, "short_interest", "ZZZ", [])
    with pytest.raises(DataError, match="folder has no fundamentals of AAA; folder has no fundamentals of BBB"):
        unpartitioned([fundamentals], with_bars)


def test_a_late_or_restated_fact_makes_stale_exactly_the_features_that_could_know_it(with_bars: Path):
    write_facts(with_bars, "fundamentals", "AAA", QUARTERS)
    with Workspace(load_settings(with_bars)) as workspace:
        steps.ingest_dataset(workspace, "fundamentals")
    build_features(with_bars)
    assert stale(with_bars, "AAA") == stale(with_bars, "BBB") == {}

    late = quarter("2021-11-02T21:00:00+00:00", "2021-09-30", "Q3", 130.0)
    write_facts(with_bars, "fundamentals", "AAA", [*QUARTERS, late])
    result = shown(unpartitioned([fundamentals], with_bars), "fundamentals")
    since = months("2021-11")
    assert stale(with_bars, "AAA") == {"fundamental": since, "alternative": since}
    assert stale(with_bars, "BBB") == {}
    assert {(row["kind"], row["from"], row["months"]) for row in rows(result["stale_features"])} == {
        ("fundamental", "2021-11", len(since)),
        ("alternative", "2021-11", len(since)),
    }
    build_features(with_bars)
    restated = quarter("2022-03-01T22:00:00+00:00", "2021-09-30", "Q3", 90.0)
    write_facts(with_bars, "fundamentals", "AAA", [*QUARTERS, late, restated])
    unpartitioned([fundamentals], with_bars)
    assert stale(with_bars, "AAA") == {"fundamental": months("2022-03"), "alternative": months("2022-03")}


def test_a_restated_bar_makes_its_month_and_later_ones_stale(with_bars: Path):
    build_features(with_bars)
    path = with_bars / "data" / "bars" / "AAA.csv"
    frame = pd.read_csv(path)
    frame.loc[frame["date"] == "2022-05-10", "volume"] += 1
    frame.to_csv(path, index=False)
    materialize([reference_bars, bars], with_bars, "2022-01-01|AAA", "2022-01-01|BBB")
    found = stale(with_bars, "AAA")
    assert found["technical"] == months("2022-05")
    assert stale(with_bars, "BBB") == {}


def test_a_dividend_changes_no_month_before_it(with_bars: Path):
    build_features(with_bars)
    path = with_bars / "data" / "bars" / "AAA.csv"
    frame = pd.read_csv(path).assign(dividend=0.0)
    frame.loc[frame["date"] == "2022-06-10", "dividend"] = 0.5
    frame.to_csv(path, index=False)
    materialize([reference_bars, bars], with_bars, "2022-01-01|AAA", "2022-01-01|BBB")
    assert stale(with_bars, "AAA")["technical"] == months("2022-06")


def test_the_quality_report_fails_the_check_that_finds_something_and_no_other(with_bars: Path):
    path = with_bars / "data" / "bars" / "AAA.csv"
    frame = pd.read_csv(path)
    assert {check.check_name: check.passed for check in _checks(with_bars)} == {
        "bars_complete": False,
        "nothing_refused": True,
        "sources_answered": False,
    }, "there is no ^VIX"
    frame.loc[frame["date"] == "2022-06-29", "high"] = 0.01
    frame.to_csv(path, index=False)
    (with_bars / "data" / "market.sqlite").unlink()
    materialize([reference_bars, bars], with_bars, "2022-01-01|AAA", "2022-01-01|BBB")
    refused = next(check for check in _checks(with_bars) if check.check_name == "nothing_refused")
    assert not refused.passed
    assert rows(refused.metadata["found"].value)[0]["reason"] == "high is below open, low or close"


def _checks(home: Path) -> list[dg.AssetCheckEvaluation]:
    return unpartitioned([data_quality], home).get_asset_check_evaluations()


def test_a_backtest_row_exists_only_while_its_ticker_is_a_member(with_bars: Path, monkeypatch: pytest.MonkeyPatch):
    (with_bars / "config" / "members.csv").write_text(
        "symbol,start,end\nAAA,2019-01-01,\nBBB,2019-01-01,2021-06-15\nBBB,2022-01-10,\nN/A,2020-01-01,\n"
    )
    monkeypatch.setenv("SA_UNIVERSE__MEMBERSHIP", "config/members.csv")
    build_features(with_bars)
    with Workspace(load_settings(with_bars)) as workspace, pytest.raises(MissingPrerequisite, match="not loaded"):
        workspace.panel("UNIVERSE", date(2021, 6, 1), date(2021, 7, 1))
    result = shown(unpartitioned([universe_membership], with_bars), "universe_membership")
    assert result["dagster/row_count"] == 3
    assert rows(result["rejected"])[0]["reason"] == "is no symbol"
    with Workspace(load_settings(with_bars)) as workspace:
        index = workspace.panel("UNIVERSE", date(2021, 6, 1), date(2022, 2, 1)).features.index
        assert workspace.market.members("universe", date(2021, 6, 15)) == {"AAA"}
        assert workspace.market.members("universe", date(2021, 6, 14)) == {"AAA", "BBB"}
    own = index.get_level_values("date")[index.get_level_values("symbol") == "BBB"]
    assert own[own < "2022-01-01"].max() == pd.Timestamp("2021-06-14")
    assert own[own > "2022-01-01"].min() == pd.Timestamp("2022-01-10")


def tick(schedule: dg.ScheduleDefinition, *moment: int) -> Any:
    context = dg.build_schedule_context(scheduled_execution_time=datetime(*moment, tzinfo=UTC))
    return schedule.evaluate_tick(context)


def test_daily_bars_asks_after_the_close_for_the_partitions_of_the_day_and_skips_holidays():
    assert daily_bars_schedule.execution_timezone == "America/New_York"
    (request,) = tick(daily_bars_schedule, 2022, 6, 30, 21).run_requests
    assert request.tags["dagster/asset_partition_range_start"] == "2022-01-01|AAA"
    assert request.tags["dagster/asset_partition_range_end"] == "2022-01-01|BBB"
    assert tick(daily_bars_schedule, 2022, 6, 20, 21).skip_message == "the exchange is closed on 2022-06-20"


def test_a_day_after_the_last_partition_is_no_run():
    assert "partitions end before 2023-06-30" in tick(daily_bars_schedule, 2023, 6, 30, 21).skip_message


def test_the_daily_run_can_be_launched_as_the_schedule_asks(project: Path):
    (request,) = tick(daily_bars_schedule, 2022, 6, 30, 21).run_requests
    job = defs.resolve_job_def("daily_bars_job")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            instance=instance, tags=request.tags, resources={"workspace": _resource(project)}
        )
        assert instance.get_materialized_partitions(dg.AssetKey("bars")) == {"2022-01-01|AAA", "2022-01-01|BBB"}
    assert result.success


@pytest.mark.parametrize("job", ["fundamentals_job", "altdata_job"])
def test_the_fact_jobs_run_on_a_project_without_sources(with_bars: Path, job: str):
    with dg.DagsterInstance.ephemeral() as instance:
        resources = {"workspace": _resource(with_bars)}
        assert defs.resolve_job_def(job).execute_in_process(instance=instance, resources=resources).success


def test_fundamentals_weekly_and_alternative_data_every_other_week():
    assert weekly_fundamentals_schedule.name == "weekly_fundamentals"
    (request,) = tick(weekly_fundamentals_schedule, 2022, 7, 2, 10).run_requests
    assert request.run_key == "fundamentals:2022-07-02"
    saturdays = pd.date_range("2022-12-10", periods=6, freq="7D")
    turns = [bool(tick(biweekly_altdata_schedule, d.year, d.month, d.day, 12).run_requests) for d in saturdays]
    assert turns in ([True, False] * 3, [False, True] * 3)


@pytest.mark.parametrize("name", ["bars", "reference_bars", "fundamentals", "insider_transactions", "short_interest"])
def test_each_ingested_asset_says_when_it_is_late(name: str):
    spec = defs.resolve_asset_graph().get(dg.AssetKey(name))
    assert spec.freshness_policy is not None
