"""Once an episode, so often at most, whatever fails and whoever is restarted."""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from signals_core.alerts import AlertManager
from signals_core.embedded_redis import EmbeddedRedis
from signals_core.errors import ServiceDown, SettingsError
from signals_core.events import STREAM, EventStream
from tests.core.alerts.services import (
    SLACK_DOWN,
    SLACK_OK,
    TELEGRAM_OK,
    TELEGRAM_PATH,
    WEBHOOK_PATH,
    FakeTime,
    Made,
    alert,
    slack_refusal,
    texts,
)
from tests.core.loopback import Loopback, Reply

HOUR = 3600.0


@pytest.fixture(autouse=True)
def both_accept(server: Loopback) -> None:
    server.script(WEBHOOK_PATH, SLACK_OK)
    server.script(TELEGRAM_PATH, TELEGRAM_OK)


def slack(server: Loopback) -> list[str]:
    """The first line of each message, without its icon."""
    return [text.splitlines()[0].partition(" ")[2].strip("*") for text in texts(server, WEBHOOK_PATH)]


def test_an_episode_is_told_once_and_its_end_once_whoever_is_restarted(server: Loopback, made: Made, time: FakeTime):
    for _ in range(5):
        made("slack").notify(alert())
        time.now += 60
    assert slack(server) == ["WARNING · UNIVERSE: drift asks for a retrain"]
    for _ in range(3):
        made("slack").end(alert().episode, "no feature drifts any more")
    assert slack(server)[1:] == ["OVER · UNIVERSE: drift asks for a retrain"]
    assert "no feature drifts any more" in texts(server, WEBHOOK_PATH)[1]
    assert made("slack").notify(alert()), "the same name after its end is a new episode"
    assert len(slack(server)) == 3


def test_what_passes_as_it_happens_is_told_once_for_ever(server: Loopback, made: Made, time: FakeTime):
    for _ in range(3):
        made("slack").notify(alert("gate/v1", title="promoted"), lasting=False)
        time.now += HOUR
    assert slack(server) == ["WARNING · UNIVERSE: promoted"]
    assert not made("slack").end("gate/v1")


def test_settling_begins_what_is_new_and_ends_what_is_over_of_its_source_alone(server: Loopback, made: Made):
    one, two, other = (alert(name, title=name) for name in ("monitor/A/1", "monitor/A/2", "runs/x"))
    made("slack").notify(other)
    made("slack").settle("monitor/A/", [one, two])
    made("slack").settle("monitor/A/", [two])
    assert [line.partition(" · UNIVERSE: ")[::2] for line in slack(server)] == [
        ("WARNING", "runs/x"),
        ("WARNING", "monitor/A/1"),
        ("WARNING", "monitor/A/2"),
        ("OVER", "monitor/A/1"),
    ]


def test_what_is_less_severe_is_recorded_and_not_sent(server: Loopback, made: Made):
    made("slack").notify(alert(severity="info"))
    made("slack").end(alert().episode)
    assert server.asked == []
    (record,) = made("slack").records()
    assert (record.alert.severity, record.beginning, record.open) == ("info", {}, False)


def test_a_channel_that_fails_is_told_once_on_the_other_and_gets_what_it_missed(
    server: Loopback, made: Made, time: FakeTime, caplog: pytest.LogCaptureFixture
):
    server.script(WEBHOOK_PATH, slack_refusal(410, "channel_is_archived"))
    for _ in range(4):
        made("slack", "telegram").notify(alert())
        time.now += 2 * HOUR
    first, fault = texts(server, TELEGRAM_PATH)
    assert first.startswith("WARNING · UNIVERSE: drift asks for a retrain")
    assert fault.startswith("ERROR · channel slack: alerts do not arrive")
    assert "channel_is_archived" in fault
    assert len(texts(server, WEBHOOK_PATH)) == 4, "tried again for the same episode"
    assert [r.message for r in caplog.records if r.levelno == logging.ERROR] == [
        f"alerts do not arrive: {made('slack', 'telegram').problems()['slack']}"
    ]

    server.script(WEBHOOK_PATH, SLACK_OK)
    made("slack", "telegram").deliver()
    assert slack(server)[-1] == "WARNING · UNIVERSE: drift asks for a retrain"
    assert texts(server, TELEGRAM_PATH)[2:] == [
        t for t in texts(server, TELEGRAM_PATH) if t.startswith("OVER · channel slack: alerts do not arrive")
    ]
    assert len(texts(server, TELEGRAM_PATH)) == 3
    assert made("slack", "telegram").problems() == {}


