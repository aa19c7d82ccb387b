"""What a replay keeps of its weeks: one JSON file a Sunday, written after each step, so that a kill loses no step."""

import json
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

from signals_core.files import write_bytes_atomic
from signals_core.ml import retraining
from signals_core.settings import Scope


@dataclass(frozen=True)
class Retrain:
    """What a retrain did for a scope."""

    scope: Scope
    at: str
    """The moment, ISO with an offset."""
    cause: str
    """schedule, or in the words of `retraining.decide`."""
    state: retraining.State = "in_flight"
    """In flight: asked for, and not done yet when the week was written."""
    version_id: str | None = None
    """The version trained, or found unchanged; None if it could not be trained."""
    promoted: bool = False
    decision: str = ""
    """The gate's reason, or why nothing could be trained."""
    active: str | None = None
    """The version in service afterwards."""

    @property
    def moment(self) -> datetime:
        """`at`."""
        return datetime.fromisoformat(self.at)


@dataclass(frozen=True)
class SessionOutcome:
    """What one session's daily job did for a scope."""

    scope: Scope
    day: str
    predicted: int
    long: int
    short: int
    retrain_asked: bool
    """The report shows drift or a dead signal. Whether a retrain follows is for `retraining.decide` to say."""
    verdict: str


@dataclass(frozen=True)
class Week:
    """One week of a replay."""

    sunday: str
    until: str
    """The day before which its sessions are done: the next Sunday, unless the span ends within the week."""
    retrains: list[Retrain]
    """Sunday's, one a scope, then those that were asked for within the week."""
    sessions: list[SessionOutcome]
    seconds: float

    def __str__(self) -> str:
        return self.sunday

    @property
    def in_flight(self) -> list[Retrain]:
        """Retrains that were asked for and not done yet."""
        return [item for item in self.retrains if item.state == "in_flight"]

    def is_done(self, end: date) -> bool:
        """Whether nothing of the week is left to do before `end`."""
        last = min(date.fromisoformat(self.sunday) + timedelta(days=7), end)
        return not self.in_flight and date.fromisoformat(self.until) >= last

    def before(self, end: date) -> "Week":
        """The week without what happened on `end` or later."""
        return replace(
            self,
            until=min(self.until, end.isoformat()),
            retrains=[item for item in self.retrains if item.moment.date() < end],
            sessions=[item for item in self.sessions if item.day < end.isoformat()],
        )


class WeekStore:
    """Weeks as `<folder>/<sunday>.json`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, week: Week) -> None:
        """Write or replace a week."""
        write_bytes_atomic(self._path(week.sunday), json.dumps(asdict(week), indent=1).encode())

    def load(self, sunday: date) -> Week | None:
        """A week as far as it is done; None before its Sunday is."""
        path = self._path(sunday.isoformat())
        if not path.exists():
            return None
        content = json.loads(path.read_text())
        retrains = [Retrain(**item) for item in content.pop("retrains")]
        sessions = [SessionOutcome(**item) for item in content.pop("sessions")]
        return Week(**content, retrains=retrains, sessions=sessions)

    def _path(self, sunday: str) -> Path:
        return self._folder / f"{sunday}.json"
