"""The `signals` command. Data go to stdout, progress and errors to stderr.

Exit codes: 0 done, 2 usage or settings, 3 a gate or check failed, 4 something is missing first, 5 a
service is down. Libraries are imported inside commands, so that `--help` answers at once.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signals_core.terminal import out, print_json, print_rows, print_table

if TYPE_CHECKING:
    from signals_core.settings_loading import LoadedSettings
    from signals_core.workspace import Workspace

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Market data to calibrated, monitored, tradeable stock signals.",
)
config_app = typer.Typer(no_args_is_help=True, help="Settings and where they come from.")
models_app = typer.Typer(no_args_is_help=True, help="Model versions and which of them is in service.")
data_app = typer.Typer(no_args_is_help=True, help="The stored market data: quality, ingestions, refused rows.")
features_app = typer.Typer(help="Build features and labels; list the catalogue.")
app.add_typer(config_app, name="config")
app.add_typer(models_app, name="models")
app.add_typer(features_app, name="features")
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")]
ScopeOption = Annotated[str | None, typer.Option("--scope", help="UNIVERSE or a ticker of ml.scopes; default: all.")]

_chosen: dict[str, Path | None] = {"config": None}


@app.callback()
def choose(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Settings laid over the defaults (or SIGNALS_CONFIG)."),
    ] = None,
) -> None:
    """Options of every command."""
    _chosen["config"] = config


def main() -> None:
    """Run the command; errors a user can act on end in one message and their exit code."""
    from signals_core.errors import SignalsError

    try:
        app()
    except SignalsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@app.command()
def demo(as_json: Json = False) -> None:
    """The main job: bars, features, windows, calibrated models, drift report, signals; then a report."""
    from signals_core.report import read_report, render

    parts = _orchestrator("demo")(_load())
    with _workspace() as workspace:
        report = read_report(workspace)
    if as_json:
        print_json({**report.to_dict(), "parts": [{**vars(part), "outcome": part.outcome} for part in parts]})
    else:
        render(report, out(), parts)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 3000,
) -> None:
    """Dagster's webserver and daemon on this project, loopback only, until interrupted."""
    _orchestrator("ui")(_load(), port)


@app.command()
def report(as_json: Json = False) -> None:
    """What the main job has made, read back from the stores."""
    from signals_core.report import read_report, render

    with _workspace() as workspace:
        found = read_report(workspace)
    if as_json:
        print_json(found.to_dict())
    else:
        render(found, out())


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check Python, packages, stores and disk; a line of remedy for what is wrong."""
    from dataclasses import asdict

    from signals_core.doctor import examine

    with _workspace() as workspace:
        findings = examine(workspace)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [(f.name, "[green]ok" if f.ok else "[red]wrong", f.found, "" if f.ok else f.remedy) for f in findings]
        print_table(("what", "", "found", "remedy"), rows)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(3)


@config_app.command("show")
def config_show(as_json: Json = False) -> None:
    """Each effective value and where it came from; passwords are hidden."""
    rows = _load().printable_items()
    if as_json:
        print_json([{"key": k, "value": v, "origin": o} for k, v, o in rows])
    else:
        print_table(("setting", "value", "from"), [(k, json.dumps(v), o) for k, v, o in rows])


class Dataset(StrEnum):
    """What `signals ingest` can fetch."""

    bars = "bars"
    fundamentals = "fundamentals"
    insider_transactions = "insider_transactions"
    short_interest = "short_interest"
    membership = "membership"


@app.command()
def ingest(
    dataset: Annotated[Dataset, typer.Argument(help="What to fetch.")] = Dataset.bars,
    full: Annotated[bool, typer.Option("--full", help="Bars: all of them, not only what is new.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch what is new from its source into the market store: bars, facts, or the universe's membership."""
    from signals_core import steps
    from signals_core.errors import MissingPrerequisite, SettingsError

    with _workspace() as workspace, _progress():
        if dataset is Dataset.membership:
            loaded = steps.ingest_membership(workspace)
            if loaded is None:
                raise SettingsError("universe.membership names no file: a CSV of symbol, start, end")
            changed, screened = loaded
            print_rows([{"intervals": len(screened.good), "changed": changed, **_refusals(screened.rejected)}], as_json)
            return
        if dataset is Dataset.bars:
            symbols = [*workspace.settings.universe.tickers, *workspace.reference_symbols()]
            outcomes = steps.ingest(workspace, symbols, full)
        else:
            found = steps.ingest_dataset(workspace, dataset.value)
            if found is None:
                raise SettingsError(
                    f"market_data.{dataset.value}.provider names no source: see the README, Market data"
                )
            outcomes = found
    if as_json:
        print_json([{**vars(item), "changed": item.changed} for item in outcomes])
    else:
        names = ("rows", "new", "restated", "withdrawn", "rejected")
        rows = [(i.symbol, *(str(getattr(i, name)) for name in names), i.problem or "") for i in outcomes]
        print_table(("symbol", *names, "problem"), rows)
    if all(item.problem for item in outcomes):
        raise MissingPrerequisite(f"no symbol has {dataset.value}: check its provider and options under market_data")


