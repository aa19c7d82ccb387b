"""ModelRegistry: versions, which of them is in service per scope, and why.

The truth is an append-only journal on disk, `<models>/journal.jsonl`: the registry is the fold of its
events. Redis is what readers ask: a hash `ml:models:{version_id}` a version, `ml:active:{scope}` the one
in service. A change is appended to the journal (and flushed) under a lock, then written to Redis in one
transaction with the number of events it stands for; whoever finds the two apart brings Redis up to date.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from signals_core.errors import BundleError, MissingPrerequisite, PromotionConflict, ServiceDown
from signals_core.files import append_line, locked
from signals_core.ml.bundle import Model, is_sound, load_bundle, read_manifest
from signals_core.settings import UNIVERSE, Scope

if TYPE_CHECKING:
    from redis import Redis

_VERSIONS, _ACTIVE, _APPLIED = "ml:models", "ml:active", "ml:journal:applied"
_JOURNAL = "journal.jsonl"

Action = Literal["registered", "promoted", "rejected", "rolled_back"]


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


def connect_redis(url: str) -> "Redis":
    """A client of the server at `url`.

    Raises:
        ServiceDown: it does not answer.
    """
    from redis import Redis
    from redis.exceptions import RedisError

    client = Redis.from_url(url, decode_responses=True, socket_timeout=10, socket_connect_timeout=3)
    try:
        client.ping()
    except RedisError as error:
        host = client.connection_pool.connection_kwargs.get("host", "?")
        raise ServiceDown(f"Redis at {host} does not answer ({error}): start it or set stores.redis_url") from None
    return client


class ModelRegistry:
    """Register, promote, roll back and list model versions."""

    def __init__(self, models_dir: Path | str = "models", redis: "Redis | None" = None) -> None:
        self.folder = Path(models_dir)
        self._embedded = None
        if redis is None:
            from signals_core.embedded_redis import EmbeddedRedis

            self._embedded = EmbeddedRedis(self.folder / ".redis")
            redis = self._embedded.connect()
        self._redis = redis
        with self._changing():
            pass  # Redis may be new, wiped, or behind a journal whose writer was killed

    def close(self) -> None:
        """Let go of a Redis that this registry started itself."""
        if self._embedded is not None:
            self._embedded.close()

    def register(
        self, version_id: str, model_path: Path | str, metrics: dict[str, Any], by: str = "library"
    ) -> Version:
        """Add a version whose bundle lies in `model_path`; registering it again changes nothing.

        Raises:
            BundleError: the bundle's manifest cannot be read or names another version.
        """
        folder = Path(model_path)
        manifest = read_manifest(folder)
        if manifest["version_id"] != version_id:
            raise BundleError(f"{folder} holds {manifest['version_id']}, not {version_id}")
        if folder.resolve().parent != self.folder.resolve():
            raise BundleError(f"{folder} lies outside the registry's folder {self.folder}: move it there first")
        with self._changing() as events:
            if not any(e.version_id == version_id and e.action == "registered" for e in events):
                evidence = {
                    "model_path": folder.name,
                    "created_at": manifest["created_at"],
                    "digest": manifest["digest"],
                    "inputs": manifest["inputs"],
                    "metrics": metrics,
                }
                self._append("registered", version_id, manifest["scope"], by, manifest["cause"], evidence)
        return self.get(version_id)

    def get(self, version_id: str) -> Version:
        """A registered version.

        Raises:
            MissingPrerequisite: it is not registered.
        """
        with self._reading():
            stored = self._redis.hgetall(f"{_VERSIONS}:{version_id}")
            if not stored:
                raise MissingPrerequisite(f"no model version {version_id}: see `signals models list`")
            active = self._redis.get(f"{_ACTIVE}:{stored['scope']}")
        fields = {k: v for k, v in stored.items() if k not in ("metrics", "sequence")}
        return Version(
            **fields,
            sequence=int(stored["sequence"]),
            metrics=json.loads(stored["metrics"]),
            active=active == version_id,
        )

    def get_active(self, scope: Scope = UNIVERSE) -> Version | None:
        """The version in service for a scope, or None before the first promotion."""
        with self._reading():
            version_id = self._redis.get(f"{_ACTIVE}:{scope}")
        return self.get(str(version_id)) if version_id else None

    def list_versions(self, scope: Scope | None = None) -> list[Version]:
        """Registered versions, oldest first."""
        with self._reading():
            names = self._redis.smembers(_VERSIONS)
        versions = sorted((self.get(name) for name in names), key=lambda version: version.sequence)
        return [v for v in versions if scope in (None, v.scope)]

    def promote(
        self,
        version_id: str,
        reason: str = "asked for by a person",
        by: str = "library",
        evidence: dict[str, Any] | None = None,
        expected_active: str | Literal["any"] | None = "any",
    ) -> Version:
        """Put a version into service for its scope; exactly one is, before and after.

        Args:
            expected_active: what the decision was made against; "any" skips the comparison.

        Raises:
            BundleError: the bundle is damaged; the version in service stays.
            PromotionConflict: another version than `expected_active` is in service by now.
        """
        return self._activate("promoted", version_id, reason, by, evidence or {}, expected_active)

    def reject(self, version_id: str, reason: str, by: str = "library", evidence: dict[str, Any] | None = None) -> None:
        """Record why a registered version was not promoted."""
        version = self.get(version_id)
        with self._changing() as events:
            last = [e for e in events if e.version_id == version_id][-1]
            if last.action != "rejected":
                self._append("rejected", version_id, version.scope, by, reason, evidence or {})

    def rollback(
        self,
        version_id: str | None = None,
        scope: Scope = UNIVERSE,
        reason: str = "asked for by a person",
        by: str = "library",
    ) -> Version:
        """Return to a named version, or to the one that served before the present one.

        Raises:
            MissingPrerequisite: no earlier version served.
        """
        if version_id is None:
            served = _serving_stack(self.journal(), scope)
            if len(served) < 2:
                raise MissingPrerequisite(f"{scope}: no version served before the present one")
            version_id = served[-2]
        return self._activate("rolled_back", version_id, reason, by, {}, "any")

    def load_active(self, scope: Scope = UNIVERSE) -> Model:
        """The verified model in service.

        A damaged bundle is refused, and the last version that served before it and is sound serves instead;
        its manifest then says so under `serves_instead_of`.

        Raises:
            MissingPrerequisite: none was promoted yet.
            BundleError: no version that ever served is sound.
        """
        events = self.journal()
        served = _serving_stack(events, scope)
        if not served:
            raise MissingPrerequisite(f"{scope}: no model is in service: train one (`signals train`)")
        versions, _ = fold(events)
        problems = []
        for version_id in reversed(served):
            try:
                model = load_bundle(self.folder / versions[version_id].model_path)
            except BundleError as error:
                problems.append(str(error))
            else:
                if problems:
                    model.manifest["serves_instead_of"] = problems
                return model
        raise BundleError(f"{scope}: no sound model: {'; '.join(problems)}")

    def find(self, scope: Scope, inputs: str) -> Version | None:
        """The latest version of a scope trained from exactly these inputs whose bundle is sound."""
        for version in reversed(self.list_versions(scope)):
            if version.inputs == inputs and is_sound(self.folder / version.model_path):
                return version
        return None

    def journal(self) -> list[Event]:
        """Every event, oldest first."""
        return read_journal(self.folder)

    def rebuild(self) -> int:
        """Write Redis anew from the journal; returns the number of events."""
        with locked(self._lock_path), _answering():
            events = self.journal()
            self._apply(events)
        return len(events)

    @property
    def _journal_path(self) -> Path:
        return self.folder / _JOURNAL

    @property
    def _lock_path(self) -> Path:
        return self.folder / ".journal.lock"

    def _activate(
        self,
        action: Action,
        version_id: str,
        reason: str,
        by: str,
        evidence: dict[str, Any],
        expected_active: str | None,
    ) -> Version:
        version = self.get(version_id)
        load_bundle(self.folder / version.model_path)
        with self._changing():
            current = self._redis.get(f"{_ACTIVE}:{version.scope}")
            if expected_active != "any" and current != expected_active:
                raise PromotionConflict(
                    f"{version.scope}: {current} is in service by now, the decision was made against "
                    f"{expected_active}: judge {version_id} again"
                )
            if current != version_id:
                evidence = {**evidence, "replaced": current}
                self._append(action, version_id, version.scope, by, reason, evidence)
        return self.get(version_id)

    def _append(
        self, action: Action, version_id: str, scope: Scope, by: str, reason: str, evidence: dict[str, Any]
    ) -> None:
        event = Event(action, version_id, scope, datetime.now(UTC).isoformat(), by, reason, evidence)
        append_line(self._journal_path, json.dumps(asdict(event), sort_keys=True))
        self._apply(self.journal())

    @contextmanager
    def _changing(self) -> Iterator[list[Event]]:
        """Hold the lock, with Redis brought up to date with the journal first."""
        with locked(self._lock_path), _answering():
            events = self.journal()
            if int(self._redis.get(_APPLIED) or -1) != len(events):
                self._apply(events)
            yield events

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Read from Redis, written anew from the journal first if someone has wiped it."""
        with _answering():
            if not self._redis.exists(_APPLIED):
                self.rebuild()
            yield

    def _apply(self, events: list[Event]) -> None:
        """Make Redis the fold of the journal, in one transaction."""
        versions, active = fold(events)
        known = self._redis.smembers(_VERSIONS)
        scopes = set(self._redis.scan_iter(f"{_ACTIVE}:*"))
        transaction = self._redis.pipeline(transaction=True)
        for stale in (*(f"{_VERSIONS}:{name}" for name in known), *scopes, _VERSIONS):
            transaction.delete(stale)
        for version in versions.values():
            fields = {k: v for k, v in asdict(version).items() if k not in ("metrics", "active")}
            transaction.hset(
                f"{_VERSIONS}:{version.version_id}",
                mapping={**fields, "metrics": json.dumps(version.metrics, sort_keys=True)},
            )
            transaction.sadd(_VERSIONS, version.version_id)
        for scope, version_id in active.items():
            transaction.set(f"{_ACTIVE}:{scope}", version_id)
        transaction.set(_APPLIED, len(events))
        transaction.execute()


