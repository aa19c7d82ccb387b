"""Settings of alerts: who is told, and the secrets that takes."""

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from signals_core.settings_section import ENV_PREFIX, Section

Severity = Literal["info", "warning", "error"]
ChannelName = Literal["log", "slack", "telegram"]
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _safe_address(url: str) -> bool:
    """Encrypted, or on this machine; nothing but host and path."""
    parts = urlsplit(url)
    encrypted = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    return encrypted and bool(parts.hostname) and not (parts.username or parts.query or parts.fragment)


class AlertSettings(Section):
    """Who is told, of what, and how often at most."""

    channels: tuple[ChannelName, ...] = ("log",)
    min_severity: Severity = "warning"
    max_per_hour: int = Field(10, ge=1)
    give_up_seconds: float = Field(30, gt=0)
    slack_webhook_url: SecretStr | None = None
    telegram_token: SecretStr | None = None
    telegram_chat_id: str | None = None
    telegram_api: str = "https://api.telegram.org"
    dagster_url: str | None = None

    @field_validator("slack_webhook_url")
    @classmethod
    def _webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (
            _safe_address(value.get_secret_value()) and urlsplit(value.get_secret_value()).path.strip("/")
        ):
            raise ValueError("needs the address of an incoming webhook, https://hooks.slack.com/services/...")
        return value

    @field_validator("telegram_token")
    @classmethod
    def _token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"\d+:[A-Za-z0-9_-]{8,}", value.get_secret_value()):
            raise ValueError("needs a bot's token as BotFather gives it: digits, a colon, letters and digits")
        return value

    @field_validator("telegram_chat_id", mode="before")
    @classmethod
    def _chat(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @field_validator("telegram_api")
    @classmethod
    def _api(cls, value: str) -> str:
        if not _safe_address(value):
            raise ValueError("needs https://host, or http:// of this machine")
        return value.rstrip("/")

    @field_validator("dagster_url")
    @classmethod
    def _link(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("needs http://host:port of Dagster's pages, or null")
        return value.rstrip("/") if value else None

    @model_validator(mode="after")
    def _channels_are_complete(self) -> "AlertSettings":
        needed = {"slack": ("slack_webhook_url",), "telegram": ("telegram_token", "telegram_chat_id")}
        lacking = [key for name in self.channels for key in needed.get(name, ()) if getattr(self, key) is None]
        if lacking:
            raise ValueError(
                f"channels need {', '.join(lacking)} too; set it as {ENV_PREFIX}ALERTS__{lacking[0].upper()}"
            )
        return self
