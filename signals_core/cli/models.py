"""From windows to a model in service: `signals validate`, `signals train`, `signals models`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from signals_core.cli.invocation import Json, Reason, ScopeOption, open_workspace, progress, scopes_of
from signals_core.terminal import print_json, print_rows, print_table

if TYPE_CHECKING:
    from datetime import datetime

    from signals_core.ml.journal import Version
    from signals_core.ml.windows import WindowOutcome

app = typer.Typer(no_args_is_help=True, help="Model versions and which of them is in service.")


def validate(scope: ScopeOption = None, as_json: Json = False) -> None:
    """Compute the validation windows that are new or stale; all are listed."""
    from signals_core.ml.windows import all_windows, compute_windows
    from signals_core.steps import known_until

    with open_workspace() as workspace, progress():
        keys = [window.key for window in all_windows(workspace.settings, known_until(workspace))]
        wanted = [(name, key) for name in scopes_of(workspace, scope) for key in keys]
        outcomes = compute_windows(workspace, wanted)
    print_rows([_window_row(outcome) for outcome in outcomes], as_json)


def _window_row(outcome: "WindowOutcome") -> dict[str, Any]:
    row: dict[str, Any] = {"scope": outcome.scope, "start": outcome.key, "refused": outcome.refusal or ""}
    if outcome.result is not None:
        figures = outcome.result.figures()
        names = ("end", "accuracy", "log_loss", "prior_log_loss", "gain", "gain_error", "sharpe_ratio")
        row |= {name: figures[name] for name in names}
    return row | {"computed": outcome.computed}


def train(
    scope: ScopeOption = None,
    cause: Annotated[str, typer.Option(help="Kept in the manifest and the journal.")] = "a person",
    as_json: Json = False,
) -> None:
    """Train, calibrate, register and judge; needs features and windows. Exit code 3 if one is not promoted."""
    from signals_core.ml.training import train_model, version_record
    from signals_core.steps import known_until

    with open_workspace() as workspace, progress():
        as_of = known_until(workspace)
        made = [train_model(workspace, name, as_of, cause, by="command line") for name in scopes_of(workspace, scope)]
    rows = [{**version_record(item.version), "trained": item.trained} for item in made]
    if as_json:
        print_json(rows)
    else:
        print_table(("version", "decision"), [(r["version_id"], r["decision"]) for r in rows])
    if not all(item.version.active for item in made):
        raise typer.Exit(3)


@app.command("list")
def list_versions(scope: ScopeOption = None, as_json: Json = False) -> None:
    """All versions; at most one of a scope is active."""
    from signals_core.ml.training import version_record

    with open_workspace() as workspace:
        versions = [version_record(v) for v in workspace.registry.list_versions(scope)]
    if as_json:
        print_json(versions)
    else:
        rows = [
            (
                v["version_id"],
                v["scope"],
                "[green]active" if v["active"] else "",
                _short(v["metrics"]),
                v["decision"],
            )
            for v in versions
        ]
        print_table(("version", "scope", "", "log-loss (prior)", "decision"), rows)


@app.command()
def show(version_id: str) -> None:
    """A version's manifest and its standing, as JSON."""
    from signals_core.ml.bundle import verify_bundle
    from signals_core.ml.training import version_record

    with open_workspace() as workspace:
        version = workspace.registry.get(version_id)
        manifest = verify_bundle(workspace.models / version.model_path)
    print_json({**version_record(version), "manifest": manifest})


@app.command()
def log(
    scope: Annotated[str | None, typer.Option(help="Of one scope; default: all.")] = None,
    as_json: Json = False,
) -> None:
    """What happened to every version, who did it and why, oldest first; needs no Redis."""
    from dataclasses import asdict

    from signals_core.ml.journal import read_journal

    with open_workspace() as workspace:
        events = [event for event in read_journal(workspace.models) if scope in (None, event.scope)]
    if as_json:
        print_json([asdict(event) for event in events])
    else:
        rows = [(e.at[:19], e.action.replace("_", " "), e.version_id, e.by, _plain(e.reason)) for e in events]
        print_table(("UTC", "event", "version", "by", "reason"), rows)


