"""Kills, floods of readers and writers, and wiped servers: what the registry says stays true."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from signals_core.embedded_redis import EmbeddedRedis
from signals_core.ml.registry import ModelRegistry, fold
from tests.core.ml.helpers import make_bundle

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("r"))
    server.connect()
    yield server
    server.close()


@pytest.fixture
def models(tmp_path: Path, embedded: EmbeddedRedis) -> Path:
    """v0 served before v1, which is in service; v2 was rejected, v3 and v4 are rejected too, and newer."""
    folder = tmp_path / "models"
    registry = ModelRegistry(folder, embedded.connect())
    for number in range(5):
        make_bundle(folder, f"v{number}", seed=number)
        registry.register(f"v{number}", folder / f"v{number}", {"log_loss": 1.05})
    registry.promote("v0", "first")
    registry.promote("v1", "better")
    for name in ("v2", "v3", "v4"):
        registry.reject(name, "worse")
    return folder


def run(module: str, *arguments: object) -> str:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["register", "promote", "rollback", "prune"])
def test_killed_before_any_write_step_it_leaves_the_old_state_or_the_new(models, embedded, tmp_path, operation):
    url = f"unix://{embedded.socket}?protocol=2"
    steps, new = map(int, run("tests.core.ml.kill_walk", operation, models, tmp_path / "copy", url).split())
    assert steps >= 10
    assert 0 < new < steps  # some kills came before the journal's line, some after


@pytest.mark.slow
def test_fifty_processes_for_twenty_seconds_see_exactly_one_active_at_every_read(models, embedded):
    url = f"unix://{embedded.socket}?protocol=2"
    told = json.loads(run("tests.core.ml.crowd", models, url, 50, 20, "stay"))
    registry = ModelRegistry(models, embedded.connect())
    check_crowd(registry, told)
    assert told["promotions"] >= 50
    assert told["reads"] >= 5000


@pytest.mark.slow
def test_a_server_wiped_again_and_again_under_load_is_rebuilt_identical(models, embedded):
    url = f"unix://{embedded.socket}?protocol=2"
    told = json.loads(run("tests.core.ml.crowd", models, url, 8, 10, "wipe"))
    registry = ModelRegistry(models, embedded.connect())
    check_crowd(registry, told)
    assert told["wipes"] >= 20


def check_crowd(registry: ModelRegistry, told: dict[str, int]) -> None:
    """Redis is what the journal says, and what it would be if it were written anew."""
    events = registry.journal()
    versions, active = fold(events)
    assert sum(event.action == "promoted" for event in events) == told["promotions"] + 2
    assert registry.list_versions() == list(versions.values())
    assert registry.get_active().version_id == active["UNIVERSE"]
    before = content(registry)
    registry.rebuild()
    assert content(registry) == before


def content(registry: ModelRegistry) -> dict:
    redis = registry._index._redis
    read = {"hash": redis.hgetall, "set": redis.smembers, "string": redis.get}
    return {key: read[redis.type(key)](key) for key in redis.scan_iter("ml:*")}


def test_a_pickle_beside_the_bundles_or_in_one_is_never_executed(models, embedded, tmp_path):
    """The file would make a folder if anything unpickled it."""
    bomb = b"cos\nmkdir\n(S'" + os.fsencode(tmp_path / "exploded") + b"'\ntR."
    for place in (models, models / "v1", models / "v4"):
        for name in ("model.pkl", "booster.pkl", "model.joblib", "__init__.pickle"):
            (place / name).write_bytes(bomb)
    registry = ModelRegistry(models, embedded.connect())
    assert registry.load_active().version_id == "v1"
    registry.promote("v4")
    (models / "v4" / "booster.ubj").write_bytes(bomb)
    (models / "v4" / "calibrator.json").write_bytes(bomb)
    (models / "v4" / "manifest.json").write_bytes(bomb)
    assert registry.load_active().version_id == "v1"
    registry.prune(1)
    registry.rebuild()
    assert not (tmp_path / "exploded").exists()
    import pickle

    pickle.loads(bomb)  # it does go off
    assert (tmp_path / "exploded").is_dir()
