"""When a scope is retrained beyond its schedule: a pure rule over what is known of its health and its retrains.

Nothing is remembered here. The symptoms come from the stored drift reports and the registry, the history from
the runs that were made; so the answer is the same after a restart, and asking a thousand times changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from signals_core.settings import RetrainingSettings, Scope

if TYPE_CHECKING:
    from signals_core.ml.monitoring import DriftReport, DriftStore
    from signals_core.workspace import Workspace

Cause = Literal["failure", "performance", "drift", "staleness"]
CAUSES: tuple[Cause, ...] = ("failure", "performance", "drift", "staleness")
"""The causes a sensor may have, the one that speaks for a retrain when several do first."""

State = Literal["in_flight", "succeeded", "failed", "cancelled", "abandoned"]
"""Abandoned: unfinished for longer than `STUCK_HOURS`."""

STUCK_HOURS = 24
"""A run unfinished for longer was left behind by a killed process; it must not block retrains for ever."""
_MONTH = timedelta(days=30)
_OLDEST_REPORT_DAYS = 7
"""An older report says nothing of today: the daily job does not run."""
_LONGEST_LOOK_BACK = 60
"""Reports; a signal dead for longer has had its retrains."""


@dataclass(frozen=True)
class Alarm:
    """A symptom that asks for a retrain."""

    cause: Cause
    episode: str
    """Its name: the model and the day it began."""
    since: date
    reason: str


@dataclass(frozen=True)
class Symptoms:
    """What is known of a scope: the last report of the model in service, and the age of its newest model."""

    scope: Scope
    day: date | None = None
    """Of the last report; None without one of the model in service."""
    alarms: tuple[Alarm, ...] = ()
    feed_faults: tuple[str, ...] = ()
    """Features whose source is broken: a retrain would learn the fault."""
    verdict: str = "no drift report of the model in service"
    newest: str | None = None
    """The newest version, promoted or not."""
    trained: date | None = None
    """When it was trained."""


@dataclass(frozen=True)
class Retrain:
    """One retrain that was asked for, by a sensor, the schedule or a person."""

    name: str
    """Of its run."""
    requested_at: datetime
    cause: str
    """In words; a sensor's begins with the name of its cause and a colon."""
    state: State
    scope: Scope | None = None
    """None: every scope."""

    @property
    def by_sensor(self) -> bool:
        """A sensor asked for it."""
        return self.cause.partition(":")[0] in CAUSES

    @property
    def is_retry(self) -> bool:
        """It was asked for because one before it failed."""
        return self.cause.startswith("failure:")


@dataclass(frozen=True)
class Decision:
    """What to do about a scope now."""

    scope: Scope
    cause: Cause | None
    """None: no retrain."""
    reason: str
    """Why, or why not; the cause of the run and of the model's manifest if there is one."""
    run_key: str = ""
    """The same for the same episode and the same cool-down within it; another for any later retrain."""
    exhausted: str | None = None
    """Why a retrain that is needed will not be asked for until a person acts; None: nothing is exhausted."""


def decide(
    symptoms: Symptoms, history: Sequence[Retrain], now: datetime, settings: RetrainingSettings, staleness_days: int
) -> Decision:
    """Whether to ask for a retrain of a scope, and why.

    At most one at a time, one a cool-down, and `max_per_month` in any 30 days. An alarm that began before the last
    retrain has been answered by it, and counts again only if a later report still shows it when the cool-down is over;
    so an alarm that comes and goes asks no more often than one that stays. A feed fault stops drift and performance.

    Args:
        symptoms: of the scope.
        history: retrains that concern it, in any order, at least those of the last 60 days.
        now: in the exchange's time zone.
        settings: limits.
        staleness_days: an older newest model is stale.
    """
    scope = symptoms.scope
    past = sorted((r for r in history if r.scope in (None, scope)), key=lambda r: r.requested_at)
    running = [r for r in past if r.state == "in_flight"]
    if running:
        return Decision(scope, None, f"a retrain is in flight ({running[-1].cause})")
    wanted = _failure(scope, past, now, settings)
    if isinstance(wanted, Decision) and wanted.cause is None and wanted.exhausted is None:
        return wanted
    exhausted = wanted.exhausted if wanted else None
    if wanted is None or wanted.cause is None:
        wanted = _alarm(symptoms, past, now, settings, staleness_days)
    if wanted.cause is not None and _in_a_month(past, now) >= settings.max_per_month:
        limit = f"{settings.max_per_month} retrains in 30 days (retraining.max_per_month)"
        return Decision(scope, None, f"{limit}; {wanted.reason}", exhausted=f"{limit}; {wanted.reason}")
    return wanted if exhausted is None else Decision(scope, wanted.cause, wanted.reason, wanted.run_key, exhausted)


