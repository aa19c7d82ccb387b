"""Lookahead, looked for where it would be: features computed from data cut at a moment must not change.

All sources are cut at the close of a session, bars and instruments by date, facts by when they became
knowable, the sector's medians by making them again from what is left. Every row up to that session must then
be what it is with all data: a value that differs knew something from after the cut.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from signals_core.calendar import session_closes
from signals_core.errors import SettingsError

if TYPE_CHECKING:
    from signals_core.feature_store import FeatureStore
    from signals_core.features.inputs import FeatureInputs
    from signals_core.input_provider import InputProvider

EXACT = 1e-12
"""Relative: the same arithmetic on the same rows."""
STORED = 1e-5
"""Relative: stored values are float32, of a year's bars and the lookback before them."""


@dataclass(frozen=True)
class Leak:
    """A feature that changes when the data are cut at a session."""

    symbol: str
    feature: str
    cut: pd.Timestamp
    """The session at whose close the data were cut."""
    date: pd.Timestamp
    """The last row up to it that differs."""
    rows: int
    """How many rows up to it differ."""
    value: float
    """With all data."""
    knowable: float
    """From what could be known at the cut."""


def find_leaks(
    symbol: str,
    values: pd.DataFrame,
    compute_at: Callable[[pd.Timestamp], pd.DataFrame],
    cuts: Iterable[pd.Timestamp],
    tolerance: float = EXACT,
) -> list[Leak]:
    """Compare values made from all data with those made from data cut at each of `cuts`.

    Args:
        symbol: named in what is found.
        values: index `date`, one column a feature, from all data.
        compute_at: given a session, the same columns from what was knowable at its close.
        cuts: sessions of the index of `values`.
        tolerance: relative, and absolute for values below 0.1.
    """
    leaks = []
    for cut in cuts:
        known = values.loc[:cut]
        knowable = compute_at(cut).reindex(index=known.index, columns=known.columns).to_numpy(dtype="float64")
        actual = known.to_numpy(dtype="float64")
        differs = ~np.isclose(actual, knowable, rtol=tolerance, atol=tolerance / 10, equal_nan=True)
        for column in np.flatnonzero(differs.any(axis=0)):
            rows = np.flatnonzero(differs[:, column])
            at = rows[-1]
            leaks.append(
                Leak(
                    symbol,
                    str(known.columns[column]),
                    cut,
                    known.index[at],
                    len(rows),
                    float(actual[at, column]),
                    float(knowable[at, column]),
                )
            )
    return leaks


def cut_inputs(inputs: "FeatureInputs", session: pd.Timestamp, calendar: str) -> "FeatureInputs":
    """Every input as it was knowable at the close of `session`; medians of a sector are cut, not made again."""
    (close,) = session_closes(calendar, pd.DatetimeIndex([session]))
    return inputs.until(session, close)


@dataclass(frozen=True)
class LeakageReport:
    """What a search has compared and found."""

    features: tuple[str, ...]
    cuts: tuple[tuple[str, pd.Timestamp], ...]
    """(symbol, session)"""
    rows: int
    leaks: tuple[Leak, ...]


def check_leakage(
    store: "FeatureStore",
    provider: "InputProvider",
    symbols: Iterable[str],
    cuts: int,
    seed: int,
    features: Sequence[str] = (),
) -> LeakageReport:
    """Search the features of some symbols at random sessions.

    Args:
        cuts: sessions a symbol.
        seed: of the choice.
        features: default: all of the store's catalogue.

    Raises:
        SettingsError: a feature is not in the catalogue.
    """
    unknown = [name for name in features if name not in store.catalog]
    if unknown:
        raise SettingsError(f"no feature is called {', '.join(unknown)}: see `signals features list`")
    chosen = list(features) or store.catalog.names()
    categories = list(dict.fromkeys(store.catalog[name].category for name in chosen))
    random = np.random.default_rng(seed)
    looked_at, leaks, rows = [], [], 0
    for symbol in symbols:
        values = store.compute(provider.inputs(symbol), categories)[chosen]
        sessions = values.index[np.sort(random.choice(len(values), min(cuts, len(values)), replace=False))]

        def compute_at(cut: pd.Timestamp, symbol: str = symbol) -> pd.DataFrame:
            return store.compute(provider.inputs_at(symbol, cut.date()), categories)[chosen]

        leaks += find_leaks(symbol, values, compute_at, sessions)
        looked_at += [(symbol, session) for session in sessions]
        rows += int(values.index.searchsorted(sessions, side="right").sum())
    return LeakageReport(tuple(chosen), tuple(looked_at), rows, tuple(leaks))
