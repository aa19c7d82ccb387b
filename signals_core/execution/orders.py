"""Orders: what they ask for, how they are named, and the states they pass through."""

import hashlib
import math
import re
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import Any

from signals_core.errors import OrderConflict

_ID_DIGEST_LENGTH = 16
LONGEST_CLIENT_ORDER_ID = 48
"""Alpaca's limit until 2024 (128 since); kept, since others have it."""
_TOLERANCE = 1e-9
"""Quantities that differ by less are equal: brokers send decimal texts of at most nine places."""


class Side(StrEnum):
    """Whether an order adds shares or takes them away."""

    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        """+1 for a buy, -1 for a sell."""
        return 1 if self is Side.BUY else -1


class OrderType(StrEnum):
    """At the opening auction whatever its price, or only at the limit or better."""

    MARKET_ON_OPEN = "market_on_open"
    LIMIT_ON_OPEN = "limit_on_open"


class TimeInForce(StrEnum):
    """OPENING: the auction of its session or nothing. DAY: from that open to that close (fractions of shares)."""

    OPENING = "opg"
    DAY = "day"


class OrderState(StrEnum):
    """Where an order stands, as far as we know."""

    INTENDED = "intended"
    SENT = "sent"
    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return not TRANSITIONS[self]

    @property
    def in_doubt(self) -> bool:
        """Whether the broker may have the order or not."""
        return self in (OrderState.SENT, OrderState.UNKNOWN)

    @property
    def is_open(self) -> bool:
        """Whether the broker has the order and may still fill it."""
        return self in (OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED)


_S = OrderState
_ENDINGS = frozenset({_S.FILLED, _S.REJECTED, _S.CANCELLED, _S.EXPIRED})
_AT_BROKER = frozenset({_S.ACCEPTED, _S.PARTIALLY_FILLED}) | _ENDINGS

TRANSITIONS: dict[OrderState, frozenset[OrderState]] = {
    _S.INTENDED: frozenset({_S.SENT, _S.CANCELLED}),
    _S.SENT: frozenset({_S.UNKNOWN}) | _AT_BROKER,
    # SENT again: the same order under the same id, once the broker has said that it does not know it.
    _S.UNKNOWN: frozenset({_S.SENT}) | _AT_BROKER,
    _S.ACCEPTED: frozenset({_S.PARTIALLY_FILLED}) | _ENDINGS,
    _S.PARTIALLY_FILLED: _ENDINGS - {_S.REJECTED},
    _S.FILLED: frozenset(),
    _S.REJECTED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.EXPIRED: frozenset(),
}
"""The states that may follow each."""


