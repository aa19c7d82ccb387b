"""Telling people, once, what happened and what to do: Slack, Telegram, or a log."""

from signals_core.alerts.alert import Alert
from signals_core.alerts.manager import AlertManager, Outcome

__all__ = ["Alert", "AlertManager", "Outcome"]
