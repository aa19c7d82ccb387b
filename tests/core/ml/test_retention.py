"""What is retired, what never is, and what is left of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from signals_core.embedded_redis import EmbeddedRedis
from signals_core.errors import BundleError, MissingPrerequisite
from signals_core.ml.registry import ModelRegistry
from tests.core.ml.helpers import make_bundle

NAMES = [f"v{n}" for n in range(8)]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[ModelRegistry]:
    """Eight versions: v1 served and was rolled back from, v0 serves, v2 to v6 were rejected, v7 is not judged."""
    models = tmp_path / "models"
    models.mkdir()
    embedded = EmbeddedRedis(tmp_path / "redis")
    opened = ModelRegistry(models, embedded.connect())
    for name in NAMES:
        make_bundle(models, name)
        opened.register(name, models / name, {"log_loss": 1.05})
    opened.promote("v0")
    opened.promote("v1")
    opened.rollback("v0")
    for name in NAMES[2:7]:
        opened.reject(name, "worse")
    yield opened
    embedded.close()


def folders(registry: ModelRegistry) -> list[str]:
    return sorted(path.name for path in registry.folder.iterdir() if path.is_dir())


@pytest.mark.parametrize(
    ("keep", "retired"),
    [(50, []), (8, []), (4, ["v2", "v3"]), (1, ["v2", "v3", "v4", "v5", "v6"])],
)
def test_only_old_versions_that_never_served_are_retired(registry, keep, retired):
    assert [version.version_id for version in registry.prune(keep, by="test")] == retired
    assert folders(registry) == sorted(set(NAMES) - set(retired))
    assert [v.version_id for v in registry.list_versions() if v.retired] == retired
    assert [v.version_id for v in registry.list_versions()] == NAMES
    assert registry.get_active().version_id == "v0"
    assert registry.prune(keep) == []


def test_a_retired_version_says_why_and_cannot_come_back(registry):
    registry.prune(4, by="test")
    version = registry.get("v2")
    assert version.decision == "retired: never served, and 4 newer versions are kept"
    assert registry.journal()[-1].action == "retired"
    assert registry.find("UNIVERSE", "inputs-v2") is None
    for ask in (registry.promote, registry.rollback):
        with pytest.raises(MissingPrerequisite, match="v2 was retired"):
            ask("v2")
    make_bundle(registry.folder, "v2")
    with pytest.raises(BundleError, match="v2 was retired"):
        registry.register("v2", registry.folder / "v2", {})


def test_each_scope_keeps_its_own(registry):
    for name in ("own0", "own1", "own2"):
        make_bundle(registry.folder, name, "AAA")
        registry.register(name, registry.folder / name, {})
        registry.reject(name, "worse")
    assert [v.version_id for v in registry.prune(2)] == ["v2", "v3", "v4", "v5", "own0"]


def test_what_a_killed_prune_left_is_removed_by_the_next(registry, tmp_path):
    shutil.copytree(registry.folder / "v2", tmp_path / "kept")
    registry.prune(4)
    shutil.copytree(tmp_path / "kept", registry.folder / "v2")
    shutil.copytree(tmp_path / "kept", registry.folder / ".v3.removed.tmp")
    assert registry.prune(4) == []
    assert folders(registry) == ["v0", "v1", "v4", "v5", "v6", "v7"]
