"""Is it the market that moved, or a feed that broke? Missing, constant, in another unit; by feature and by feed.

Each is judged on blocks of sessions and against what blocks of the training reference show, so that a feature that
is sparse or slow by nature is no fault. A block has `confirm_sessions` sessions where these hold enough rows, and
the whole window is a block too.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from signals_core.features.catalog import Feature
from signals_core.ml.drift import Reference, SessionCounts, levels
from signals_core.settings import MonitoringSettings

Kind = Literal["missing", "constant", "unit"]

_UNIT_FACTORS = tuple(sign * power for power in (2, 3, 4, 6) for sign in (1, -1))
"""Powers of ten by which a source changes its unit: pence and percent, thousands, basis points, millions."""
_TYPICAL = 0.95
"""Quantile of the reference's own blocks that values in the right unit are below, nearly always."""
_NEAR, _SAME_MOVE, _SYMBOLS = 0.2, 0.75, 5
"""Decimal orders around a power of ten, the share of symbols that must be there, and how many there must be."""
_OUTSIDE, _HALF = 0.5, 0.5
"""Share of values beyond the range of the reference; half an order is as far from a power as can be."""
_OVERNIGHT = 0.1
"""Decimal orders around ten or a tenth that a step from one session to the next must be in."""
_ABOUT = 0.3
"""The same for the middle of all symbols, of a feature whose values are fast and so its levels noisy."""
_MISSING_JUMP = 0.2
"""Share of rows that lack a value, beyond the emptiest block of the reference."""
_STILL = 0.1
"""Changes from session to session, as a share of the quietest block of the reference."""
_CHANGES_EXPECTED = 20
"""With fewer in such a block, none at all may be chance."""
_FEED_SHARE = 0.25
"""Of the features that rest on a feed; ratios within one report survive a change of its unit."""
_FEED_FEATURES = 2
_SESSIONS_TO_COMPARE = 5
_ROWS_EXPECTED = 0.5
"""Of the rows of the window's other sessions."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with one feature, in words that name no cause but the feed's."""

    kind: Kind
    text: str
    factor: float | None = None
    """What the values were multiplied by, if the unit changed."""
    every_value: bool = False
    """Constant not only from session to session: one value for every symbol."""


def feature_faults(
    reference: Reference, recent: pd.DataFrame, counts: SessionCounts, settings: MonitoringSettings
) -> dict[str, Fault]:
    """The faulty features of a window by name; of several faults the first found counts.

    Args:
        reference: the training rows.
        recent: rows of the window, index (symbol, date).
        counts: of those rows.
        settings: window, confirmation and the least number of rows.
    """
    found: dict[str, Fault] = {}
    for length in dict.fromkeys((settings.window_sessions, settings.confirm_sessions)):
        blocks = counts.blocks(min(length, len(counts))) if len(counts) else counts
        usual = reference.counts.blocks(length)
        if not len(blocks) or not len(usual) or blocks.rows.min() < settings.min_rows:
            continue
        for faults in (
            _missing(blocks, usual),
            _constant(reference, recent, blocks, usual),
            _unit(reference, recent, blocks, length, settings),
        ):
            found = {reference.names[column]: fault for column, fault in faults.items()} | found
    return found


def named_feeds(faulty: Iterable[str], monitored: Sequence[str], features: Mapping[str, Feature]) -> list[str]:
    """The feeds that a set of faulty features points to.

    A feature rests on the rarest of the inputs that it needs: a price-earnings ratio on fundamentals, since all
    features need bars. If bars are named no other feed is: it could not be told apart.
    """
    users: dict[str, int] = {}
    for name in monitored:
        for need in features[name].needs if name in features else ():
            users[need] = users.get(need, 0) + 1

    def rests_on(name: str) -> str:
        return min(features[name].needs, key=users.__getitem__) if name in features else ""

    own = Counter(rests_on(name) for name in monitored)
    broken = Counter(rests_on(name) for name in set(faulty) & set(monitored))
    feeds = [
        feed
        for feed, count in broken.items()
        if feed and count >= _FEED_SHARE * own[feed] and count >= min(_FEED_FEATURES, own[feed])
    ]
    # Some features of bars alone are slower to show it than those of bars and facts.
    if "bars" in feeds or (feeds and broken["bars"] >= _FEED_FEATURES):
        return ["bars"]
    return sorted(feeds)