@dataclass(frozen=True)
class Order:
    """One order for the open of `session`; immutable, and named by what it is for."""

    client_order_id: str
    symbol: str
    side: Side
    quantity: float
    """Shares, positive; whole unless `execution.whole_shares` is off."""
    session: date
    """At whose open it is to be executed."""
    type: OrderType = OrderType.MARKET_ON_OPEN
    time_in_force: TimeInForce = TimeInForce.OPENING
    limit_price: float | None = None
    """Dollars a share; only for a limit order."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.quantity) and self.quantity > 0):
            raise OrderConflict(f"{self.symbol}: an order of {self.quantity} shares; it must be positive and finite")
        if (self.limit_price is None) != (self.type is OrderType.MARKET_ON_OPEN):
            raise OrderConflict(f"{self.symbol}: a limit order needs a limit price, and a market order has none")
        if not 0 < len(self.client_order_id) <= LONGEST_CLIENT_ORDER_ID:
            raise OrderConflict(f"{self.symbol}: the client order id {self.client_order_id!r} is empty or too long")

    @property
    def signed_quantity(self) -> float:
        """Shares, negative for a sell."""
        return self.side.sign * self.quantity

    def as_json(self) -> dict[str, Any]:
        """Its fields as JSON knows them; `order_from_json` is the way back."""
        return {
            "client_order_id": self.client_order_id,
            "symbol": self.symbol,
            "side": str(self.side),
            "quantity": self.quantity,
            "session": self.session.isoformat(),
            "type": str(self.type),
            "time_in_force": str(self.time_in_force),
            "limit_price": self.limit_price,
        }


def order_from_json(fields: dict[str, Any]) -> Order:
    """The order that `as_json` described."""
    return Order(
        fields["client_order_id"],
        fields["symbol"],
        Side(fields["side"]),
        float(fields["quantity"]),
        date.fromisoformat(fields["session"]),
        OrderType(fields["type"]),
        TimeInForce(fields["time_in_force"]),
        fields["limit_price"],
    )


def client_order_id(strategy: str, scope: str, symbol: str, session: date, target: str, attempt: int = 0) -> str:
    """The name of the order that brings `symbol` to a target at the open of `session`.

    The same intention has the same name at every attempt to carry it out, and a broker takes a name once: so a
    repeat, a crash or a lost answer cannot double a position.

    Args:
        strategy: whose intention it is.
        scope: of `ml.scopes`.
        symbol: the ticker.
        session: at whose open the order is to be executed.
        target: the target as it was asked for, such as `weight 0.05`, not what was made of it at some price.
        attempt: counts orders for this target that ended without a fill and are deliberately tried again.

    Returns:
        At most 48 characters: `symbol-yyyymmdd-` and 16 hexadecimal digits.
    """
    text = "\x1f".join((strategy, scope, symbol, session.isoformat(), target, str(attempt)))
    digest = hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGEST_LENGTH]
    plain = re.sub(r"[^A-Za-z0-9.]", "_", symbol)[:20]
    return f"{plain}-{session:%Y%m%d}-{digest}"


@dataclass(frozen=True)
class OrderReport:
    """What a broker says of an order that it has."""

    client_order_id: str
    broker_order_id: str
    symbol: str
    side: Side
    quantity: float
    """Shares as ordered."""
    state: OrderState
    filled_quantity: float = 0.0
    remaining_quantity: float = 0.0
    """Shares that may still be filled; after a split of the waiting order in new shares."""
    average_price: float | None = None
    """Dollars a share of what was filled."""
    reason: str = ""

    @property
    def signed_remainder(self) -> float:
        """Shares that may still be filled, negative for a sell."""
        return self.side.sign * self.remaining_quantity


@dataclass(frozen=True)
class OrderRecord:
    """An order with all that is known of it."""

    order: Order
    state: OrderState = OrderState.INTENDED
    filled_quantity: float = 0.0
    average_price: float | None = None
    broker_order_id: str | None = None
    reason: str = ""
    plan_id: str = ""

    def moved(self, state: OrderState, reason: str = "") -> "OrderRecord":
        """The record in another state.

        Raises:
            OrderConflict: that state cannot follow the present one.
        """
        if state not in TRANSITIONS[self.state]:
            raise OrderConflict(
                f"{self.order.client_order_id} ({self.order.symbol}): {state} cannot follow {self.state}; "
                f"after {self.state} come {', '.join(sorted(TRANSITIONS[self.state])) or 'no others'}"
            )
        return replace(self, state=state, reason=reason)

    def adopted(self, report: OrderReport) -> "OrderRecord":
        """The record as the broker reports it; the same record if that is nothing new.

        Raises:
            OrderConflict: the report is of another order, takes fills back, or is of a state that cannot follow.
        """
        name = f"{self.order.client_order_id} ({self.order.symbol})"
        same_quantity = abs(report.quantity - self.order.quantity) < _TOLERANCE
        theirs, ours = (report.symbol, report.side), (self.order.symbol, self.order.side)
        if report.client_order_id != self.order.client_order_id or theirs != ours or not same_quantity:
            raise OrderConflict(
                f"{name}: the broker has {report.side} {report.quantity:g} {report.symbol} under this id, we mean "
                f"{self.order.side} {self.order.quantity:g}: halt (`signals orders halt`) and look at the account"
            )
        if report.filled_quantity < self.filled_quantity - _TOLERANCE:
            raise OrderConflict(
                f"{name}: the broker reports {report.filled_quantity:g} shares filled, it had reported "
                f"{self.filled_quantity:g}: halt (`signals orders halt`) and look at the account"
            )
        record = self if report.state is self.state else self.moved(report.state)
        return replace(
            record,
            filled_quantity=report.filled_quantity,
            average_price=report.average_price,
            broker_order_id=report.broker_order_id,
            reason=report.reason,
        )
