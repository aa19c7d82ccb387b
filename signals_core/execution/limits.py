"""Pre-trade limits: what no order may do, whatever the strategy wants."""

import math
from dataclasses import dataclass
from datetime import date

from signals_core.settings_trading import OrderLimits


@dataclass(frozen=True)
class Quote:
    """The last close known of a symbol, as traded."""

    close: float
    session: date
    age_sessions: int
    """Sessions that have closed since; 0 is fresh."""


@dataclass(frozen=True)
class Proposal:
    """An order before it is one: from a position to another, in shares, at a price."""

    symbol: str
    before: float
    """Shares held and waiting."""
    after: float
    quote: Quote
    reference: float
    """Dollars a share that the sizing reckoned with, or the broker's latest price."""

    @property
    def notional(self) -> float:
        """Dollars traded."""
        return abs(self.after - self.before) * self.quote.close

    @property
    def reduces(self) -> bool:
        """Whether the position only becomes smaller."""
        return abs(self.after) < abs(self.before) and self.after * self.before >= 0


def price_breach(proposal: Proposal, limits: OrderLimits) -> str:
    """Why the price cannot be trusted, or nothing.

    A stale price or one far from the last close is refused for every order, exits included: the size of the
    order would be a guess.
    """
    quote = proposal.quote
    if quote.age_sessions > limits.max_price_age_sessions:
        return f"stale: the last bar is of {quote.session}, {quote.age_sessions} sessions old"
    if not (math.isfinite(quote.close) and quote.close > 0):
        return f"the last close is {quote.close}"
    apart = abs(proposal.reference / quote.close - 1)
    if not apart <= limits.price_collar:
        return (
            f"price collar: {proposal.reference:g} is {apart:.1%} from the last close {quote.close:g}, the limit is "
            f"{limits.price_collar:.1%}"
        )
    return ""


def size_breach(proposal: Proposal, limits: OrderLimits, equity: float, gross_elsewhere: float) -> str:
    """Which limit of size an order would break, or nothing.

    An order that only makes a position smaller is held to the notional alone: leaving must stay possible.

    Args:
        proposal: the order.
        limits: of the settings.
        equity: dollars.
        gross_elsewhere: dollars of all other positions and waiting orders, long and short added.
    """
    # Written so that an amount that is not known breaks the limit.
    if not proposal.notional <= limits.max_order_notional:
        return f"order notional {proposal.notional:,.0f} above max_order_notional {limits.max_order_notional:,.0f}"
    if proposal.reduces:
        return ""
    if not equity > 0:
        return f"the account's equity is {equity:,.0f}"
    value = abs(proposal.after) * proposal.quote.close
    if not value <= limits.max_position_share * equity:
        return f"position {value / equity:.1%} of equity above max_position_share {limits.max_position_share:.1%}"
    if not gross_elsewhere + value <= limits.max_gross * equity:
        return f"gross {(gross_elsewhere + value) / equity:.2f} times equity above max_gross {limits.max_gross:g}"
    return ""
