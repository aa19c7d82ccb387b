"""What the models in service say and how they fare: `signals predict`, `signals drift`."""

from typing import Any

import typer

from signals_core.cli.invocation import Json, ScopeOption, of_each, open_workspace, serving_scopes
from signals_core.terminal import out, print_json, print_table


def predict(scope: ScopeOption = None, as_json: Json = False) -> None:
    """The signals of the last session from the models in service."""
    from signals_core.steps import last_day
    from signals_core.strategy.ml_strategy import session_signals
    from signals_core.terminal import records

    with open_workspace() as workspace:
        day = last_day(workspace)
        made = [session_signals(workspace, name, day) for name in serving_scopes(workspace, scope)]
    if as_json:
        print_json([{"scope": item.scope, **row} for item in made for row in records(item.frame)])
        return
    out().print(f"Signals at the close of {day}", highlight=False)
    names = ("symbol", "scope", "P(DOWN)", "P(FLAT)", "P(UP)", "expected", "signal", "weight", "")
    print_table(names, [_signal_row(item.scope, row) for item in made for row in item.frame.itertuples(index=False)])


def _signal_row(scope: str, row: Any) -> tuple[str, ...]:
    numbers = [f"{p:.3f}" if p == p else "" for p in (row.p_down, row.p_flat, row.p_up)]
    expected = f"{row.expected_return:+.2%}" if row.expected_return == row.expected_return else ""
    why = row.reason or (f"{row.binding} binds" if row.binding else "")
    weight = f"{row.weight:+.1%}" if row.weight else ""
    return row.symbol, scope, *numbers, expected, row.direction or "none", weight, f"[dim]{why}"


def drift(scope: ScopeOption = None, as_json: Json = False) -> None:
    """The drift report of the last session. Exit code 3 if it asks for a retrain."""
    from dataclasses import asdict

    from signals_core.ml.drift_report import drift_report
    from signals_core.steps import last_day

    with open_workspace() as workspace:
        day = last_day(workspace)
        reports = of_each(serving_scopes(workspace, scope), lambda name: drift_report(workspace, name, day)[0])
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