def fold(events: list[Event]) -> tuple[dict[str, Version], dict[Scope, str]]:
    """The registry's state after `events`: versions by id, and the one in service by scope."""
    versions: dict[str, Version] = {}
    active: dict[Scope, str] = {}
    for event in events:
        if event.action == "registered":
            versions[event.version_id] = Version(
                event.version_id, event.scope, **event.evidence, sequence=len(versions) + 1
            )
            continue
        version = versions[event.version_id]
        decision = f"{event.action.replace('_', ' ')}: {event.reason}"
        versions[event.version_id] = Version(**{**asdict(version), "decision": decision})
        if serves(event):
            active[event.scope] = event.version_id
    return versions, active


@contextmanager
def _answering() -> Iterator[None]:
    from redis.exceptions import RedisError

    try:
        yield
    except RedisError as error:
        raise ServiceDown(f"Redis does not answer ({error}): start it or check stores.redis_url") from error


def serves(event: Event) -> bool:
    """Whether the event put its version into service."""
    return event.action in ("promoted", "rolled_back")


def read_journal(folder: Path) -> list[Event]:
    """Every event of the registry in `folder`, oldest first; needs no Redis.

    Raises:
        BundleError: a line cannot be read.
    """
    path = folder / _JOURNAL
    if not path.exists():
        return []
    # What follows the last newline was cut short by a power failure and never acknowledged.
    *lines, _ = path.read_bytes().split(b"\n")
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(Event(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise BundleError(f"{path} line {number} cannot be read ({error}): restore it") from error
    return events


def _serving_stack(events: list[Event], scope: Scope) -> list[str]:
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
