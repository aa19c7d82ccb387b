"""What two model versions differ in: settings, features, parameters, metrics, spans, digests."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from signals_core.ml.bundle import read_manifest
from signals_core.ml.journal import Version

_NOT_COMPARED = {"check", "files", "version_id", "sequence", "model_path", "format"}
ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in both."""

    what: str
    """Dotted, as `settings.ml.train_months`."""
    first: Any
    second: Any


def compare_versions(folder: Path, first: Version, second: Version) -> list[Difference]:
    """What differs between two versions of a registry's folder, by name; of a retired one only the journal is known.

    Raises:
        BundleError: a manifest is damaged.
    """
    facts = [_facts(folder, version) for version in (first, second)]
    names = [name for name in facts[0] if name in facts[1]] if first.retired or second.retired else None
    return compare(facts[0], facts[1], names)


def compare(first: dict[str, Any], second: dict[str, Any], names: list[str] | None = None) -> list[Difference]:
    """What differs between two nested records; lists of names by what only one of them has."""
    found: list[Difference] = []
    for name in sorted(names if names is not None else {*first, *second}):
        found += _compare(name, first.get(name, ABSENT), second.get(name, ABSENT))
    return found


def _compare(what: str, first: Any, second: Any) -> list[Difference]:
    if isinstance(first, dict) and isinstance(second, dict):
        keys = sorted({*first, *second})
        return [d for key in keys for d in _compare(f"{what}.{key}", first.get(key, ABSENT), second.get(key, ABSENT))]
    if first == second or (first != first and second != second):  # NaN is equal to NaN here
        return []
    if isinstance(first, list) and isinstance(second, list):
        only = [[x for x in first if x not in second], [x for x in second if x not in first]]
        if only == [[], []]:
            return [Difference(f"{what} (order)", first, second)]
        return [Difference(f"{what} (only in one)", *only)]
    return [Difference(what, first, second)]


def _facts(folder: Path, version: Version) -> dict[str, Any]:
    own = asdict(version)
    manifest = {} if version.retired else read_manifest(folder / version.model_path)
    return {name: value for name, value in {**own, **manifest}.items() if name not in _NOT_COMPARED}
