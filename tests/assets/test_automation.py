"""Schedules, called as Dagster calls them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from signals_core.settings_loading import load_settings
from signals_core.workspace import Workspace
from signals_dagster.assets.model import CAUSE_TAG
from signals_dagster.resources import WorkspaceResource
from signals_dagster.schedules import daily_signals_schedule, weekly_retrain_schedule
from tests.project.models import register_tiny_model


@pytest.fixture
def served(project: Path) -> Iterator[Path]:
    """A project with one model in service for UNIVERSE, trained on 2022-06-26."""
    with Workspace(load_settings(project)) as workspace:
        version = register_tiny_model(workspace.registry, scope="UNIVERSE", created_at="2022-06-26T06:00:00+00:00")
        workspace.registry.promote(version.version_id, "for this test")
    return project


def weekly(home: Path, *moment: int) -> Any:
    resources = {"workspace": WorkspaceResource(home=str(home))}
    scheduled = datetime(*moment, tzinfo=UTC)
    with dg.build_schedule_context(scheduled_execution_time=scheduled, resources=resources) as context:
        return weekly_retrain_schedule.evaluate_tick(context)


def test_the_weekly_schedule_runs_on_sunday_at_two_in_new_york_with_its_cause(served: Path):
    assert weekly_retrain_schedule.cron_schedule == "0 2 * * 0"
    assert weekly_retrain_schedule.execution_timezone == "America/New_York"
    (request,) = weekly(served, 2022, 7, 3, 6).run_requests
    assert (request.run_key, request.tags[CAUSE_TAG]) == ("weekly:2022-07-03", "schedule")


def test_an_interval_of_two_weeks_leaves_out_every_other_sunday(served: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SA_ML__RETRAIN_INTERVAL_DAYS", "14")
    monkeypatch.setenv("SA_ML__SCOPES", '["UNIVERSE"]')
    skipped = weekly(served, 2022, 7, 3, 6)
    assert skipped.skip_message == "models are 7 days old; ml.retrain_interval_days is 14"
    assert len(weekly(served, 2022, 7, 10, 6).run_requests) == 1


def test_the_daily_schedule_skips_the_exchange_s_holidays():
    independence_day = datetime(2022, 7, 4, 22, 30, tzinfo=UTC)
    data = daily_signals_schedule.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=independence_day))
    assert data.run_requests == []
    assert data.skip_message == "the exchange is closed on 2022-07-04"
    next_day = datetime(2022, 7, 5, 22, 30, tzinfo=UTC)
    (request,) = daily_signals_schedule.evaluate_tick(
        dg.build_schedule_context(scheduled_execution_time=next_day)
    ).run_requests
    assert request.run_key == "daily:2022-07-05"
