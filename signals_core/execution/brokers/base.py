"""What every broker does."""

from dataclasses import dataclass
from typing import Protocol

from signals_core.execution.orders import Order, OrderReport


@dataclass(frozen=True)
class Position:
    """Shares held of a symbol, negative if sold short."""

    symbol: str
    quantity: float
    average_price: float
    """Dollars a share paid or received for what is held."""
    last_price: float | None = None
    """Dollars a share at the broker's latest price."""


@dataclass(frozen=True)
class Account:
    """An account's money, in dollars."""

    equity: float
    """Cash and the value of all positions, shorts negative."""
    cash: float
    buying_power: float
    """What may be bought or sold short on top of what is held and ordered."""
    blocked: str = ""
    """Why the broker takes no orders, or nothing."""


class Broker(Protocol):
    """An account to which orders can be sent; each method asks anew."""

    @property
    def name(self) -> str:
        """Names the account's journal: `paper`, `alpaca-paper`, `alpaca-live`."""
        ...

    @property
    def flips_in_one_order(self) -> bool:
        """Whether one order may turn a long position into a short one, or the reverse."""
        ...

    @property
    def fractional_shorts(self) -> bool:
        """Whether fractions of a share can be sold short."""
        ...

    def submit(self, order: Order) -> OrderReport:
        """Send an order; one that the broker has already, under the same client order id, is not placed again.

        Raises:
            OrderRejected: refused for good.
            OutcomeUnknown: the answer was lost; ask `get_by_client_id`.
            BrokerError: access refused; the order was not taken.
        """
        ...

    def get_by_client_id(self, client_order_id: str) -> OrderReport | None:
        """What the broker knows of an order; None if it has none of this id.

        Raises:
            BrokerError: it does not answer.
        """
        ...

    def list_open(self) -> list[OrderReport]:
        """Every order that may still be filled, whoever sent it.

        Raises:
            BrokerError: it does not answer.
        """
        ...

    def cancel(self, client_order_id: str) -> None:
        """Ask for an order to be cancelled; what became of it, `get_by_client_id` tells.

        Raises:
            BrokerError: it does not answer.
        """
        ...

    def positions(self) -> list[Position]:
        """What is held, by symbol.

        Raises:
            BrokerError: it does not answer.
        """
        ...

    def account(self) -> Account:
        """The account's money.

        Raises:
            BrokerError: it does not answer.
        """
        ...

    def close(self) -> None:
        """Release what is held open."""
        ...
