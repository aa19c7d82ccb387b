"""Splitting a panel of 125,000 rows into walk-forward windows against purgedcv, with the same rows.

Run with `make bench`. purgedcv is no dependency of the project: where it is not installed, the comparison is
left out and says so. Its splitter is measured on rows sorted by date and candidates worked out beforehand; its
bare `purge` as well. Ours is measured from the panel to the numbers of training and test rows.
"""

import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from signals_core.calendar import sessions_between
from signals_core.ml.splits import PanelSplitter, RowUse, Window, calendar_windows

ROWS, SYMBOLS, SESSIONS, HORIZON = 125_000, 55, 2500, 5
REPEATS = 7
REQUIRED = 100.0
TICK = pd.Timedelta(1, "us")
"""A label is known at its end: purgedcv's intervals are half-open, so they end just after it."""


def panel() -> pd.DataFrame:
    """Symbols with late listings and missing days, labels that end five of each one's own bars later."""
    days = sessions_between("XNYS", date(2014, 1, 1), date(2025, 1, 1))[-SESSIONS:].rename("date")
    index = pd.MultiIndex.from_product([[f"S{n:02d}" for n in range(SYMBOLS)], days], names=["symbol", "date"])
    random = np.random.default_rng(5)
    listed = np.repeat(np.where(np.arange(SYMBOLS) % 10 == 0, random.integers(0, 900, SYMBOLS), 0), SESSIONS)
    kept = np.flatnonzero(np.tile(np.arange(SESSIONS), SYMBOLS) >= listed)
    index = index[np.sort(random.choice(kept, ROWS, replace=False))]
    ends = pd.Series(index.get_level_values("date"), index=index).groupby(level="symbol").shift(-HORIZON)
    labels = np.where(ends.isna(), -1, random.integers(0, 3, ROWS)).astype("int8")
    return pd.DataFrame({"label": labels, "label_end": ends}, index=index)


def ours(target: pd.DataFrame, windows: list[Window]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Numbers of the training and the test rows of every window."""
    splitter = PanelSplitter(target)
    return [(rows.train_rows, rows.test_rows) for rows in map(splitter.split, windows)]


def candidates(target: pd.DataFrame, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the labelled rows of the training span, and of the rows to test on."""
    dates, known = target.index.get_level_values("date"), target["label_end"]
    start, test, end = (pd.Timestamp(day) for day in (window.train_start, window.test_start, window.test_end))
    train = (dates >= start) & (dates < test) & (known < end)
    return np.flatnonzero(train), np.flatnonzero((dates >= test) & (dates < end) & (known < end))


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> int:
    """Print the table; 1 if the required ratio is missed."""
    target = panel()
    dates = target.index.get_level_values("date")
    windows = list(calendar_windows(dates.min().date(), dates.max().date(), 24, 6, 3))
    print(
        f"{platform.machine()}, Python {platform.python_version()}, pandas {pd.__version__}, numpy {np.__version__}; "
        f"one thread, CPU time; {len(target):,} rows, {len(windows)} windows of 24 + 6 months"
    )
    mine = [seconds(lambda: ours(target, windows)) for _ in range(REPEATS)]
    print(f"ours     {statistics.median(mine) * 1e3:9.2f} ms, {min(mine) * 1e3:.2f} at best")
    try:
        import purgedcv
    except ImportError:
        print("purgedcv is left out: it is not installed (pip install purgedcv, in another environment)")
        return 0
    order = np.argsort(dates, kind="stable")
    by_date = target.iloc[order]
    begins = by_date.index.get_level_values("date").to_numpy()
    ends = (by_date["label_end"] + TICK).fillna(dates.max() + pd.Timedelta(60, "D")).to_numpy()
    spans = [candidates(by_date, window) for window in windows]
    starts = {int(test[0]): train for train, test in spans}

    class Calendar(purgedcv.BaseTemporalSplitter):
        """Its splitter with our calendar spans: what it says a subclass is to define."""

        def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:
            return len(spans)

        def _iter_test_indices(self, n_samples: int) -> list[np.ndarray]:
            return [test for _, test in spans]

        def _candidate_train_idx(self, n_samples: int, test_idx: np.ndarray) -> np.ndarray:
            return starts[int(test_idx[0])]

    def split() -> list[tuple[np.ndarray, np.ndarray]]:
        return list(Calendar(prediction_times=begins, evaluation_times=ends).split(by_date))

    def purge() -> list[np.ndarray]:
        return [purgedcv.purge(train, test, begins, ends) for train, test in spans]

    theirs, bare = ([seconds(work) for _ in range(3)] for work in (split, purge))
    for (train, test), kept, (_, tested) in zip(ours(target, windows), split(), spans, strict=True):
        assert np.array_equal(np.sort(train), np.sort(order[kept[0]]))
        assert np.array_equal(np.sort(test), np.sort(order[kept[1]]))
        assert np.array_equal(kept[1], tested)
    purged = sum(int((PanelSplitter(target).split(window).use == RowUse.PURGED).sum()) for window in windows)
    ratio, bare_ratio = (statistics.median(times) / statistics.median(mine) for times in (theirs, bare))
    print(f"purgedcv {statistics.median(theirs) * 1e3:9.2f} ms, {min(theirs) * 1e3:.2f} at best; {ratio:.0f}×")
    print(f"  only its purge {statistics.median(bare) * 1e3:.2f} ms; {bare_ratio:.0f}×")
    print(f"the same rows in every window; {purged:,} purged in all")
    if ratio < REQUIRED:
        print(f"missed: required {REQUIRED:.0f}×")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
