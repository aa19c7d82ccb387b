"""`signals features`: build features and labels, and list the catalogue."""

import typer

from signals_core.cli.invocation import Json, open_workspace, progress
from signals_core.terminal import print_rows

app = typer.Typer(help="Build features and labels; list the catalogue.")


@app.callback(invoke_without_command=True)
def build(context: typer.Context, as_json: Json = False) -> None:
    """Bring features and labels of all tickers up to date (without a subcommand)."""
    if context.invoked_subcommand is not None:
        return
    from signals_core import steps

    with open_workspace() as workspace, progress():
        built = steps.build_features_and_target(workspace)
    rows = [
        {
            "symbol": features.symbol,
            "rows": len(features.frame),
            "missing_share": round(float(features.frame.isna().to_numpy().mean()), 4),
            "months_computed": len(features.computed),
            "months_unchanged": len(features.reused),
            "labels": int((target.frame["label"] >= 0).sum()),
        }
        for features, target in built
    ]
    print_rows(rows, as_json)


@app.command("list")
def list_features(as_json: Json = False) -> None:
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
