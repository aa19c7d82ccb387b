"""From targets to orders: `signals orders …`, `signals positions`. Nothing is sent but by `orders submit`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signals_core.cli.invocation import Json, Reason, open_workspace, scopes_of
from signals_core.terminal import out, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

    from signals_core.execution.desk import TradingDesk
    from signals_core.execution.orders import OrderRecord
    from signals_core.execution.plans import Plan
    from signals_core.execution.submission import Reconciliation
    from signals_core.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="Plan orders, send them, and find out what became of them.")

_HALTED, _BROKER_DOWN = 3, 5
_STATUS_STYLE = {"order": "green", "refused": "red", "none": "dim"}

Targets = Annotated[
    Path | None,
    typer.Option(help="CSV or Parquet with symbol and weight or shares; default: what the stored signals ask for."),
]
Scope = Annotated[
    str | None,
    typer.Option(help="Whose stored targets or signals alone, and part of the orders' names; default: of all scopes."),
]
Strategy = Annotated[str, typer.Option(help="Part of the orders' names.")]
Retry = Annotated[bool, typer.Option("--retry", help="Order again what was rejected, cancelled or has expired.")]


@contextmanager
def _desk() -> "Iterator[tuple[Workspace, TradingDesk]]":
    from signals_core.execution.desk import TradingDesk

    with open_workspace() as workspace, TradingDesk(workspace) as desk:
        yield workspace, desk


@app.command()
def plan(
    targets: Targets = None,
    scope: Scope = None,
    strategy: Strategy = "ml_signal",
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """What would be ordered for the next open, and why not the rest. Sends nothing."""
    with _desk() as (workspace, desk):
        made, found = _plan(workspace, desk, targets, scope, strategy, retry)
        halted = desk.switch.reason()
    if as_json:
        print_json({**_plan_record(made), "halted": halted, "reconciliation": _reconciliation_record(found)})
        return
    _print_plan(made)
    _print_reconciliation(found, quiet=True)
    if halted:
        out().print(f"[red]trading is halted[/red] ({halted}): nothing would be sent", highlight=False)
    elif made.orders:
        out().print(f"to send exactly this: signals orders submit --plan {made.plan_id}", highlight=False)


@app.command()
def submit(
    plan_id: Annotated[str | None, typer.Option("--plan", help="Send this plan, as it was shown.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Plan anew and send it unseen, for schedules.")] = False,
    targets: Targets = None,
    scope: Scope = None,
    strategy: Strategy = "ml_signal",
    retry: Retry = False,
    as_json: Json = False,
) -> None:
    """Send a plan's orders; again is safe. Exit code 3 if trading is halted, 5 if the broker stops answering."""
    if (plan_id is None) != yes:
        raise typer.BadParameter(
            "give either --plan ID (from `signals orders plan`), or --yes to plan and send at once"
        )
    if plan_id is not None and (targets, scope, retry) != (None, None, False):
        raise typer.BadParameter(
            "--plan sends a plan as it was shown: give --targets, --scope and --retry when planning"
        )
    with _desk() as (workspace, desk):
        if plan_id is None:
            desk.switch.check()
            plan_id = _plan(workspace, desk, targets, scope, strategy, retry)[0].plan_id
        made, done = desk.submit(plan_id)
    if as_json:
        results = [{**order.as_json(), "result": result} for order, result in done.results]
        print_json({"plan_id": plan_id, "results": results, "stopped": done.stopped, "halted": done.halted})
    else:
        rows = [(o.symbol, o.side, f"{o.quantity:g}", result, o.client_order_id) for o, result in done.results]
        out().print(f"plan {made.plan_id} to {made.broker} for the open of {made.session}", highlight=False)
        print_table(("symbol", "side", "shares", "result", "client order id"), rows)
        if done.stopped:
            out().print(f"[red]stopped[/red]: {done.stopped}", highlight=False)
    if done.stopped:
        raise typer.Exit(_HALTED if done.halted else _BROKER_DOWN)


