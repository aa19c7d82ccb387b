"""Channels: Slack's incoming webhooks, Telegram's sendMessage, and a log.

The addresses of both services hold the secret. It is taken out of every error and log record here.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from signals_core.alerts.alert import Message, plain_text, slack_text
from signals_core.errors import ChannelError, SignalsError
from signals_core.http import Conventions, Failure, HttpClient
from signals_core.settings_alerts import AlertSettings, ChannelName

if TYPE_CHECKING:
    import requests

_SLACK_LIMIT, _TELEGRAM_LIMIT, _LOG_LIMIT = 4000, 4096, 10_000
"""Slack advises at most 4,000 characters; Telegram takes 4,096."""
_REQUESTS_PER_SECOND = 1
"""What both services ask for."""
_TIMEOUT_SECONDS = 10
_LONGEST_REASON = 200
_SHORTEST_KEY = 8
"""A shorter part of an address is no key, and hiding it would garble every text."""
_log = logging.getLogger("signals_core.alerts")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Channel(Protocol):
    """Takes messages to people."""

    def send(self, message: Message) -> None:
        """Deliver a message.

        Raises:
            ChannelError: it was not accepted.
        """


class LogChannel:
    """The log of the process, by the logger `signals_core.alerts`."""

    def send(self, message: Message) -> None:
        """One record."""
        level = logging.INFO if message.over_at is not None else _LEVELS[message.alert.severity]
        _log.log(level, "%s", plain_text(message, _LOG_LIMIT).replace("\n", " | "))


class SlackChannel:
    """An incoming webhook of Slack."""

    def __init__(self, webhook_url: SecretStr, client: HttpClient) -> None:
        self._url, self._client = webhook_url, client

    def send(self, message: Message) -> None:
        """Post it; Slack answers `ok`."""
        body = {"text": slack_text(message, _SLACK_LIMIT), "unfurl_links": False}
        self._client.post_json(self._url.get_secret_value(), body, _slack_ok)


class TelegramChannel:
    """A chat that a bot of Telegram writes to."""

    def __init__(self, token: SecretStr, chat_id: str, api: str, client: HttpClient) -> None:
        self._token, self._chat_id, self._api, self._client = token, chat_id, api, client

    def send(self, message: Message) -> None:
        """Send it as plain text; Telegram answers `{"ok": true, ...}`."""
        text = plain_text(message, _TELEGRAM_LIMIT)
        body = {"chat_id": self._chat_id, "text": text, "link_preview_options": {"is_disabled": True}}
        self._client.post_json(f"{self._api}/bot{self._token.get_secret_value()}/sendMessage", body, _telegram_ok)


def open_channels(
    settings: AlertSettings, folder: Path,
    sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.time,
) -> dict[str, Channel]:  # fmt: skip
    """The channels that the settings name, in that order.

    Args:
        settings: complete, as they are once validated.
        folder: where processes that write to the same channel share its rate.
        sleep: waits that many seconds.
        clock: seconds since 1970.
    """
    secrets = secrets_of(settings)

    def client(name: str, conventions: Conventions) -> HttpClient:
        patience = settings.give_up_seconds
        return HttpClient(
            "signals", _REQUESTS_PER_SECOND, folder / f"{name}.pace", timeout_seconds=min(_TIMEOUT_SECONDS, patience),
            longest_wait_seconds=math.inf, give_up_seconds=patience, conventions=conventions, sleep=sleep, clock=clock,
        )  # fmt: skip

    def opened(name: ChannelName) -> Channel:
        if name == "slack" and settings.slack_webhook_url is not None:
            return SlackChannel(settings.slack_webhook_url, client(name, _SlackConventions(secrets)))
        if name == "telegram" and settings.telegram_token is not None and settings.telegram_chat_id is not None:
            telegram = client(name, _TelegramConventions(secrets))
            return TelegramChannel(settings.telegram_token, settings.telegram_chat_id, settings.telegram_api, telegram)
        return LogChannel()

    return {name: opened(name) for name in settings.channels}


def secrets_of(settings: AlertSettings) -> tuple[str, ...]:
    """What must never be shown, the longest first: whole, and the part that alone is the key."""
    found = []
    if settings.slack_webhook_url is not None:
        path = urlsplit(settings.slack_webhook_url.get_secret_value()).path.strip("/")
        found += [path, path.rpartition("/")[2]]
    if settings.telegram_token is not None:
        number, _, key = settings.telegram_token.get_secret_value().partition(":")
        found += [f"{number}:{key}", f"{number}%3A{key}", key]
    return tuple(sorted((text for text in found if len(text) >= _SHORTEST_KEY), key=len, reverse=True))


class _ChannelConventions(Conventions):
    service: ClassVar[str]
    hints: ClassVar[dict[int | str, str]]

    def error(self, failure: Failure) -> SignalsError:
        return ChannelError(f"{self.service}: {failure.text}", failure.transient, failure.retry_after)

    def hint(self, status: int, reason: str | None) -> str | None:
        known = self.hints.get(reason or "") or self.hints.get(status)
        return known or f"{self.service} refuses or has a fault of its own; it is tried again later"


_REVOKED = "the webhook was revoked or never was: make a new one and set alerts.slack_webhook_url"


class _SlackConventions(_ChannelConventions):
    service = "slack"
    hints: ClassVar[dict[int | str, str]] = {
        **dict.fromkeys(("no_service", "no_service_id", "no_team", "invalid_token", "team_disabled", 404), _REVOKED),
        "channel_not_found": "the webhook's Slack channel is gone: make a webhook for another",
        "channel_is_archived": "unarchive the Slack channel, or make a webhook for another",
        "action_prohibited": "an administrator of the Slack workspace restricts this webhook: ask one",
        "posting_to_general_channel_denied": "make a webhook for another Slack channel",
        "invalid_payload": "this is a fault of signals: report it with the version",
        429: "Slack has had too many messages; it is tried again later",
    }

    def reason(self, response: "requests.Response") -> str | None:
        """Slack's errors are one word of plain text."""
        return _first_line(response.content)


