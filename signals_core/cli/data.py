"""From the sources into the market store, and what the store says about its data: `signals ingest`, `signals data`."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from signals_core.cli.invocation import Json, open_workspace, progress
from signals_core.terminal import out, print_json, print_rows, print_table

if TYPE_CHECKING:
    from signals_core.market_data.runs import IngestedSymbol
    from signals_core.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="The stored market data: quality, ingestions, refused rows.")


class Dataset(StrEnum):
    """What `signals ingest` can fetch."""

    bars = "bars"
    fundamentals = "fundamentals"
    insider_transactions = "insider_transactions"
    short_interest = "short_interest"
    membership = "membership"


def ingest(
    dataset: Annotated[Dataset, typer.Argument(help="What to fetch.")] = Dataset.bars,
    full: Annotated[bool, typer.Option("--full", help="Bars: all of them, not only what is new.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch what is new from its source into the market store: bars, facts, or the universe's membership."""
    from signals_core.errors import MissingPrerequisite

    with open_workspace() as workspace, progress():
        if dataset is Dataset.membership:
            print_rows([_ingest_membership(workspace)], as_json)
            return
        outcomes = _ingest_symbols(workspace, dataset, full)
    if as_json:
        print_json([{**vars(item), "changed": item.changed} for item in outcomes])
    else:
        names = ("rows", "new", "restated", "withdrawn", "rejected")
        rows = [(i.symbol, *(str(getattr(i, name)) for name in names), i.problem or "") for i in outcomes]
        print_table(("symbol", *names, "problem"), rows)
    if all(item.problem for item in outcomes):
        raise MissingPrerequisite(f"no symbol has {dataset.value}: check its provider and options under market_data")


def _ingest_membership(workspace: "Workspace") -> dict[str, int]:
    from signals_core import steps
    from signals_core.errors import SettingsError

    loaded = steps.ingest_membership(workspace)
    if loaded is None:
        raise SettingsError("universe.membership names no file: a CSV of symbol, start, end")
    changed, screened = loaded
    refused = {str(reason): int(count) for reason, count in screened.rejected["reason"].value_counts().items()}
    return {"intervals": len(screened.good), "changed": changed, **refused}


def _ingest_symbols(workspace: "Workspace", dataset: Dataset, full: bool) -> "list[IngestedSymbol]":
    from signals_core import steps
    from signals_core.errors import SettingsError

    if dataset is Dataset.bars:
        return steps.ingest(workspace, workspace.all_symbols(), full)
    found = steps.ingest_dataset(workspace, dataset.value)
    if found is None:
        raise SettingsError(f"market_data.{dataset.value}.provider names no source: see the README, Market data")
    return found


@app.command()
def quality(as_json: Json = False) -> None:
    """What the stored data lack, how old they are, and what was refused. Exit code 3 if a ticker's bars have gaps."""
    from signals_core import steps

    with open_workspace() as workspace:
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


@app.command()
def runs(as_json: Json = False) -> None:
    """The last ingestions."""
    from signals_core.market_data.runs import IngestionLog
    from signals_core.terminal import records

    with open_workspace() as workspace:
        rows = records(IngestionLog(workspace.market.database).recent())
    print_rows(rows, as_json)


@app.command()
def rejected(
    dataset: Annotated[Dataset, typer.Argument(help="Of which data.")] = Dataset.bars,
    symbol: Annotated[str | None, typer.Option("--symbol", help="Of one symbol.")] = None,
    as_json: Json = False,
) -> None:
    """The rows that the last loads refused, and why."""
    from signals_core.terminal import records

    with open_workspace() as workspace:
        rows = records(workspace.market.rejected(dataset.value, symbol))
    print_rows(rows, as_json)


@app.command()
def actions(symbol: str, as_json: Json = False) -> None:
    """The splits and dividends of a symbol."""
    from signals_core.terminal import records

    with open_workspace() as workspace:
        rows = records(workspace.market.load_actions(symbol))
    print_rows(rows, as_json)
