"""Sensors: four that ask for retrains as `signals_core.ml.retraining` decides, and three that tell people.

All four ask the same question of the same records, and each acts on the answer that is its own cause; so two never
act on one scope at once. Dagster remembers a run key for ever: the decision's names the episode and the cool-down.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from signals_core.alerts.occasions import look_at_models, of_failed_run, run_episode, tell_of_service
from signals_core.errors import ServiceDown
from signals_core.ml.retraining import Cause, decide_all
from signals_dagster.assets.model import CAUSE_TAG, SCOPE_TAG
from signals_dagster.jobs import altdata_job, daily_bars_job, daily_signals_job, fundamentals_job, weekly_retrain_job
from signals_dagster.partitions import SETTINGS
from signals_dagster.resources import WorkspaceResource
from signals_dagster.retrains import REQUESTED_AT_TAG, retrains_on_record

_RUNNING = SETTINGS.automation.default_status == "running"
STATUS = dg.DefaultSensorStatus.RUNNING if _RUNNING else dg.DefaultSensorStatus.STOPPED
_MODULE = re.compile(r"^(\w+\.)+(?=\w+:)")
"""Of the class of an error, before its name."""
_SCHEDULED: list[Any] = [weekly_retrain_job, daily_signals_job, daily_bars_job, fundamentals_job, altdata_job]


def _retrain_sensor(cause: Cause, seconds: int, description: str) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{cause}_sensor",
        job=weekly_retrain_job,
        minimum_interval_seconds=seconds,
        default_status=STATUS,
        description=description,
    )
    def ask(
        context: dg.SensorEvaluationContext, workspace: WorkspaceResource
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        opened = workspace.open()
        decisions = decide_all(opened, retrains_on_record(context.instance, weekly_retrain_job.name))
        for decision in decisions:
            if decision.cause == cause:
                tags = {
                    CAUSE_TAG: decision.reason,
                    SCOPE_TAG: decision.scope,
                    REQUESTED_AT_TAG: opened.now.isoformat(),
                }
                opened.events.publish("retrain_requested", {"scope": decision.scope, "cause": decision.reason})
                yield dg.RunRequest(run_key=decision.run_key, tags=tags)
        if all(decision.cause != cause for decision in decisions):
            yield dg.SkipReason("; ".join(f"{decision.scope}: {decision.reason}" for decision in decisions))

    return ask


drift_sensor = _retrain_sensor(
    "drift", 300, "Asks for a retrain of a scope when the last drift report of the model in service does."
)
performance_sensor = _retrain_sensor(
    "performance", 300, "Asks for a retrain of a scope when its realised gain says that the signal is dead."
)
staleness_sensor = _retrain_sensor(
    "staleness", 3600, "Asks for a retrain when the newest model of a scope is older than `ml.model_staleness_days`."
)
failure_sensor = _retrain_sensor("failure", 300, "Tries again what failed, `retraining.failure_retries` times.")


@dg.sensor(
    minimum_interval_seconds=300,
    default_status=STATUS,
    description="Tells people what the drift reports and the gate say, and sends what a channel did not take before.",
)
def alert_sensor(context: dg.SensorEvaluationContext, workspace: WorkspaceResource) -> dg.SkipReason:
    """Each episode is told once, at its beginning and at its end."""
    opened = workspace.open()
    try:
        decisions = decide_all(opened, retrains_on_record(context.instance, weekly_retrain_job.name))
        look_at_models(opened, {decision.scope: decision.exhausted for decision in decisions})
    except ServiceDown as error:
        tell_of_service(opened, error)
    else:
        tell_of_service(opened, None)
    opened.events.send_waiting()
    going_on = [r.alert.episode for r in opened.alerts.records() if r.open]
    return dg.SkipReason(f"going on: {', '.join(going_on) or 'nothing'}")


@dg.run_failure_sensor(
    monitored_jobs=_SCHEDULED,
    default_status=STATUS,
    description="Tells people once that a scheduled job fails, with the reason.",
)
def failed_run_sensor(context: dg.RunFailureSensorContext, workspace: WorkspaceResource) -> None:
    """The end is told when a run of the job succeeds."""
    run, opened = context.dagster_run, workspace.open()
    cause = run.tags.get(CAUSE_TAG, "a person")
    opened.alerts.notify(
        of_failed_run(opened, run.job_name, run.run_id, cause, datetime.now(UTC), _root_reason(context))
    )


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=_SCHEDULED,
    default_status=STATUS,
    description="Tells people that a scheduled job that failed works again.",
)
def recovered_run_sensor(context: dg.RunStatusSensorContext, workspace: WorkspaceResource) -> None:
    """Nothing, if it did not fail before."""
    run = context.dagster_run
    workspace.open().alerts.end(run_episode(run.job_name), f"run {run.run_id[:8]} succeeded")


def _root_reason(context: dg.RunFailureSensorContext) -> str:
    """The message of the error at the root of the first step that failed, else the run's."""
    for event in context.get_step_failure_events():
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return f"{event.step_key}: {_MODULE.sub('', error.message.strip())}"
    return context.failure_event.message or "the run failed without a step that did"


SENSORS = [
    drift_sensor, performance_sensor, staleness_sensor, failure_sensor,
    alert_sensor, failed_run_sensor, recovered_run_sensor,
]  # fmt: skip
