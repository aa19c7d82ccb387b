"""What production's jobs and sensors do at a moment of a replay, by the functions that they call themselves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime

from signals_core import steps
from signals_core.errors import MissingPrerequisite, NoRows
from signals_core.ml import retraining
from signals_core.replay_weeks import Retrain, SessionOutcome
from signals_core.settings import RetrainingSettings, Scope
from signals_core.workspace import Workspace

SCHEDULE = "schedule"
"""The cause of the weekly retrain; a sensor's has a colon."""


def scheduled(workspace: Workspace) -> list[Retrain]:
    """The retrains that the weekly schedule asks for at the workspace's moment, none of them done yet."""
    if retraining.weekly_skip_reason(workspace, workspace.now.date()) is not None:
        return []
    at = workspace.now.isoformat()
    return [Retrain(scope, at, SCHEDULE) for scope in workspace.settings.ml.scopes]


def runs_of(asked: Sequence[Retrain]) -> list[list[Retrain]]:
    """As production has them: one run of all that the schedule asks for, and one of each that a sensor does."""
    together = [item for item in asked if item.cause == SCHEDULE]
    return [*([together] if together else []), *([item] for item in asked if item.cause != SCHEDULE)]


def retrain(workspace: Workspace, asked: Sequence[Retrain]) -> list[Retrain]:
    """One run of the retrain job at the workspace's moment: features, windows, models, the last session's report.

    Doing it again, after a kill, finds the same versions and changes nothing.

    Returns:
        `asked` with what became of it. A run fails if it could train none of its scopes, as in production.
    """
    from signals_core.ml.windows import all_windows, compute_windows

    for item in asked:
        if item.cause != SCHEDULE:
            workspace.events.publish("retrain_requested", {"scope": item.scope, "cause": item.cause})
    for _ in steps.build_features_and_target(workspace):
        pass
    as_of = steps.known_until(workspace)
    keys = [window.key for window in all_windows(workspace.settings, as_of)]
    scopes = [item.scope for item in asked]
    compute_windows(workspace, [(scope, key) for scope in scopes for key in keys])
    done = [_trained(workspace, item, as_of) for item in asked]
    state: retraining.State = "succeeded" if any(item.version_id for item in done) else "failed"
    if state == "succeeded":
        for scope in _served(workspace, scopes):
            _report(workspace, scope, steps.last_day(workspace), workspace.now)
    return [replace(item, state=state) for item in done]


def _trained(workspace: Workspace, asked: Retrain, as_of: date) -> Retrain:
    from signals_core.ml.training import train_model

    version_id, promoted = None, False
    try:
        version = train_model(workspace, asked.scope, as_of, asked.cause, by="replay").version
    except MissingPrerequisite as error:
        decision = str(error)
    else:
        version_id, decision = version.version_id, version.decision
        # Not `version.active`: one that was found unchanged may have served before.
        promoted = any(
            event.version_id == version_id
            and event.action == "promoted"
            and datetime.fromisoformat(event.at) >= workspace.now
            for event in workspace.registry.journal()
        )
    active = workspace.registry.get_active(asked.scope)
    return replace(
        asked,
        version_id=version_id,
        promoted=promoted,
        decision=decision,
        active=active.version_id if active else None,
    )


def after_the_close(
    workspace: Workspace, moments: Mapping[date, datetime]
) -> Iterator[tuple[date, list[SessionOutcome]]]:
    """The daily jobs of some sessions in order, each done when it is asked for.

    Args:
        workspace: at a moment that knows of these sessions what is known at their own.
        moments: when the job of each session runs, with a time zone.

    Returns:
        Each session, and what was done of the scopes that had a model in service.
    """
    scopes = _served(workspace, workspace.settings.ml.scopes)
    if scopes:
        for _ in steps.build_features_and_target(workspace):
            pass
    for day, moment in moments.items():
        yield day, [_report(workspace, scope, day, moment) for scope in scopes]


def asked_for(workspace: Workspace, moment: datetime, known: Sequence[Retrain]) -> list[Retrain]:
    """The retrains that the sensors ask for at a moment in the exchange's time zone, none of them done yet.

    Args:
        workspace: whose latest drift report is the one of that moment.
        moment: after a daily job.
        known: every retrain of the replay before.
    """
    history = _on_record(known, workspace.settings.retraining)
    decisions = retraining.decide_all(workspace, history, moment)
    return [Retrain(found.scope, moment.isoformat(), found.reason) for found in decisions if found.cause is not None]


def _on_record(known: Sequence[Retrain], limits: RetrainingSettings) -> list[retraining.Retrain]:
    """The runs that Dagster would have on record.

    A run that failed has used up its retries: nothing becomes known in the hours between them that could have helped.
    """
    runs = []
    for item in known:
        run = retraining.Retrain(f"{item.at} {item.scope}", item.moment, item.cause, item.state, item.scope)
        retries = limits.failure_retries if item.state == "failed" else 0
        runs += [run, *(replace(run, name=f"{run.name} {n + 1}", cause="failure: a retry") for n in range(retries))]
    return runs


def _served(workspace: Workspace, scopes: Sequence[Scope]) -> list[Scope]:
    return [scope for scope in scopes if workspace.registry.get_active(scope) is not None]


def _report(workspace: Workspace, scope: Scope, day: date, moment: datetime) -> SessionOutcome:
    """Signals and drift report of a session, made at a moment."""
    from signals_core.ml.drift_report import drift_report
    from signals_core.strategy.ml_strategy import session_signals

    rows = session_signals(workspace, scope, day, moment).frame
    said = (rows["p_up"].notna(), rows["direction"] == "LONG", rows["direction"] == "SHORT")
    predicted, long, short = (int(which.sum()) for which in said)
    try:
        report, _ = drift_report(workspace, scope, day)
    except NoRows as error:  # none of the scope's tickers has had a bar for weeks
        return SessionOutcome(scope, day.isoformat(), predicted, long, short, False, str(error))
    asks = report.retrain or report.signal_dead
    return SessionOutcome(scope, day.isoformat(), predicted, long, short, asks, report.verdict)
