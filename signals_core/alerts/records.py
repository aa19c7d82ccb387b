"""What has been told to whom: one file under a lock, so that neither a restart nor another process tells it again."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from signals_core.alerts.alert import Alert
from signals_core.files import locked, write_bytes_atomic

_FORMAT = 1
_KEEP_DAYS, _KEEP = 90, 1000
_HOUR = 3600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 6 * _HOUR
"""Seconds that a channel which failed is left alone; doubled at each failure."""
_log = logging.getLogger(__name__)

DeliveryState = Literal["waiting", "sending", "sent"]


@dataclass
class Delivery:
    """One message to one channel."""

    state: DeliveryState = "waiting"
    at: float = 0.0
    """Seconds since 1970 of the last change."""
    attempts: int = 0
    problem: str | None = None


@dataclass
class Record:
    """One episode: what was told at its beginning and its end, by channel."""

    alert: Alert
    opened_at: float
    over_at: float | None = None
    lasting: bool = True
    """False: it is over as it happens, and no end is told."""
    note: str = ""
    beginning: dict[str, Delivery] = field(default_factory=dict)
    end: dict[str, Delivery] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """It goes on."""
        return self.over_at is None


@dataclass
class Health:
    """How a channel fares."""

    failures: int = 0
    """Without a success since."""
    not_before: float = 0.0
    problem: str | None = None
    sent: list[float] = field(default_factory=list)
    """Moments of the last hour's messages."""

    def resting(self, now: float) -> bool:
        """It failed lately. A clock set back must not silence it."""
        return now < self.not_before <= now + _LONGEST_PAUSE

    def room(self, now: float, max_per_hour: int) -> int:
        """Messages that may still go within the hour."""
        self.sent = [moment for moment in self.sent if 0 <= now - moment < _HOUR]
        return max_per_hour - len(self.sent)

    def succeeded(self, now: float) -> None:
        """A message was accepted."""
        self.failures, self.not_before, self.problem = 0, 0.0, None
        self.sent.append(now)

    def failed(self, now: float, problem: str, retry_after: float | None) -> None:
        """A message was not accepted."""
        self.failures += 1
        pause = max(_FIRST_PAUSE * 2.0 ** min(self.failures - 1, 20), retry_after or 0.0)
        self.not_before, self.problem = now + min(pause, _LONGEST_PAUSE), problem


@dataclass
class State:
    """Every record, oldest first, and every channel's health."""

    records: list[Record] = field(default_factory=list)
    channels: dict[str, Health] = field(default_factory=dict)

    def open_record(self, episode: str) -> Record | None:
        """The record of an episode that goes on."""
        return next((r for r in reversed(self.records) if r.open and r.alert.episode == episode), None)

    def latest(self, episode: str) -> Record | None:
        """The newest record of an episode of that name."""
        return next((r for r in reversed(self.records) if r.alert.episode == episode), None)

    def health(self, channel: str) -> Health:
        """Of a channel; at first it is well."""
        return self.channels.setdefault(channel, Health())

    def forget(self, now: float) -> None:
        """Drop what ended long ago."""
        oldest = now - timedelta(days=_KEEP_DAYS).total_seconds()
        kept = [r for r in self.records if r.open or r.opened_at >= oldest]
        surplus = len(kept) - _KEEP
        for record in [r for r in kept if not r.open][: max(surplus, 0)]:
            kept.remove(record)
        self.records = kept


class RecordFile:
    """The state in one file, changed under a lock and written atomically.

    Args:
        path: the file.
        clock: seconds since 1970.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path, self._clock = path, clock

    def read(self) -> State:
        """The state as of the last change."""
        return self._parse()[0]

    @contextmanager
    def changing(self) -> Iterator[State]:
        """The state to change; it is written when the block ends without an error, if it changed."""
        with locked(self._path.with_name(f".{self._path.name}.lock")):
            state, problem = self._parse()
            if problem is not None:
                # Alerts must go out all the same; what was open may be told again.
                aside = self._path.with_name(f"{self._path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
                self._path.replace(aside)
                _log.error("%s cannot be read (%s): set aside as %s, and begun anew", self._path, problem, aside.name)
            before = _dump(state)
            yield state
            state.forget(self._clock())
            after = _dump(state)
            if after != before:
                write_bytes_atomic(self._path, after)

    def _parse(self) -> tuple[State, str | None]:
        """The state, and what is wrong with the file; it is empty then."""
        if not self._path.exists():
            return State(), None
        try:
            content = json.loads(self._path.read_bytes())
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']}")
            channels = {name: Health(**item) for name, item in content["channels"].items()}
            return State([_record(item) for item in content["records"]], channels), None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return State(), f"{type(error).__name__}: {error}"


def _dump(state: State) -> bytes:
    return json.dumps({"format": _FORMAT, **asdict(state)}, indent=1, sort_keys=True).encode()


def _record(item: dict[str, Any]) -> Record:
    beginning, end = (
        {channel: Delivery(**each) for channel, each in item.pop(name).items()} for name in ("beginning", "end")
    )
    return Record(Alert(**item.pop("alert")), beginning=beginning, end=end, **item)
