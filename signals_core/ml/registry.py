"""ModelRegistry: versions, which of them is in service per scope, and why.

The truth is an append-only journal on disk (`journal.py`): the registry is the fold of its events. Redis is what
readers ask (`registry_index.py`). A change is appended to the journal and flushed under a lock, then written to
Redis in one transaction with the number of events it stands for; whoever finds the two apart brings Redis up to
date. What serves is read from disk, so that a model in service goes on serving while Redis is down.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from signals_core.errors import BundleError, MissingPrerequisite, PromotionConflict, ServiceDown
from signals_core.files import locked
from signals_core.ml.bundle import Model, is_sound, load_bundle, load_model, read_manifest
from signals_core.ml.journal import (
    Action,
    Event,
    Journal,
    Version,
    active_on_disk,
    append_event,
    fold,
    load_journal,
    read_journal,
    serves,
    serving_stack,
    unknown_version,
    version_of,
)
from signals_core.ml.registry_index import RegistryIndex, Wiped, connect_redis
from signals_core.ml.retention import removable, remove_retired
from signals_core.settings import UNIVERSE, Scope

if TYPE_CHECKING:
    from redis import Redis

    from signals_core.embedded_redis import EmbeddedRedis

__all__ = [
    "Action",
    "Event",
    "ModelRegistry",
    "Version",
    "active_on_disk",
    "connect_redis",
    "fold",
    "read_journal",
    "serves",
]

_Read = TypeVar("_Read")
_ATTEMPTS = 20


class ModelRegistry:
    """Register, promote, roll back and list model versions.

    Args:
        models_dir: the folder of bundles and journal.
        redis: a client; or what makes one when it is first needed, so that the journal can be read without;
            None starts a Redis of its own in the folder when it is first needed.
        clock: gives the present moment, with a time zone, for the journal; default: the wall clock's.

    Raises:
        ServiceDown: from every method that needs Redis, if it does not answer.
    """

    def __init__(
        self,
        models_dir: Path | str = "models",
        redis: "Redis | Callable[[], Redis] | None" = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = Path(models_dir)
        self._clock = clock
        self._embedded: EmbeddedRedis | None = None
        self._up_to_date = False
        if redis is None:
            self._index = RegistryIndex(self._start_embedded)
        elif callable(redis):
            self._index = RegistryIndex(redis)
        else:
            client = redis
            self._index = RegistryIndex(lambda: client)
            self._bring_up_to_date()

    def _start_embedded(self) -> "Redis":
        from signals_core.embedded_redis import EmbeddedRedis

        self._embedded = EmbeddedRedis(self.folder / ".redis")
        return self._embedded.connect()

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
        with self._changing() as journal:
            known = fold(journal.events)[0].get(version_id)
            if known is not None and known.retired:
                raise BundleError(f"{version_id} was retired; a model registered anew needs a new name")
            if known is None:
                evidence = {
                    "model_path": folder.name,
                    "created_at": manifest["created_at"],
                    "digest": manifest["digest"],
                    "inputs": manifest["inputs"],
                    "metrics": metrics,
                }
                journal = self._append(
                    journal, "registered", version_id, manifest["scope"], by, manifest["cause"], evidence
                )
        return version_of(journal.events, version_id)

    def get(self, version_id: str) -> Version:
        """A registered version.

        Raises:
            MissingPrerequisite: it is not registered.
        """
        found = self._read(lambda: self._index.read_version(version_id))
        if found is None:
            raise unknown_version(version_id)
        return found

    def get_active(self, scope: Scope = UNIVERSE) -> Version | None:
        """The version in service for a scope, or None before the first promotion."""
        return self._read(lambda: self._index.read_active(scope))

    def list_versions(self, scope: Scope | None = None) -> list[Version]:
        """Registered versions, oldest first."""
        return [v for v in self._read(self._index.read_all) if scope in (None, v.scope)]

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
        return self._activate("promoted", version_id, reason, by, evidence or {}, expected_active, UNIVERSE)

    def reject(self, version_id: str, reason: str, by: str = "library", evidence: dict[str, Any] | None = None) -> None:
        """Record why a registered version was not promoted."""
        with self._changing() as journal:
            version = version_of(journal.events, version_id)
            last = [e for e in journal.events if e.version_id == version_id][-1]
            if last.action != "rejected":
                self._append(journal, "rejected", version_id, version.scope, by, reason, evidence or {})

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
        return self._activate("rolled_back", version_id, reason, by, {}, "any", scope)

    def load_active(self, scope: Scope = UNIVERSE) -> Model:
        """The verified model in service.

        A damaged bundle is refused, and the last version that served before it and is sound serves instead;
        its manifest then says so under `serves_instead_of`.

        Raises:
            MissingPrerequisite: none was promoted yet.
            BundleError: no version that ever served is sound.
        """
        events = self.journal()
        served = serving_stack(events, scope)
        if not served:
            raise MissingPrerequisite(f"{scope}: no model is in service: train one (`signals train`)")
        versions, _ = fold(events)
        problems = []
        for version_id in reversed(served):
            try:
                model = load_model(self.folder / versions[version_id].model_path)
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
            if version.inputs == inputs and not version.retired and is_sound(self.folder / version.model_path):
                return version
        return None

    def prune(self, keep: int, by: str = "library") -> list[Version]:
        """Retire what is beyond the newest `keep` versions of a scope and never served, and remove its bundles.

        Retired versions stay listed. The journal says so before anything is removed.
        """
        with self._changing() as journal:
            retired = []
            for version in removable(journal.events, keep):
                reason = f"never served, and {keep} newer versions are kept"
                journal = self._append(journal, "retired", version.version_id, version.scope, by, reason, {})
                retired.append(version_of(journal.events, version.version_id))
            remove_retired(self.folder, journal.events)
        return retired

    def journal(self) -> list[Event]:
        """Every event, oldest first; needs no Redis."""
        return read_journal(self.folder)

    def rebuild(self) -> int:
        """Write Redis anew from the journal; returns the number of events."""
        with locked(self._lock_path):
            journal = load_journal(self.folder)
            self._index.write_all(journal)
        return len(journal.events)

    @property
    def _lock_path(self) -> Path:
        return self.folder / ".journal.lock"

    def _activate(
        self,
        action: Action,
        version_id: str | None,
        reason: str,
        by: str,
        evidence: dict[str, Any],
        expected_active: str | None,
        scope: Scope,
    ) -> Version:
        """Compare and set under the lock; without a version, the one that served before in `scope`."""
        with self._changing() as journal:
            if version_id is None:
                served = serving_stack(journal.events, scope)
                if len(served) < 2:
                    raise MissingPrerequisite(f"{scope}: no version served before the present one")
                version_id = served[-2]
            version = version_of(journal.events, version_id)
            if version.retired:
                raise MissingPrerequisite(f"{version_id} was retired, its bundle is gone: train again")
            load_bundle(self.folder / version.model_path)
            current = fold(journal.events)[1].get(version.scope)
            if expected_active != "any" and current != expected_active:
                raise PromotionConflict(
                    f"{version.scope}: {current} is in service by now, the decision was made against "
                    f"{expected_active}: judge {version_id} again"
                )
            if current != version_id:
                evidence = {**evidence, "replaced": current}
                journal = self._append(journal, action, version_id, version.scope, by, reason, evidence)
        return version_of(journal.events, version_id)

    def _append(
        self,
        journal: Journal,
        action: Action,
        version_id: str,
        scope: Scope,
        by: str,
        reason: str,
        evidence: dict[str, Any],
    ) -> Journal:
        now = self._clock().isoformat()
        after = append_event(self.folder, Event(action, version_id, scope, now, by, reason, evidence))
        try:
            self._index.write_change(journal, after)
        except ServiceDown as error:
            self._up_to_date = False
            raise ServiceDown(
                f"{version_id} is {action.replace('_', ' ')} in the journal, and Redis will say so when it is next "
                f"asked: {error}"
            ) from error
        return after

    @contextmanager
    def _changing(self) -> Iterator[Journal]:
        """Hold the lock, with Redis brought up to date with the journal first."""
        with locked(self._lock_path):
            journal = load_journal(self.folder)
            if not self._index.stands_for(journal):  # it is new, wiped, or its last writer was killed
                self._index.write_all(journal)
            self._up_to_date = True
            yield journal

    def _bring_up_to_date(self) -> None:
        with self._changing():
            pass

    def _read(self, read: Callable[[], _Read]) -> _Read:
        """Ask Redis, written anew from the journal first if someone has wiped it."""
        if not self._up_to_date:
            self._bring_up_to_date()
        try:
            for _ in range(_ATTEMPTS):
                try:
                    return read()
                except Wiped:  # perhaps again, since it was written anew
                    self._bring_up_to_date()
            raise ServiceDown(f"Redis was wiped {_ATTEMPTS} times while it was asked: find out who does it")
        except ServiceDown:  # another may come in its place
            self._up_to_date = False
            raise
