"""The population stability index of every feature at once: counts per session, added up to any window of sessions.

PSI = sum over bins of (q - p) * ln(q / p), p the reference's shares of its own deciles and q the window's, both
smoothed by half a count a bin, so that an empty bin does not make it infinite.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd

BINS = 10
_SMOOTHING = 0.5
_LEVEL_SESSIONS = 60
_ROUNDING = 1e-5


@dataclass(frozen=True)
class SessionCounts:
    """What is counted of f features in each of s sessions; a window's counts are the sums of its sessions'."""

    rows: np.ndarray
    """Rows of the panel (s,)."""
    missing: np.ndarray
    """Of them without a value (s, f)."""
    bins: np.ndarray
    """Values in each bin of the reference's deciles (s, BINS, f)."""
    chances: np.ndarray
    """Rows whose symbol had a value in the session before too (s, f)."""
    changes: np.ndarray
    """Of them with another value than then (s, f)."""

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self, length: int) -> "SessionCounts":
        """Sums over whole blocks of `length` sessions, the last one ending with the last session."""
        kept = len(self) // length * length
        start = len(self) - kept
        return SessionCounts(
            *(
                values[start:].reshape(kept // length, length, *values.shape[1:]).sum(axis=1)
                for values in (self.rows, self.missing, self.bins, self.chances, self.changes)
            )
        )

    def last(self, sessions: int) -> "SessionCounts":
        """Only the last sessions."""
        return SessionCounts(
            *(values[-sessions:] for values in (self.rows, self.missing, self.bins, self.chances, self.changes))
        )


@dataclass(frozen=True, eq=False)
class Reference:
    """The training rows that drift is measured against; prepared once (`of`), compared with as often as wanted."""

    names: list[str]
    """The f features."""
    first: np.datetime64
    """The first session."""
    edges: np.ndarray
    """The deciles (BINS - 1, f), in the dtype of the rows."""
    valid: np.ndarray
    """Values that are not missing (f,)."""
    varied: np.ndarray
    """Whether a feature has more than two values, and they differ by more than rounding (f,)."""
    low: np.ndarray
    """The least value (f,)."""
    high: np.ndarray
    """The largest value (f,)."""
    counts: SessionCounts
    levels: pd.DataFrame
    """As `levels`, in the last sessions."""

    @classmethod
    def of(cls, frame: pd.DataFrame, names: Sequence[str] | None = None) -> "Reference":
        """Prepare training rows.

        Args:
            frame: index (symbol, date), one float column a feature.
            names: columns to use, in this order; default: all.
        """
        chosen = list(frame.columns if names is None else names)
        by_column = np.sort(frame[chosen].to_numpy().T, axis=1)  # missing values come last
        valid = np.count_nonzero(~np.isnan(by_column), axis=1)
        edges = _quantiles(by_column, valid)
        different = (by_column[:, 1:] != by_column[:, :-1]) & ~np.isnan(by_column[:, 1:])
        width = np.abs(edges[-1] - edges[0])
        rounding = width <= _ROUNDING * np.abs(edges).max(axis=0)
        dates = frame.index.get_level_values("date")
        late = dates >= dates.unique().sort_values()[-_LEVEL_SESSIONS:][0]
        return cls(
            names=chosen,
            first=dates.min().to_datetime64(),
            edges=edges,
            valid=valid,
            varied=(different.sum(axis=1) > 1) & ~((width > 0) & rounding),
            low=by_column[:, 0],
            high=by_column[np.arange(len(by_column)), np.maximum(valid - 1, 0)],
            counts=_counted(frame, chosen, edges),
            levels=levels(frame.loc[late, chosen]),
        )

    @property
    def rows(self) -> int:
        """Of all symbols and sessions."""
        return int(self.counts.rows.sum())

    @cached_property
    def used(self) -> np.ndarray:
        """Bins that have a width (BINS, f)."""
        used = np.ones((BINS, len(self.names)), dtype=bool)
        used[1:-1] = self.edges[1:] != self.edges[:-1]
        return used

    @cached_property
    def shares(self) -> np.ndarray:
        """Smoothed share of each bin (BINS, f), 0 in bins without width."""
        return _smoothed(self.counts.bins.sum(axis=0), self.used)

    @cached_property
    def block_psi(self) -> Callable[[int], np.ndarray]:
        """PSI (b, f) of each block of that many sessions of the reference against the whole of it."""
        return lru_cache(maxsize=8)(lambda length: self.psi(self.counts.blocks(length).bins))

    def count(self, frame: pd.DataFrame) -> SessionCounts:
        """Counts per session of other rows, index (symbol, date), with these columns; sessions in order."""
        return _counted(frame, self.names, self.edges)

    def psi(self, bins: np.ndarray) -> np.ndarray:
        """PSI (..., f) of counts by bin (..., BINS, f)."""
        shares = _smoothed(bins, self.used)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = (shares - self.shares) * np.log(shares / self.shares)
        return np.asarray(np.where(self.used, terms, 0.0).sum(axis=-2))

    def psi_by_group(self, values: np.ndarray, group: np.ndarray) -> np.ndarray:
        """PSI (g, f) of rows (n, f) split into groups 0..g-1, each with a row at least: of every symbol, say."""
        order = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[order], np.arange(int(group.max()) + 1))
        return self.psi(_bins(values[order], self.edges, starts))

    def largest_block(self, length: int) -> np.ndarray:
        """The largest PSI (f,) of a block of `length` sessions of the reference against the whole; 0 without any."""
        psi = self.block_psi(length)
        return np.asarray(psi.max(axis=0)) if len(psi) else np.zeros(len(self.names))

    def psi_of(self, values: np.ndarray, column: int) -> float:
        """PSI of values (n,) of one column, at least one of them present."""
        bins = _bins(values[:, None], self.edges[:, [column]], np.array([0]))
        whole = np.zeros((BINS, len(self.names)), dtype="int64")
        whole[:, [column]] = bins[0]
        return float(self.psi(whole)[column])


