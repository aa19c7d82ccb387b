"""`signals config`: the effective settings."""

import json

import typer

from signals_core.cli.invocation import Json, load
from signals_core.terminal import print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Settings and where they come from.")


@app.command()
def show(as_json: Json = False) -> None:
    """Each effective value and where it came from; passwords are hidden."""
    rows = load().printable_items()
    if as_json:
        print_json([{"key": k, "value": v, "origin": o} for k, v, o in rows])
    else:
        print_table(("setting", "value", "from"), [(k, json.dumps(v), o) for k, v, o in rows])
