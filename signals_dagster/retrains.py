"""The retrains that Dagster has on record."""

import time
from datetime import UTC, datetime

import dagster as dg

from signals_core.ml.retraining import STUCK_HOURS, Retrain, State
from signals_dagster.assets.model import CAUSE_TAG, SCOPE_TAG

REQUESTED_AT_TAG = "signals/requested_at"
"""Run tag: the moment a sensor asked for it, by the project's clock."""
_LATEST = 200
"""Runs: two a week for two years."""
_FINISHED: dict[dg.DagsterRunStatus, State] = {
    dg.DagsterRunStatus.SUCCESS: "succeeded",
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "cancelled",
}


def retrains_on_record(instance: dg.DagsterInstance, job: str) -> list[Retrain]:
    """The latest runs of the retrain job, as the rule for retrains sees them."""
    return [_retrain(record) for record in instance.get_run_records(dg.RunsFilter(job_name=job), limit=_LATEST)]


def _retrain(record: dg.RunRecord) -> Retrain:
    run, created = record.dagster_run, record.create_timestamp
    stuck = time.time() - created.timestamp() > STUCK_HOURS * 3600
    state = _FINISHED.get(run.status, "abandoned" if stuck else "in_flight")
    asked = run.tags.get(REQUESTED_AT_TAG)
    requested_at = datetime.fromisoformat(asked) if asked else created.astimezone(UTC)
    return Retrain(run.run_id, requested_at, run.tags.get(CAUSE_TAG, "a person"), state, run.tags.get(SCOPE_TAG))