def _counted(frame: pd.DataFrame, names: list[str], edges: np.ndarray) -> SessionCounts:
    values = frame[names].to_numpy()
    if not len(values):
        none = np.zeros((0, len(names)), dtype="int64")
        return SessionCounts(none[:, 0], none, np.zeros((0, BINS, len(names)), dtype="int64"), none, none)
    symbols, _ = pd.factorize(frame.index.get_level_values("symbol"))
    dates = frame.index.get_level_values("date").to_numpy()
    by_symbol = np.lexsort((dates, symbols))
    by_session = np.argsort(dates, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(dates[by_session]).astype("int64") != 0])
    ordered, owner = values[by_symbol], symbols[by_symbol]
    chance, change = (np.zeros(values.shape, dtype=bool) for _ in range(2))
    same_symbol = (owner[1:] == owner[:-1])[:, None]
    known = ~np.isnan(ordered)
    chance[by_symbol[1:]] = same_symbol & known[1:] & known[:-1]
    change[by_symbol[1:]] = ordered[1:] != ordered[:-1]
    return SessionCounts(
        rows=np.diff(np.r_[starts, len(values)]),
        missing=_sums(np.isnan(values)[by_session], starts),
        bins=_bins(values[by_session], edges, starts),
        chances=_sums(chance[by_session], starts),
        changes=_sums((chance & change)[by_session], starts),
    )


def levels(frame: pd.DataFrame) -> pd.DataFrame:
    """How large a feature is for a symbol: the median of the absolute values, index symbol, one column a feature."""
    return frame.abs().groupby(level="symbol", sort=False).median()


def _bins(values: np.ndarray, edges: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Counts by bin (g, BINS, f) of rows (n, f) whose groups begin at `starts`; a value at an edge is above it."""
    above = np.empty((BINS + 1, len(starts), values.shape[1]), dtype="int64")
    above[0] = _sums(~np.isnan(values), starts)
    above[BINS] = 0
    for number in range(BINS - 1):
        above[number + 1] = _sums(values >= edges[number], starts)
    return np.moveaxis(above[:-1] - above[1:], 0, 1)


def _sums(flags: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(flags, starts, axis=0, dtype="int64")


def _quantiles(by_column: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Deciles (BINS - 1, f) of sorted columns (f, n) by linear interpolation, of which only the first are valid."""
    place = np.arange(1, BINS)[:, None] * np.maximum(valid - 1, 0) / BINS
    low = np.floor(place).astype("int64")
    high = np.minimum(low + 1, np.maximum(valid - 1, 0))
    columns = np.arange(len(by_column))
    below, above = by_column[columns, low], by_column[columns, high]
    return np.asarray((below + (above - below) * (place - low)).astype(by_column.dtype))


def _smoothed(bins: np.ndarray, used: np.ndarray) -> np.ndarray:
    raised = bins + _SMOOTHING * used
    return np.asarray(raised / raised.sum(axis=-2, keepdims=True))
