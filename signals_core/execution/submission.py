"""Sending a plan's orders, and finding out what became of every order that was ever sent."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

from signals_core.errors import BrokerError, OrderConflict, OrderRejected, OutcomeUnknown, TradingHalted
from signals_core.execution.brokers.base import Broker
from signals_core.execution.kill_switch import KillSwitch
from signals_core.execution.ledger import OrderLedger
from signals_core.execution.orders import Order, OrderRecord, OrderReport, OrderState
from signals_core.execution.plans import Plan

_ATTEMPTS = 3
"""Under the same id, while answers are lost and the broker says that it does not know the order."""


@dataclass(frozen=True)
class Sessions:
    """Where the exchange's day stands."""

    last_closed: date
    next_open: date
    """The session whose open comes next."""


@dataclass
class Reconciliation:
    """What the broker said of the orders that were not at their end."""

    changed: list[OrderRecord] = field(default_factory=list)
    in_doubt: list[OrderRecord] = field(default_factory=list)
    """Sent, their answers lost, and unknown to the broker so far; sent again under the same id or not at all."""
    strangers: list[OrderReport] = field(default_factory=list)
    """Open orders of the account that this project did not send."""
    conflicts: list[str] = field(default_factory=list)
    """Where the broker and the journal contradict each other; nothing is sent until a person has looked."""


@dataclass
class Submission:
    """What became of each order of a plan."""

    results: list[tuple[Order, str]] = field(default_factory=list)
    """An order and what happened, in the plan's order."""
    stopped: str = ""
    """Why the rest was not sent."""
    halted: bool = False
    """Whether that was the kill switch."""


def reconcile(ledger: OrderLedger, broker: Broker, sessions: Sessions) -> Reconciliation:
    """Ask the broker for every order that is not at its end, and adopt what it says. Sends nothing.

    Raises:
        BrokerError: the broker does not answer; what it said until then is adopted.
    """
    found = Reconciliation()
    open_at_broker = {report.client_order_id: report for report in broker.list_open()}
    before = ledger.records()
    for name, record in before.items():
        if record.state is OrderState.INTENDED:
            # Never sent: SENT is written before the first byte goes out.
            if record.order.session < sessions.next_open:
                found.changed.append(ledger.move(name, OrderState.CANCELLED, "never sent; its session has opened"))
            continue
        if record.state.is_final:
            if name in open_at_broker:
                found.conflicts.append(f"{name} ({record.order.symbol}) is {record.state} here and open at the broker")
            continue
        report = open_at_broker.get(name) or broker.get_by_client_id(name)
        if report is not None:
            _adopt(ledger, report, record, found)
        elif record.state.is_open:
            found.conflicts.append(
                f"{name} ({record.order.symbol}) was {record.state}, and the broker does not know it any more: is it "
                "another account?"
            )
        else:
            _keep_in_doubt(ledger, record, sessions, found)
    found.strangers = [report for name, report in open_at_broker.items() if name not in before]
    return found


def _adopt(ledger: OrderLedger, report: OrderReport, record: OrderRecord, found: Reconciliation) -> None:
    try:
        adopted = ledger.adopt(report)
    except OrderConflict as conflict:
        found.conflicts.append(str(conflict))
        return
    if adopted != record:
        found.changed.append(adopted)


def _keep_in_doubt(ledger: OrderLedger, record: OrderRecord, sessions: Sessions, found: Reconciliation) -> None:
    name = record.order.client_order_id
    if record.state is OrderState.SENT:
        record = ledger.move(name, OrderState.UNKNOWN, "the broker does not know it so far")
    if record.order.session <= sessions.last_closed:
        found.changed.append(
            ledger.move(name, OrderState.CANCELLED, "never reached the broker; its session has closed")
        )
    else:
        found.in_doubt.append(record)


def submit_plan(
    plan: Plan, ledger: OrderLedger, broker: Broker, switch: KillSwitch, sessions: Callable[[], Sessions]
) -> Submission:
    """Send what a plan says, each order at most once however often this is called or killed.

    Everything in doubt is reconciled first. An order that was sent before, under the same id, is left alone.

    Raises:
        TradingHalted: the kill switch is on.
        OrderConflict: the plan is of another account or for an open that has passed, something happened since it
            was made, or the broker and the journal contradict each other.
        BrokerError: the broker does not answer before the first order.
    """
    switch.check()
    with ledger.exclusive():
        now = sessions()
        if plan.broker != broker.name:
            raise OrderConflict(f"plan {plan.plan_id} is for {plan.broker}, the settings say {broker.name}: plan again")
        if plan.session != now.next_open:
            raise OrderConflict(
                f"plan {plan.plan_id} is for the open of {plan.session}, the next one is {now.next_open}: plan again"
            )
        conflicts = reconcile(ledger, broker, now).conflicts
        if conflicts:
            raise OrderConflict(
                "the broker and the journal contradict each other; nothing is sent: " + "; ".join(conflicts)
            )
        own = {order.client_order_id for order in plan.orders}
        foreign = {event.client_order_id for event in ledger.events()[plan.journal_length :]} - own
        if foreign:
            raise OrderConflict(
                f"{len(foreign)} other orders moved since plan {plan.plan_id} was made, such as "
                f"{min(foreign)}: plan again"
            )
        return _send_all(plan, ledger, broker, switch)


def _send_all(plan: Plan, ledger: OrderLedger, broker: Broker, switch: KillSwitch) -> Submission:
    submission = Submission()
    for order in plan.orders:
        try:
            outcome = _send(order, plan.plan_id, ledger, broker, switch)
        except (BrokerError, OrderConflict, TradingHalted) as error:
            submission.stopped, submission.halted = str(error), isinstance(error, TradingHalted)
            break
        submission.results.append((order, outcome))
    known = ledger.records()
    for order in plan.orders[len(submission.results) :]:
        record = known.get(order.client_order_id)
        sent = record is not None and record.state is not OrderState.INTENDED
        submission.results.append((order, _described(record) if record is not None and sent else "not sent"))
    return submission


def _send(order: Order, plan_id: str, ledger: OrderLedger, broker: Broker, switch: KillSwitch) -> str:
    name = order.client_order_id
    record = ledger.intend(order, plan_id)
    if record.state not in (OrderState.INTENDED, OrderState.UNKNOWN):
        return f"sent before: {_described(record)}"
    for attempt in range(_ATTEMPTS):
        switch.check()
        first = record.state is OrderState.INTENDED and attempt == 0
        ledger.move(name, OrderState.SENT)
        try:
            report: OrderReport | None = broker.submit(order)
        except OrderRejected as error:
            if first:
                return _described(ledger.move(name, OrderState.REJECTED, str(error)))
            # A copy whose answer was lost may still be on its way: only the end of its session makes this final.
            return _described(ledger.move(name, OrderState.UNKNOWN, f"refused when sent again: {error}"))
        except OutcomeUnknown as error:
            ledger.move(name, OrderState.UNKNOWN, str(error))
            report = broker.get_by_client_id(name)
        except BrokerError as error:
            ledger.move(name, OrderState.UNKNOWN, str(error))
            raise
        if report is not None:
            return _described(ledger.adopt(report))
    return f"in doubt after {_ATTEMPTS} attempts: `signals orders reconcile`, then submit the plan again"


def _described(record: OrderRecord) -> str:
    filled = f", {record.filled_quantity:g} of {record.order.quantity:g} filled" if record.filled_quantity else ""
    return f"{record.state}{filled}" + (f": {record.reason}" if record.reason else "")
