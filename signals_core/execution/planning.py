"""From target positions to orders, each with its reason; or why there is none."""

import math
from dataclasses import dataclass, field
from datetime import date

import pandas as pd

from signals_core.execution.brokers.base import Account, Position
from signals_core.execution.limits import Proposal, Quote, price_breach, size_breach
from signals_core.execution.orders import (
    Order,
    OrderRecord,
    OrderReport,
    OrderState,
    OrderType,
    Side,
    TimeInForce,
    client_order_id,
)
from signals_core.execution.plans import Plan, PlannedRow
from signals_core.execution.targets import check_targets
from signals_core.settings_trading import ExecutionSettings

_ROUNDING = 1e-9
"""A share count this close below a whole number is that number: 0.1 * 1000 / 10 must be 10."""
_CENTS = 100
_TRIED_AGAIN = (OrderState.REJECTED, OrderState.CANCELLED, OrderState.EXPIRED)
"""Ends after which `--retry` orders the same target again."""


@dataclass(frozen=True)
class Book:
    """What an account holds, what waits there, and what it can do."""

    broker: str
    account: Account
    positions: dict[str, Position]
    waiting: list[OrderReport]
    flips_in_one_order: bool = True
    fractional_shorts: bool = True
    records: dict[str, OrderRecord] = field(default_factory=dict)
    """Every order of the ledger."""
    journal_length: int = 0

    def held(self, symbol: str) -> float:
        """Shares held, negative if short."""
        position = self.positions.get(symbol)
        return position.quantity if position else 0.0

    def waiting_shares(self, symbol: str) -> float:
        """Shares of open orders, negative for sells."""
        return sum(report.signed_remainder for report in self.waiting if report.symbol == symbol)


@dataclass(frozen=True)
class Intention:
    """Whose plan it is, and for when."""

    strategy: str
    scope: str
    session: date
    """At whose open the orders are to be executed."""
    retry: bool = False
    """Whether an order that ended without a fill is tried again under a new id."""


def plan_orders(
    targets: pd.DataFrame, book: Book, quotes: dict[str, Quote], intention: Intention, settings: ExecutionSettings
) -> Plan:
    """What to order so that the account holds the targets; nothing is sent.

    Orders that make positions smaller come first: they free what the others need. Every limit that an order
    would break refuses that order, with the reason; the others stand.

    Args:
        targets: see `check_targets`.
        book: the account, after a reconciliation.
        quotes: the last close of each symbol of the targets and of the book.
        intention: strategy, scope and session.
        settings: sizes, limits and the kind of orders.

    Returns:
        One row for each target and each position that has none.

    Raises:
        DataError: `check_targets` refuses the targets.
    """
    targets = check_targets(targets)
    wishes = [_wish(row, book, quotes, intention, settings) for row in targets.to_dict("records")]
    named = set(targets["symbol"])
    for symbol in sorted(set(book.positions) - named):
        if settings.close_missing:
            row = {"symbol": symbol, "weight": 0.0, "shares": math.nan, "price": math.nan, "reason": "not a target"}
            wishes.append(_wish(row, book, quotes, intention, settings))
        else:
            wishes.append(_Wish(symbol, "", "held, and not among the targets: left alone"))
    rows = _within_limits(wishes, book, quotes, intention, settings)
    return Plan(
        book.broker,
        intention.strategy,
        intention.scope,
        intention.session,
        book.account.equity,
        book.journal_length,
        tuple(rows),
    )


@dataclass
class _Wish:
    """What one target asks for, before the limits."""

    symbol: str
    target: str
    reason: str = ""
    desired: float | None = None
    proposal: Proposal | None = None
    refused: bool = False
    order: Order | None = None


def _wish(
    row: dict[str, object], book: Book, quotes: dict[str, Quote], intention: Intention, settings: ExecutionSettings
) -> _Wish:
    symbol, weight, shares = str(row["symbol"]), float(str(row["weight"])), float(str(row["shares"]))
    wish = _Wish(symbol, f"shares {shares:g}" if math.isnan(weight) else f"weight {weight:g}", str(row["reason"]))
    quote = quotes.get(symbol)
    if quote is None:
        return _refuse(wish, "no bars of this symbol: `signals ingest bars`")
    effective = book.held(symbol) + book.waiting_shares(symbol)
    if not math.isfinite(effective):
        return _refuse(wish, "an open order of unknown size waits at the broker")
    exact = shares if math.isnan(weight) else weight * book.account.equity / quote.close
    wish.desired = _rounded(exact, settings.whole_shares or (exact < 0 and not book.fractional_shorts))
    after = wish.desired
    if not book.flips_in_one_order and after * effective < 0:
        after, wish.reason = 0.0, _joined(wish.reason, "closes first; the other side opens after that has filled")
    position, sized_at = book.positions.get(symbol), float(str(row["price"]))
    broker_price = position.last_price if position and position.last_price else quote.close
    wish.proposal = Proposal(symbol, effective, after, quote, broker_price if math.isnan(sized_at) else sized_at)
    return _judged_by_history(wish, book, intention, settings)


