"""What trading costs: one model for the backtest, the paper broker and the expected-return rule.

Every function takes scalars or arrays of one shape and gives the same back; money is in the account's currency,
quantities are signed shares (positive buys, negative sells), rates are in basis points (1 bp = 0.0001).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from signals_core.errors import SettingsError

if TYPE_CHECKING:
    from signals_core.settings_trading import TradingSettings

Amount = TypeVar("Amount", float, np.ndarray)
"""A number, or an array of them."""

BASIS_POINT = 1e-4
BORROW_DAYS_PER_YEAR = 365.0
"""Stock loan fees accrue by calendar day, weekends included."""


@dataclass(frozen=True)
class CostModel:
    """Proportional costs.

    Raises:
        SettingsError: a cost is negative, not finite, or slippage is 100 % and more.
    """

    commission_bps: float = 0.0
    """Of the notional of a fill, paid in cash beside it."""
    slippage_bps: float = 0.0
    """By which a buy fills above and a sale below the price: half the spread and the impact of a small order."""
    borrow_bps_per_year: float = 0.0
    """Of the value of short positions at the close, per 365 calendar days."""

    def __post_init__(self) -> None:
        for name in ("commission_bps", "slippage_bps", "borrow_bps_per_year"):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0:
                raise SettingsError(f"costs: {name} is {value}: it must be a finite number of basis points, 0 or more")
        if self.slippage_bps >= 1 / BASIS_POINT:
            raise SettingsError(f"costs: slippage_bps is {self.slippage_bps}: a sale would fill at or below 0")

    @classmethod
    def from_settings(cls, trading: "TradingSettings") -> "CostModel":
        """The costs of the settings' section `trading`."""
        return cls(trading.commission_bps, trading.slippage_bps, trading.borrow_bps_per_year)

    def fill_price(self, open_price: Amount, quantity: Amount) -> Amount:
        """The price per share at which an order fills: the open, worse by the slippage.

        Args:
            open_price: of the session that fills the order.
            quantity: signed; only its sign counts, and 0 fills at the open itself.
        """
        price: Amount = open_price * (1 + np.sign(quantity) * self.slippage_bps * BASIS_POINT)
        return price

    def commission(self, notional: Amount) -> Amount:
        """The commission on a fill of `notional` = quantity × fill price, of either sign; never negative."""
        fee: Amount = np.abs(notional) * (self.commission_bps * BASIS_POINT)
        return fee

    def cash_flow(self, open_price: Amount, quantity: Amount) -> Amount:
        """What filling `quantity` at the open adds to the cash: negative for a buy, commission included."""
        notional = quantity * self.fill_price(open_price, quantity)
        flow: Amount = -notional - self.commission(notional)
        return flow

    def total_cash_flow(self, open_prices: np.ndarray, quantities: np.ndarray) -> float:
        """The sum of `cash_flow` over arrays (n,): since |notional| is |a| + slippage a, a few sums are enough.

        Args:
            open_prices: finite, also where nothing is traded.
        """
        amount = quantities @ open_prices
        gross = np.abs(quantities) @ open_prices
        slippage, rate = self.slippage_bps * BASIS_POINT, self.commission_bps * BASIS_POINT
        return -float(amount + slippage * gross + rate * (gross + slippage * amount))

    def borrow(self, market_value: Amount, calendar_days: Amount | float) -> Amount:
        """The loan fee of holding positions of `market_value` (signed; longs are free) for some calendar days."""
        fee: Amount = np.maximum(-market_value, 0.0) * (
            self.borrow_bps_per_year * BASIS_POINT * calendar_days / BORROW_DAYS_PER_YEAR
        )
        return fee

    def total_borrow(self, prices: np.ndarray, quantities: np.ndarray, calendar_days: float) -> float:
        """The sum of `borrow` over positions of `quantities` at positive `prices`, arrays (n,)."""
        return -float(np.minimum(quantities, 0.0) @ prices) * (
            self.borrow_bps_per_year * BASIS_POINT * calendar_days / BORROW_DAYS_PER_YEAR
        )

    @property
    def one_way_bps(self) -> float:
        """Commission and slippage of trading a unit of value once, to the first order."""
        return self.commission_bps + self.slippage_bps
