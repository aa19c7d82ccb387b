"""`signals check`: what a user wants to be sure of before trusting a result."""

from typing import Annotated

import typer

from signals_core.cli.invocation import Json, open_workspace, progress
from signals_core.terminal import out, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Look for faults that a good score would hide.")


@app.command("leakage")
def check_leakage(
    feature: Annotated[list[str] | None, typer.Option("--feature", help="One feature; may be repeated.")] = None,
    symbol: Annotated[list[str] | None, typer.Option("--symbol", help="One ticker; may be repeated.")] = None,
    cuts: Annotated[int, typer.Option(min=1, help="Random sessions a symbol at which all sources are cut.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the choice of sessions.")] = 20,
    as_json: Json = False,
) -> None:
    """Recompute features from data cut at random closes and compare every row up to them. Exit code 3 on a leak."""
    from dataclasses import asdict

    from signals_core.steps import search_for_leaks

    with open_workspace() as workspace, progress():
        found = search_for_leaks(workspace, symbol or (), cuts, seed, feature or ())
    if as_json:
        print_json(asdict(found))
    else:
        names = ("symbol", "feature", "cut at", "rows", "last row", "with all data", "knowable")
        rows = [
            (
                x.symbol,
                x.feature,
                str(x.cut.date()),
                str(x.rows),
                str(x.date.date()),
                f"{x.value:.6g}",
                f"{x.knowable:.6g}",
            )
            for x in found.leaks
        ]
        if rows:
            print_table(names, rows)
        leaking = sorted({x.feature for x in found.leaks})
        symbols = len({name for name, _ in found.cuts})
        out().print(
            f"{len(found.features)} features, {symbols} symbols, {len(found.cuts)} cuts, {found.rows} rows compared: "
            + (f"[red]{len(leaking)} features know the future: {', '.join(leaking)}" if leaking else "[green]no leak"),
            highlight=False,
        )
    if found.leaks:
        raise typer.Exit(3)
