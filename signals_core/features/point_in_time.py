"""The one as-of join: what was knowable at the close of each session.

A fact is knowable at session t when its `available_at` is not after the close of t. Nothing here loops over
rows: each fact is known from the first close that knows it to the first that knows the next.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

NOT_KNOWN = -1


def as_of_positions(
    closes: np.ndarray | pd.DatetimeIndex,
    available_at: np.ndarray | pd.Series | pd.DatetimeIndex,
    bar_offsets: np.ndarray | None = None,
    fact_offsets: np.ndarray | None = None,
    max_age: timedelta | None = None,
) -> np.ndarray:
    """The position of the latest fact knowable at each close (m,) int64; `NOT_KNOWN` where there is none.

    Args:
        closes: m moments, sorted within a symbol, as from `calendar.session_closes`.
        available_at: n moments, sorted within a symbol; of equal moments the last fact wins.
        bar_offsets: for a panel of s symbols, (s + 1,) offsets of each symbol's closes. None: one symbol.
        fact_offsets: likewise of its facts.
        max_age: a fact older than that at the close is not known any more.
    """
    closes, available_at = np.asarray(closes), np.asarray(available_at)
    bars = np.array([0, len(closes)]) if bar_offsets is None else np.asarray(bar_offsets)
    facts = np.array([0, len(available_at)]) if fact_offsets is None else np.asarray(fact_offsets)
    symbols = len(bars) - 1
    # Each symbol's closes are runs: of those before its first fact, then of those that know each of its facts.
    ends = np.empty(len(available_at) + symbols, dtype=np.int64)
    ends[facts[1:] + np.arange(symbols)] = bars[1:]
    for number, (first, last, begin, end) in enumerate(
        zip(bars[:-1].tolist(), bars[1:].tolist(), facts[:-1].tolist(), facts[1:].tolist(), strict=True)
    ):
        found = closes[first:last].searchsorted(available_at[begin:end])
        np.add(found, first, out=ends[begin + number : end + number])
    known = np.arange(-1, len(available_at) + symbols - 1) - np.repeat(np.arange(symbols), np.diff(facts) + 1)
    known[facts[:-1] + np.arange(symbols)] = NOT_KNOWN
    known = np.repeat(known, np.diff(ends, prepend=0))
    if max_age is not None and len(available_at):
        age = closes - available_at[np.maximum(known, 0)]
        known[age > np.timedelta64(max_age)] = NOT_KNOWN
    return known


def take_known(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rows of float `values` (n, k) at `positions` (m,), NaN where nothing was known: (m, k)."""
    padded = np.concatenate([np.full((1, values.shape[1]), np.nan, values.dtype), values])
    return padded.take(positions + 1, axis=0, mode="clip")


def as_of_join(closes: pd.DatetimeIndex, facts: pd.DataFrame, max_age: timedelta | None = None) -> pd.DataFrame:
    """The latest row of `facts` available at each close.

    Args:
        closes: m sorted moments, as from `calendar.session_closes`.
        facts: n rows with `available_at` (tz-naive UTC); of rows with equal `available_at`, the last wins.
        max_age: as in `as_of_positions`.

    Returns:
        m rows in the order of `closes` with the other columns of `facts`; missing before the first fact.
    """
    ordered = facts.sort_values("available_at", kind="stable").reset_index(drop=True)
    position = as_of_positions(closes, ordered["available_at"], max_age=max_age)
    # Position -1, before the first fact, is no row: reindexing makes it missing.
    return ordered.drop(columns="available_at").reindex(position).reset_index(drop=True)


@dataclass(frozen=True)
class KnownVersions:
    """Of each period, the version that was known after each publication."""

    order: np.ndarray
    """(n,) the facts in order of availability; `rows` are positions in it."""
    moments: np.ndarray
    """(m,) the distinct moments of availability, sorted."""
    periods: np.ndarray
    """(p,) the distinct periods, sorted."""
    rows: np.ndarray
    """(m, p) the latest version of each period known at each moment; `NOT_KNOWN` where there is none."""

    def latest(self, count: int) -> np.ndarray:
        """Rows of the `count` latest periods known at each moment (m, count), the latest first."""
        found = np.full((len(self.moments), count), NOT_KNOWN, dtype=np.int64)
        from_the_end = self.rows[:, ::-1]
        there = from_the_end != NOT_KNOWN
        rank = np.cumsum(there, axis=1)
        for number in range(min(count, len(self.periods))):
            here = there & (rank == number + 1)
            at = here.argmax(axis=1)
            row = from_the_end[np.arange(len(at)), at]
            found[:, number] = np.where(here[np.arange(len(at)), at], row, NOT_KNOWN)
        return found

    def take(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Floats `values` (n,) of the facts, as given to `known_versions`, at `rows` of any shape; NaN if not known."""
        return np.append(values[self.order], np.nan)[rows]  # NOT_KNOWN is the last one


def known_versions(available_at: np.ndarray, periods: np.ndarray) -> KnownVersions:
    """What was known after each publication.

    Args:
        available_at: (n,) of every version of every fact; of versions of one period that became available at the
            same moment, the last counts.
        periods: (n,) what each fact is about, such as the end of its quarter.
    """
    order = np.lexsort((periods, available_at))  # stable
    moments, moment = np.unique(available_at[order], return_inverse=True)
    known, about = np.unique(periods[order], return_inverse=True)
    rows = np.full((len(moments), len(known)), NOT_KNOWN, dtype=np.int64)
    rows[moment, about] = np.arange(len(order))
    return KnownVersions(order, moments, known, np.maximum.accumulate(rows, axis=0))


def trailing_sum(
    closes: pd.DatetimeIndex,
    available_at: np.ndarray | pd.Series,
    amounts: np.ndarray | pd.Series,
    days: int,
    counted_from: np.ndarray | pd.Series | None = None,
) -> np.ndarray:
    """The sum of `amounts` that became available in the `days` calendar days up to each close (m,).

    An amount that is missing counts as nothing. NaN before the first fact: nothing is known then, which
    differs from zero.

    Args:
        counted_from: when the window of each amount begins, if not when it became available: a correction is
            an amount of its own (the difference) that leaves together with what it corrects.
    """
    moments = np.asarray(available_at)
    begins = moments if counted_from is None else np.asarray(counted_from)
    ends = begins + np.timedelta64(timedelta(days=days))
    counted = np.nan_to_num(np.asarray(amounts, dtype="float64")) * (moments < ends)
    inside = _running_total(closes, moments, counted) - _running_total(closes, ends, counted)
    return np.where(closes.to_numpy() >= moments.min(), inside, np.nan) if len(moments) else inside * np.nan


def _running_total(closes: pd.DatetimeIndex, moments: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """The sum of the amounts whose moment is not after each close (m,)."""
    order = np.argsort(moments, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(amounts[order])])
    return total[np.searchsorted(moments[order], closes.to_numpy(), side="right")]
