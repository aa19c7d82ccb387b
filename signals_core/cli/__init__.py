"""The `signals` command. Data go to stdout, progress and errors to stderr.

Exit codes: 0 done, 2 usage or settings, 3 a gate or check failed, 4 something is missing first, 5 a
service is down. Libraries are imported inside commands, so that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from signals_core.cli import (
    alerts,
    check,
    config,
    data,
    features,
    invocation,
    models,
    monitor,
    orders,
    project,
    serving,
    strategy,
)
from signals_core.cli.selftest import selftest_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Market data to calibrated, monitored, tradeable stock signals.",
)


@app.callback()
def choose(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Settings laid over the defaults (or SIGNALS_CONFIG)."),
    ] = None,
) -> None:
    """Options of every command."""
    invocation.choose_config(config)


# In the order of `signals --help`.
for command in (
    project.demo,
    project.ui,
    project.report,
    project.doctor,
    data.ingest,
    models.validate,
    models.train,
    serving.predict,
    serving.drift,
    strategy.backtest,
    strategy.replay,
    orders.positions,
):
    app.command()(command)
app.command("selftest")(selftest_command)
app.add_typer(config.app, name="config")
app.add_typer(models.app, name="models")
app.add_typer(monitor.app, name="monitor")
app.add_typer(features.app, name="features")
app.add_typer(data.app, name="data")
app.add_typer(check.app, name="check")
app.add_typer(alerts.app, name="alerts")
app.add_typer(orders.app, name="orders")


def main() -> None:
    """Run the command; errors a user can act on end in one message and their exit code."""
    from signals_core.errors import SignalsError

    try:
        app()
    except SignalsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
