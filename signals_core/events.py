"""What happened, for other programs: the Redis stream `ml:drift:events`, read by consumer groups.

An entry has the fields `id`, `kind`, `at` and those of its payload, each a JSON text. While Redis is down events
wait in a file and follow in order, before any newer one. A process killed between the two leaves an event in
both: each arrives at least once, and its `id` tells whether it came before.
"""

import json
import logging
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signals_core.errors import ServiceDown
from signals_core.files import locked, write_bytes_atomic

if TYPE_CHECKING:
    from redis import Redis

STREAM = "ml:drift:events"
_log = logging.getLogger(__name__)


def publish(redis: "Redis", kind: str, payload: Mapping[str, Any], max_length: int) -> str:
    """Append an event to the stream; returns its `id`.

    Args:
        kind: what happened, such as drift_report.
        payload: JSON values by name.
        max_length: about as many entries are kept (`MAXLEN ~`), the newest.

    Raises:
        ServiceDown: Redis does not take it.
    """
    entry = _entry(kind, payload, datetime.now(UTC))
    _append(redis, entry, max_length)
    return str(json.loads(entry["id"]))


class EventStream:
    """The stream, and the file where events wait while Redis is down.

    Args:
        connect: returns a client, or raises ServiceDown.
        waiting: the file.
        max_length: of the stream, about, and of the file.
        clock: gives the present moment, with a time zone, for the events' `at`; default: the wall clock's.
    """

    def __init__(
        self,
        connect: Callable[[], "Redis"],
        waiting: Path,
        max_length: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._connect, self._waiting, self._max_length = connect, waiting, max_length
        self._clock = clock

    def publish(self, kind: str, payload: Mapping[str, Any]) -> bool:
        """Append an event, after those that wait; False if it waits too."""
        with locked(self._lock):
            return self._send([*self._entries(), _entry(kind, payload, self._clock())])

    def send_waiting(self) -> bool:
        """Append the events that wait; False if they still do."""
        if not self._waiting.exists():
            return True
        with locked(self._lock):
            return self._send(self._entries())

    def waiting(self) -> int:
        """How many events wait."""
        with locked(self._lock):
            return len(self._entries())

    @property
    def _lock(self) -> Path:
        return self._waiting.with_name(f".{self._waiting.name}.lock")

    def _send(self, entries: list[dict[str, str]]) -> bool:
        sent = 0
        try:
            redis = self._connect()
            for entry in entries:
                _append(redis, entry, self._max_length)
                sent += 1
        except ServiceDown as error:
            # Of more events than the stream would hold only the newest are of use to anybody.
            left = entries[sent:][-self._max_length :]
            write_bytes_atomic(self._waiting, b"".join(json.dumps(entry).encode() + b"\n" for entry in left))
            _log.warning("%d events wait in %s: %s", len(left), self._waiting, error)
            return False
        self._waiting.unlink(missing_ok=True)
        return True

    def _entries(self) -> list[dict[str, str]]:
        if not self._waiting.exists():
            return []
        return [json.loads(line) for line in self._waiting.read_bytes().splitlines()]


def _entry(kind: str, payload: Mapping[str, Any], at: datetime) -> dict[str, str]:
    fields = {"id": uuid.uuid4().hex, "kind": kind, "at": at.astimezone(UTC).isoformat(), **payload}
    return {name: json.dumps(value) for name, value in fields.items()}


def _append(redis: "Redis", entry: dict[str, str], max_length: int) -> None:
    from redis.exceptions import RedisError

    try:
        redis.xadd(STREAM, entry, maxlen=max_length, approximate=True)
    except RedisError as error:
        raise ServiceDown(f"Redis does not take events ({error}): start it or check stores.redis_url") from error
