"""Prices, corporate actions and membership of a universe as aligned arrays of sessions by symbols."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from signals_core.calendar import to_sessions
from signals_core.errors import DataError
from signals_core.market_data.prices import effects_per_bar

Dividends = Literal["cash", "reinvested"]
"""cash: paid into the account, as a broker does. reinvested: turned into shares at the close before the ex-date,
so that a held share earns the total return of the adjusted close exactly."""

MISSING_SESSIONS = 20
"""A symbol without a close for so long in a row is taken for gone, and its positions are settled."""


@dataclass(frozen=True)
class PricePanel:
    """T sessions of N symbols, as traded. Rows are sessions, columns symbols in alphabetical order.

    A missing bar (halt, not listed yet, delisted) is NaN in `open` and `close`. Nothing is filled.

    Raises:
        DataError: shapes differ, dates or symbols are not in order and unique, a price is not positive, or a
            corporate action stands on a session without a close.
    """

    dates: pd.DatetimeIndex
    symbols: tuple[str, ...]
    open: np.ndarray
    """(T, N) float64, NaN where nothing traded: orders for this open do not fill."""
    close: np.ndarray
    """(T, N) float64; where it is NaN, positions keep the last close before."""
    split: np.ndarray
    """(T, N) shares after for one before, effective before the open of the session; 1 where there is none."""
    dividend: np.ndarray
    """(T, N) cash per share as it stands on the ex-date, after its split; 0 where there is none."""
    member: np.ndarray
    """(T, N) bool: whether a position may be held, known at the close of the session."""
    settled: np.ndarray
    """(T, N) bool: positions are closed at the last close known, before the open of the session."""
    settlement_return: np.ndarray
    """(N,) what a holder earns beside the last close when a position is settled: -0.3 loses 30 %."""

    def __post_init__(self) -> None:
        shape = (len(self.dates), len(self.symbols))
        for name in ("open", "close", "split", "dividend", "member", "settled"):
            if getattr(self, name).shape != shape:
                raise DataError(f"price panel: {name} has the shape {getattr(self, name).shape}, not {shape}")
        if not (self.dates.is_monotonic_increasing and self.dates.is_unique):
            raise DataError("price panel: the dates are not in order, or one stands twice")
        if list(self.symbols) != sorted(set(self.symbols)):
            raise DataError("price panel: the symbols are not in alphabetical order, or one stands twice")
        for name in ("open", "close", "split"):
            values = getattr(self, name)
            self._refuse((values <= 0) | np.isinf(values), f"{name} is not a positive number")
        self._refuse(~np.isfinite(self.split) | ~np.isfinite(self.dividend), "a split or dividend is not a number")
        acted = (self.split != 1) | (self.dividend != 0)
        self._refuse(acted & np.isnan(self.close), "a split or dividend on a session without a close")

    def _refuse(self, wrong: np.ndarray, problem: str) -> None:
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise DataError(f"price panel: {self.symbols[column]} at {self.dates[row].date()}: {problem}")

    @classmethod
    def from_bars(
        cls,
        bars: Mapping[str, pd.DataFrame],
        actions: Mapping[str, pd.DataFrame] | None = None,
        members: pd.DataFrame | None = None,
        dividends: Dividends = "cash",
        delistings: Mapping[str, tuple[date, float]] | None = None,
        missing_sessions: int = MISSING_SESSIONS,
        sessions: pd.DatetimeIndex | None = None,
    ) -> "PricePanel":
        """A panel of the sessions on which any symbol has a bar.

        Bars adjusted already go in as they are, without `actions`: shares are then counted in the series' own
        unit, and what is earned is the same.

        Args:
            bars: by symbol; index `date`, columns open and close (others are ignored), missing ones NaN.
            actions: by symbol; columns ex_date, kind (split, dividend, factor), value, as the market store gives
                them. A factor, known only from an adjusted close, is counted in shares.
            members: index dates, a bool column a symbol: who may be held; sessions between two rows take the
                earlier one, sessions before the first are out, symbols without a column are always in. None: all.
            dividends: as cash or reinvested.
            delistings: by symbol, the last session of trading, and what was earned after it (-0.3: 30 % lost).
                Positions are settled in the session after.
            missing_sessions: see `MISSING_SESSIONS`; looks at the past only.
            sessions: the calendar to lay the bars out on; bars on other dates are refused.

        Raises:
            DataError: there are no bars, a bar is off the calendar, or `PricePanel` refuses the arrays.
        """
        symbols = tuple(sorted(bars))
        if not symbols:
            raise DataError("price panel: no symbols")
        if sessions is None:
            sessions = pd.DatetimeIndex(np.unique(np.concatenate([bars[s].index.to_numpy() for s in symbols])))
        dates = to_sessions(sessions).rename("date")
        shape = (len(dates), len(symbols))
        open_, close = np.full(shape, np.nan), np.full(shape, np.nan)
        split, dividend = np.ones(shape), np.zeros(shape)
        for column, symbol in enumerate(symbols):
            frame = bars[symbol]
            rows = dates.get_indexer(to_sessions(frame.index))
            if (rows < 0).any():
                stray = frame.index[rows < 0][0]
                raise DataError(f"price panel: {symbol} has a bar on {stray.date()}, which is not among the sessions")
            open_[rows, column], close[rows, column] = frame["open"], frame["close"]
            if actions is not None and symbol in actions and len(actions[symbol]):
                # On a bar without a close an action has nothing to stand on: it counts from the next one.
                priced = frame[frame["close"].notna()]
                ratio, factor, paid = effects_per_bar(priced, actions[symbol])
                shares = ratio / factor
                if dividends == "reinvested":
                    before = np.concatenate([[np.inf], priced["close"].to_numpy()[:-1]])
                    shares, paid = shares / (1 - paid * ratio / before), np.zeros(len(priced))
                at = rows[frame["close"].notna().to_numpy()]
                split[at, column], dividend[at, column] = shares, paid
        return cls(
            dates, symbols, open_, close, split, dividend, _membership(members, dates, symbols),
            *_settlement(close, dates, symbols, delistings or {}, missing_sessions),
        )  # fmt: skip

    @cached_property
    def mark(self) -> np.ndarray:
        """(T, N) the last close known at each session's close; NaN before the first."""
        rows = np.where(np.isnan(self.close), -1, np.arange(len(self.dates))[:, None])
        last = np.maximum.accumulate(rows, axis=0)
        found: np.ndarray = np.where(last >= 0, np.take_along_axis(self.close, np.maximum(last, 0), axis=0), np.nan)
        return found

    @cached_property
    def elapsed_days(self) -> np.ndarray:
        """(T,) calendar days since the session before; 0 for the first."""
        days = self.dates.to_numpy().astype("datetime64[D]").astype("int64")
        return np.diff(days, prepend=days[:1]).astype("float64")

    def between(self, start: date | None = None, end: date | None = None) -> "PricePanel":
        """The sessions with start <= session < end.

        A halt that began before `start` and ends after it counts from `start` on: its last close is cut off.
        """
        first = 0 if start is None else int(self.dates.searchsorted(pd.Timestamp(start)))
        last = len(self.dates) if end is None else int(self.dates.searchsorted(pd.Timestamp(end)))
        rows = slice(first, max(first, last))
        cut = {name: getattr(self, name)[rows] for name in ("open", "close", "split", "dividend", "member", "settled")}
        return replace(self, dates=self.dates[rows], **cut)

    def frame(self, values: np.ndarray) -> pd.DataFrame:
        """An array (T, N) with its dates and symbols."""
        return pd.DataFrame(values, self.dates, pd.Index(self.symbols, name="symbol"), copy=False)

    def total_return_factor(self) -> np.ndarray:
        """(T, N) what one unit of value at each session's close was worth in shares of the panel's first session.

        The close times this is the total-return price, up to a constant: splits multiply shares, dividends buy
        shares at the close before the ex-date.
        """
        before = np.vstack([np.full(len(self.symbols), np.inf), self.mark[:-1]])
        before = np.where(np.isnan(before), np.inf, before)
        grown: np.ndarray = np.cumprod(self.split / (1 - self.dividend * self.split / before), axis=0)
        return grown