def test_with_every_channel_failing_nothing_is_raised_and_all_is_kept(server: Loopback, made: Made, time: FakeTime):
    server.script(WEBHOOK_PATH, SLACK_DOWN)
    server.script(TELEGRAM_PATH, Reply(500))
    for number in range(3):
        made("slack", "telegram").notify(alert(f"e{number}"))
    tried = len(server.asked)
    made("slack", "telegram").deliver()
    assert len(server.asked) == tried, "a channel that just failed is left alone for a while"
    server.script(WEBHOOK_PATH, SLACK_OK)
    server.script(TELEGRAM_PATH, TELEGRAM_OK)
    time.now += HOUR
    server.asked.clear()
    made("slack", "telegram").deliver()
    assert slack(server)[:3] == ["WARNING · UNIVERSE: drift asks for a retrain"] * 3
    assert sum(t.startswith("WARNING") for t in texts(server, TELEGRAM_PATH)) == 3


def test_an_episode_that_ended_while_the_channel_was_down_is_one_message(server: Loopback, made: Made, time: FakeTime):
    server.script(WEBHOOK_PATH, SLACK_DOWN)
    made("slack").notify(alert())
    made("slack").end(alert().episode)
    server.script(WEBHOOK_PATH, SLACK_OK)
    time.now += HOUR
    server.asked.clear()
    made("slack").deliver()
    made("slack").deliver()
    assert slack(server) == ["OVER · UNIVERSE: drift asks for a retrain"]


def test_no_hour_holds_more_than_the_limit_and_nothing_is_dropped(server: Loopback, made: Made, time: FakeTime):
    moments = []
    answer = server.answer
    server.answer = lambda request: moments.append(time.now) or answer(request)  # type: ignore[func-returns-value,method-assign]
    for number in range(40):
        made("slack", max_per_hour=5).notify(alert(f"e{number}", title=f"event {number:02}"))
        time.now += 137
    for _ in range(30):
        time.now += 300
        made("slack", max_per_hour=5).deliver()
    assert max(sum(moment <= other < moment + HOUR for other in moments) for moment in moments) <= 5
    everything = "\n".join(texts(server, WEBHOOK_PATH))
    assert [everything.count(f"event {number:02}") for number in range(40)] == [1] * 40
    assert "being many or above alerts.max_per_hour (5)" in everything
    assert {d.state for r in made("slack").records() for d in r.beginning.values()} == {"sent"}


def test_a_summary_puts_the_worst_first(server: Loopback, made: Made, time: FakeTime):
    made("slack", max_per_hour=1).notify(alert("first"))
    for name, severity in (("a", "warning"), ("b", "error"), ("c", "warning")):
        made("slack", max_per_hour=1).notify(alert(name, severity=severity, title=name))
    time.now += HOUR
    made("slack", max_per_hour=1).deliver()
    text = texts(server, WEBHOOK_PATH)[1]
    assert text.startswith(":rotating_light: *ERROR · signals: 3 alerts in one message*")
    assert text.index("ERROR · UNIVERSE: b") < text.index("WARNING · UNIVERSE: a") < text.index("WARNING · UNIVERSE: c")


