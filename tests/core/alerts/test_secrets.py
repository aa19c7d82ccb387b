"""No secret anywhere: every failure at DEBUG, with all output, errors, files, settings and records searched."""

import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from signals_core.alerts.alert import Message
from signals_core.alerts.channels import open_channels
from signals_core.errors import ChannelError, SettingsError
from signals_core.settings_loading import load_settings
from signals_core.workspace import Workspace
from tests.core.alerts.services import (
    SECRETS,
    SLACK_BUSY,
    SLACK_DOWN,
    SLACK_OK,
    TELEGRAM_BUSY,
    TELEGRAM_DOWN,
    TELEGRAM_OK,
    TELEGRAM_PATH,
    TOKEN,
    WEBHOOK_PATH,
    FakeTime,
    alert,
    settings,
    slack_refusal,
    telegram_refusal,
)
from tests.core.loopback import Loopback, Reply

ECHO = f"your address {WEBHOOK_PATH} and {TOKEN} are bad".encode()
ANSWERS = [
    Reply(200, ECHO),
    Reply(302, headers={"Location": f"http://127.0.0.1:1{TELEGRAM_PATH}?x={WEBHOOK_PATH}"}),
    Reply(301, headers={"Location": f"{WEBHOOK_PATH}/further"}),
    Reply(304),
    Reply(400, ECHO),
    Reply(500, ECHO),
    Reply(200, b"ok", missing_bytes=5),
    Reply(429, ECHO, {"Retry-After": WEBHOOK_PATH}),
    Reply(404, ECHO, {"X-Header": TOKEN}),
    telegram_refusal(400, f"Bad Request: {TOKEN}"),
    *(SLACK_BUSY, SLACK_DOWN, slack_refusal(404, "no_service"), slack_refusal(403, "action_prohibited")),
    *(TELEGRAM_BUSY, TELEGRAM_DOWN, telegram_refusal(401, "Unauthorized")),
    *(SLACK_OK, TELEGRAM_OK),
]


@pytest.fixture
def everything_logged() -> Iterator[list[str]]:
    """The text of every record of every logger, as a handler of the root would write it, with tracebacks."""
    lines: list[str] = []
    formatter = logging.Formatter("%(name)s %(levelname)s %(message)s")

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(formatter.format(record) + repr(record.args))

    root, handler = logging.getLogger(), Collect(logging.DEBUG)
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(before)


def assert_clean(text: str) -> None:
    found = [secret for secret in SECRETS if secret in text]
    assert not found, f"{len(found)} secrets in a text of {len(text)} characters"


def whole_story(error: BaseException | None) -> str:
    """An error with all that is chained to it, suppressed or not, and the arguments of each."""
    parts = []
    while error is not None:
        parts += [*traceback.format_exception(error), repr(error.args), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


@pytest.mark.parametrize("number", range(len(ANSWERS)))
def test_no_answer_brings_a_secret_to_light(
    server: Loopback, time: FakeTime, tmp_path: Path, everything_logged: list[str], number: int,
    capfd: pytest.CaptureFixture[str],
):  # fmt: skip
    server.script(WEBHOOK_PATH, ANSWERS[number])
    server.script(TELEGRAM_PATH, ANSWERS[number])
    for channel in open_channels(settings(server, "slack", "telegram"), tmp_path, time.sleep, time.clock).values():
        try:
            channel.send(Message(alert()))
        except ChannelError as error:
            assert_clean(whole_story(error))
    assert any("urllib3" in line and "POST" in line for line in everything_logged), "the library does log the address"
    assert_clean("\n".join(everything_logged))
    out, err = capfd.readouterr()
    assert_clean(out + err)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "https://127.0.0.1:9", "https://nowhere.invalid"])
def test_no_connection_brings_a_secret_to_light(
    time: FakeTime, tmp_path: Path, everything_logged: list[str], address: str, server: Loopback
):
    chosen = settings(server, "slack", "telegram", slack_webhook_url=address + WEBHOOK_PATH, telegram_api=address)
    for channel in open_channels(chosen, tmp_path, time.sleep, time.clock).values():
        with pytest.raises(ChannelError) as refused:
            channel.send(Message(alert()))
        assert_clean(whole_story(refused.value))
    assert_clean("\n".join(everything_logged))


def test_an_alert_that_quotes_a_secret_is_sent_and_kept_without_it(server: Loopback, made, tmp_path: Path):
    server.script(WEBHOOK_PATH, SLACK_OK)
    server.script(TELEGRAM_PATH, Reply(400, ECHO))
    quoting = alert(reason=f"GET https://api.telegram.org{TELEGRAM_PATH} failed; {WEBHOOK_PATH}", title=TOKEN)
    manager = made("slack", "telegram")
    manager.notify(quoting)
    manager.end(quoting.episode, f"note {TOKEN}")
    assert_clean("\n".join(request.body.decode() for request in server.asked))
    assert len(server.asked) > 2
    assert_clean(repr(manager) + repr(vars(manager)) + repr(manager.records()))
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert_clean(file.read_text(errors="replace"))


def environment(server: Loopback) -> dict[str, str]:
    return {
        "SA_ALERTS__CHANNELS": '["slack", "telegram", "log"]',
        "SA_ALERTS__SLACK_WEBHOOK_URL": f"{server.url}{WEBHOOK_PATH}",
        "SA_ALERTS__TELEGRAM_TOKEN": TOKEN,
        "SA_ALERTS__TELEGRAM_CHAT_ID": "-1001",
        "SA_ALERTS__TELEGRAM_API": server.url,
    }


