"""The portfolio engine: target weights decided at a close become positions at the next open.

One loop over sessions, whole vectors over symbols. In session t, in this order:

1. what was held at the close of t-1 earns interest and pays loan fees for the calendar days since,
2. splits multiply share counts, dividends are paid (by shorts: charged), positions of dead symbols are settled,
3. the orders that were decided at the close of t-1 fill at the open of t; where nothing traded they do not,
4. positions are marked at the close of t, and row t of the weights is read for the first time: it becomes
   orders in shares, by the equity and the closes of t.

So row t cannot trade at anything before the open of t+1: step 4 follows step 3.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from signals_core.errors import DataError, SettingsError
from signals_core.execution.costs import BASIS_POINT, BORROW_DAYS_PER_YEAR, CostModel
from signals_core.strategy.backtest import Backtest
from signals_core.strategy.panel import PricePanel

if TYPE_CHECKING:
    from signals_core.settings_trading import SizingSettings, TradingSettings

_ROUNDING = 1e-9
"""A share count this close below a whole number is that number: 0.1 * 1000 / 10 must be 10."""


@dataclass(frozen=True)
class Rules:
    """How an account trades, whatever the strategy.

    Raises:
        SettingsError: a number is impossible.
    """

    costs: CostModel = field(default_factory=CostModel)
    capital: float = 100_000.0
    """Cash before the first session."""
    cash_bps_per_year: float = 0.0
    """Interest on cash by calendar day, over 365; borrowed cash pays the same."""
    min_hold_sessions: int = 1
    """So many sessions after the open that took it from nothing, a position is not made smaller or reversed:
    1 lets the next open close it. It may grow meanwhile."""
    max_weight: float | None = None
    """What a name may be planned to hold of equity, long or short: at every close a plan beyond it is trimmed."""
    min_trade_weight: float = 0.0
    """A change of a position by less than this share of equity is not ordered, unless it closes the position. A
    position can be above `max_weight` by so much."""
    whole_shares: bool = False
    """Orders are rounded to whole shares, towards zero."""

    def __post_init__(self) -> None:
        if not self.capital > 0 or not np.isfinite(self.capital):
            raise SettingsError(f"backtest: a capital of {self.capital} cannot be traded with")
        if self.min_hold_sessions < 1:
            raise SettingsError(f"backtest: min_hold_sessions is {self.min_hold_sessions}, the least is 1")
        if not 0 <= self.min_trade_weight < np.inf:
            raise SettingsError(f"backtest: min_trade_weight is {self.min_trade_weight}: it must be 0 or more")
        if self.max_weight is not None and not self.max_weight > 0:
            raise SettingsError(f"backtest: max_weight is {self.max_weight}: it must be positive, or None")

    @classmethod
    def from_settings(cls, trading: "TradingSettings", sizing: "SizingSettings | None" = None) -> "Rules":
        """Costs and interest of the section `trading`, and the cap on a name of `sizing`."""
        return cls(
            costs=CostModel.from_settings(trading),
            cash_bps_per_year=trading.cash_bps_per_year,
            min_trade_weight=trading.min_trade_weight,
            max_weight=None if sizing is None else sizing.max_weight,
        )


def simulate(
    panel: PricePanel, weights: pd.DataFrame | np.ndarray, rules: Rules | None = None, tranches: int | None = None
) -> Backtest:
    """Follow `weights` through `panel`.

    An order that does not fill (no open) is decided anew at the next close, from the plan that still stands. A
    symbol that is no member at a close is planned to zero. When equity is used up, everything is closed and
    nothing is opened again.

    Args:
        panel: T sessions of N symbols.
        weights: (T, N), or a frame with dates (any subset) and symbols; row t is known at the close of t. Shares
            of equity, negative for shorts.
        rules: costs, capital and the like; None: no costs.
        tranches: None: a weight is what to hold from the next open on, 0 closes, NaN (or no row) leaves the
            shares as they are. A number h: a weight opens a position of its own, of weight / h, that is closed
            h sessions after it was due to open; 0, NaN or no row opens none. What is held is the sum.

    Raises:
        DataError: weights on dates or symbols that the panel does not have, or infinite ones.
        SettingsError: tranches shorter than the minimum hold.
    """
    rules = rules or Rules()
    if tranches is not None and tranches < rules.min_hold_sessions:
        raise SettingsError(f"tranches of {tranches} sessions are shorter than the minimum hold")
    table = _aligned(panel, weights)
    given = ~np.isnan(table) | ~panel.member
    table = np.where(panel.member, np.nan_to_num(table, nan=0.0), 0.0)
    return _Account(panel, rules).run(table, given, tranches)


class _Account:
    """The state of the account from session to session; arrays (N,) unless said, and never changed in place."""

    def __init__(self, panel: PricePanel, rules: Rules) -> None:
        self.panel, self.rules = panel, rules
        count = len(panel.symbols)
        self.cash = rules.capital
        self.shares = np.zeros(count)
        self.plan = np.zeros(count)
        """Shares that the strategy wants; kept until it says otherwise."""
        self.order = np.zeros(count)
        """Shares to hold after the next open."""
        self.opened = np.zeros(count, dtype="int64")
        """The session whose open took the position from nothing, or to the other side."""
        self.tranches = np.zeros((0, count))
        """(h, N) shares, a row a session of decision, written over after h sessions."""

    def run(self, weights: np.ndarray, given: np.ndarray, tranches: int | None) -> Backtest:
        panel, rules, costs = self.panel, self.rules, self.rules.costs
        sessions, count = weights.shape
        self.tranches = np.zeros((tranches or 0, count))
        mark = np.nan_to_num(panel.mark, nan=0.0)
        # Shares per unit of equity at the close, and what the weights ask for in it.
        per_value = np.divide(1.0, mark, out=np.zeros_like(mark), where=mark > 0)
        asked = weights * per_value / (tranches or 1)
        open_, fillable = np.nan_to_num(panel.open, nan=0.0), ~np.isnan(panel.open)
        acted = _some((panel.split != 1) | (panel.dividend != 0) | panel.settled)
        some_halted, some_outside = _some(~fillable), _some(~panel.member)
        some_given, some_kept = _some(given), _some(~given)
        interest = (rules.cash_bps_per_year * BASIS_POINT / BORROW_DAYS_PER_YEAR * panel.elapsed_days).tolist()
        plain = replace(rules, costs=CostModel(), capital=1.0, cash_bps_per_year=0.0) == Rules(capital=1.0)

        cash, equity = np.empty(sessions), np.empty(sessions)
        shares, traded, settled, ordered = (np.zeros((sessions, count)) for _ in range(4))
        ruined: int | None = None
        for t in range(sessions):
            if t:
                self.cash += self.cash * interest[t]
                if costs.borrow_bps_per_year:
                    self.cash -= costs.total_borrow(mark[t - 1], self.shares, panel.elapsed_days[t])
            if acted[t]:
                settled[t] = self._corporate_actions(t, mark[t - 1])
            self._fill(t, open_[t], fillable[t] if some_halted[t] else None, traded[t])
            worth = self.cash + float(self.shares @ mark[t])
            cash[t], equity[t], shares[t] = self.cash, worth, self.shares
            if worth <= 0 and ruined is None:
                ruined = t
            if ruined is not None:
                self.plan = self.order = np.zeros(count)
            else:
                if tranches is not None:
                    if some_outside[t]:
                        self.tranches *= panel.member[t]
                    self.tranches[t % tranches] = asked[t] * worth
                    self.plan = self.tranches.sum(axis=0)
                elif some_given[t]:
                    plan = asked[t] * worth
                    self.plan = np.where(given[t], plan, self.plan) if some_kept[t] else plan
                self.order = self.plan if plain else self._within_rules(t, worth * per_value[t])
            ordered[t] = self.order
        return Backtest(
            panel, rules.costs, rules.capital, rules.cash_bps_per_year, equity, cash, shares, traded, settled, ordered,
            None if ruined is None else panel.dates[ruined],
        )  # fmt: skip

    def _corporate_actions(self, t: int, last_close: np.ndarray) -> np.ndarray:
        """Splits, dividends and settlements of session t; returns the shares that were settled."""
        panel = self.panel
        ratio = panel.split[t]
        self.shares, self.plan, self.order = self.shares * ratio, self.plan * ratio, self.order * ratio
        self.tranches *= ratio
        self.cash += float(self.shares @ panel.dividend[t])
        gone = panel.settled[t]
        leaving = np.where(gone, self.shares, 0.0)
        if gone.any():
            self.cash += float(leaving @ (last_close * (1 + panel.settlement_return)))
            self.shares, self.plan, self.order = (np.where(gone, 0.0, v) for v in (self.shares, self.plan, self.order))
            self.tranches[:, gone] = 0.0
        return leaving

    def _fill(self, t: int, open_: np.ndarray, fillable: np.ndarray | None, traded: np.ndarray) -> None:
        """Fill the orders where the symbol traded (None: everywhere); writes the shares into `traded`."""
        # Not shares + quantity: what was ordered is held to the last bit, and nothing is left of a closed position.
        after = self.order if fillable is None else np.where(fillable, self.order, self.shares)
        np.subtract(after, self.shares, out=traded)
        self.cash += self.rules.costs.total_cash_flow(open_, traded)
        if self.rules.min_hold_sessions > 1:
            self.opened[(np.sign(after) != np.sign(self.shares)) & (after != 0)] = t
        self.shares = after

    def _within_rules(self, t: int, equity_in_shares: np.ndarray) -> np.ndarray:
        """Orders for the next open from the plan: the cap, whole shares, small changes, the minimum hold."""
        rules = self.rules
        if rules.max_weight is not None:
            limit = rules.max_weight * equity_in_shares
            excess: np.ndarray = np.abs(self.plan) > limit
            if excess.any():
                self.tranches[:, excess] *= limit[excess] / np.abs(self.plan[excess])
                self.plan = np.clip(self.plan, -limit, limit)
        order = self.plan
        if rules.whole_shares:
            order = np.copysign(np.floor(np.abs(order) + _ROUNDING), order) + 0.0
        if rules.min_trade_weight:
            small = np.abs(order - self.shares) < rules.min_trade_weight * equity_in_shares
            order = np.where(small & (order != 0), self.shares, order)
        if rules.min_hold_sessions > 1:
            young = t + 1 - self.opened < rules.min_hold_sessions
            order = np.where(young & ((order - self.shares) * self.shares < 0), self.shares, order)
        return order


def _some(table: np.ndarray) -> list[bool]:
    """Whether any symbol of each session is marked."""
    found: list[bool] = np.logical_or.reduce(table, axis=1).tolist()
    return found


def _aligned(panel: PricePanel, weights: pd.DataFrame | np.ndarray) -> np.ndarray:
    """Weights (T, N) in the panel's order; NaN where there is none."""
    shape = (len(panel.dates), len(panel.symbols))
    if isinstance(weights, pd.DataFrame):
        unknown = [str(name) for name in weights.columns if name not in panel.symbols]
        if unknown:
            raise DataError(f"weights of {', '.join(unknown)}: the price panel has no such symbol")
        strays = weights.index.difference(panel.dates)
        if len(strays):
            raise DataError(f"weights at {strays[0]}: no session of the price panel")
        if not (weights.index.is_unique and weights.columns.is_unique):
            raise DataError("weights: a date or a symbol stands twice")
        table = weights.reindex(index=panel.dates, columns=list(panel.symbols)).to_numpy("float64")
    else:
        table = np.asarray(weights, dtype="float64")
    if table.shape != shape:
        raise DataError(f"weights have the shape {table.shape}, the price panel {shape}")
    if np.isinf(table).any():
        row, column = np.argwhere(np.isinf(table))[0]
        raise DataError(f"weights: {panel.symbols[column]} at {panel.dates[row].date()} is infinite")
    return table