def coverage_fault(recent: pd.DataFrame) -> str | None:
    """What to say if the last session has far fewer rows than the others of its window, index (symbol, date)."""
    rows = recent.groupby(level="date").size()
    if len(rows) < _SESSIONS_TO_COMPARE:
        return None
    usual, last = float(rows.iloc[:-1].median()), int(rows.iloc[-1])
    if last >= _ROWS_EXPECTED * usual:
        return None
    return f"feed bars: {last} symbols have a row in the last session, {usual:.0f} had one before"


def _missing(blocks: SessionCounts, usual: SessionCounts) -> dict[int, Fault]:
    share = (blocks.missing / blocks.rows[:, None]).max(axis=0)
    before = (usual.missing / np.maximum(usual.rows[:, None], 1)).max(axis=0)
    return {
        int(column): Fault(
            "missing", f"{share[column]:.0%} of the rows have no value, {before[column]:.0%} at most before"
        )
        for column in np.flatnonzero(share > before + _MISSING_JUMP)
    }


def _constant(
    reference: Reference, recent: pd.DataFrame, blocks: SessionCounts, usual: SessionCounts
) -> dict[int, Fault]:
    with np.errstate(invalid="ignore"):
        moving = np.nan_to_num(blocks.changes / blocks.chances, nan=1.0)
        quietest = np.nan_to_num(usual.changes / usual.chances).min(axis=0)
    expected = quietest * blocks.chances
    still = ((moving <= _STILL * quietest) & (expected >= _CHANGES_EXPECTED)).any(axis=0) & reference.varied
    found = {
        int(column): Fault(
            "constant",
            f"{moving[:, column].min():.1%} of the values change from session to session, "
            f"{quietest[column]:.0%} at least before",
        )
        for column in np.flatnonzero(still)
    }
    values = recent[reference.names].to_numpy()
    same = ((values == values[:1]).all(axis=0)) & (usual.changes > 0).all(axis=0) & reference.varied
    return found | {
        int(column): Fault("constant", f"every value is {values[0, column]:g}", every_value=True)
        for column in np.flatnonzero(same)
    }


def _unit(
    reference: Reference, recent: pd.DataFrame, blocks: SessionCounts, length: int, settings: MonitoringSettings
) -> dict[int, Fault]:
    """Features that a power of ten sets right.

    A hundred and more has three witnesses: the level of each symbol tells it of slow features, whose symbols keep
    their places; the range of the reference of all whose values became larger; the distribution of a block of fast
    ones. Ten is what a crisis does to volatility within weeks, but never overnight: only its onset tells it.
    """
    moved = _moved(reference, recent, length)
    powers = (
        _powers_by_level(moved)
        | _powers_by_range(reference, recent, moved, length)
        | _powers_by_distribution(reference, recent, moved, blocks, length, settings)
        | (_tenfold_overnight(reference, recent) if length == settings.window_sessions else {})
    )
    return {
        column: Fault("unit", f"{10.0**power:g} times the values of the reference", 10.0**power)
        for column, power in powers.items()
        if reference.varied[column]
    }


def _tenfold_overnight(reference: Reference, recent: pd.DataFrame) -> dict[int, int]:
    """Columns in which most symbols became ten times larger or smaller from one session to the next."""
    rows = recent[reference.names].sort_index()
    symbols, dates = (rows.index.get_level_values(level) for level in ("symbol", "date"))
    values = rows.to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.log10(np.abs(values[1:] / values[:-1]))
    inside = np.asarray(symbols[1:] == symbols[:-1])
    session = np.searchsorted(dates.unique().sort_values(), dates[1:])[inside]
    order = np.argsort(session, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(session[order]) > 0]) if len(session) else np.array([], dtype="int64")
    if not len(starts):
        return {}
    step = step[inside][order]
    known = np.add.reduceat(np.isfinite(step), starts, axis=0, dtype="int64")
    found: dict[int, int] = {}
    for power in (1, -1):
        near = np.add.reduceat(np.abs(step - power) < _OVERNIGHT, starts, axis=0, dtype="int64")
        there = ((near >= _SAME_MOVE * known) & (known >= _SYMBOLS)).any(axis=0) & _many_witnesses(reference)
        found |= {int(column): power for column in np.flatnonzero(there)}
    return found


