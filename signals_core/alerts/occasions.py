"""What is worth telling: monitoring, retrains, the gate, runs and data, each as an alert with what to do."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from signals_core.alerts.alert import Alert
from signals_core.errors import ServiceDown, SignalsError

if TYPE_CHECKING:
    from signals_core.market_data.quality import QualityReport
    from signals_core.ml.monitoring import DriftReport
    from signals_core.ml.registry import Event
    from signals_core.ml.retraining import Alarm
    from signals_core.settings import Scope
    from signals_core.workspace import Workspace

_RECENT = timedelta(days=2)
"""Decisions of the gate that are older are history, not news."""
_VERBS = {"promoted": "in service", "rejected": "not promoted", "rolled_back": "in service again"}


def look_at_models(workspace: "Workspace", exhausted: Mapping["Scope", str | None]) -> None:
    """Tell what the latest drift reports and the gate say, and send what waits.

    Args:
        workspace: of the project.
        exhausted: by scope, why a retrain that is needed will not be asked for.
    """
    for scope in workspace.settings.ml.scopes:
        look_at_scope(workspace, scope, exhausted.get(scope))
    for event in workspace.registry.journal():
        if event.action in _VERBS and workspace.now - datetime.fromisoformat(event.at) < _RECENT:
            workspace.alerts.notify(of_gate(event), lasting=False)
    workspace.alerts.deliver()


def look_at_scope(workspace: "Workspace", scope: "Scope", exhausted: str | None) -> None:
    """Begin and end the episodes of one scope."""
    from signals_core.ml.monitoring import DriftStore
    from signals_core.ml.retraining import alarms_of

    store = DriftStore(workspace.data / "drift")
    days = store.days(scope)
    report = store.load(scope, days[-1]) if days else None
    active = workspace.registry.get_active(scope)
    if report is None or active is None or report.model_version != active.version_id:
        found, note = [], "another model is in service"
    else:
        found, note = of_report(report, alarms_of(report, store)), f"{report.day}: {report.verdict}"
    workspace.alerts.settle(f"monitor/{scope}/", found, note)
    given_up = [] if exhausted is None else [of_exhausted(scope, exhausted, str(workspace.now.date()))]
    workspace.alerts.settle(f"retrain/{scope}/", given_up, "retrains are asked for again when there is a need")


def of_report(report: "DriftReport", alarms: Sequence["Alarm"]) -> list[Alert]:
    """The episodes that a drift report shows."""
    scope, page = report.scope, "/assets/drift_report"
    faults = list(report.feed_faults)
    found = []
    if faults:
        found.append(
            Alert(
                f"monitor/{scope}/feed", "error", "feed fault", scope, report.day,
                f"{'; '.join(faults)}; {report.verdict}",
                "put the source right and run daily_signals_job; drift and performance ask for no retrain until then",
                page,
            )
        )  # fmt: skip
    titles = {"drift": "features drift", "performance": "the signal is dead"}
    for alarm in alarms:
        if faults and alarm.cause == "drift":
            continue  # that is the fault, told above
        advice = (
            "look at the source first: a retrain waits until the feed fault is gone" if faults
            else "nothing: a retrain is asked for, within its limits; the gate decides whether it serves"
        )  # fmt: skip
        severity = "error" if alarm.cause == "performance" else "warning"
        episode = f"monitor/{scope}/{alarm.cause}/{alarm.episode}"
        found.append(
            Alert(episode, severity, titles[alarm.cause], scope, str(alarm.since), alarm.reason, advice, page)  # type: ignore[arg-type]
        )
    if report.performance_alarm:
        found.append(
            Alert(
                f"monitor/{scope}/accuracy/{report.model_version}", "info", "realised accuracy is low", scope,
                report.day, report.verdict,
                "nothing: honest probabilities of daily returns are below one half most of the time", page,
            )
        )  # fmt: skip
    return found


def of_exhausted(scope: "Scope", reason: str, day: str) -> Alert:
    """No sensor asks for a retrain any more, though there is a need."""
    advice = "look at the runs of weekly_retrain_job and start one; the model in service goes on serving"
    return Alert(f"retrain/{scope}/given_up", "error", "no further retrain is asked for", scope, day, reason, advice,
                 "/jobs/weekly_retrain_job")  # fmt: skip


def of_gate(event: "Event") -> Alert:
    """A decision of the gate or of a person."""
    title = f"{event.version_id} is {_VERBS[event.action]}"
    episode = f"gate/{event.version_id}/{event.action}/{event.at}"
    advice = "nothing; `signals models log` has the evidence"
    reason = f"{event.reason} (by {event.by})"
    return Alert(episode, "info", title, event.scope, event.at[:16], reason, advice, "/assets/calibrated_model")


def of_failed_run(workspace: "Workspace", job: str, run_id: str, cause: str, at: datetime, reason: str) -> Alert:
    """A run of a scheduled job failed."""
    advice = "read the run's log, put it right and start the job again"
    if job == "weekly_retrain_job":
        advice = f"{_serving(workspace)}. The failure sensor tries again, `retraining.failure_retries` times"
    since = f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return Alert(run_episode(job), "error", "a run failed", job, since, f"{reason} (asked for by: {cause})", advice,
                 f"/runs/{run_id}")  # fmt: skip


def run_episode(job: str) -> str:
    """A job that fails is one episode until a run of it succeeds."""
    return f"run/{job}"


def _serving(workspace: "Workspace") -> str:
    try:
        versions = [(scope, workspace.registry.get_active(scope)) for scope in workspace.settings.ml.scopes]
    except SignalsError as error:
        return f"What serves cannot be read ({error})"
    named = [f"{version.version_id} goes on serving {scope}" for scope, version in versions if version is not None]
    return ", ".join(named) or "No model was in service before, and none is"


def look_at_data(workspace: "Workspace", report: "QualityReport") -> None:
    """Tell what is wrong with the stored data, each symbol an episode until it is right."""
    workspace.alerts.settle("data/", of_quality(report), f"{report.session}: put right")


def of_quality(report: "QualityReport") -> list[Alert]:
    """Symbols whose bars are late, incomplete or refused, and whose source did not answer."""
    advice = "see the asset data_quality; a break that is genuine goes into market_data.accepted"
    found = []
    for bars in report.bars:
        wrong = [
            *([bars.problem] if bars.problem else []),
            *(["no bars are stored"] if not bars.sessions else []),
            *([f"the last bar is {bars.behind} sessions behind"] if bars.behind else []),
            *([f"{bars.missing} sessions are missing"] if bars.missing else []),
            *([f"{bars.rejected} rows refused"] if bars.rejected else []),
        ]
        if wrong:
            found.append(_of_data(f"bars of {bars.symbol}", str(report.session), wrong, advice))
    for facts in report.facts:
        wrong = [
            *([facts.problem] if facts.problem else []),
            *([f"{facts.rejected} rows refused"] if facts.rejected else []),
        ]
        if wrong:
            found.append(_of_data(f"{facts.dataset} of {facts.symbol}", str(report.session), wrong, advice))
    return found


def _of_data(name: str, session: str, wrong: Sequence[str], advice: str) -> Alert:
    return Alert(f"data/{name}", "warning", "data are not as they should be", name, session, "; ".join(wrong), advice,
                 "/assets/data_quality")  # fmt: skip


def tell_of_service(workspace: "Workspace", error: ServiceDown | None) -> None:
    """A server that the models need does not answer, or answers again."""
    current = []
    if error is not None:
        at = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        advice = "start it: no model is served, promoted or watched meanwhile; nothing is lost"
        current = [Alert("service/redis", "error", "a service is down", "Redis", at, str(error), advice)]
    workspace.alerts.settle("service/", current, "it answers again")