def _refusals(rejected: Any) -> dict[str, int]:
    return {str(reason): int(count) for reason, count in rejected["reason"].value_counts().items()}


@data_app.command("quality")
def data_quality(as_json: Json = False) -> None:
    """What the stored data lack, how old they are, and what was refused. Exit code 3 if a ticker's bars have gaps."""
    from signals_core import steps

    with _workspace() as workspace:
        report = steps.look_at_quality(workspace)
        tickers = set(workspace.settings.universe.tickers)
    if as_json:
        print_json(report.to_dict())
    else:
        names = ("sessions", "first", "last", "behind", "missing", "rejected", "restated")
        rows = [
            (
                item.symbol,
                *("" if getattr(item, name) is None else str(getattr(item, name)) for name in names),
                "" if item.largest_move is None else f"{item.largest_move:.1%} on {item.largest_move_on}",
                item.problem or "",
            )
            for item in report.bars
        ]
        print_table(("symbol", *names, "largest move", "problem"), rows)
        for fact in report.facts:
            out().print(f"{fact.dataset} {fact.symbol}: {fact.facts} rows, the latest {fact.latest}", highlight=False)
        for dataset, reasons in report.reasons.items():
            for reason, count in reasons.items():
                out().print(f"{dataset}: {count} rows refused: {reason}", highlight=False)
    if not all(item.complete for item in report.bars if item.symbol in tickers):
        raise typer.Exit(3)


@data_app.command("runs")
def data_runs(as_json: Json = False) -> None:
    """The last ingestions."""
    from signals_core.market_data.runs import IngestionLog
    from signals_core.report import records

    with _workspace() as workspace:
        rows = records(IngestionLog(workspace.market.database).recent())
    print_rows(rows, as_json)


@data_app.command("rejected")
def data_rejected(
    dataset: Annotated[Dataset, typer.Argument(help="Of which data.")] = Dataset.bars,
    symbol: Annotated[str | None, typer.Option("--symbol", help="Of one symbol.")] = None,
    as_json: Json = False,
) -> None:
    """The rows that the last loads refused, and why."""
    from signals_core.report import records

    with _workspace() as workspace:
        rows = records(workspace.market.rejected(dataset.value, symbol))
    print_rows(rows, as_json)


@data_app.command("actions")
def data_actions(symbol: str, as_json: Json = False) -> None:
    """The splits and dividends of a symbol."""
    from signals_core.report import records

    with _workspace() as workspace:
        rows = records(workspace.market.load_actions(symbol))
    print_rows(rows, as_json)


@features_app.callback(invoke_without_command=True)
def features(context: typer.Context, as_json: Json = False) -> None:
    """Bring features and labels of all tickers up to date (without a subcommand)."""
    if context.invoked_subcommand is not None:
        return
    from signals_core import steps
    from signals_core.features.catalog import CATEGORIES

    with _workspace() as workspace, _progress():
        start, end = steps.data_span(workspace)
        tickers = workspace.covered(workspace.settings.universe.tickers)
        for category in CATEGORIES:
            steps.build_category(workspace, category, tickers, start, end)
        built = steps.build_matrix(workspace, tickers, start, end)
        labelled = {item.symbol: item for item in steps.build_target(workspace, tickers, start, end)}
    rows = [
        {
            "symbol": item.symbol,
            "rows": len(item.frame),
            "missing_share": round(float(item.frame.isna().to_numpy().mean()), 4),
            "months_computed": len(item.computed),
            "months_unchanged": len(item.reused),
            "labels": int((labelled[item.symbol].frame["label"] >= 0).sum()),
        }
        for item in built
    ]
    print_rows(rows, as_json)


