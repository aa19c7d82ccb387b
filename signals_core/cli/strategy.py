"""What following the signals would have done: `signals backtest`, `signals replay`."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from signals_core.cli.invocation import Json, ScopeOption, load, of_each, open_workspace, progress, serving_scopes
from signals_core.terminal import out, print_json, print_table

if TYPE_CHECKING:
    from signals_core.strategy.backtest_report import BacktestReport


def backtest(scope: ScopeOption = None, as_json: Json = False) -> None:
    """An account that followed the windows' out-of-fold predictions of the model in service; writes a page."""
    from signals_core.strategy.backtest_report import report_of_version

    with open_workspace() as workspace, progress():
        active = [workspace.registry.get_active(name) for name in serving_scopes(workspace, scope)]
        reports = of_each((v for v in active if v is not None), lambda version: report_of_version(workspace, version))
    if as_json:
        print_json([{**report.to_dict(), "page": str(path)} for report, path in reports])
        return
    for report, path in reports:
        _show(report)
        out().print(f"page: {path}", highlight=False, soft_wrap=True)


def replay(
    start: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="The first Sunday on or after it.")],
    end: Annotated[
        datetime,
        typer.Option(
            "--to", formats=["%Y-%m-%d"], help="The day after the last session; those without bars are left out."
        ),
    ],
    name: Annotated[
        str, typer.Option(help="Of the folder data/replays/<name>; the same name goes on where its weeks end.")
    ] = "default",
    as_json: Json = False,
) -> None:
    """Walk the calendar week by week as production would have: retrain, promote or not, predict, monitor, trade.

    Models are retrained on Sundays, and after a close at which the rule of `retraining` asks for it.
    """
    from dataclasses import asdict

    from signals_core.replay import Replay
    from signals_core.replay_jobs import SCHEDULE

    played = Replay(load(), start.date(), end.date(), name)
    with progress():
        weeks = list(played.run())
        reports = played.reports()
    retrains = [item for week in weeks for item in week.retrains]
    promoted = [item for item in retrains if item.promoted]
    asked = sum(item.cause != SCHEDULE for item in retrains)
    alarms = sum(outcome.retrain_asked for week in weeks for outcome in week.sessions)
    if as_json:
        print_json({"weeks": [asdict(week) for week in weeks], "accounts": [report.to_dict() for report, _ in reports]})
        return
    rows = [
        (f"{item.moment:%Y-%m-%d}", item.scope, item.cause.partition(":")[0], item.version_id or "", item.decision)
        for item in promoted
    ]
    if rows:
        print_table(("day", "scope", "cause", "promoted", "why"), rows)
    seconds = sum(week.seconds for week in weeks)
    out().print(
        f"{len(weeks)} weeks up to {weeks[-1].until}, {seconds / len(weeks):.1f} s a week; {len(retrains)} retrains, "
        f"{asked} of them beyond the schedule; {len(promoted)} promotions; drift or a dead signal on {alarms} days",
        highlight=False,
    )
    for report, path in reports:
        _show(report)
        out().print(f"page: {path}", highlight=False, soft_wrap=True)


def _show(report: "BacktestReport") -> None:
    console = out()
    console.print(f"\n[bold]{report.title}[/bold]", highlight=False)
    console.print(report.verdict, highlight=False)
    print_table(("", ""), [(question, answer) for question, answer, _ in report.states()])