def _judged_by_history(wish: _Wish, book: Book, intention: Intention, settings: ExecutionSettings) -> _Wish:
    """The wish with its order, unless the ledger or the size of the change says that there is none."""
    proposal = wish.proposal
    assert proposal is not None
    change = proposal.after - proposal.before
    doubtful = {
        r.order.client_order_id for r in book.records.values() if r.order.symbol == wish.symbol and r.state.in_doubt
    }
    if not doubtful and abs(change) < _ROUNDING:
        waits = book.waiting_shares(wish.symbol) != 0
        return _nothing(wish, "reaches its target when what waits has filled" if waits else "at its target")
    if not doubtful and proposal.notional < settings.min_order_notional and proposal.after != 0:
        return _nothing(wish, f"a change of {proposal.notional:.0f} is below min_order_notional")
    if abs(change) >= _ROUNDING:
        order, past = _named(wish, proposal, book, intention, settings)
        doubtful -= {order.client_order_id} if past is None or past.order == order else set()
    if doubtful:
        return _refuse(wish, f"order {min(doubtful)} is in doubt: `signals orders reconcile`")
    if past is None or past.state in (OrderState.INTENDED, OrderState.UNKNOWN):
        wish.order = order
        if past is not None:
            wish.reason = _joined(wish.reason, f"{past.state} before: the same order again, under the same id")
        return wish
    ended = f"order {order.client_order_id} for this target is {past.state}"
    if past.state in _TRIED_AGAIN:
        return _refuse(wish, f"{ended} ({past.reason}); --retry orders again")
    return _nothing(wish, ended)


def _named(
    wish: _Wish, proposal: Proposal, book: Book, intention: Intention, settings: ExecutionSettings
) -> tuple[Order, OrderRecord | None]:
    """The order for a wish, and what the ledger knows under its id.

    An order that was intended and never sent, and would be another one now, gives way to the next attempt.
    """
    attempt = 0
    while True:
        name = client_order_id(
            intention.strategy, intention.scope, wish.symbol, intention.session, wish.target, attempt
        )
        order = _order(name, proposal, intention, settings)
        past = book.records.get(name)
        if past is None or (past.state is OrderState.INTENDED and past.order == order):
            return order, past
        if past.state is not OrderState.INTENDED and not (intention.retry and past.state in _TRIED_AGAIN):
            return order, past
        attempt += 1


def _within_limits(
    wishes: list[_Wish], book: Book, quotes: dict[str, Quote], intention: Intention, settings: ExecutionSettings
) -> list[PlannedRow]:
    limits, equity = settings.limits, book.account.equity
    gross = {symbol: _value(symbol, book, quotes) for symbol in {*book.positions, *(r.symbol for r in book.waiting)}}
    ordered_before = sum(
        record.order.session == intention.session and record.state is not OrderState.INTENDED
        for record in book.records.values()
    )
    count, rows = ordered_before, []
    for wish in sorted(wishes, key=lambda wish: wish.proposal is None or not wish.proposal.reduces):
        if wish.order is not None and wish.proposal is not None:
            elsewhere = sum(value for symbol, value in gross.items() if symbol != wish.symbol)
            breach = book.account.blocked and f"the broker takes no orders: {book.account.blocked}"
            breach = breach or price_breach(wish.proposal, limits)
            breach = breach or size_breach(wish.proposal, limits, equity, elsewhere)
            if not breach and count >= limits.max_orders:
                breach = f"{count} orders for this session already, max_orders is {limits.max_orders}"
            if breach:
                _refuse(wish, breach)
            else:
                count += 1
                gross[wish.symbol] = abs(wish.proposal.after) * wish.proposal.quote.close
        rows.append(_row(wish, book, quotes))
    return rows


def _order(name: str, proposal: Proposal, intention: Intention, settings: ExecutionSettings) -> Order:
    change = proposal.after - proposal.before
    side = Side.BUY if change > 0 else Side.SELL
    limit = None
    if settings.order_type == "limit_on_open":
        bound = proposal.quote.close * (1 + side.sign * settings.limits.price_collar)
        limit = (math.floor if side is Side.BUY else math.ceil)(bound * _CENTS) / _CENTS
    whole = abs(change - round(change)) < _ROUNDING
    return Order(
        name,
        proposal.symbol,
        side,
        float(round(abs(change))) if whole else abs(change),
        intention.session,
        OrderType(settings.order_type),
        # Fractions of a share take no part in the auction: they are filled after it.
        TimeInForce.OPENING if whole else TimeInForce.DAY,
        limit,
    )


def _row(wish: _Wish, book: Book, quotes: dict[str, Quote]) -> PlannedRow:
    quote = quotes.get(wish.symbol)
    return PlannedRow(
        wish.symbol,
        wish.target,
        wish.desired,
        book.held(wish.symbol),
        book.waiting_shares(wish.symbol),
        quote.close if quote else None,
        "order" if wish.order else "refused" if wish.refused else "none",
        wish.reason,
        wish.order,
    )


def _value(symbol: str, book: Book, quotes: dict[str, Quote]) -> float:
    """Dollars at stake in a symbol, with everything that waits counted as filled."""
    position, quote = book.positions.get(symbol), quotes.get(symbol)
    price = quote.close if quote else (position.last_price or position.average_price) if position else 0.0
    return abs(book.held(symbol) + book.waiting_shares(symbol)) * price


def _rounded(shares: float, whole: bool) -> float:
    """Towards zero, so that rounding never adds to a position."""
    if not whole:
        return shares
    return math.copysign(math.floor(abs(shares) + _ROUNDING), shares) if abs(shares) >= 1 - _ROUNDING else 0.0


def _refuse(wish: _Wish, reason: str) -> _Wish:
    wish.refused, wish.order, wish.reason = True, None, _joined(wish.reason, reason)
    return wish


def _nothing(wish: _Wish, reason: str) -> _Wish:
    wish.reason = _joined(wish.reason, reason)
    return wish


def _joined(first: str, second: str) -> str:
    return f"{first}; {second}" if first else second
