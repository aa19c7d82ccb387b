"""The project as a whole: `signals demo`, `ui`, `report`, `doctor`."""

from typing import Annotated, Any

import typer

from signals_core.cli.invocation import Json, chosen_config, load, open_workspace, progress
from signals_core.terminal import out, print_json, print_table


def demo(as_json: Json = False) -> None:
    """The main job: bars, features, windows, calibrated models, drift report, signals; then a report."""
    from signals_core.report import read_report
    from signals_core.report_text import render

    parts = _orchestrator("demo")(load())
    with open_workspace() as workspace:
        report = read_report(workspace)
    if as_json:
        print_json({**report.to_dict(), "parts": [{**vars(part), "outcome": part.outcome} for part in parts]})
    else:
        render(report, out(), parts)


def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 3000,
) -> None:
    """Dagster's webserver and daemon on this project, loopback only, until interrupted."""
    _orchestrator("ui")(load(), port)


def report(as_json: Json = False) -> None:
    """What the main job has made, read back from the stores."""
    from signals_core.report import read_report
    from signals_core.report_text import render

    with open_workspace() as workspace:
        found = read_report(workspace)
    if as_json:
        print_json(found.to_dict())
    else:
        render(found, out())


def doctor(as_json: Json = False) -> None:
    """Check Python, packages, stores and disk; a line of remedy for what is wrong."""
    from dataclasses import asdict

    from signals_core.doctor import examine

    with open_workspace() as workspace:
        findings = examine(workspace)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [(f.name, "[green]ok" if f.ok else "[red]wrong", f.found, "" if f.ok else f.remedy) for f in findings]
        print_table(("what", "", "found", "remedy"), rows)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(3)


def _orchestrator(name: str) -> Any:
    """A function of the Dagster layer, found by its entry point: this library does not import it."""
    from importlib.metadata import entry_points

    from signals_core.errors import MissingPrerequisite

    found = [point for point in entry_points(group="signals.orchestrator") if point.name == name]
    if not found:
        raise MissingPrerequisite(f"no orchestrator offers {name!r}: install this project (pip install -e .)")

    def run(*arguments: Any) -> Any:
        import os

        # Assets open their own workspace from the same settings.
        config = chosen_config()
        if config is not None:
            os.environ["SIGNALS_CONFIG"] = str(config.resolve())
        with progress():
            return found[0].load()(*arguments)

    return run
