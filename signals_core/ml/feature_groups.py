"""Groups of columns a model may be given: all of them, or only those that differ between symbols.

A column that is the same for every symbol on a date (VIX, index returns, the calendar) takes some 500 values in
two years of training. Trees use it to recognise dates they have seen, which teaches nothing about the next.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from signals_core.errors import MissingPrerequisite
from signals_core.features.catalog import catalog
from signals_core.ml.metrics import newey_west_mean
from signals_core.ml.splits import session_codes

FeatureGroup = Literal["all", "symbol_level"]
ALL: FeatureGroup = "all"
SYMBOL_LEVEL: FeatureGroup = "symbol_level"
_EVIDENCE = 1.645
"""Standard errors by which more columns must be better: one-sided 5 %."""


def market_wide_columns(features: pd.DataFrame) -> list[str]:
    """Columns that do not tell the symbols of a date apart.

    Those that the catalogue says are market-wide, and those found to be: wherever two symbols have a value on a
    date, it is the same one. A panel of one symbol can show nothing of the kind; there the catalogue decides.

    Args:
        features: (n, f) numbers, index (symbol, date).
    """
    known = {name for name, feature in catalog().items() if feature.market_wide}
    found = _same_on_every_date(features)
    return [name for name, same in zip(features.columns, found, strict=True) if same or name in known]


def group_columns(features: pd.DataFrame, group: FeatureGroup) -> list[str]:
    """The columns of a group, in order.

    Raises:
        MissingPrerequisite: every column is market-wide, so that none is left.
    """
    if group == ALL:
        return list(features.columns)
    left_out = set(market_wide_columns(features))
    chosen = [name for name in features.columns if name not in left_out]
    if not chosen:
        raise MissingPrerequisite(
            "every feature is market-wide: add features of the symbols, or set tuning.feature_groups to [all]"
        )
    return chosen


def distinct_groups(features: pd.DataFrame, groups: Sequence[FeatureGroup]) -> dict[FeatureGroup, list[str]]:
    """Columns of those groups that differ from each other here, the smallest first.

    Raises:
        MissingPrerequisite: no group is left, since every column is market-wide.
    """
    left_out = set(market_wide_columns(features))
    found: dict[FeatureGroup, list[str]] = {}
    for group in sorted(groups, key=lambda group: group == ALL):
        columns = [name for name in features.columns if group == ALL or name not in left_out]
        if columns and columns not in found.values():
            found[group] = columns
    if not found:
        group_columns(features, groups[0])
    return found


def earns_its_place(losses: pd.Series, rival: pd.Series, horizon: int) -> bool:
    """Whether a rival with more columns is better by more than its uncertainty.

    A few months of scoring dates hold some twenty independent moves of the market: a column that says where the
    market stands has an even chance to look good on them, and the best of many fits more than that.

    Args:
        losses, rival: log-loss a row, index (symbol, date).
    """
    return newey_west_mean(losses - rival, horizon).z > _EVIDENCE


def _same_on_every_date(features: pd.DataFrame) -> np.ndarray:
    codes, sessions = session_codes(features.index)
    if not len(codes) or len(codes) == len(sessions):  # at most one symbol a date
        return np.zeros(features.shape[1], dtype=bool)
    order = np.argsort(codes, kind="stable")
    values = features.to_numpy()[order]
    starts = np.searchsorted(codes[order], np.arange(len(sessions)))
    several = np.add.reduceat(~np.isnan(values), starts) > 1
    equal = np.fmin.reduceat(values, starts) == np.fmax.reduceat(values, starts)
    return several.any(axis=0) & (equal | ~several).all(axis=0)