@app.command("list")
def list_orders(
    every: Annotated[bool, typer.Option("--all", help="Also those that are at their end.")] = False,
    as_json: Json = False,
) -> None:
    """Orders of the journal; by default those that are not at their end and those of the latest session."""
    with _desk() as (_, desk):
        records = list(desk.ledger.records().values())
    latest = max((record.order.session for record in records), default=None)
    shown = [r for r in records if every or not r.state.is_final or r.order.session == latest]
    if as_json:
        print_json([_order_record(record) for record in shown])
    else:
        _print_records(shown)


@app.command()
def reconcile(as_json: Json = False) -> None:
    """Ask the broker for every order that is not at its end. Sends nothing. Exit code 3 if it contradicts us."""
    with _desk() as (_, desk):
        found = desk.reconcile()
    if as_json:
        print_json(_reconciliation_record(found))
    else:
        _print_reconciliation(found)
    if found.conflicts:
        raise typer.Exit(3)


@app.command()
def cancel(
    client_order_id: Annotated[str | None, typer.Argument(help="From `signals orders list`.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every open order of the journal.")] = False,
    as_json: Json = False,
) -> None:
    """Ask the broker to cancel orders; works while trading is halted."""
    if (client_order_id is None) != every:
        raise typer.BadParameter("give either a client order id, or --all")
    with _desk() as (_, desk):
        desk.reconcile()
        open_ids = [name for name, record in desk.ledger.records().items() if record.state.is_open]
        for name in open_ids if client_order_id is None else [client_order_id]:
            desk.broker.cancel(name)
        found = desk.reconcile()
    if as_json:
        print_json(_reconciliation_record(found))
    else:
        _print_reconciliation(found)


@app.command()
def halt(reason: Reason = "asked for by a person") -> None:
    """The kill switch: from now on nothing is sent. Orders that wait at the broker stay: `orders cancel --all`."""
    from signals_core.execution.kill_switch import FILE_NAME, KillSwitch

    with open_workspace() as workspace:
        KillSwitch(workspace.data / FILE_NAME).halt(reason)
    out().print("trading is halted: nothing is sent until `signals orders resume`", highlight=False)


@app.command()
def resume() -> None:
    """Switch the kill switch off."""
    from signals_core.execution.kill_switch import FILE_NAME, KillSwitch

    with open_workspace() as workspace:
        KillSwitch(workspace.data / FILE_NAME, workspace.settings.execution.halted).resume()
    out().print("trading goes on", highlight=False)


def positions(as_json: Json = False) -> None:
    """What the account holds, and its money."""
    from dataclasses import asdict

    with _desk() as (_, desk):
        held, account, name = desk.broker.positions(), desk.broker.account(), desk.broker.name
    if as_json:
        print_json({"broker": name, "account": asdict(account), "positions": [asdict(item) for item in held]})
        return
    out().print(
        f"{name}: equity {account.equity:,.2f}, cash {account.cash:,.2f}, buying power {account.buying_power:,.2f}"
        + (f", [red]blocked: {account.blocked}[/red]" if account.blocked else ""),
        highlight=False,
    )
    rows = []
    for item in held:
        price = item.last_price
        value = "" if price is None else f"{item.quantity * price:,.2f}"
        gain = "" if price is None else f"{item.quantity * (price - item.average_price):,.2f}"
        shown = "" if price is None else f"{price:,.2f}"
        rows.append((item.symbol, f"{item.quantity:g}", f"{item.average_price:,.4f}", shown, value, gain))
    print_table(("symbol", "shares", "average price", "last price", "value", "gain"), rows)


def _plan(
    workspace: "Workspace", desk: "TradingDesk", targets: Path | None, scope: str | None, strategy: str, retry: bool
) -> "tuple[Plan, Reconciliation]":
    from signals_core.execution.targets import read_targets, targets_path
    from signals_core.settings import UNIVERSE

    name = scope or UNIVERSE
    path = targets or targets_path(workspace.data, name, workspace.last_session)
    wanted = read_targets(path) if targets or path.exists() else _targets_of_signals(workspace, scope)
    return desk.plan(wanted, strategy, name, retry)