def test_a_clock_set_back_silences_nobody(server: Loopback, made: Made, time: FakeTime):
    server.script(WEBHOOK_PATH, SLACK_DOWN)
    made("slack", max_per_hour=1).notify(alert("a"))
    server.script(WEBHOOK_PATH, SLACK_OK)
    server.asked.clear()
    time.now -= 400 * 86400
    made("slack", max_per_hour=1).notify(alert("b"))
    time.now += HOUR
    made("slack", max_per_hour=1).deliver()
    assert len(slack(server)) >= 1
    assert {d.state for r in made("slack").records() for d in r.beginning.values()} == {"sent"}


def test_killed_before_the_answer_was_recorded_it_is_sent_again_once(
    server: Loopback, made: Made, time: FakeTime, tmp_path: Path
):
    """The child dies at the moment the server has the message."""
    code = (
        "import sys, os; from pathlib import Path; from signals_core.alerts import Alert, AlertManager\n"
        "from signals_core.settings import AlertSettings\n"
        "s = AlertSettings(channels=('slack',), slack_webhook_url=sys.argv[1])\n"
        "m = AlertManager(s, Path(sys.argv[2]), clock=lambda: float(sys.argv[3]))\n"
        "channel = m._channels['slack']; send = channel.send\n"
        "def dying(message): send(message); os.kill(os.getpid(), 9)\n"
        "channel.send = dying\n"
        "m.notify(Alert('e', 'warning', 't', 's', 'd', 'r', 'a'))\n"
    )
    command = [sys.executable, "-c", code, f"{server.url}{WEBHOOK_PATH}", str(tmp_path / "alerts"), str(time.now)]
    assert subprocess.run(command, check=False).returncode == -9
    assert len(server.asked) == 1
    made("slack").deliver()
    assert len(server.asked) == 1, "somebody may be sending it"
    time.now += 200
    for _ in range(3):
        made("slack").deliver()
    assert len(server.asked) == 2


def test_processes_that_tell_of_one_episode_at_once_send_one_message(server: Loopback, tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from signals_core.alerts import Alert, AlertManager\n"
        "from signals_core.settings import AlertSettings\n"
        "s = AlertSettings(channels=('slack',), slack_webhook_url=sys.argv[1])\n"
        "m = AlertManager(s, Path(sys.argv[2]))\n"
        "for n in range(3): m.notify(Alert(f'e{n}', 'warning', f'event {n}', 's', 'd', 'r', 'a'))\n"
    )
    command = [sys.executable, "-c", code, f"{server.url}{WEBHOOK_PATH}", str(tmp_path / "alerts")]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    assert sorted(slack(server)) == [f"WARNING · s: event {n}" for n in range(3)]


def test_a_slow_channel_does_not_hold_up_who_tells_of_something_else(server: Loopback, made: Made):
    release, arrived = threading.Event(), threading.Event()
    answer = server.answer

    def slow(request):
        if request.path == WEBHOOK_PATH:
            arrived.set()
            release.wait(20)
        return answer(request)

    server.answer = slow  # type: ignore[method-assign]
    stuck = threading.Thread(target=lambda: made("slack").notify(alert("a")))
    stuck.start()
    assert arrived.wait(20)
    made("telegram").notify(alert("b"))
    assert len(texts(server, TELEGRAM_PATH)) == 1
    release.set()
    stuck.join(20)
    assert len(texts(server, WEBHOOK_PATH)) == 1


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99}', '{"format": 1, "records": [{}], "channels": {}}', ""])
def test_a_damaged_file_is_set_aside_and_alerts_go_out(
    server: Loopback, made: Made, tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
):
    made("slack").notify(alert())
    (tmp_path / "alerts" / "alerts.json").write_text(content)
    assert made("slack").records() == []
    made("slack").notify(alert("another"))
    assert len(slack(server)) == 2
    assert "cannot be read" in caplog.text
    (aside,) = (tmp_path / "alerts").glob("alerts.json.damaged-*")
    assert aside.read_text() == content


