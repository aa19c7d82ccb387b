"""Drift and performance of the models in service: `signals monitor`."""

from typing import TYPE_CHECKING, Annotated

import typer

from signals_core.cli.invocation import Json, ScopeOption, open_workspace, scopes_of
from signals_core.terminal import out, print_json, print_table

if TYPE_CHECKING:
    from signals_core.ml.drift_store import DriftReport
    from signals_core.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="Drift, feeds and performance of the models in service.")

DayOption = Annotated[str | None, typer.Option("--day", help="YYYY-MM-DD; default: the last that has a report.")]


@app.command()
def show(scope: ScopeOption = None, day: DayOption = None, as_json: Json = False) -> None:
    """A stored drift report in short. Exit code 3 if something needs a person or a retrain."""
    from dataclasses import asdict

    from signals_core.drift_pages import listed, states

    with open_workspace() as workspace:
        reports = _stored(workspace, scope, day)
        settings = workspace.settings.monitoring
    if as_json:
        print_json([asdict(report) for report in reports])
    else:
        for report in reports:
            out().print(f"[bold]{report.scope}[/bold] {report.day}, model {report.model_version}", highlight=False)
            colours = {"good": "green", "bad": "red", "unknown": "yellow"}
            answers = [(question, f"[{colours[state]}]{text}") for question, text, state in states(report, settings)]
            print_table(("", ""), answers)
            rows = [(f.feature, psi, level, f.status, said) for f, psi, level, said in listed(report, settings)]
            print_table(("feature", "PSI", "alarm level", "fixed level", ""), rows)
    if any(report.retrain or report.feed_faults or report.signal_dead for report in reports):
        raise typer.Exit(3)


@app.command("report")
def write_report(scope: ScopeOption = None, day: DayOption = None, as_json: Json = False) -> None:
    """Write a stored drift report as Markdown and HTML under data/reports; prints where."""
    from dataclasses import asdict

    from signals_core.drift_pages import write_pages

    with open_workspace() as workspace:
        written = [(report, write_pages(workspace, report)) for report in _stored(workspace, scope, day)]
    rows = [
        {"scope": report.scope, "day": report.day, **{name: str(path) for name, path in asdict(pages).items()}}
        for report, pages in written
    ]
    if as_json:
        print_json(rows)
        return
    for report, pages in written:
        out().print(f"{report.scope} {report.day}: {pages.html}", highlight=False, soft_wrap=True)


def _stored(workspace: "Workspace", scope: str | None, day: str | None) -> "list[DriftReport]":
    """The stored reports asked for.

    Raises:
        MissingPrerequisite: a scope that was named has none, or none of all has.
    """
    from signals_core.errors import MissingPrerequisite
    from signals_core.ml.drift_report import drift_store

    store = drift_store(workspace)
    found = []
    for name in scopes_of(workspace, scope):
        days = store.days(name)
        report = store.load(name, day or days[-1]) if days else None
        if report is not None:
            found.append(report)
    if not found:
        of_day = f" of {day}" if day else ""
        raise MissingPrerequisite(f"no drift report{of_day} yet: run `signals drift`, or materialise `drift_report`")
    return found