def _many_witnesses(reference: Reference) -> np.ndarray:
    """Columns that are not the same for every symbol (f,)."""
    levels_of = reference.levels.to_numpy()
    lowest, highest = np.nanmin(levels_of, axis=0, initial=np.inf), np.nanmax(levels_of, axis=0, initial=-np.inf)
    return np.asarray(highest > lowest)


def _moved(reference: Reference, recent: pd.DataFrame, length: int) -> np.ndarray:
    """By how many decimal orders each symbol's level has moved since the end of the reference (symbols, f)."""
    now = levels(_last_sessions(recent[reference.names], length))
    before = reference.levels.reindex(now.index)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.log10(now.to_numpy() / before.to_numpy())
    return np.where(np.isfinite(moved), moved, np.nan)


def _powers_by_level(moved: np.ndarray) -> dict[int, int]:
    """Columns in which most symbols have moved by the same power of ten."""
    known = np.count_nonzero(~np.isnan(moved), axis=0)
    found: dict[int, int] = {}
    for power in _UNIT_FACTORS:
        near = np.count_nonzero(np.abs(moved - power) < _NEAR, axis=0)
        found |= {int(column): power for column in np.flatnonzero((known > 0) & (near >= _SAME_MOVE * known))}
    return found


def _powers_by_range(reference: Reference, recent: pd.DataFrame, moved: np.ndarray, length: int) -> dict[int, int]:
    """Columns of which most values are outside all that the reference has shown, by about a power of ten."""
    values = _last_sessions(recent, length)[reference.names].to_numpy()
    outside = np.count_nonzero((values > reference.high) | (values < reference.low), axis=0)
    most = outside >= _OUTSIDE * np.maximum(np.count_nonzero(~np.isnan(values), axis=0), 1)
    found: dict[int, int] = {}
    for column in np.flatnonzero(most & ~np.isnan(moved).all(axis=0)):
        middle = float(np.nanmedian(moved[:, column]))
        power = min(_UNIT_FACTORS, key=lambda power: abs(power - middle))
        if power > 0 and abs(power - middle) < _HALF:
            found[int(column)] = power
    return found


def _last_sessions(rows: pd.DataFrame, sessions: int) -> pd.DataFrame:
    dates = rows.index.get_level_values("date")
    return rows[dates >= dates.unique().sort_values()[-sessions:][0]]


def _powers_by_distribution(
    reference: Reference,
    recent: pd.DataFrame,
    moved: np.ndarray,
    blocks: SessionCounts,
    length: int,
    settings: MonitoringSettings,
) -> dict[int, int]:
    """Columns of which a block is like the reference again once divided by a power of ten, as the levels say too."""
    largest, typical = (np.quantile(reference.block_psi(length), q, axis=0) for q in (1, _TYPICAL))
    psi = reference.psi(blocks.bins)
    enough = blocks.bins.sum(axis=1) >= settings.min_rows
    limit = np.maximum(settings.own_history_factor * largest, settings.psi_major)
    dates = recent.index.get_level_values("date")
    sessions = dates.unique().sort_values()
    first = max(len(sessions) - len(blocks) * length, 0)
    found: dict[int, int] = {}
    for block, column in np.argwhere((psi > limit) & enough):
        start = first + block * length
        inside = dates.isin(sessions[start : start + length])
        values = recent[reference.names[column]].to_numpy()[inside]
        fits = {power: reference.psi_of(values / 10.0**power, int(column)) for power in _UNIT_FACTORS}
        power = min(fits, key=fits.__getitem__)
        if fits[power] <= typical[column] and abs(np.nanmedian(moved[:, column]) - power) < _ABOUT:
            found[int(column)] = power
    return found
