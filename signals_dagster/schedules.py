"""Schedules, in the exchange's time zone."""

from datetime import timedelta

import dagster as dg

from signals_core.calendar import sessions_between
from signals_core.ml.training import newest_age
from signals_dagster.assets.model import CAUSE_TAG
from signals_dagster.jobs import daily_signals_job, weekly_retrain_job
from signals_dagster.partitions import SETTINGS
from signals_dagster.resources import WorkspaceResource

_RUNNING = SETTINGS.automation.default_status == "running"
STATUS = dg.DefaultScheduleStatus.RUNNING if _RUNNING else dg.DefaultScheduleStatus.STOPPED


@dg.schedule(
    job=weekly_retrain_job,
    cron_schedule="0 2 * * 0",
    execution_timezone=SETTINGS.exchange.timezone,
    default_status=STATUS,
    description="Sunday 02:00: retrain every scope on the week's new bars.",
)
def weekly_retrain_schedule(
    context: dg.ScheduleEvaluationContext, workspace: WorkspaceResource
) -> dg.RunRequest | dg.SkipReason:
    """One run a Sunday, unless waiting for the next keeps every model within `ml.retrain_interval_days`."""
    day = context.scheduled_execution_time.date()
    opened = workspace.open()
    limit = opened.settings.ml.retrain_interval_days
    ages = [newest_age(opened, scope, day) for scope in opened.settings.ml.scopes]
    known = [age for age in ages if age is not None]
    if len(known) == len(ages) and max(known) + 7 <= limit:
        return dg.SkipReason(f"models are {max(known)} days old; ml.retrain_interval_days is {limit}")
    return dg.RunRequest(run_key=f"weekly:{day}", tags={CAUSE_TAG: "schedule"})


@dg.schedule(
    job=daily_signals_job,
    cron_schedule="30 18 * * 1-5",
    execution_timezone=SETTINGS.exchange.timezone,
    default_status=STATUS,
    description="After the close of each session of the exchange: bars, features, drift report, signals.",
)
def daily_signals_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """One run a session; none on the exchange's holidays."""
    day = context.scheduled_execution_time.date()
    if sessions_between(SETTINGS.exchange.calendar, day, day + timedelta(days=1)).empty:
        return dg.SkipReason(f"the exchange is closed on {day}")
    return dg.RunRequest(run_key=f"daily:{day}", tags={CAUSE_TAG: "schedule"})


SCHEDULES = [weekly_retrain_schedule, daily_signals_schedule]