def _targets_of_signals(workspace: "Workspace", scope: str | None) -> "pd.DataFrame":
    """What the stored signals of all scopes ask for, or of it what those of one do."""
    from signals_core.errors import SettingsError
    from signals_core.strategy.targets import targets_of_session

    known = scopes_of(workspace, scope)
    if scope is not None and workspace.settings.execution.close_missing and known != workspace.settings.ml.scopes:
        raise SettingsError(
            f"--scope {scope}: execution.close_missing would close what the other scopes hold: leave --scope out"
        )
    return targets_of_session(workspace, workspace.last_session, scope)


def _plan_record(made: "Plan") -> dict[str, Any]:
    return {
        "plan_id": made.plan_id,
        "broker": made.broker,
        "strategy": made.strategy,
        "scope": made.scope,
        "session": made.session,
        "equity": made.equity,
        "rows": [row.as_record() for row in made.rows],
    }


def _print_plan(made: "Plan") -> None:
    out().print(
        f"plan {made.plan_id} for the open of {made.session} at {made.broker}, equity {made.equity:,.2f}",
        highlight=False,
    )
    rows = []
    for row in made.rows:
        style, order = _STATUS_STYLE[row.status], row.order
        rows.append(
            (
                row.symbol,
                row.target,
                f"{row.held:g}" + (f" {row.waiting:+g}" if row.waiting else ""),
                "" if row.desired is None else f"{row.desired:g}",
                f"[{style}]{f'{order.side} {order.quantity:g}' if order else row.status}[/{style}]",
                "" if row.price is None else f"{row.price:,.2f}",
                f"{row.notional:,.0f}" if order else "",
                row.reason,
            )
        )
    print_table(("symbol", "target", "held", "desired", "order", "last close", "notional", "reason"), rows)


def _order_record(record: "OrderRecord") -> dict[str, Any]:
    return {
        **record.order.as_json(),
        "state": str(record.state),
        "filled_quantity": record.filled_quantity,
        "average_price": record.average_price,
        "reason": record.reason,
        "plan_id": record.plan_id,
    }


def _print_records(records: "list[OrderRecord]") -> None:
    rows = [
        (
            str(r.order.session),
            r.order.symbol,
            f"{r.order.side} {r.order.quantity:g}",
            str(r.state),
            f"{r.filled_quantity:g}" + (f" at {r.average_price:,.4f}" if r.average_price else ""),
            r.reason,
            r.order.client_order_id,
        )
        for r in records
    ]
    print_table(("session", "symbol", "order", "state", "filled", "reason", "client order id"), rows)


def _reconciliation_record(found: "Reconciliation") -> dict[str, Any]:
    return {
        "changed": [_order_record(record) for record in found.changed],
        "in_doubt": [_order_record(record) for record in found.in_doubt],
        "strangers": [report.client_order_id for report in found.strangers],
        "conflicts": found.conflicts,
    }


def _print_reconciliation(found: "Reconciliation", quiet: bool = False) -> None:
    if found.changed:
        out().print("changed:", highlight=False)
        _print_records(found.changed)
    if found.in_doubt:
        out().print("[yellow]in doubt[/yellow] (the broker does not know them so far):", highlight=False)
        _print_records(found.in_doubt)
    if found.strangers:
        names = ", ".join(
            f"{s.client_order_id} ({s.side} {s.remaining_quantity:g} {s.symbol})" for s in found.strangers
        )
        out().print(f"open orders that are not ours: {names}", highlight=False)
    for conflict in found.conflicts:
        out().print(f"[red]contradiction[/red]: {conflict}", highlight=False)
    if not (quiet or found.changed or found.in_doubt or found.strangers or found.conflicts):
        out().print("nothing new", highlight=False)
