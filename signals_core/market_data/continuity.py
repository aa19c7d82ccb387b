"""What no single bar shows: a frozen feed, a split nobody told of, prices adjusted twice, another company.

A break in a series is judged at the open after it, against the splits that the source has told of.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from signals_core.market_data.prices import effects_per_bar
from signals_core.market_data.schemas import BAR_COLUMNS
from signals_core.market_data.screening import ScreenedBars

_CONTEXT = 40
"""Stored bars before the first new one that it is judged against."""
_FROZEN_RUN = 3
_LONGEST_GAP_SESSIONS = 120
_RATIOS = np.array([3 / 2, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 40, 50, 100])
_NEAR = np.log(1.03)
_CALM_VOLUME = 4.0
"""A split leaves the traded value as it was; a crash multiplies it."""
_JUDGED_SPLIT = np.log(1.4)
"""Smaller ones cannot be told from an ordinary night."""


@dataclass(frozen=True)
class Break:
    """A date at which a series stops being comparable with what was before."""

    date: pd.Timestamp
    reason: str
    keep: str
    """later or earlier: the part that is kept."""


def screen_series(
    screened: ScreenedBars, sessions: pd.DatetimeIndex, stored: pd.DataFrame, accepted: Collection[str] = ()
) -> ScreenedBars:
    """Refuse bars that contradict the bars around them; the rest go on.

    Args:
        screened: good rows of one symbol, as traded, and its actions.
        sessions: of the exchange.
        stored: the symbol's bars in the store, as traded; may be empty.
        accepted: dates (YYYY-MM-DD) of breaks that a person has found genuine.
    """
    good, actions, rejected = screened.good, screened.actions, [screened.rejected]
    frozen = _frozen(good)
    rejected.append(_refused(good.index[frozen], "equal to the bars before: the feed is frozen"))
    good = good[~frozen]
    earlier = stored.loc[stored.index < good.index[0], list(BAR_COLUMNS)].tail(_CONTEXT) if len(good) else good
    series = pd.concat([earlier, good])
    twice = _already_adjusted(series, actions)
    for at in twice:
        text = f"split of {actions.loc[at, 'value']:g} without a jump in the price: the bars are adjusted already"
        rejected.append(_refused([actions.loc[at, "ex_date"]], text))
    actions = actions.drop(index=twice)
    impossible = _above_the_price(series, actions)
    for at in impossible:
        rejected.append(_refused([actions.loc[at, "ex_date"]], "dividend is not below the close before it"))
    actions = actions.drop(index=impossible).reset_index(drop=True)
    for found in _breaks(series, actions, sessions, len(earlier)):
        if str(found.date.date()) in accepted:
            continue
        gone = good.index >= found.date if found.keep == "earlier" else good.index < found.date
        rejected.append(_refused(good.index[gone], found.reason))
        good = good[~gone]
    return ScreenedBars(good, _numbered_on(rejected), actions)


def _refused(dates: Collection[pd.Timestamp] | pd.Index, reason: str) -> pd.DataFrame:
    items = [str(pd.Timestamp(day).date()) for day in dates]
    return pd.DataFrame({"item": items, "reason": reason}, index=range(len(items)))


def _numbered_on(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """One frame; the refusals of the series are numbered on after the source's rows, so that none hides another."""
    first, *others = parts
    following = pd.concat(others, ignore_index=True)
    following.index += int(first.index.max()) + 1 if len(first) else 0
    return pd.concat([first, following])


def _frozen(bars: pd.DataFrame) -> np.ndarray:
    """Bars that repeat the one before, from the first repeat of a run of `_FROZEN_RUN` equal bars."""
    values = bars[list(BAR_COLUMNS)].to_numpy()
    same = np.zeros(len(bars), dtype=bool)
    same[1:] = (values[1:] == values[:-1]).all(axis=1)
    run = pd.Series(same).groupby(np.cumsum(~same)).transform("sum") + 1
    return same & (run >= _FROZEN_RUN).to_numpy()


def _overnight(bars: pd.DataFrame) -> np.ndarray:
    """log(open / close of the bar before); 0 at the first bar."""
    steps = np.zeros(len(bars))
    steps[1:] = np.log(bars["open"].to_numpy()[1:] / bars["close"].to_numpy()[:-1])
    return steps


def _above_the_price(bars: pd.DataFrame, actions: pd.DataFrame) -> list[int]:
    """Dividends that are not below the close before them, with the others and on the new shares of that bar."""
    split, _, dividend = effects_per_bar(bars, actions)
    before = bars["close"].shift(1).to_numpy()
    impossible = np.flatnonzero(dividend * split >= before)
    position = bars.index.searchsorted(actions["ex_date"].to_numpy(), side="left")
    dividends = (actions["kind"] == "dividend").to_numpy()
    return list(actions.index[dividends & np.isin(position, impossible)])


def _already_adjusted(bars: pd.DataFrame, actions: pd.DataFrame) -> list[int]:
    """Actions that are splits and at which the price does not move as a split makes it."""
    steps, found = _overnight(bars), []
    for at in actions.index[actions["kind"] == "split"]:
        position = int(bars.index.searchsorted(actions.loc[at, "ex_date"], side="left"))
        ratio = float(np.log(actions.loc[at, "value"]))
        if 0 < position < len(bars) and abs(ratio) > _JUDGED_SPLIT:
            step = steps[position]
            if abs(step) < abs(step + ratio):
                found.append(at)
    return found


def _breaks(bars: pd.DataFrame, actions: pd.DataFrame, sessions: pd.DatetimeIndex, known: int) -> list[Break]:
    """Breaks after the first `known` bars, which are in the store already."""
    if len(bars) < 2:
        return []
    found = []
    missing = np.diff(sessions.searchsorted(bars.index)) - 1
    for at in np.flatnonzero(missing > _LONGEST_GAP_SESSIONS) + 1:
        if at < known:
            continue
        text = f"{missing[at - 1]} sessions without a bar before it: the symbol may belong to another company now"
        found.append(Break(bars.index[at], text, "earlier" if known else "later"))
    split, factor, _ = effects_per_bar(bars, actions)
    steps, expected = _overnight(bars), np.log(factor / split)
    for at in np.flatnonzero(np.abs(steps - expected) > _JUDGED_SPLIT):
        reason = _why(bars, int(at), steps[at], expected[at]) if at >= known else None
        if reason:
            found.append(Break(bars.index[at], reason, "later" if not known and at < len(bars) / 2 else "earlier"))
    return found


def _why(bars: pd.DataFrame, at: int, step: float, expected: float) -> str | None:
    """Why the open at a position cannot follow the close before it; None if it can."""
    change = f"opens at {np.exp(step):.4g} times the close before"
    if abs(expected) > _JUDGED_SPLIT:
        twice = abs(step - 2 * expected) < _NEAR
        return f"{change}, where a split explains {np.exp(expected):.4g}: adjusted twice" if twice else None
    ratio = _RATIOS[np.argmin(np.abs(np.log(_RATIOS) - abs(step)))]
    if abs(np.log(ratio) - abs(step)) > _NEAR:
        return None
    before = float(bars["volume"].iloc[max(0, at - 20) : at].median())
    grown = float(bars["volume"].iloc[at]) / (ratio if step < 0 else 1 / ratio)
    if before == 0 or grown > _CALM_VOLUME * before:
        return None  # an index, or a crash or a takeover, in which everybody trades
    kind = f"{ratio:g} for 1" if step < 0 else f"1 for {ratio:g}"
    return f"{change}: a split of {kind} that the source does not report?"
