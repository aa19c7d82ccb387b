"""The one splitter: calendar windows over a (symbol, date) panel, purged by each label's own interval.

A window with test start T trains on [T - train_months, T) and tests on [T, T + test_months). A row at t
trains if its label was known before T (label_end < T, less the embargo), and tests if its label was known
before the test ends (label_end < T + test_months). Spans are of calendar dates, so no date is ever split, and
a symbol that is listed late or has gaps is purged by where ITS labels end. A window uses nothing from after
its own end, and once that has passed it never changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from enum import IntEnum
from functools import cached_property

import numpy as np
import pandas as pd

from signals_core.errors import DataError
from signals_core.ml.target import NO_LABEL

_TRADE_SESSIONS = 2
"""A trade on the signal of t is entered at the open of t+1 and valued at the open of t+2."""


@dataclass(frozen=True)
class Window:
    """Half-open calendar spans of one window."""

    train_start: date
    test_start: date
    test_end: date

    @property
    def key(self) -> str:
        """The test start, `2004-03-01`: the window's partition key."""
        return self.test_start.isoformat()


class RowUse(IntEnum):
    """What a window does with a row, or why it leaves it out."""

    OUTSIDE = 0
    TRAIN = 1
    TEST = 2
    PURGED = 3
    EMBARGOED = 4
    UNLABELLED = 5


_NAT, _NEVER = np.iinfo("int64").min, np.iinfo("int64").max
"""How a datetime64 says "not a time", and a moment that no barrier lies after."""

REASONS = {
    RowUse.PURGED: "in the training span, but its label ends in the test span",
    RowUse.EMBARGOED: "in the training span, but its label ends within the embargo before the test start",
    RowUse.UNLABELLED: "its label is not known before the test ends",
}
"""Why a row of a window's spans is left out. Nothing here depends on what became known after the window's end."""


@dataclass(frozen=True)
class WindowRows:
    """The rows of a panel that a window trains and tests on, and on demand what it does with every other."""

    window: Window
    barrier: date
    """Labels of training rows end before it: the test start, or that many sessions earlier with an embargo."""
    train_rows: np.ndarray
    """Numbers of the rows to train on, in order of date."""
    test_rows: np.ndarray
    panel: "PanelSplitter" = field(repr=False)

    @cached_property
    def train(self) -> np.ndarray:
        """Boolean (n,): the rows to train on."""
        return self.panel.mask(self.train_rows)

    @cached_property
    def test(self) -> np.ndarray:
        """Boolean (n,): the rows to test on."""
        return self.panel.mask(self.test_rows)

    @cached_property
    def use(self) -> np.ndarray:
        """`RowUse` of each row (n,), uint8."""
        return self.panel.uses(self)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Rows by what was done with them: train, test, purged, embargoed, unlabelled."""
        found = np.bincount(self.use, minlength=len(RowUse))
        return {use.name.lower(): int(found[use]) for use in RowUse if use is not RowUse.OUTSIDE}

    def audit(self, target: pd.DataFrame) -> "WindowAudit":
        """The record a person checks a window by.

        Args:
            target: the panel that was split, index (symbol, date), column label_end.
        """
        dates = target.index.get_level_values("date")
        left_out = np.flatnonzero(self.use >= RowUse.PURGED)
        uses = [RowUse(code) for code in self.use[left_out]]
        rows = pd.DataFrame(
            {
                "label_end": target["label_end"].to_numpy()[left_out],
                "use": [use.name.lower() for use in uses],
                "reason": [REASONS[use] for use in uses],
            },
            index=target.index[left_out],
        )
        return WindowAudit(
            self.window,
            self.barrier,
            _span(dates[self.train]),
            _span(dates[self.test]),
            self.counts,
            rows.sort_index(),
        )


@dataclass(frozen=True)
class WindowAudit:
    """Dates and rows of a window, and every row of its spans that it leaves out, with the reason."""

    window: Window
    barrier: date
    train_dates: tuple[date, date] | None
    """The first and the last date trained on; None if there is none."""
    test_dates: tuple[date, date] | None
    counts: dict[str, int]
    left_out: pd.DataFrame
    """Index (symbol, date); columns label_end, use, reason."""


class PanelSplitter:
    """Splits one panel into windows; what they share is worked out once."""

    def __init__(self, target: pd.DataFrame, embargo_sessions: int = 0) -> None:
        """Prepare the panel.

        Args:
            target: index (symbol, date) in any order, columns label (missing or -1: none) and label_end.
            embargo_sessions: that many last dates of the panel before a test start must not hold the end of a
                training label either.

        Raises:
            DataError: a label ends on or before its own date.
        """
        self._embargo, self._rows = embargo_sessions, len(target)
        codes, self._sessions = session_codes(target.index)
        per_session = np.bincount(codes, minlength=len(self._sessions))
        self._first_row = np.concatenate([[0], np.cumsum(per_session)])
        # 16 bits are sorted by radix, many times faster than the comparisons that wider integers need.
        narrow = codes.astype("int16") if len(self._sessions) <= np.iinfo("int16").max else codes
        self._order = np.argsort(narrow, kind="stable").astype("int32")
        ends = target["label_end"].to_numpy(self._sessions.dtype).view("int64")
        missing = (_labels(target["label"]) == NO_LABEL) | (ends == _NAT)
        self._ends = np.where(missing, _NEVER, ends)[self._order]
        early = self._ends <= np.repeat(self._sessions.view("int64"), per_session)
        if early.any():
            row = target.index[self._order[early.argmax()]]
            raise DataError(f"the label of {row} ends on or before its own date: label_end must lie after it")

    def split(self, window: Window) -> WindowRows:
        """The rows of a window; see the module for the exact predicate."""
        (low, middle, high), spans = self._bounds(window)
        barrier = spans[1]
        boundary = np.searchsorted(self._sessions, barrier)
        if self._embargo and boundary:
            barrier = min(barrier, self._sessions[max(boundary - self._embargo, 0)])
        trains = self._ends[low:middle] < barrier.view("int64")
        tests = self._ends[middle:high] < spans[2].view("int64")
        return WindowRows(
            window,
            barrier.astype("datetime64[D]").item(),
            self._order[low:middle][trains],
            self._order[middle:high][tests],
            self,
        )

    def uses(self, rows: WindowRows) -> np.ndarray:
        """`RowUse` of every row of the panel (n,), uint8."""
        (low, _, high), spans = self._bounds(rows.window)
        start, end = (moment.view("int64") for moment in spans[1:])
        ends = self._ends[low:high]
        # Of what is left out: not known by the test's end, known only in it, or known within the embargo.
        left_out = np.select([ends >= end, ends >= start], [RowUse.UNLABELLED, RowUse.PURGED], default=RowUse.EMBARGOED)
        use = np.full(self._rows, RowUse.OUTSIDE, dtype="uint8")
        use[self._order[low:high]] = left_out
        use[rows.train_rows], use[rows.test_rows] = RowUse.TRAIN, RowUse.TEST
        return use

    def mask(self, numbers: np.ndarray) -> np.ndarray:
        """Row numbers as booleans (n,)."""
        found = np.zeros(self._rows, dtype=bool)
        found[numbers] = True
        return found

    def _bounds(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Where the training span, the test span and what follows begin in order of date, and those dates."""
        spans = np.array([window.train_start, window.test_start, window.test_end], dtype=self._sessions.dtype)
        return self._first_row[np.searchsorted(self._sessions, spans)], spans