@features_app.command("list")
def features_list(as_json: Json = False) -> None:
    """The catalogue: every feature with its formula, unit, warm-up and what it needs."""
    from signals_core.features.catalog import catalog

    rows = [
        {
            "name": f.name,
            "category": f.category,
            "formula": f.formula,
            "unit": f.unit,
            "warm_up": f.warm_up,
            "needs": ", ".join(f.needs),
        }
        for f in catalog().values()
    ]
    print_rows(rows, as_json)


@app.command()
def validate(scope: ScopeOption = None, as_json: Json = False) -> None:
    """Compute the validation windows that are new or stale; all are listed."""
    from signals_core.ml.windows import all_windows, compute_windows
    from signals_core.steps import known_until

    with _workspace() as workspace, _progress():
        keys = [window.key for window in all_windows(workspace.settings, known_until(workspace))]
        wanted = [(name, key) for name in _scopes(workspace, scope) for key in keys]
        outcomes = compute_windows(workspace, wanted)
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        row: dict[str, Any] = {"scope": outcome.scope, "start": outcome.key, "refused": outcome.refusal or ""}
        if outcome.result is not None:
            figures = outcome.result.figures()
            names = ("end", "accuracy", "log_loss", "prior_log_loss", "gain", "gain_error", "sharpe_ratio")
            row |= {name: figures[name] for name in names}
        rows.append(row | {"computed": outcome.computed})
    print_rows(rows, as_json)


@app.command()
def train(
    scope: ScopeOption = None,
    cause: Annotated[str, typer.Option(help="Kept in the manifest and the journal.")] = "a person",
    as_json: Json = False,
) -> None:
    """Train, calibrate, register and judge; needs features and windows. Exit code 3 if one is not promoted."""
    from signals_core.ml.training import train_model, version_record
    from signals_core.steps import known_until

    with _workspace() as workspace, _progress():
        as_of = known_until(workspace)
        made = [train_model(workspace, name, as_of, cause, by="command line") for name in _scopes(workspace, scope)]
    rows = [{**version_record(item.version), "trained": item.trained} for item in made]
    if as_json:
        print_json(rows)
    else:
        print_table(("version", "decision"), [(r["version_id"], r["decision"]) for r in rows])
    if not all(item.version.active for item in made):
        raise typer.Exit(3)


@models_app.command("list")
def models_list(scope: ScopeOption = None, as_json: Json = False) -> None:
    """All versions; at most one of a scope is active."""
    from signals_core.ml.training import version_record

    with _workspace() as workspace:
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


@models_app.command("show")
def models_show(version_id: str) -> None:
    """A version's manifest and its standing, as JSON."""
    from signals_core.ml.bundle import verify_bundle
    from signals_core.ml.training import version_record

    with _workspace() as workspace:
        version = workspace.registry.get(version_id)
        manifest = verify_bundle(workspace.models / version.model_path)
    print_json({**version_record(version), "manifest": manifest})


@models_app.command("promote")
def models_promote(
    version_id: str,
    reason: Annotated[str, typer.Option(help="Kept in the journal.")] = "asked for by a person",
) -> None:
    """Put a version into service, past the gate; its bundle must be sound."""
    from signals_core.ml.training import version_record

    with _workspace() as workspace:
        print_json(version_record(workspace.registry.promote(version_id, reason, by="command line")))


@models_app.command("rollback")
def models_rollback(
    version_id: Annotated[str | None, typer.Argument(help="Default: the one that served before.")] = None,
    scope: Annotated[str, typer.Option(help="Of which scope, without a version.")] = "UNIVERSE",
    reason: Annotated[str, typer.Option(help="Kept in the journal.")] = "asked for by a person",
) -> None:
    """Return to an earlier version."""
    from signals_core.ml.training import version_record

    with _workspace() as workspace:
        print_json(version_record(workspace.registry.rollback(version_id, scope, reason, by="command line")))


