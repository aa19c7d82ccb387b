"""What happened to a universe, and what of it was known at the close of each session."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property

import pandas as pd

from signals_core.market_data.prices import adjust
from signals_core.market_data.schemas import BAR_COLUMNS
from signals_core.strategy.base import OHLCV, to_frame, to_ohlcv
from signals_core.strategy.panel import MISSING_SESSIONS, PricePanel

Bars = Mapping[str, Sequence[OHLCV] | pd.DataFrame]
"""By symbol: a list of OHLCV, or a frame with the index `date` and the columns of bars."""


@dataclass(frozen=True)
class MarketHistory:
    """Bars of a universe with what else happened to the shares.

    Accounts trade at the bars as they are given. Strategies see them adjusted forward for the actions, so that
    prices can be compared over time and later actions change nothing earlier; without actions they see them as
    given, so give adjusted ones then.
    """

    bars: Bars
    actions: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """By symbol: columns ex_date, kind (split, dividend, factor), value."""
    members: pd.DataFrame | None = None
    """Index dates, a bool column a symbol; see `PricePanel.from_bars`."""
    delistings: Mapping[str, tuple[date, float]] = field(default_factory=dict)
    """By symbol, the last session and what was earned after it; see `PricePanel.from_bars`."""
    missing_sessions: int = MISSING_SESSIONS

    @cached_property
    def frames(self) -> dict[str, pd.DataFrame]:
        """The bars as frames."""
        return {s: bars if isinstance(bars, pd.DataFrame) else to_frame(bars) for s, bars in self.bars.items()}

    @cached_property
    def panel(self) -> PricePanel:
        """All sessions, for the portfolio engine; dividends are paid in cash."""
        return PricePanel.from_bars(
            self.frames, self.actions, self.members,
            delistings=self.delistings, missing_sessions=self.missing_sessions,
        )  # fmt: skip

    @cached_property
    def adjusted(self) -> dict[str, pd.DataFrame]:
        """Bars as strategies see them: those with a close, adjusted forward."""
        found = {}
        for symbol, frame in self.frames.items():
            bars = frame.loc[frame["close"].notna(), list(BAR_COLUMNS)]
            actions = self.actions.get(symbol)
            if actions is not None and len(actions):
                bars = adjust(bars, actions, "forward")[list(BAR_COLUMNS)]
            found[symbol] = bars
        return found

    @cached_property
    def _lists(self) -> dict[str, list[OHLCV]]:
        return {symbol: to_ohlcv(bars) for symbol, bars in self.adjusted.items()}

    @cached_property
    def _ends(self) -> dict[str, list[int]]:
        """By symbol, how many of its bars are known at the close of each session of the panel."""
        return {
            symbol: bars.index.searchsorted(self.panel.dates, side="right").tolist()
            for symbol, bars in self.adjusted.items()
        }

    def known_at(self, session: int, lookback: int | None = None) -> dict[str, list[OHLCV]]:
        """What a strategy is given at the close of the panel's session number `session`.

        Lists are copied, so that a strategy can do with them what it likes: 8 bytes a bar.

        Args:
            session: a row of `panel`.
            lookback: at most so many bars a symbol.
        """
        known = {}
        for symbol, bars in self._lists.items():
            end = self._ends[symbol][session]
            if end:
                known[symbol] = bars[0 if lookback is None else max(0, end - lookback) : end]
        return known

    def before(self, day: date) -> "MarketHistory":
        """The history as it was before a day: bars, actions, members and ends of earlier days alone."""
        moment = pd.Timestamp(day)
        bars = {symbol: frame[frame.index < moment] for symbol, frame in self.frames.items()}
        return replace(
            self,
            bars={symbol: frame for symbol, frame in bars.items() if len(frame)},
            actions={symbol: rows[rows["ex_date"] < moment] for symbol, rows in self.actions.items()},
            members=None if self.members is None else self.members[self.members.index < moment],
            delistings={s: end for s, end in self.delistings.items() if pd.Timestamp(end[0]) < moment},
        )
