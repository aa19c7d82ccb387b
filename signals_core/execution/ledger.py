"""OrderLedger: what we meant to do and what became of it, written down before anything is sent.

The truth is an append-only journal, one line an event, each flushed to disk before the next step is taken; the
state of every order is the fold of its events. A process may be killed between any two steps: whoever comes
next finds in the journal which orders may have reached the broker.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from signals_core.errors import DataError, OrderConflict
from signals_core.execution.orders import Order, OrderRecord, OrderReport, OrderState, Side, order_from_json
from signals_core.files import append_line, locked


@dataclass(frozen=True)
class Event:
    """One line of the journal: an intention, a step of ours, or a report of the broker."""

    at: str
    client_order_id: str
    state: OrderState
    reason: str = ""
    plan_id: str = ""
    order: dict[str, Any] | None = None
    """The whole order, of an intention."""
    report: dict[str, Any] | None = None
    """What the broker said, of a report."""


class OrderLedger:
    """The journal of one account's orders, in a file of its own.

    Args:
        path: of the journal; its lock file lies beside it.
        now: the present moment.
    """

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self._path = path
        self._now = now
        self._read_to = 0
        self._events: list[Event] = []
        self._records: dict[str, OrderRecord] = {}

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the ledger for a whole run of sending or asking: two runs at once would see half of each other.

        Raises:
            OrderConflict: another run holds it.
        """
        from filelock import Timeout

        try:
            with locked(self._path.with_name(f".{self._path.name}.run.lock")):
                yield
        except Timeout as error:
            raise OrderConflict(
                "another run is sending orders or reconciling this account: wait for it to end"
            ) from error

    def events(self) -> list[Event]:
        """Every event, oldest first.

        Raises:
            DataError: a line cannot be read.
        """
        self._refresh()
        return list(self._events)

    def records(self) -> dict[str, OrderRecord]:
        """Every order by client order id, in the order of their intentions."""
        self._refresh()
        return dict(self._records)

    def intend(self, order: Order, plan_id: str = "") -> OrderRecord:
        """Write down that an order is to be sent; the same intention again changes nothing.

        Raises:
            OrderConflict: another order has this id.
        """
        known = self.records().get(order.client_order_id)
        if known is not None:
            if known.order != order:
                raise OrderConflict(
                    f"{order.client_order_id} is {known.order.side} {known.order.quantity:g} {known.order.symbol} in "
                    f"the journal, not {order.side} {order.quantity:g} {order.symbol}: plan again"
                )
            return known
        return self._append(
            Event(self._stamp(), order.client_order_id, OrderState.INTENDED, plan_id=plan_id, order=order.as_json())
        )

    def move(self, client_order_id: str, state: OrderState, reason: str = "") -> OrderRecord:
        """Write down a step of ours.

        Raises:
            OrderConflict: that state cannot follow the present one.
        """
        return self._append(Event(self._stamp(), client_order_id, state, reason))

    def adopt(self, report: OrderReport) -> OrderRecord:
        """Take over what the broker says of an order; nothing is written if it is nothing new.

        Raises:
            OrderConflict: it contradicts what the journal knows.
        """
        known = self.records()[report.client_order_id]
        if known.adopted(report) == known:
            return known
        fields = {
            "broker_order_id": report.broker_order_id,
            "symbol": report.symbol,
            "side": str(report.side),
            "quantity": report.quantity,
            "filled_quantity": report.filled_quantity,
            "average_price": report.average_price,
        }
        return self._append(
            Event(self._stamp(), report.client_order_id, report.state, reason=report.reason, report=fields)
        )

    def _append(self, event: Event) -> OrderRecord:
        with locked(self._path.with_name(f".{self._path.name}.lock")):
            self._refresh()
            # Applied before it is written: an impossible event must not make the journal unreadable.
            record = apply(dict(self._records), event)
            fields = {name: value for name, value in vars(event).items() if value not in ("", None)}
            append_line(self._path, json.dumps(fields, sort_keys=True))
        return record

    def _refresh(self) -> None:
        """Read what was appended since the last time, by whomever."""
        size = self._path.stat().st_size if self._path.exists() else 0
        if size < self._read_to:  # somebody has put an older journal back
            self._read_to, self._events, self._records = 0, [], {}
        if size == self._read_to:
            return
        with self._path.open("rb") as file:
            file.seek(self._read_to)
            new = file.read()
        # What follows the last newline was cut short by a power failure and never acknowledged.
        *lines, _ = new.split(b"\n")
        for line in lines:
            try:
                fields = json.loads(line)
                event = Event(**{**fields, "state": OrderState(fields["state"])})
                apply(self._records, event)
            except (ValueError, TypeError, KeyError) as error:
                number = len(self._events) + 1
                raise DataError(f"{self._path} line {number} cannot be read ({error}): restore it") from error
            self._events.append(event)
            self._read_to += len(line) + 1

    def _stamp(self) -> str:
        return self._now().isoformat()


def apply(records: dict[str, OrderRecord], event: Event) -> OrderRecord:
    """Change `records` as an event says; returns the record it is about.

    Raises:
        OrderConflict: the event cannot follow the ones before it.
    """
    name = event.client_order_id
    if event.order is not None:
        if name in records:
            raise OrderConflict(f"{name} is intended twice in the journal: restore it")
        record = OrderRecord(order_from_json(event.order), plan_id=event.plan_id)
    elif name not in records:
        raise OrderConflict(f"{name} has no intention in the journal: restore it")
    elif event.report is not None:
        said = event.report
        record = records[name].adopted(
            OrderReport(
                name,
                said["broker_order_id"],
                said["symbol"],
                Side(said["side"]),
                said["quantity"],
                event.state,
                filled_quantity=said["filled_quantity"],
                average_price=said["average_price"],
                reason=event.reason,
            )
        )
    else:
        record = records[name].moved(event.state, event.reason)
    records[name] = record
    return record
