"""Schedules, in the exchange's time zone."""

import dagster as dg

from signals_core.calendar import sessions_between
from signals_dagster.assets.model import CAUSE_TAG
from signals_dagster.jobs import daily_signals_job, weekly_retrain_job
from signals_dagster.partitions import SETTINGS

_RUNNING = SETTINGS.automation.default_status == "running"
STATUS = dg.DefaultScheduleStatus.RUNNING if _RUNNING else dg.DefaultScheduleStatus.STOPPED


@dg.schedule(
    job=weekly_retrain_job,
    cron_schedule="0 2 * * 0",
    execution_timezone=SETTINGS.exchange.timezone,
    default_status=STATUS,
    description="Sunday 02:00: retrain every scope on the week's new bars.",
)
def weekly_retrain_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """One run a Sunday."""
    day = context.scheduled_execution_time.date().isoformat()
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
    from datetime import timedelta

    day = context.scheduled_execution_time.date()
    if sessions_between(SETTINGS.exchange.calendar, day, day + timedelta(days=1)).empty:
        return dg.SkipReason(f"the exchange is closed on {day}")
    return dg.RunRequest(run_key=f"daily:{day}", tags={CAUSE_TAG: "schedule"})


SCHEDULES = [weekly_retrain_schedule, daily_signals_schedule]