@app.command()
def active(
    scope: Annotated[str | None, typer.Option(help="Of one scope; default: all that ever had a version.")] = None,
    at: Annotated[
        str | None,
        typer.Option(help="As 2026-03-02T12:00, in the exchange's time zone without an offset; default: now."),
    ] = None,
    as_json: Json = False,
) -> None:
    """The version in service at a moment, from the journal; needs no Redis. Exit code 4 if there was none."""
    from signals_core.ml.journal import active_at, read_journal
    from signals_core.ml.training import version_record

    with open_workspace() as workspace:
        moment = _moment(at, workspace.settings.exchange.timezone) if at else None
        events = read_journal(workspace.models)
    scopes = [scope] if scope else sorted({event.scope for event in events})
    found = [version for name in scopes if (version := active_at(events, name, moment)) is not None]
    if as_json:
        print_json([version_record(version) for version in found])
    else:
        print_table(("scope", "version", "decision"), [(v.scope, v.version_id, _plain(v.decision)) for v in found])
    if not found:
        raise typer.Exit(4)


@app.command()
def diff(first: str, second: str, as_json: Json = False) -> None:
    """What two versions differ in: settings, features, parameters, metrics, spans, digests; needs no Redis."""
    from dataclasses import asdict

    from signals_core.ml.journal import find_version
    from signals_core.ml.version_diff import compare_versions

    with open_workspace() as workspace:
        versions = [find_version(workspace.models, name) for name in (first, second)]
        found = compare_versions(workspace.models, *versions)
    if as_json:
        print_json([asdict(difference) for difference in found])
    else:
        rows = [(d.what, _shown(d.first), _shown(d.second)) for d in found]
        print_table(("what", first, second), rows)


@app.command()
def promote(version_id: str, reason: Reason = "asked for by a person", as_json: Json = False) -> None:
    """Put a version into service, past the gate; its bundle must be sound."""
    with open_workspace() as workspace:
        _print_version(workspace.registry.promote(version_id, reason, by="command line"), as_json)


@app.command()
def rollback(
    version_id: Annotated[str | None, typer.Argument(help="Default: the one that served before.")] = None,
    scope: Annotated[str, typer.Option(help="Of which scope, without a version.")] = "UNIVERSE",
    reason: Reason = "asked for by a person",
    as_json: Json = False,
) -> None:
    """Return to an earlier version."""
    with open_workspace() as workspace:
        _print_version(workspace.registry.rollback(version_id, scope, reason, by="command line"), as_json)


@app.command()
def reproduce(version_id: str, as_json: Json = False) -> None:
    """Train a version again from its manifest and compare the digests. Exit code 3 if they differ."""
    from dataclasses import asdict

    from signals_core.ml.reproduction import reproduce as train_again

    with open_workspace() as workspace, progress():
        found = train_again(workspace, version_id)
    if as_json:
        print_json({**asdict(found), "same": found.same})
    else:
        print(f"{version_id}: registered digest {found.registered}, trained again {found.reproduced or 'impossible'}")
        print("the same model" if found.same else "not the same model")
        if found.differences:
            print_table(
                ("input", "then", "now"), [(d.what, _shown(d.first), _shown(d.second)) for d in found.differences]
            )
    if not found.same:
        raise typer.Exit(3)


@app.command()
def prune(
    keep: Annotated[
        int | None, typer.Option(min=1, help="Newest versions of a scope; default: registry.keep_versions.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Retire old versions that never served and remove their bundles; they stay listed."""
    from signals_core.ml.training import version_record

    with open_workspace() as workspace:
        kept = keep or workspace.settings.registry.keep_versions
        retired = workspace.registry.prune(kept, by="command line")
    if as_json:
        print_json([version_record(version) for version in retired])
    else:
        print_table(("retired", "scope"), [(version.version_id, version.scope) for version in retired])


@app.command()
def rebuild(as_json: Json = False) -> None:
    """Write Redis anew from the journal on disk."""
    with open_workspace() as workspace:
        events = workspace.registry.rebuild()
    if as_json:
        print_json({"events": events})
    else:
        print(f"Redis stands for all {events} events of the journal")


def _print_version(version: "Version", as_json: bool) -> None:
    from signals_core.ml.training import version_record

    if as_json:
        print_json(version_record(version))
    else:
        print(f"{version.scope}: {version.version_id} is in service ({version.decision})")


def _moment(text: str, timezone: str) -> "datetime":
    """A moment, in the exchange's time zone where it names no offset.

    Raises:
        SettingsError: it is no date and time.
    """
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from signals_core.errors import SettingsError

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"--at {text}: give a date and time, such as 2026-03-02T12:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(timezone))


_WIDEST_CELL = 60


def _shown(value: Any) -> str:
    """A value of a manifest in a cell: lists by their members, long ones cut."""
    if isinstance(value, list):
        value = ", ".join(map(str, value)) or "none"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return _plain(text if len(text) <= _WIDEST_CELL else f"{text[:_WIDEST_CELL]}…")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _short(metrics: dict[str, Any]) -> str:
    return f"{metrics['log_loss']:.4f} ({metrics['prior_log_loss']:.4f})"