def _membership(members: pd.DataFrame | None, dates: pd.DatetimeIndex, symbols: tuple[str, ...]) -> np.ndarray:
    inside = np.ones((len(dates), len(symbols)), dtype=bool)
    if members is None:
        return inside
    row = to_sessions(members.index).searchsorted(dates, side="right") - 1
    for column, symbol in enumerate(symbols):
        if symbol in members:
            known = members[symbol].to_numpy(dtype=bool)
            inside[:, column] = np.where(row >= 0, known[np.maximum(row, 0)], False)
    return inside


def _settlement(
    close: np.ndarray,
    dates: pd.DatetimeIndex,
    symbols: tuple[str, ...],
    delistings: Mapping[str, tuple[date, float]],
    missing_sessions: int,
) -> tuple[np.ndarray, np.ndarray]:
    """When positions are settled (T, N), and what is earned then (N,)."""
    unknown = sorted(set(delistings) - set(symbols))
    if unknown:
        raise DataError(f"delistings: {', '.join(unknown)} has no bars")
    number = np.arange(len(dates))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(close), -1, number), axis=0)
    # Only once a symbol has traded at all, and in the session at which the count is full.
    settled = (last >= 0) & (number - last == missing_sessions)
    earned = np.zeros(len(symbols))
    for symbol, (session, extra) in delistings.items():
        column = symbols.index(symbol)
        after = int(dates.searchsorted(pd.Timestamp(session), side="right"))
        if not np.isnan(close[after:, column]).all():
            raise DataError(f"delistings: {symbol} has bars after its last session, {session}")
        if extra < -1:
            raise DataError(f"delistings: {symbol} cannot lose more than everything, not {extra:g}")
        earned[column] = extra
        settled[after : after + 1, column] = True
    return settled, earned
