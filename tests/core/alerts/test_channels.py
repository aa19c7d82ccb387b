"""Slack and Telegram as they answer, on a server of this machine."""

import json

import pytest

from signals_core.alerts.alert import Message, plain_text, slack_text
from tests.core.alerts.services import (
    SLACK_BUSY,
    SLACK_DOWN,
    SLACK_OK,
    TELEGRAM_BUSY,
    TELEGRAM_DOWN,
    TELEGRAM_OK,
    TELEGRAM_PATH,
    WEBHOOK_PATH,
    FakeTime,
    Made,
    alert,
    slack_refusal,
    telegram_refusal,
)
from tests.core.loopback import Loopback, Reply


def problem(made: Made, channel: str) -> str | None:
    (outcome,) = made(channel).test()
    return outcome.problem


def test_slack_gets_what_happened_since_when_why_and_what_to_do(server: Loopback, made: Made):
    server.script(WEBHOOK_PATH, SLACK_OK)
    made("slack", dagster_url="http://dagster.example:3000/").notify(alert(reason="psi < .2 & rising -> <!channel>"))
    (request,) = server.asked
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {
        "text": ":warning: *WARNING · UNIVERSE: drift asks for a retrain*\n"
        "*Since* 2026-03-02\n"
        "*Why* psi &lt; .2 &amp; rising -&gt; &lt;!channel&gt;\n"
        "*What to do* nothing: a retrain is on its way\n"
        "<http://dagster.example:3000/assets/drift_report|Open in Dagster>",
        "unfurl_links": False,
    }


def test_telegram_gets_the_same_without_markup(server: Loopback, made: Made):
    server.script(TELEGRAM_PATH, TELEGRAM_OK)
    made("telegram", dagster_url="http://dagster.example:3000").notify(alert(reason="psi < .2 & *rising*"))
    (request,) = server.asked
    assert json.loads(request.body) == {
        "chat_id": "-1001",
        "text": "WARNING · UNIVERSE: drift asks for a retrain\n"
        "Since: 2026-03-02\n"
        "Why: psi < .2 & *rising*\n"
        "What to do: nothing: a retrain is on its way\n"
        "http://dagster.example:3000/assets/drift_report",
        "link_preview_options": {"is_disabled": True},
    }


@pytest.mark.parametrize(
    ("status", "word", "advice"),
    [
        (400, "invalid_payload", "a fault of signals"),
        (403, "action_prohibited", "an administrator of the Slack workspace"),
        (404, "no_service", "the webhook was revoked or never was: make a new one"),
        (404, "no_team", "the webhook was revoked or never was: make a new one"),
        (404, "channel_not_found", "make a webhook for another"),
        (410, "channel_is_archived", "unarchive the Slack channel"),
    ],
)
def test_slack_s_own_word_is_reported_with_what_to_do_and_not_asked_twice(
    server: Loopback, made: Made, time: FakeTime, status: int, word: str, advice: str
):
    server.script(WEBHOOK_PATH, slack_refusal(status, word))
    said = problem(made, "slack")
    assert said is not None
    assert f"status {status}, {word};" in said
    assert advice in said
    assert said.startswith(f"slack: POST {server.url}/***: ")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            telegram_refusal(400, "Bad Request: chat not found"),
            "status 400, Bad Request: chat not found; check alerts.telegram_chat_id",
        ),
        (telegram_refusal(401, "Unauthorized"), "status 401, Unauthorized; the token was revoked or never was"),
        (
            telegram_refusal(403, "Forbidden: bot was blocked by the user"),
            "status 403, Forbidden: bot was blocked by the user; unblock the bot",
        ),
        (telegram_refusal(404, "Not Found"), "status 404, Not Found; the token was revoked"),
        (
            telegram_refusal(
                400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=-100200300
            ),
            "upgraded to a supergroup chat (the chat's id is -100200300 by now)",
        ),
    ],
)
def test_telegram_s_description_is_reported_with_what_to_do_and_not_asked_twice(
    server: Loopback, made: Made, reply: Reply, expected: str
):
    server.script(TELEGRAM_PATH, reply)
    said = problem(made, "telegram")
    assert said is not None
    assert expected in said
    assert said.startswith(f"telegram: POST {server.url}/bot***/sendMessage: ")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("channel", "path", "busy", "ok", "seconds"),
    [
        ("slack", WEBHOOK_PATH, SLACK_BUSY, SLACK_OK, 3.0),
        ("telegram", TELEGRAM_PATH, TELEGRAM_BUSY, TELEGRAM_OK, 4.0),
    ],
)
def test_a_429_is_waited_for_as_long_as_asked(server, made, time, channel, path, busy, ok, seconds):
    server.script(path, busy, busy, ok)
    assert problem(made, channel) is None
    assert time.waits() == [seconds, seconds]


@pytest.mark.parametrize(
    ("channel", "path", "down", "ok", "said"),
    [
        ("slack", WEBHOOK_PATH, SLACK_DOWN, SLACK_OK, "status 500, rollup_error, "),
        ("telegram", TELEGRAM_PATH, TELEGRAM_DOWN, TELEGRAM_OK, "status 502, an HTML page, "),
        ("telegram", TELEGRAM_PATH, Reply(200, b"<html>log in here</html>"), TELEGRAM_OK, 'no {"ok": true}'),
        ("slack", WEBHOOK_PATH, Reply(200, b"<html>log in here</html>"), SLACK_OK, 'not "ok"'),
        ("slack", WEBHOOK_PATH, Reply(200, b"o", missing_bytes=1), SLACK_OK, "cut short"),
    ],
)
def test_a_server_s_fault_is_tried_again_and_given_up_in_time(server, made, time, channel, path, down, ok, said):
    server.script(path, down, down, ok)
    assert problem(made, channel) is None
    server.script(path, down)
    began = time.now
    text = problem(made, channel)
    assert said in text
    assert time.now - began <= 30
    assert 2 <= len(server.asked) - 3 <= 5


def test_a_longer_wait_than_there_is_time_for_is_not_begun(server: Loopback, made: Made, time: FakeTime):
    server.script(TELEGRAM_PATH, telegram_refusal(429, "Too Many Requests: retry after 3000", retry_after=3000))
    assert "Too Many Requests" in str(problem(made, "telegram"))
    assert time.waits() == []


def test_nobody_listens(server: Loopback, made: Made, time: FakeTime):
    chosen = made("slack", "telegram", telegram_api="http://127.0.0.1:9")
    server.script(WEBHOOK_PATH, SLACK_OK)
    slack, telegram = chosen.test()
    assert slack.problem is None
    assert "no connection" in str(telegram.problem)


@pytest.mark.parametrize("letter", ["x", "<", "é", "😀"])
def test_what_is_too_long_is_cut_with_a_note_and_never_inside_an_escape(letter: str):
    long = Message(alert(reason=letter * 9000, title="t" * 600))
    for text, limit in ((plain_text(long, 4096), 4096), (slack_text(long, 4000), 4000)):
        units = len(text.encode("utf-16-le")) // 2
        assert limit - 12 < units <= limit
        assert "(cut: `signals alerts list --json` has all of it)" in text
        assert text.endswith("nothing: a retrain is on its way"), "what to do is never cut away"
    assert slack_text(long, 4000).replace("&lt;", "").count("&") == 0


def test_what_fits_is_not_cut():
    assert "cut" not in plain_text(Message(alert()), 4096)