def _failure(scope: Scope, past: Sequence[Retrain], now: datetime, settings: RetrainingSettings) -> Decision | None:
    """About the last retrain, if it failed: retry it, wait, or give up; None if it did not fail."""
    finished = [r for r in past if r.state not in ("in_flight", "abandoned")]
    if not finished or finished[-1].state != "failed":
        return None
    retries = 0
    for run in reversed(finished[1:]):
        if not run.is_retry:
            break
        retries += 1
    first = finished[-1 - retries]
    if retries >= settings.failure_retries:
        text = f"the retrain of {first.requested_at:%Y-%m-%d %H:%M} failed, and {retries} retries with it"
        return Decision(scope, None, text, exhausted=text)
    wait = timedelta(hours=settings.failure_wait_hours * 2**retries)
    waited = _between(finished[-1].requested_at, now)
    if timedelta(0) <= waited < wait:
        return Decision(scope, None, f"the last retrain failed; the next try is {_hours(wait - waited)} away")
    reason = f"failure: {scope}: run {first.name[:8]} ({first.cause}) failed, retry {retries + 1}"
    return Decision(scope, "failure", reason, f"failure:{scope}:{first.name}:{retries + 1}")


def _alarm(
    symptoms: Symptoms, past: Sequence[Retrain], now: datetime, settings: RetrainingSettings, staleness_days: int
) -> Decision:
    """About the first alarm that is not answered yet."""
    scope, cooldown = symptoms.scope, timedelta(days=settings.cooldown_days)
    alarms, quiet = _standing(symptoms, now, staleness_days)
    known = [r for r in past if r.state != "cancelled" and _between(now, r.requested_at) < cooldown]
    last = known[-1].requested_at.astimezone(now.tzinfo) if known else None
    last_asked = max((r.requested_at for r in known if r.by_sensor), default=None)
    # What was asked for more than a cool-down ahead of now was asked for by a wrong clock.
    for alarm in alarms:
        cooling = last is not None and _between(last, now) < cooldown
        reported = None if alarm.cause == "staleness" else symptoms.day
        if last is not None and reported is not None and reported <= last.date():
            quiet.append(f"{alarm.cause}: retrained on {last:%Y-%m-%d}; no report since")
        elif last is not None and cooling and alarm.since <= last.date():
            quiet.append(f"{alarm.cause}: retrained on {last:%Y-%m-%d}; cool-down of {settings.cooldown_days} days")
        elif last_asked is not None and _between(last_asked, now) < cooldown:
            quiet.append(f"{alarm.cause}: cool-down of {settings.cooldown_days} days since {last_asked:%Y-%m-%d}")
        else:
            began = datetime.combine(alarm.since, datetime.min.time(), now.tzinfo)
            number = _between(began, now) // cooldown
            reason = f"{alarm.cause}: {scope} since {alarm.since}: {alarm.reason}"
            return Decision(scope, alarm.cause, reason, f"{alarm.cause}:{scope}:{alarm.episode}:{number}")
    return Decision(scope, None, "; ".join(quiet))


def _standing(symptoms: Symptoms, now: datetime, staleness_days: int) -> tuple[list[Alarm], list[str]]:
    """The alarms that may ask, the first first; and why others may not."""
    alarms, quiet = [], []
    too_old = symptoms.day is not None and (now.date() - symptoms.day).days > _OLDEST_REPORT_DAYS
    if too_old:
        quiet.append(f"the last drift report is of {symptoms.day}: does the daily job run?")
    elif symptoms.feed_faults and symptoms.alarms:
        quiet.append(f"feed fault, no retrain on broken data: {', '.join(symptoms.feed_faults)}")
    elif symptoms.alarms:
        alarms = sorted(symptoms.alarms, key=lambda alarm: CAUSES.index(alarm.cause))
    else:
        quiet.append(symptoms.verdict)
    if symptoms.trained is None or symptoms.newest is None:
        quiet.append("no model yet; run weekly_retrain_job once")
    elif (age := (now.date() - symptoms.trained).days) > staleness_days:
        reason = f"last trained {age} days ago, the limit is {staleness_days}"
        since = symptoms.trained + timedelta(days=staleness_days + 1)
        alarms.append(Alarm("staleness", symptoms.newest, since, reason))
    else:
        quiet.append(f"the newest model is {age} days old, the limit is {staleness_days}")
    return alarms, quiet


