"""Events on a real Redis: bounded, read by consumer groups, and not lost while Redis is down."""

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from signals_core.embedded_redis import EmbeddedRedis
from signals_core.errors import ServiceDown
from signals_core.events import STREAM, EventStream, publish


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    redis = EmbeddedRedis(tmp_path / "redis")
    redis.connect()
    yield redis
    redis.close()


def stop(tmp_path: Path) -> None:
    pid = int((tmp_path / "redis" / "redis.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def numbers(redis: EmbeddedRedis) -> list[int]:
    return [json.loads(fields["number"]) for _, fields in redis.connect().xrange(STREAM)]


def test_every_field_is_json_and_the_event_says_what_and_when(server: EmbeddedRedis):
    made = publish(server.connect(), "drift_report", {"scope": "UNIVERSE", "alarms": ["rsi_14"], "psi": None}, 10)
    ((_, fields),) = server.connect().xrange("ml:drift:events")
    event = {name: json.loads(value) for name, value in fields.items()}
    assert event.pop("at")[:2] == "20"
    assert event == {"id": made, "kind": "drift_report", "scope": "UNIVERSE", "alarms": ["rsi_14"], "psi": None}


def test_the_stream_is_bounded(server: EmbeddedRedis):
    for number in range(500):
        publish(server.connect(), "count", {"number": number}, 100)
    kept = numbers(server)
    assert 100 <= len(kept) <= 200, "MAXLEN ~ trims whole nodes of a hundred entries"
    assert kept == list(range(500 - len(kept), 500))


def test_consumer_groups_read_each_event_once_and_take_over_what_a_dead_reader_left(server: EmbeddedRedis):
    redis = server.connect()
    redis.xgroup_create(STREAM, "pager", id="0", mkstream=True)
    redis.xgroup_create(STREAM, "dashboard", id="0")
    for number in range(6):
        publish(redis, "count", {"number": number}, 100)

    def read(group: str, reader: str, start: str = ">", count: int | None = None) -> list[tuple[str, int]]:
        answer = redis.xreadgroup(group, reader, {STREAM: start}, count=count)
        return [(name, json.loads(fields["number"])) for _, entries in answer for name, fields in entries]

    first, second = read("pager", "one", count=4), read("pager", "two")
    assert [n for _, n in first] == [0, 1, 2, 3]
    assert [n for _, n in second] == [4, 5], "readers of a group share its events"
    assert [n for _, n in read("dashboard", "one")] == list(range(6)), "each group sees all"
    redis.xack(STREAM, "pager", *[name for name, _ in first[:3]], *[name for name, _ in second])
    assert [n for _, n in read("pager", "one", start="0")] == [3], "read, not acknowledged"
    taken = redis.xautoclaim(STREAM, "pager", "two", min_idle_time=0)[1]  # Redis 7 adds a third part
    assert [json.loads(fields["number"]) for _, fields in taken] == [3]
    redis.xack(STREAM, "pager", taken[0][0])
    assert redis.xpending(STREAM, "pager")["pending"] == 0


def test_while_redis_is_down_events_wait_and_follow_in_order(server: EmbeddedRedis, tmp_path: Path):
    stream = EventStream(server.connect, tmp_path / "events" / "waiting.jsonl", 100)
    assert stream.publish("count", {"number": 0})
    stop(tmp_path)
    with pytest.raises(ServiceDown, match="does not take events"):
        publish(server.connect(), "count", {"number": -1}, 100)
    assert [stream.publish("count", {"number": n}) for n in (1, 2)] == [False, False]
    assert not stream.send_waiting()
    assert stream.waiting() == 2

    server.close()
    restarted = EmbeddedRedis(tmp_path / "redis")
    again = EventStream(restarted.connect, tmp_path / "events" / "waiting.jsonl", 100)  # another process
    assert again.publish("count", {"number": 3})
    assert numbers(restarted) == [0, 1, 2, 3]
    assert again.waiting() == 0
    assert again.send_waiting()
    restarted.close()


def test_an_event_happens_at_the_moment_of_the_clock_it_is_given(server: EmbeddedRedis, tmp_path: Path):
    now = datetime(2021, 10, 3, 2, tzinfo=timezone(timedelta(hours=-4)))
    EventStream(server.connect, tmp_path / "waiting.jsonl", 100, lambda: now).publish("count", {"number": 0})
    ((_, fields),) = server.connect().xrange(STREAM)
    assert json.loads(fields["at"]) == "2021-10-03T06:00:00+00:00"


def test_what_waits_is_bounded(tmp_path: Path):
    def down() -> None:
        raise ServiceDown("down")

    file = tmp_path / "waiting.jsonl"
    stream = EventStream(down, file, 3)
    for number in range(5):
        stream.publish("count", {"number": number})
    assert [json.loads(json.loads(line)["number"]) for line in file.read_text().splitlines()] == [2, 3, 4]
