"""Schedules, in the exchange's time zone."""

from datetime import timedelta

import dagster as dg

from signals_core.calendar import sessions_between
from signals_core.ml.retraining import weekly_skip_reason
from signals_dagster.assets.model import CAUSE_TAG
from signals_dagster.jobs import altdata_job, daily_bars_job, daily_signals_job, fundamentals_job, weekly_retrain_job
from signals_dagster.partitions import PARTITIONS, SETTINGS, keys_of_day, range_tags
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
    reason = weekly_skip_reason(workspace.open(), day)
    if reason is not None:
        return dg.SkipReason(reason)
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


@dg.schedule(
    name="daily_bars",
    job=daily_bars_job,
    cron_schedule="0 17 * * 1-5",
    execution_timezone=SETTINGS.exchange.timezone,
    default_status=STATUS,
    description="An hour after the close of each session of the exchange: new, late and corrected bars.",
)
def daily_bars_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """One run a session, of every ticker's partition of that day; none on the exchange's holidays."""
    day = context.scheduled_execution_time.date()
    if sessions_between(SETTINGS.exchange.calendar, day, day + timedelta(days=1)).empty:
        return dg.SkipReason(f"the exchange is closed on {day}")
    keys = keys_of_day(PARTITIONS.symbol_date, day)
    if keys is None:
        return dg.SkipReason(f"the partitions end before {day}: see partitions.end")
    return dg.RunRequest(run_key=f"bars:{day}", tags={**range_tags(*keys), CAUSE_TAG: "schedule"})


@dg.schedule(
    name="weekly_fundamentals",
    job=fundamentals_job,
    cron_schedule="0 6 * * 6",
    execution_timezone=SETTINGS.exchange.timezone,
    default_status=STATUS,
    description="Saturday 06:00: the week's filings.",
)
def weekly_fundamentals_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """One run a Saturday, before Sunday's retrain."""
    day = context.scheduled_execution_time.date()
    return dg.RunRequest(run_key=f"fundamentals:{day}", tags={CAUSE_TAG: "schedule"})


@dg.schedule(
    name="biweekly_altdata",
    job=altdata_job,
    cron_schedule="0 7 * * 6",
    execution_timezone=SETTINGS.exchange.timezone,
    default_status=STATUS,
    description="Every other Saturday 07:00: insider transactions and short interest, which is published twice a "
    "month.",
)
def biweekly_altdata_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """One run every other Saturday, counted in whole weeks and so unaffected by a year's end."""
    day = context.scheduled_execution_time.date()
    if (day.toordinal() // 7) % 2:
        return dg.SkipReason(f"the turn is on {day + timedelta(days=7)}")
    return dg.RunRequest(run_key=f"altdata:{day}", tags={CAUSE_TAG: "schedule"})


SCHEDULES = [
    weekly_retrain_schedule,
    daily_signals_schedule,
    daily_bars_schedule,
    weekly_fundamentals_schedule,
    biweekly_altdata_schedule,
]