@models_app.command("rebuild")
def models_rebuild() -> None:
    """Write Redis anew from the journal on disk."""
    with _workspace() as workspace:
        print_json({"events": workspace.registry.rebuild()})


@app.command()
def predict(scope: ScopeOption = None, as_json: Json = False) -> None:
    """The signals of the last session from the models in service."""
    from datetime import timedelta

    from signals_core.report import records
    from signals_core.steps import data_span
    from signals_core.strategy.ml_strategy import session_signals

    with _workspace() as workspace:
        day = data_span(workspace)[1] - timedelta(days=1)
        made = [session_signals(workspace, name, day) for name in _scopes(workspace, scope)]
    rows = [{"scope": item.scope, **row} for item in made for row in records(item.frame)]
    print_rows(rows, as_json)


@app.command()
def drift(scope: ScopeOption = None, as_json: Json = False) -> None:
    """The drift report of the last session. Exit code 3 if it asks for a retrain."""
    from dataclasses import asdict
    from datetime import timedelta

    from signals_core.ml.monitoring import drift_report
    from signals_core.steps import data_span

    with _workspace() as workspace:
        day = data_span(workspace)[1] - timedelta(days=1)
        reports = [drift_report(workspace, name, day)[0] for name in _scopes(workspace, scope)]
    if as_json:
        print_json([asdict(item) for item in reports])
    else:
        for item in reports:
            out().print(f"[bold]{item.scope}[/bold] {item.day}: {item.verdict}", highlight=False)
            known = [f for f in item.features if f.psi is not None]
            rows = [
                (f.feature, f"{f.psi:.2f}", f"{f.own_history:.2f}", f.status, "yes" if f.alarm else "no")
                for f in sorted(known, key=lambda f: -(f.psi or 0))
            ]
            print_table(("feature", "PSI", "own past's largest", "level", "alarm"), rows)
    if any(item.retrain for item in reports):
        raise typer.Exit(3)


def _load() -> "LoadedSettings":
    from signals_core.settings_loading import load_settings

    return load_settings(config=_chosen["config"])


@contextmanager
def _workspace() -> "Iterator[Workspace]":
    from signals_core.workspace import Workspace

    with Workspace(_load()) as workspace:
        yield workspace


def _scopes(workspace: "Workspace", scope: str | None) -> tuple[str, ...]:
    from signals_core.errors import SettingsError

    known = workspace.settings.ml.scopes
    if scope is None:
        return known
    if scope not in known:
        raise SettingsError(f"--scope {scope}: not one of ml.scopes ({', '.join(known)})")
    return (scope,)


def _orchestrator(name: str) -> Any:
    """A function of the Dagster layer, found by its entry point: this library does not import it."""
    from importlib.metadata import entry_points

    from signals_core.errors import MissingPrerequisite
    from signals_core.progress import reporting_to

    found = [point for point in entry_points(group="signals.orchestrator") if point.name == name]
    if not found:
        raise MissingPrerequisite(f"no orchestrator offers {name!r}: install this project (pip install -e .)")

    def run(*arguments: Any) -> Any:
        import os

        # Assets open their own workspace from the same settings.
        if _chosen["config"] is not None:
            os.environ["SIGNALS_CONFIG"] = str(_chosen["config"].resolve())
        with _terminal() as reporter, reporting_to(reporter):
            return found[0].load()(*arguments)

    return run


@contextmanager
def _progress() -> Iterator[None]:
    from signals_core.progress import reporting_to

    with _terminal() as reporter, reporting_to(reporter):
        yield


def _terminal() -> Any:
    from rich.console import Console

    from signals_core.terminal import TerminalProgress

    return TerminalProgress(Console(stderr=True))


def _short(metrics: dict[str, Any]) -> str:
    return f"{metrics['log_loss']:.4f} ({metrics['prior_log_loss']:.4f})"


if __name__ == "__main__":
    main()
