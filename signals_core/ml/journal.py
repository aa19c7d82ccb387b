"""The registry's journal: what happened to every model version, one line an event, and what follows from it.

`<models>/journal.jsonl` is append-only. Each line carries a check: a digest of its own text and of the line before
it, so that a byte that changed, or a line that went, is refused by its number. Lines from before there were checks
are read as they are; the first checked line covers the last of them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from signals_core.errors import BundleError, MissingPrerequisite
from signals_core.files import append_line
from signals_core.settings import Scope

NAME = "journal.jsonl"
_TICK = timedelta(microseconds=1)
_CHECK, _CHECK_LENGTH = "check", 16

Action = Literal["registered", "promoted", "rejected", "rolled_back", "retired"]


@dataclass(frozen=True)
class Event:
    """One line of the journal."""

    action: Action
    version_id: str
    scope: Scope
    at: str
    by: str
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """A registered model."""

    version_id: str
    scope: Scope
    model_path: str
    """Relative to the registry's folder."""
    created_at: str
    digest: str
    inputs: str
    metrics: dict[str, Any]
    sequence: int = 0
    """Its place in the order of registration."""
    decision: str = "registered"
    active: bool = False
    retired: bool = False
    """Its bundle was removed to save space; it cannot serve any more."""


@dataclass(frozen=True)
class Journal:
    """Every event, oldest first, and the check of the last line (empty before the first)."""

    events: tuple[Event, ...]
    head: str


def read_journal(folder: Path) -> list[Event]:
    """Every event of the registry in `folder`, oldest first; needs no Redis.

    Raises:
        BundleError: a line was altered or cannot be read.
    """
    return list(load_journal(folder).events)


def load_journal(folder: Path) -> Journal:
    """As `read_journal`, with the check that stands for all of it."""
    return _load(folder / NAME)[0]


def _load(path: Path) -> tuple[Journal, bytes]:
    """The journal, and the text that the check of its next line covers."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Journal((), ""), b""
    *lines, torn = content.split(b"\n")
    events, before, head, checked = [], b"", "", False
    for number, line in enumerate(lines, start=1):
        try:
            event, check = _read_line(line)
        except (ValueError, TypeError) as error:
            raise BundleError(f"{path} line {number} cannot be read ({error}): restore it") from error
        if check is None and checked:
            raise BundleError(f"{path} line {number} has lost its check: restore it")
        if check is not None and check != _check(before, line):
            raise BundleError(f"{path} line {number} cannot be read (its check does not fit): restore it")
        events.append(event)
        checked = check is not None
        before = line if checked else before + b"\n" + line
        head = check or _digest(before)
    if _is_more_than_a_line(torn):
        raise BundleError(f"{path} line {len(lines) + 1} cannot be read (its end was altered): restore it")
    return Journal(tuple(events), head), before


def append_event(folder: Path, event: Event) -> Journal:
    """Write one more line and flush it to disk; returns the journal with it. The caller holds the lock.

    Each event has a moment of its own after the one before, whatever the clock does: where `clock.as_of` stands still
    or was set back, the next microsecond.

    Args:
        folder: of the registry.
        event: what happened; `at` is ISO 8601 with an offset, and is kept in UTC.

    Raises:
        ValueError: the moment has no offset.
        BundleError: the journal is damaged.
    """
    at = datetime.fromisoformat(event.at)
    if at.tzinfo is None:
        raise ValueError("a journal's moment needs a time zone")
    at, path = at.astimezone(UTC), folder / NAME
    journal, before = _load(path)
    if journal.events:
        at = max(at, datetime.fromisoformat(journal.events[-1].at) + _TICK)
    body = json.dumps(asdict(replace(event, at=at.isoformat())), sort_keys=True)
    check = _digest(before + b"\n" + body.encode())
    line = f'{body[:-1]}, "{_CHECK}": "{check}"}}'
    append_line(path, line)
    # What is read back later is what counts, not what was meant: a tuple is a list by then.
    return Journal((*journal.events, _read_line(line.encode())[0]), check)


def serves(event: Event) -> bool:
    """Whether the event put its version into service."""
    return event.action in ("promoted", "rolled_back")


def fold(events: Sequence[Event]) -> tuple[dict[str, Version], dict[Scope, str]]:
    """The registry's state after `events`: versions by id, and the one in service by scope."""
    versions: dict[str, Version] = {}
    active: dict[Scope, str] = {}
    for event in events:
        if event.action == "registered":
            versions[event.version_id] = Version(
                event.version_id, event.scope, **event.evidence, sequence=len(versions) + 1
            )
            continue
        decision = f"{event.action.replace('_', ' ')}: {event.reason}"
        version = replace(versions[event.version_id], decision=decision, retired=event.action == "retired")
        versions[event.version_id] = version
        if serves(event):
            active[event.scope] = event.version_id
    for version_id in active.values():
        versions[version_id] = replace(versions[version_id], active=True)
    return versions, active


def active_at(events: Sequence[Event], scope: Scope, moment: datetime | None) -> Version | None:
    """The version that was in service at a moment (with an offset), the events of that very moment included.

    None: after the last of `events`, whatever the clock says.
    """
    past = [event for event in events if moment is None or datetime.fromisoformat(event.at) <= moment]
    versions, active = fold(past)
    return versions[active[scope]] if scope in active else None


def active_on_disk(folder: Path, scope: Scope) -> Version | None:
    """The version in service, from the journal alone: needs no Redis.

    Raises:
        BundleError: the journal is damaged.
    """
    versions, active = fold(load_journal(folder).events)
    return versions[active[scope]] if scope in active else None


def find_version(folder: Path, version_id: str) -> Version:
    """A version by its name, from the journal alone: needs no Redis.

    Raises:
        MissingPrerequisite: it is not registered.
    """
    return version_of(load_journal(folder).events, version_id)


def version_of(events: Sequence[Event], version_id: str) -> Version:
    """As `find_version`, of these events."""
    versions, _ = fold(events)
    if version_id not in versions:
        raise unknown_version(version_id)
    return versions[version_id]


def unknown_version(version_id: str) -> MissingPrerequisite:
    """The error that there is no such version."""
    return MissingPrerequisite(f"no model version {version_id}: see `signals models list`")


def serving_stack(events: Sequence[Event], scope: Scope) -> list[str]:
    """The versions of a scope that served and were not rolled back from, the one in service last."""
    stack: list[str] = []
    for event in events:
        if event.scope != scope or not serves(event):
            continue
        if event.action == "rolled_back" and event.version_id in stack:
            del stack[stack.index(event.version_id) + 1 :]
        else:
            stack = [version for version in stack if version != event.version_id] + [event.version_id]
    return stack


def _read_line(line: bytes) -> tuple[Event, str | None]:
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")
    check = fields.pop(_CHECK, None)
    return Event(**fields), check


def _check(before: bytes, line: bytes) -> str:
    """What the check of `line` must be: its text without the check, after the line before it."""
    body, _, _ = line.rpartition(f', "{_CHECK}": "'.encode())
    return _digest(before + b"\n" + body + b"}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_CHECK_LENGTH]


def _is_more_than_a_line(torn: bytes) -> bool:
    """Whether text without a newline at its end is a whole event and something after it.

    A line cut short by a power failure was never acknowledged and is left out; it is part of a line, never more.
    """
    try:
        _, end = json.JSONDecoder().raw_decode(torn.decode(errors="replace"))
    except ValueError:
        return False
    return end < len(torn.decode(errors="replace"))