def window_rows(window: Window, target: pd.DataFrame, embargo_sessions: int = 0) -> WindowRows:
    """`PanelSplitter.split` for a single window."""
    return PanelSplitter(target, embargo_sessions).split(window)


def calendar_windows(first: date, end: date, train_months: int, test_months: int, step_months: int) -> Iterator[Window]:
    """Windows whose training begins at the first month's start or later and whose test ends by `end`."""
    month = pd.Period(first, freq="M")
    while True:
        test_start = month + train_months
        test_end = test_start + test_months
        if test_end.start_time.date() > end:
            return
        yield Window(month.start_time.date(), test_start.start_time.date(), test_end.start_time.date())
        month += step_months


def window_target(target: pd.DataFrame, rows: WindowRows, horizon: int) -> pd.DataFrame:
    """The target as a window may see it: no `trade_return` that needs an open after the test's end.

    A test row's label ends before the test does, `horizon` sessions after the row; its trade ends two
    sessions after it. Only a horizon of one session lets the trade reach further.
    """
    last = target[rows.test].groupby(level="symbol").cumcount(ascending=False) < _TRADE_SESSIONS - horizon
    return target.assign(trade_return=target["trade_return"].mask(last.reindex(target.index, fill_value=False)))


def split_latest(target: pd.DataFrame, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Boolean rows (n,) to fit on and to score on: the latest `fraction` of the dates scores.

    A row is fitted on only if its label was known before the first scoring date; no date is split.
    """
    dates = target.index.get_level_values("date")
    unique = dates.unique().sort_values()
    if len(unique) < 2:
        return np.zeros(len(dates), dtype=bool), np.zeros(len(dates), dtype=bool)
    boundary = unique[max(int(len(unique) * (1 - fraction)), 1)]
    return np.asarray(target["label_end"] < boundary), np.asarray(dates >= boundary)


def session_codes(index: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's date (n,) among the distinct dates, and those dates in order."""
    if isinstance(index, pd.MultiIndex):
        level = index.names.index("date")
        dates, codes = index.levels[level], np.asarray(index.codes[level])
        # A slice of a panel keeps the dates of the whole in its levels; those of no row must not count.
        if dates.is_monotonic_increasing and (np.bincount(codes, minlength=len(dates)) > 0).all():
            return codes, dates.to_numpy()
    codes, dates = pd.factorize(index.get_level_values("date"), sort=True)
    return codes, dates.to_numpy()


def _labels(labels: pd.Series) -> np.ndarray:
    if labels.dtype.kind == "i" and isinstance(labels.dtype, np.dtype):
        return labels.to_numpy()
    return labels.astype("Int64").fillna(NO_LABEL).to_numpy(dtype="int64")


def _span(dates: pd.Index) -> tuple[date, date] | None:
    return (dates.min().date(), dates.max().date()) if len(dates) else None