def test_what_ended_long_ago_is_forgotten_and_what_goes_on_is_not(made: Made, time: FakeTime):
    made("log").notify(alert("lasting"))
    made("log").notify(alert("passed"), lasting=False)
    time.now += 100 * 86400
    made("log").notify(alert("now"), lasting=False)
    assert [r.alert.episode for r in made("log").records()] == ["lasting", "now"]


def test_every_beginning_and_end_is_an_event_even_if_redis_was_down(made: Made, tmp_path: Path):
    redis = EmbeddedRedis(tmp_path / "redis")
    up = [False]

    def connect():
        if not up[0]:
            raise ServiceDown("stopped")
        return redis.connect()

    events = EventStream(connect, tmp_path / "events.jsonl", 100)
    try:
        made("log", events=events).notify(alert())
        up[0] = True
        made("log", events=events).end(alert().episode, "over")
        seen = [{k: json.loads(v) for k, v in fields.items()} for _, fields in redis.connect().xrange(STREAM)]
    finally:
        redis.close()
    assert [(e["kind"], e["episode"], e["note"]) for e in seen] == [
        ("alert", alert().episode, ""),
        ("alert_over", alert().episode, "over"),
    ]


def test_the_log_is_a_channel_by_default(made: Made, caplog: pytest.LogCaptureFixture, tmp_path: Path):
    from signals_core.settings_alerts import AlertSettings

    AlertManager(AlertSettings(), tmp_path / "quiet").notify(alert())
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("signals_core.alerts", logging.WARNING)
    assert record.message.startswith("WARNING · UNIVERSE: drift asks for a retrain | Since: 2026-03-02 | Why: 14 of 55")


def test_a_channel_that_is_not_chosen_cannot_be_tested(made: Made):
    with pytest.raises(SettingsError, match=r"telegram is not in alerts\.channels \(slack\): add it there"):
        made("slack").test("telegram")


def test_the_state_is_whole_after_a_kill_while_it_is_written(server: Loopback, made: Made, tmp_path: Path):
    """A process that dies between its temporary file and the rename leaves the old state."""
    code = (
        "import sys, os; from pathlib import Path; from signals_core.alerts import Alert, AlertManager\n"
        "from signals_core.settings import AlertSettings\n"
        "m = AlertManager(AlertSettings(), Path(sys.argv[1]))\n"
        "m.notify(Alert('a', 'warning', 't', 's', 'd', 'r', 'a'))\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "m.notify(Alert('b', 'warning', 't', 's', 'd', 'r', 'a'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "alerts")], check=False, env=os.environ)
    assert done.returncode == -9
    assert [r.alert.episode for r in made("log").records()] == ["a"]
    made("log").notify(alert("b"))
    assert [r.alert.episode for r in made("log").records()] == ["a", "b"]


def test_hundreds_at_once_are_one_message(server: Loopback, made: Made):
    many = [alert(f"data/bars of T{n:03}", scope=f"bars of T{n:03}") for n in range(500)]
    made("slack", "telegram").settle("data/", many)
    (text,) = texts(server, WEBHOOK_PATH)
    assert text.startswith(":warning: *WARNING · signals: 500 alerts in one message*")
    assert "bars of T000" in text
    assert len(texts(server, TELEGRAM_PATH)) == 1
    made("slack", "telegram").settle("data/", many[:1])
    assert texts(server, WEBHOOK_PATH)[1].count("OVER · bars of T") > 10
    assert [r.alert.episode for r in made("log").records() if r.open] == ["data/bars of T000"]


def test_a_reason_of_broken_text_is_sent_and_kept(server: Loopback, made: Made):
    made("slack", "telegram").notify(alert(reason="file \udce9\x00\u202e name"))
    assert "file" in texts(server, WEBHOOK_PATH)[0]
    assert made("slack").records()[0].alert.reason == "file \udce9\x00\u202e name"
