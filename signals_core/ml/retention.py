"""Which bundles may be removed to save space: those of versions that never served and that newer ones have followed."""

from collections.abc import Sequence
from pathlib import Path

from signals_core.files import remove_directory
from signals_core.ml.journal import Event, Version, fold, serves

UNDECIDED = "registered"
"""The decision about a version that the gate has not judged yet."""


def removable(events: Sequence[Event], keep: int) -> list[Version]:
    """The versions beyond the newest `keep` of their scope that can be retired, oldest first.

    What is in service, what ever served and what is not judged yet is always kept: rollback can return to it, and
    validation windows score the model that served before them.
    """
    versions, _ = fold(events)
    served = {event.version_id for event in events if serves(event)}
    by_scope: dict[str, list[Version]] = {}
    for version in versions.values():
        if not version.retired:
            by_scope.setdefault(version.scope, []).append(version)
    old = [version for own in by_scope.values() for version in own[: max(len(own) - keep, 0)]]
    found = [v for v in old if v.version_id not in served and v.decision != UNDECIDED]
    return sorted(found, key=lambda version: version.sequence)


def remove_retired(folder: Path, events: Sequence[Event]) -> None:
    """Remove the bundles of retired versions, those too whose removal was cut short."""
    versions, _ = fold(events)
    for version in versions.values():
        if version.retired:
            remove_directory(folder / version.model_path)
