"""From windows to a model in service: `signals validate`, `signals train`, `signals models`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from signals_core.cli.invocation import Json, Reason, ScopeOption, open_workspace, progress, scopes_of
from signals_core.terminal import print_json, print_rows, print_table

if TYPE_CHECKING:
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
def promote(
    version_id: str,
    reason: Reason = "asked for by a person",
) -> None:
    """Put a version into service, past the gate; its bundle must be sound."""
    from signals_core.ml.training import version_record

    with open_workspace() as workspace:
        print_json(version_record(workspace.registry.promote(version_id, reason, by="command line")))


@app.command()
def rollback(
    version_id: Annotated[str | None, typer.Argument(help="Default: the one that served before.")] = None,
    scope: Annotated[str, typer.Option(help="Of which scope, without a version.")] = "UNIVERSE",
    reason: Reason = "asked for by a person",
) -> None:
    """Return to an earlier version."""
    from signals_core.ml.training import version_record

    with open_workspace() as workspace:
        print_json(version_record(workspace.registry.rollback(version_id, scope, reason, by="command line")))


@app.command()
def rebuild() -> None:
    """Write Redis anew from the journal on disk."""
    with open_workspace() as workspace:
        print_json({"events": workspace.registry.rebuild()})


def _short(metrics: dict[str, Any]) -> str:
    return f"{metrics['log_loss']:.4f} ({metrics['prior_log_loss']:.4f})"
