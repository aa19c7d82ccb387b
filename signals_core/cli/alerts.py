"""`signals alerts`: does a message arrive, and what was told to whom."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signals_core.cli.invocation import Json, open_workspace
from signals_core.terminal import print_rows

if TYPE_CHECKING:
    from signals_core.alerts.records import Delivery, Record

app = typer.Typer(no_args_is_help=True, help="Messages to Slack, Telegram or the log.")

_UNREACHABLE = 5


@app.command("test")
def send_test(
    channel: Annotated[str | None, typer.Option("--channel", help="log, slack or telegram; default: all.")] = None,
    as_json: Json = False,
) -> None:
    """Send a test message to each channel; exit code 5 if one does not take it."""
    with open_workspace() as workspace:
        outcomes = workspace.alerts.test(channel)
    print_rows([{"channel": o.channel, "outcome": o.problem or "accepted"} for o in outcomes], as_json)
    if any(outcome.problem for outcome in outcomes):
        raise typer.Exit(_UNREACHABLE)


@app.command("list")
def list_recent(
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many, the newest.")] = 20,
    as_json: Json = False,
) -> None:
    """Recent episodes, oldest first, and what each channel was told."""
    with open_workspace() as workspace:
        records = workspace.alerts.records()[-number:]
    print_rows([_in_full(r) if as_json else _in_short(r) for r in records], as_json)


def _in_short(record: "Record") -> dict[str, Any]:
    alert = record.alert
    ended = _moment(record.over_at) if record.over_at is not None else "goes on"
    return {
        "opened": _moment(record.opened_at),
        "severity": alert.severity,
        "scope": alert.scope,
        "what": alert.title,
        "over": ended if record.lasting else "",
        "told": ", ".join(f"{name} {_state(d)}" for name, d in record.beginning.items())
        or "nobody: below min_severity",
    }


def _in_full(record: "Record") -> dict[str, Any]:
    return {
        **vars(record.alert),
        "opened_at": _moment(record.opened_at),
        "over_at": None if record.over_at is None else _moment(record.over_at),
        "note": record.note,
        "beginning": {name: vars(d) for name, d in record.beginning.items()},
        "end": {name: vars(d) for name, d in record.end.items()},
    }


def _state(delivery: "Delivery") -> str:
    return f"{delivery.state} ({delivery.problem})" if delivery.problem else delivery.state


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