def _in_a_month(past: Sequence[Retrain], now: datetime) -> int:
    """Retrains that sensors asked for within 30 days, of a clock set back too."""
    return sum(r.by_sensor and abs(_between(r.requested_at, now)) < _MONTH for r in past)


def _between(earlier: datetime, later: datetime) -> timedelta:
    """Real time: two moments of one zone would otherwise be subtracted by the clock on its wall."""
    return later.astimezone(UTC) - earlier.astimezone(UTC)


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:.1f} h"


def decide_all(workspace: "Workspace", history: Sequence[Retrain], now: datetime | None = None) -> list[Decision]:
    """`decide` for every scope, of what is stored; `now` is the workspace's moment unless another is given."""
    limits, staleness_days = workspace.settings.retraining, workspace.settings.ml.model_staleness_days
    return [
        decide(read_symptoms(workspace, scope), history, now or workspace.now, limits, staleness_days)
        for scope in workspace.settings.ml.scopes
    ]


def weekly_skip_reason(workspace: "Workspace", day: date) -> str | None:
    """Why the weekly retrain of a Sunday is left out; None if it is due.

    It is left out if waiting for the next one keeps every scope's newest model within `ml.retrain_interval_days`.
    """
    from signals_core.ml.training import newest_age

    limit = workspace.settings.ml.retrain_interval_days
    ages = [newest_age(workspace, scope, day) for scope in workspace.settings.ml.scopes]
    known = [age for age in ages if age is not None]
    if len(known) < len(ages) or max(known) + 7 > limit:
        return None
    return f"models are {max(known)} days old; ml.retrain_interval_days is {limit}"


def read_symptoms(workspace: "Workspace", scope: Scope) -> Symptoms:
    """The symptoms of a scope, from its stored drift reports and the registry."""
    from signals_core.ml.monitoring import DriftStore

    versions = workspace.registry.list_versions(scope)
    newest = max(versions, key=lambda version: version.created_at, default=None)
    trained = date.fromisoformat(newest.created_at[:10]) if newest else None
    about_model = {"newest": newest.version_id if newest else None, "trained": trained}
    store = DriftStore(workspace.data / "drift")
    days = store.days(scope)
    report = store.load(scope, days[-1]) if days else None
    active = workspace.registry.get_active(scope)
    if report is None or active is None or report.model_version != active.version_id:
        return Symptoms(scope, **about_model)  # type: ignore[arg-type]
    return Symptoms(
        scope,
        date.fromisoformat(report.day),
        alarms_of(report, store),
        tuple(report.feed_faults),
        report.verdict,
        **about_model,  # type: ignore[arg-type]
    )


def alarms_of(report: "DriftReport", store: "DriftStore") -> tuple[Alarm, ...]:
    """The alarms of a report that ask for a retrain, each with the day it began."""
    found = []
    if report.retrain and report.episode is not None:
        since = date.fromisoformat(report.episode.rpartition(":")[2])
        found.append(Alarm("drift", report.episode, since, report.verdict))
    if report.signal_dead:
        since = _dead_since(report, store)
        found.append(Alarm("performance", f"{report.model_version}:{since}", since, report.verdict))
    return tuple(found)


def _dead_since(report: "DriftReport", store: "DriftStore") -> date:
    """The first day of the unbroken run of reports of this model that call its signal dead."""
    first = report.day
    earlier = [day for day in store.days(report.scope) if day < report.day]
    for day in reversed(earlier[-_LONGEST_LOOK_BACK:]):
        before = store.load(report.scope, day)
        if before is None or before.model_version != report.model_version or not before.signal_dead:
            break
        first = day
    return date.fromisoformat(first)
