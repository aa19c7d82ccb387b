"""What Slack and Telegram answer, word for word, for servers on this machine; and managers that speak to them."""

import json
from collections.abc import Callable
from pathlib import Path

from signals_core.alerts import Alert, AlertManager
from signals_core.alerts.channels import open_channels
from signals_core.events import EventStream
from signals_core.settings_alerts import AlertSettings
from tests.core import fake_time
from tests.core.loopback import Loopback, Reply

WEBHOOK_PATH = "/services/T01234567/B01234567/XyzzySecretOfTheWebhook1"
TOKEN = "123456789:AAplughSecretOfTheTelegramBot_x-1"
TELEGRAM_PATH = f"/bot{TOKEN}/sendMessage"
SECRETS = (WEBHOOK_PATH.rpartition("/")[2], TOKEN.partition(":")[2], WEBHOOK_PATH[1:], TOKEN)
START = 1_772_000_000.0

SLACK_OK = Reply(body=b"ok", headers={"Content-Type": "text/html"})


def slack_refusal(status: int, word: str) -> Reply:
    return Reply(status, word.encode(), {"Content-Type": "text/html"})


SLACK_BUSY = Reply(429, b"rate_limited", {"Retry-After": "3"})
SLACK_DOWN = Reply(500, b"rollup_error")


def _telegram(status: int, content: dict) -> Reply:
    return Reply(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


TELEGRAM_OK = _telegram(
    200,
    {
        "ok": True,
        "result": {
            "message_id": 7,
            "from": {"id": 123456789, "is_bot": True, "first_name": "signals", "username": "signals_bot"},
            "chat": {"id": -1001, "title": "alerts", "type": "supergroup"},
            "date": 1772000000,
            "text": "…",
        },
    },
)


def telegram_refusal(status: int, description: str, **parameters: int) -> Reply:
    extra = {"parameters": parameters} if parameters else {}
    return _telegram(status, {"ok": False, "error_code": status, "description": description, **extra})


TELEGRAM_BUSY = telegram_refusal(429, "Too Many Requests: retry after 4", retry_after=4)
TELEGRAM_DOWN = Reply(502, b"<html><head><title>502 Bad Gateway</title></head></html>", {"Content-Type": "text/html"})


class FakeTime(fake_time.FakeTime):
    def __init__(self) -> None:
        super().__init__(START)

    def waits(self) -> list[float]:
        """Without the pauses that keep to one message a second."""
        return [seconds for seconds in self.slept if seconds > 1]


def settings(server: Loopback, *channels: str, **other: object) -> AlertSettings:
    fields = {
        "channels": channels,
        "slack_webhook_url": f"{server.url}{WEBHOOK_PATH}",
        "telegram_token": TOKEN,
        "telegram_chat_id": "-1001",
        "telegram_api": server.url,
    }
    return AlertSettings(**(fields | other))


def manager(chosen: AlertSettings, folder: Path, time: FakeTime, events: EventStream | None = None) -> AlertManager:
    channels = open_channels(chosen, folder, time.sleep, time.clock)
    return AlertManager(chosen, folder, events, channels, time.clock)


def alert(episode: str = "drift/UNIVERSE/v1:2026-03-02", **other: str) -> Alert:
    fields = {
        "severity": "warning",
        "title": "drift asks for a retrain",
        "scope": "UNIVERSE",
        "since": "2026-03-02",
        "reason": "14 of 55 features drift beyond their own history",
        "advice": "nothing: a retrain is on its way",
        "page": "/assets/drift_report",
    }
    return Alert(episode=episode, **(fields | other))  # type: ignore[arg-type]


def texts(server: Loopback, path: str) -> list[str]:
    return [json.loads(request.body)["text"] for request in server.asked if request.path == path]


Made = Callable[..., AlertManager]