def test_settings_show_that_a_secret_is_set_and_not_which(project: Path, server: Loopback):
    loaded = load_settings(project, environ=environment(server))
    assert loaded.settings.alerts.telegram_token is not None
    assert loaded.settings.alerts.telegram_token.get_secret_value() == TOKEN
    shown = {key: value for key, value, _ in loaded.printable_items()}
    assert shown["alerts.telegram_token"] == shown["alerts.slack_webhook_url"] == "**********"
    assert shown["alerts.telegram_chat_id"] == "-1001"
    assert_clean(repr(loaded) + str(loaded.settings) + loaded.settings.model_dump_json() + repr(loaded.items()))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"SA_ALERTS__SLACK_WEBHOOK_URL": f"http://hooks.slack.com{WEBHOOK_PATH}"}, "address of an incoming webhook"),
        ({"SA_ALERTS__SLACK_WEBHOOK_URL": WEBHOOK_PATH}, "address of an incoming webhook"),
        ({"SA_ALERTS__TELEGRAM_TOKEN": f"bot{TOKEN}"}, "token as BotFather gives it"),
        ({"SA_ALERTS__TELEGRAM_CHAT_ID": "null"}, "channels need telegram_chat_id too"),
        ({"SA_ALERTS__TELEGRAM_API": "http://example.org"}, "https://host"),
        ({"SA_ALERTS__TELEGRAM_TOKE": TOKEN}, "did you mean telegram_token"),
        ({"SA_ALERTS__MAX_PER_HOUR": "0"}, "greater than or equal to 1"),
        ({"SA_ALERTS__CHANNELS": '["pigeon"]'}, "pigeon"),
        ({"SA_ALERTS__CHANNELS": "slack"}, "written as JSON"),
        ({"SA_ALERTS": f'{{"telegram_token": "{TOKEN}"}}'}, "names no setting"),
    ],
)
def test_a_wrong_setting_is_refused_without_showing_it(
    project: Path, server: Loopback, changed: dict[str, str], expected: str
):
    with pytest.raises(SettingsError, match=expected) as refused:
        load_settings(project, environ=environment(server) | changed)
    assert_clean(str(refused.value))


@pytest.mark.parametrize(
    "text",
    [
        f"alerts: {{telegram_token: '{TOKEN}', channels: [telegram]}}\n",
        f"alerts: {{telegram_token: [{TOKEN!r}]}}\n",
        f"alerts: {TOKEN!r}\n",
        f"alerts:\n  telegram_token: '{TOKEN}\n",
        f"alerts:\n  telegram_token: {{a: {TOKEN!r}}}\n",
        f"alerts: {{slack_webhook_url: 'https://hooks.slack.com{WEBHOOK_PATH}', max_per_hour: 0}}\n",
    ],
)
def test_a_wrong_settings_file_is_refused_without_showing_it(project: Path, text: str):
    overlay = project / "overlay.yaml"
    overlay.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(project, overlay, environ={})
    assert_clean(str(refused.value))


def test_the_command_says_whether_messages_arrive_and_shows_no_secret(
    project: Path, server: Loopback, monkeypatch: pytest.MonkeyPatch
):
    from typer.testing import CliRunner

    from signals_core.cli import app

    for name, value in (environment(server) | {"SIGNALS_HOME": str(project)}).items():
        monkeypatch.setenv(name, value)
    server.script(WEBHOOK_PATH, SLACK_OK)
    server.script(TELEGRAM_PATH, telegram_refusal(403, "Forbidden: bot was blocked by the user"))

    def signals(*arguments: str):
        done = CliRunner().invoke(app, arguments)
        assert_clean(done.output + done.stderr + whole_story(done.exception))
        return done

    tested = signals("alerts", "test", "--json")
    assert tested.exit_code == 5
    outcomes = {row["channel"]: row["outcome"] for row in json.loads(tested.stdout)}
    assert (outcomes["slack"], outcomes["log"]) == ("accepted", "accepted")
    assert "403, Forbidden: bot was blocked by the user; unblock the bot" in outcomes["telegram"]
    assert signals("alerts", "test", "--channel", "slack").exit_code == 0
    wrong = signals("alerts", "test", "--channel", "pigeon").exception
    assert isinstance(wrong, SettingsError)
    assert wrong.exit_code == 2
    assert "alerts.telegram_token" in signals("config", "show").stdout

    with Workspace(load_settings(project)) as workspace:
        workspace.alerts.notify(alert())
        workspace.alerts.notify(alert("gate/v1", severity="info", title="promoted"), lasting=False)
    (drift, fault, gate) = json.loads(signals("alerts", "list", "--json").stdout)
    assert (drift["episode"], drift["over_at"], drift["beginning"]["slack"]["state"]) == (alert().episode, None, "sent")
    assert "403, Forbidden" in drift["beginning"]["telegram"]["problem"]
    assert (fault["scope"], gate["beginning"]) == ("channel telegram", {})
    listed = signals("alerts", "list", "-n", "1").stdout
    assert "promoted" in listed
    assert "nobody" in listed
    assert "drift" not in listed
