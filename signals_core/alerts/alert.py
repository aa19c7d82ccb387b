"""What there is to tell, and its words: in Slack's markup or as plain text, never longer than a channel takes."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from signals_core.settings_alerts import Severity

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")
_ICONS = {"info": ":information_source:", "warning": ":warning:", "error": ":rotating_light:"}
_LONGEST_FIELD = 500
_CUT = " … (cut: `signals alerts list --json` has all of it)"


@dataclass(frozen=True)
class Alert:
    """One episode that somebody should know of.

    Attributes:
        episode: its name. An alert of the same name is the same episode until that has ended.
        severity: info, warning or error.
        title: what happened, in a few words.
        scope: of what: a scope, a job, a dataset or a channel.
        since: the first session or moment of it.
        reason: the evidence.
        advice: what to do.
        page: the path of a page of Dagster, such as /runs/<id>.
    """

    episode: str
    severity: Severity
    title: str
    scope: str
    since: str
    reason: str
    advice: str
    page: str = "/"


@dataclass(frozen=True)
class Message:
    """An alert on its way: that it began, or that it is over."""

    alert: Alert
    over_at: str | None = None
    note: str = ""
    """How it ended."""
    link: str | None = None


def slack_text(message: Message, limit: int) -> str:
    """In mrkdwn, with `&`, `<` and `>` escaped, so that no text becomes a link or a mention."""
    return _fitted(message, _slack, limit)


def plain_text(message: Message, limit: int) -> str:
    """Without any markup; `limit` counts UTF-16 units, as Telegram does."""
    return _fitted(message, _plain, limit)


def _slack(message: Message) -> str:
    icon = _ICONS[message.alert.severity] if message.over_at is None else ":white_check_mark:"
    lines = [f"{icon} *{_escaped(_heading(message))}*", *map(_escaped, _body(message, "*{}*".format))]
    return "\n".join([*lines, *([f"<{_escaped(message.link)}|Open in Dagster>"] if message.link else [])])


def _plain(message: Message) -> str:
    lines = [_heading(message), *_body(message, "{}:".format)]
    return "\n".join([*lines, *([message.link] if message.link else [])])


def _heading(message: Message) -> str:
    word = "OVER" if message.over_at is not None else message.alert.severity.upper()
    return f"{word} · {message.alert.scope}: {message.alert.title}"


def _body(message: Message, label: Callable[[str], str]) -> list[str]:
    alert = message.alert
    if message.over_at is not None:
        ended = f"{label('From')} {alert.since} {label('to')} {message.over_at}"
        return [ended, *([message.note] if message.note else []), f"{label('It was')} {alert.reason}"]
    return [
        f"{label('Since')} {alert.since}",
        f"{label('Why')} {alert.reason}",
        f"{label('What to do')} {alert.advice}",
    ]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _fitted(message: Message, render: Callable[[Message], str], limit: int) -> str:
    """Rendered with as much of the reason as `limit` UTF-16 units allow."""
    alert = message.alert
    title, scope, since, advice = map(_shortened, (alert.title, alert.scope, alert.since, alert.advice))
    short = replace(alert, title=title, scope=scope, since=since, advice=advice)
    message = replace(message, note=_shortened(message.note))

    def with_reason(length: int) -> str:
        reason = alert.reason if length >= len(alert.reason) else alert.reason[:length] + _CUT
        return render(replace(message, alert=replace(short, reason=reason)))

    low, high = 0, len(alert.reason)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _units(with_reason(middle)) <= limit else (low, middle - 1)
    return with_reason(low)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_FIELD else text[:_LONGEST_FIELD] + "…"


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
