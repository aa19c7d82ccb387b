"""The paper account's books: one SQLite file, every change a transaction."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

from signals_core.errors import DataError
from signals_core.execution.orders import Order, OrderReport, OrderState, OrderType, Side, TimeInForce

FlowKind = Literal["deposit", "trade", "commission", "dividend", "borrow", "interest", "settlement"]

_SCHEMA = """
create table if not exists account (one integer primary key check (one = 1), cash real not null, session text not null);
create table if not exists positions (symbol text primary key, quantity real not null, average_price real not null);
create table if not exists orders (
  sequence integer primary key, client_order_id text not null unique, symbol text not null, side text not null,
  quantity real not null, working_quantity real not null, session text not null, type text not null,
  time_in_force text not null, limit_price real, state text not null, filled_quantity real not null,
  average_price real, reason text not null
);
create index if not exists open_orders on orders (state);
create table if not exists cash_flows (
  sequence integer primary key, session text not null, symbol text not null, kind text not null,
  amount real not null, quantity real not null, price real not null
);
create table if not exists equity (session text primary key, cash real not null, positions real not null);
"""
_BUSY_TIMEOUT_SECONDS = 60
_FLAT = 1e-9
"""A position smaller than that, in shares, is none: what is left by adding fractions in floating point."""


@dataclass(frozen=True)
class Holding:
    """Shares, negative if short, and the average price paid or received, in dollars."""

    quantity: float
    average_price: float

    def traded(self, quantity: float, price: float) -> "Holding":
        """After buying (or selling, if negative) so many shares at a price."""
        total = self.quantity + quantity
        if abs(total) < _FLAT:
            return Holding(0.0, 0.0)
        if self.quantity * quantity >= 0:
            paid = self.quantity * self.average_price + quantity * price
            return Holding(total, paid / total)
        return replace(self, quantity=total) if self.quantity * total > 0 else Holding(total, price)


@dataclass(frozen=True)
class WorkingOrder:
    """An order of the account; `working_quantity` is what its quantity became by splits."""

    order: Order
    working_quantity: float
    state: OrderState
    filled_quantity: float = 0.0
    average_price: float | None = None
    reason: str = ""

    def report(self) -> OrderReport:
        """As brokers report it."""
        order = self.order
        return OrderReport(
            order.client_order_id,
            f"paper-{order.client_order_id}",
            order.symbol,
            order.side,
            order.quantity,
            self.state,
            self.filled_quantity,
            0.0 if self.state.is_final else self.working_quantity,
            self.average_price,
            self.reason,
        )


class PaperBook:
    """Cash, positions, orders and every movement of cash, in the file `path`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        # Transactions are begun here, not by the driver behind our back.
        self._connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None)
        try:
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = full")
            self._connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise DataError(f"{path} is damaged ({error}): restore it, or move it away for a new account") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes inside, or none of them; one writer at a time."""
        self._connection.execute("begin immediate")
        with self._connection:  # commits, or rolls back whatever ended the block
            yield

    def opened(self, cash: float, session: date) -> None:
        """Open the account with that cash after a session, if there is none yet."""
        if self._connection.execute("select 1 from account").fetchone() is None:
            self._connection.execute("insert into account values (1, 0, ?)", [session.isoformat()])
            self.add_cash(session, "", "deposit", cash)

    @property
    def cash(self) -> float:
        """Dollars; negative if borrowed."""
        return float(self._connection.execute("select cash from account").fetchone()[0])

    @property
    def session(self) -> date:
        """The session up to which everything is settled."""
        return date.fromisoformat(self._connection.execute("select session from account").fetchone()[0])

    def settled(self, session: date, positions_value: float) -> None:
        """Everything of a session is done; remember what the account was worth at its close."""
        self._connection.execute("update account set session = ?", [session.isoformat()])
        self._connection.execute(
            "insert into equity values (?, ?, ?)", [session.isoformat(), self.cash, positions_value]
        )

    def add_cash(
        self, session: date, symbol: str, kind: FlowKind, amount: float, quantity: float = 0.0, price: float = 0.0
    ) -> None:
        """Pay in (or out, if negative), with what it is for."""
        self._connection.execute("update account set cash = cash + ?", [amount])
        self._connection.execute(
            "insert into cash_flows (session, symbol, kind, amount, quantity, price) values (?, ?, ?, ?, ?, ?)",
            [session.isoformat(), symbol, kind, amount, quantity, price],
        )

    def positions(self) -> dict[str, Holding]:
        """What is held, by symbol in alphabetical order."""
        rows = self._connection.execute("select symbol, quantity, average_price from positions order by symbol")
        return {symbol: Holding(quantity, price) for symbol, quantity, price in rows}

    def hold(self, symbol: str, holding: Holding) -> None:
        """Replace a position; a flat one goes."""
        if abs(holding.quantity) < _FLAT:
            self._connection.execute("delete from positions where symbol = ?", [symbol])
        else:
            self._connection.execute(
                "insert into positions values (?, ?, ?) on conflict (symbol) do update "
                "set quantity = excluded.quantity, average_price = excluded.average_price",
                [symbol, holding.quantity, holding.average_price],
            )

    def add_order(self, order: Order) -> None:
        """Accept an order."""
        self._connection.execute(
            "insert into orders (client_order_id, symbol, side, quantity, working_quantity, session, type, "
            "time_in_force, limit_price, state, filled_quantity, reason) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '')",
            [order.client_order_id, order.symbol, str(order.side), order.quantity, order.quantity,
             order.session.isoformat(), str(order.type), str(order.time_in_force), order.limit_price,
             str(OrderState.ACCEPTED)],
        )  # fmt: skip

    def update_order(self, working: WorkingOrder) -> None:
        """Replace what is known of an order."""
        self._connection.execute(
            "update orders set working_quantity = ?, state = ?, filled_quantity = ?, average_price = ?, reason = ? "
            "where client_order_id = ?",
            [working.working_quantity, str(working.state), working.filled_quantity, working.average_price,
             working.reason, working.order.client_order_id],
        )  # fmt: skip

    def find_order(self, client_order_id: str) -> WorkingOrder | None:
        """An order by its id."""
        found = self._orders("where client_order_id = ?", [client_order_id])
        return found[0] if found else None

    def open_orders(self) -> list[WorkingOrder]:
        """Those that wait, in the order in which they came."""
        return self._orders("where state = ? order by sequence", [str(OrderState.ACCEPTED)])

    def _orders(self, where: str, parameters: list[str]) -> list[WorkingOrder]:
        rows = self._connection.execute(
            "select client_order_id, symbol, side, quantity, session, type, time_in_force, limit_price, "
            f"working_quantity, state, filled_quantity, average_price, reason from orders {where}",
            parameters,
        )
        return [
            WorkingOrder(
                Order(name, symbol, Side(side), quantity, date.fromisoformat(session), OrderType(kind),
                      TimeInForce(in_force), limit),
                working, OrderState(state), filled, price, reason,
            )
            for name, symbol, side, quantity, session, kind, in_force, limit, working, state, filled, price, reason
            in rows
        ]  # fmt: skip

    def cash_flows(self) -> list[tuple[date, str, str, float, float, float]]:
        """Every movement: session, symbol, kind, amount, shares and price, oldest first."""
        rows = self._connection.execute(
            "select session, symbol, kind, amount, quantity, price from cash_flows order by sequence"
        )
        return [(date.fromisoformat(session), *rest) for session, *rest in rows]

    def equity(self) -> list[tuple[date, float, float]]:
        """Session, cash and the value of the positions at its close, oldest first."""
        rows = self._connection.execute("select session, cash, positions from equity order by session")
        return [(date.fromisoformat(session), cash, value) for session, cash, value in rows]
