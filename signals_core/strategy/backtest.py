"""What a simulated account did: equity, positions, trades, and where the money came from."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from signals_core.execution.costs import BASIS_POINT, BORROW_DAYS_PER_YEAR, CostModel
from signals_core.ml.metrics import SESSIONS_PER_YEAR
from signals_core.strategy.panel import PricePanel


@dataclass(frozen=True, eq=False)
class Backtest:
    """The account after each of T sessions, in N symbols; money in the account's currency."""

    panel: PricePanel
    costs: CostModel
    capital: float
    cash_bps_per_year: float
    equity_values: np.ndarray
    """(T,) cash and positions at the close."""
    cash_values: np.ndarray
    """(T,) at the close."""
    shares: np.ndarray
    """(T, N) held at the close."""
    traded: np.ndarray
    """(T, N) shares bought (negative: sold) at the open."""
    settled: np.ndarray
    """(T, N) shares that were closed at the last close known, since the symbol is gone."""
    ordered: np.ndarray
    """(T, N) shares to hold after the next open, decided at the close; the last row has not been executed."""
    ruined_on: pd.Timestamp | None
    """The first session whose close left no equity."""

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The sessions (T,)."""
        return self.panel.dates

    @cached_property
    def equity(self) -> pd.Series:
        """Cash and positions at each close."""
        return pd.Series(self.equity_values, self.dates, name="equity")

    @cached_property
    def cash(self) -> pd.Series:
        """At each close; proceeds of short sales are in it."""
        return pd.Series(self.cash_values, self.dates, name="cash")

    @cached_property
    def returns(self) -> pd.Series:
        """Of equity from close to close; the first session's is against the capital."""
        before = np.concatenate([[self.capital], self.equity_values[:-1]])
        change = np.divide(self.equity_values, before, out=np.ones_like(before), where=before > 0) - 1
        return pd.Series(change, self.dates, name="return")

    @cached_property
    def position_values(self) -> np.ndarray:
        """(T, N) shares times the last close known."""
        value: np.ndarray = self.shares * np.nan_to_num(self.panel.mark, nan=0.0)
        return value

    @property
    def positions(self) -> pd.DataFrame:
        """Shares held at each close, dates by symbols."""
        return self.panel.frame(self.shares)

    @property
    def weights(self) -> pd.DataFrame:
        """Value of each position over equity at each close, dates by symbols."""
        return self.panel.frame(self.position_values / self.equity_values[:, None])

    @cached_property
    def fill_prices(self) -> np.ndarray:
        """(T, N) what each trade was filled at, slippage included; NaN where nothing was traded."""
        price = self.costs.fill_price(self.panel.open, self.traded)
        found: np.ndarray = np.where(self.traded != 0, price, np.nan)
        return found

    @cached_property
    def trades(self) -> pd.DataFrame:
        """One row a fill, in order of date and symbol.

        Columns date, symbol, quantity (negative: sold), price, notional (quantity × price), commission and slippage
        (money, not negative), kind (order, or settlement of a symbol that is gone), decided (the session at whose
        close it was ordered; NaT for a settlement).
        """
        fills = self._fills(self.traded, self.fill_prices, "order")
        last = np.vstack([np.full(len(self.panel.symbols), np.nan), self.panel.mark[:-1]])
        ends = self._fills(-self.settled, last * (1 + self.panel.settlement_return), "settlement")
        frame = pd.concat([fills, ends], ignore_index=True) if len(ends) else fills
        return frame.sort_values(["date", "symbol", "kind"], ignore_index=True) if len(ends) else frame

    def _fills(self, quantity: np.ndarray, price: np.ndarray, kind: str) -> pd.DataFrame:
        rows, columns = np.nonzero(quantity)
        shares, paid, dates = quantity[rows, columns], price[rows, columns], self.dates.to_numpy()
        nothing = np.zeros(len(rows))
        ordered = kind == "order"
        return pd.DataFrame(
            {
                "date": dates[rows],
                "symbol": np.array(self.panel.symbols, dtype=object)[columns],
                "quantity": shares,
                "price": paid,
                "notional": shares * paid,
                "commission": self.costs.commission(shares * paid) if ordered else nothing,
                "slippage": shares * (paid - self.panel.open[rows, columns]) if ordered else nothing,
                "kind": kind,
                "decided": dates[rows - 1] if ordered else np.full(len(rows), np.datetime64("NaT", "us")),
            }
        )

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """Where the change of equity came from, session by session; the columns add up to it.

        price (positions at the closes, against what was paid at the open without slippage), dividends, interest,
        commission, slippage, borrow; costs are negative.
        """
        parts = self._parts()
        days = self.panel.elapsed_days
        before = np.concatenate([[0.0], self.cash_values[:-1]])
        interest = before * self.cash_bps_per_year * BASIS_POINT * days / BORROW_DAYS_PER_YEAR
        columns = {name: values.sum(axis=1) for name, values in parts.items()}
        order = ("price", "dividends", "interest", "commission", "slippage", "borrow")
        return pd.DataFrame({name: interest if name == "interest" else columns[name] for name in order}, self.dates)

    @cached_property
    def earned(self) -> np.ndarray:
        """(T, N) what each symbol added to equity in each session, all its costs taken off; interest is not in it."""
        return sum(self._parts().values(), start=np.zeros_like(self.shares))

    def _parts(self) -> dict[str, np.ndarray]:
        """Each (T, N); together they are `earned`."""
        value = self.position_values
        before = np.vstack([np.zeros(value.shape[1]), value[:-1]])
        held = np.vstack([np.zeros(value.shape[1]), self.shares[:-1]]) * self.panel.split
        open_ = np.nan_to_num(self.panel.open, nan=0.0)
        slippage = self.traded * (self.costs.fill_price(open_, self.traded) - open_)
        last = np.vstack([np.zeros(value.shape[1]), np.nan_to_num(self.panel.mark[:-1], nan=0.0)])
        proceeds = self.settled * last * (1 + self.panel.settlement_return)
        return {
            "price": value - before - self.traded * open_ + proceeds,
            "dividends": held * self.panel.dividend,
            "commission": -self.costs.commission(self.traded * open_ + slippage),
            "slippage": -slippage,
            "borrow": -self.costs.borrow(before, self.panel.elapsed_days[:, None]),
        }

    @cached_property
    def turnover(self) -> pd.Series:
        """Bought and sold at each open, at that open, over the equity of the close before."""
        before = np.concatenate([[self.capital], self.equity_values[:-1]])
        amount = np.abs(self.traded * np.nan_to_num(self.panel.open, nan=0.0)).sum(axis=1)
        share = np.divide(amount, before, out=np.zeros_like(amount), where=before > 0)
        return pd.Series(share, self.dates, name="turnover")

    @property
    def annual_turnover(self) -> float:
        """Times equity, bought and sold, a year of 252 sessions."""
        return float(self.turnover.mean() * SESSIONS_PER_YEAR)

    @cached_property
    def exposure(self) -> pd.DataFrame:
        """Shares of equity at each close: long, short (negative), gross and net."""
        value, equity = self.position_values, self.equity_values
        long, short = np.maximum(value, 0).sum(axis=1) / equity, np.minimum(value, 0).sum(axis=1) / equity
        columns = {"long": long, "short": short, "gross": long - short, "net": long + short}
        return pd.DataFrame(columns, self.dates)

    @cached_property
    def drawdown(self) -> pd.Series:
        """Equity below its highest close so far, the capital included: 0 or negative."""
        highest = np.maximum(np.maximum.accumulate(self.equity_values), self.capital)
        return pd.Series(self.equity_values / highest - 1, self.dates, name="drawdown")
