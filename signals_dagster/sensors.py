"""Sensors that ask for a retrain, each at most once per episode.

Dagster remembers a run key for ever, so a key names the episode: it changes when another model is in
service or a new episode begins, and only then can the sensor fire again.
"""

from collections.abc import Iterator

import dagster as dg

from signals_core.ml.monitoring import DriftStore
from signals_core.ml.training import newest_age
from signals_dagster.assets.model import CAUSE_TAG
from signals_dagster.jobs import weekly_retrain_job
from signals_dagster.partitions import SETTINGS
from signals_dagster.resources import WorkspaceResource

_RUNNING = SETTINGS.automation.default_status == "running"
STATUS = dg.DefaultSensorStatus.RUNNING if _RUNNING else dg.DefaultSensorStatus.STOPPED


@dg.sensor(
    job=weekly_retrain_job,
    minimum_interval_seconds=300,
    default_status=STATUS,
    description="Requests a retrain when a scope's latest drift report, of the model in service, asks for one.",
)
def drift_sensor(workspace: WorkspaceResource) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Once per scope and drift episode."""
    opened = workspace.open()
    reports = DriftStore(opened.data / "drift")
    quiet = []
    for scope in opened.settings.ml.scopes:
        days = reports.days(scope)
        report = reports.load(scope, days[-1]) if days else None
        active = opened.registry.get_active(scope)
        if report is None or active is None or report.model_version != active.version_id:
            quiet.append(f"{scope}: no drift report of the model in service")
        elif report.episode is None:
            quiet.append(f"{scope}: {report.verdict}")
        else:
            cause = f"drift: {scope} since {report.episode.rpartition(':')[2]}: {report.verdict}"
            yield dg.RunRequest(run_key=f"drift:{scope}:{report.episode}", tags={CAUSE_TAG: cause})
    if len(quiet) == len(opened.settings.ml.scopes):
        yield dg.SkipReason("; ".join(quiet))


@dg.sensor(
    job=weekly_retrain_job,
    minimum_interval_seconds=3600,
    default_status=STATUS,
    description="Requests a retrain when the newest model of a scope is older than `ml.model_staleness_days`.",
)
def staleness_sensor(workspace: WorkspaceResource) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Once per scope and newest version: age counts from the last training, promoted or not."""
    opened = workspace.open()
    limit, today = opened.settings.ml.model_staleness_days, opened.now.date()
    fresh = []
    for scope in opened.settings.ml.scopes:
        age = newest_age(opened, scope, today)
        if age is None:
            fresh.append(f"{scope}: no model yet; run weekly_retrain_job once")
            continue
        if age <= limit:
            fresh.append(f"{scope}: the newest model is {age} days old, the limit is {limit}")
            continue
        newest = opened.registry.list_versions(scope)[-1]
        cause = f"staleness: {scope} was last trained {age} days ago"
        yield dg.RunRequest(run_key=f"stale:{scope}:{newest.version_id}", tags={CAUSE_TAG: cause})
    if len(fresh) == len(opened.settings.ml.scopes):
        yield dg.SkipReason("; ".join(fresh))


SENSORS = [drift_sensor, staleness_sensor]