class _TelegramConventions(_ChannelConventions):
    service = "telegram"
    hints: ClassVar[dict[int | str, str]] = {
        400: "check alerts.telegram_chat_id, and write to the bot first: it cannot begin a chat",
        401: "the token was revoked or never was: set alerts.telegram_token",
        403: "unblock the bot, or add it to the chat again",
        404: "the token was revoked or never was: set alerts.telegram_token",
        429: "Telegram has had too many messages; it is tried again later",
    }

    def reason(self, response: "requests.Response") -> str | None:
        """Telegram's errors are JSON with a description."""
        answer = _as_object(response.content)
        description = answer.get("description")
        if not isinstance(description, str):
            return _first_line(response.content)
        moved = _parameters(answer).get("migrate_to_chat_id")
        return f"{_first_line(description.encode())}" + (f" (the chat's id is {moved} by now)" if moved else "")

    def wait(self, response: "requests.Response") -> float | None:
        """`parameters.retry_after`, in seconds."""
        asked = _parameters(_as_object(response.content)).get("retry_after")
        return float(asked) if isinstance(asked, int | float) and asked >= 0 else None


def _slack_ok(content: bytes) -> None:
    if content.strip() != b"ok":
        raise ValueError('not "ok"')


def _telegram_ok(content: bytes) -> None:
    if _as_object(content).get("ok") is not True:
        raise ValueError('no {"ok": true}')


def _first_line(content: bytes) -> str | None:
    text = content[:_LONGEST_REASON].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return "an HTML page"
    return text.splitlines()[0] if text else None


def _as_object(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        return {}  # a proxy's page, say: it has neither a description nor a wait
    return answer if isinstance(answer, dict) else {}


def _parameters(answer: dict[str, Any]) -> dict[str, Any]:
    found = answer.get("parameters")
    return found if isinstance(found, dict) else {}
