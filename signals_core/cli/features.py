"""`signals features`: build features and labels, and list the catalogue."""

import typer

from signals_core.cli.invocation import Json, open_workspace, progress
from signals_core.terminal import print_json, print_rows, print_table

app = typer.Typer(help="Build features and labels; list the catalogue.")


@app.callback(invoke_without_command=True)
def build(context: typer.Context, as_json: Json = False) -> None:
    """Bring features and labels of all tickers up to date (without a subcommand)."""
    if context.invoked_subcommand is not None:
        return
    from signals_core import steps

    with open_workspace() as workspace, progress():
        rows = [
            {
                "symbol": features.symbol,
                "since": str(features.frame.index.min().date()) if len(features.frame) else "",
                "rows": len(features.frame),
                "missing_share": round(float(features.frame.isna().to_numpy().mean()), 4),
                "months_computed": len(features.computed),
                "months_unchanged": len(features.reused),
                "labels": int((target.frame["label"] >= 0).sum()),
            }
            for features, target in steps.build_features_and_target(workspace)
        ]
    print_rows(rows, as_json)


@app.command("list")
def list_features(as_json: Json = False) -> None:
    """The catalogue: every feature with its formula, unit, warm-up and what it needs; a user's own included."""
    with open_workspace() as workspace:
        catalog = workspace.features.catalog
    rows = [
        {
            "name": f.name,
            "category": f.category,
            "formula": f.formula,
            "unit": f.unit,
            "warm_up": f.warm_up,
            "needs": ", ".join(f.needs),
        }
        for f in catalog.values()
    ]
    print_rows(rows, as_json)


@app.command("show")
def show_feature(name: str, as_json: Json = False) -> None:
    """One feature: its definition, and in which months of which tickers it has values."""
    from signals_core import steps

    with open_workspace() as workspace:
        feature, stored = steps.describe_feature(workspace, name)
    if as_json:
        print_json({**vars(feature), "stored": [vars(item) for item in stored]})
        return
    print_table(
        (feature.name, ""),
        [
            ("category", feature.category),
            ("formula", feature.formula),
            ("source", feature.source or "-"),
            ("unit", feature.unit),
            ("warm-up", f"{feature.warm_up} rows"),
            ("needs", ", ".join(feature.needs)),
            ("missing when", feature.missing or "never, after its warm-up"),
            ("the same for every symbol", "yes" if feature.market_wide else "no"),
        ],
    )
    columns = ("ticker", "rows", "missing", "first", "5 %", "median", "95 %")
    rows = [
        (
            item.name,
            str(item.rows),
            f"{item.missing_share:.1%}",
            str(item.first_valid or "-"),
            *("-" if item.first_valid is None else f"{value:.4g}" for value in (item.low, item.median, item.high)),
        )
        for item in stored
    ]
    if rows:
        print_table(columns, rows)


@app.command("docs")
def features_docs() -> None:
    """The catalogue as Markdown on stdout; docs/features.md is this of the features without a user's own."""
    from signals_core.features.documentation import as_markdown

    with open_workspace() as workspace:
        catalog = workspace.features.catalog
    print(as_markdown(catalog), end="")
