"""The caps on all that is held: what a session asks for and what stands from earlier ones, of every scope."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from signals_core.features.sectors import SECTORS, sector_of
from signals_core.strategy.covariance import adjusted_closes, covariance_of
from signals_core.strategy.sizing import SizingRules, size_positions

if TYPE_CHECKING:
    from signals_core.workspace import Workspace

_EXCEEDS = 1 + 1e-9


def within_caps(workspace: "Workspace", asked: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Lay the caps of `sizing` on the whole book of each session.

    Each scope has sized the signals of a session as if they were alone. Beside them stand the signals of other scopes,
    and positions about which the session says nothing. Where all of it together exceeds a cap, all of it is made
    smaller.

    Args:
        workspace: for sectors and covariances as known at each close.
        asked: (T, N) shares of equity, index date, columns symbols; NaN: what was asked for last stands.

    Returns:
        `asked`, smaller where a cap binds, also where it was NaN; and by symbol, the caps that bind at the end.
    """
    rules = replace(SizingRules.from_settings(workspace.settings.sizing), kelly_fraction=1.0)
    symbols, dates = asked.columns.tolist(), pd.DatetimeIndex(asked.index)
    sectors = _sectors(workspace, symbols, dates)
    closes = None if rules.target_volatility is None else adjusted_closes(workspace, symbols)
    table, stands = asked.to_numpy("float64", copy=True), np.zeros(len(symbols))
    binding = pd.Series("", asked.columns, dtype=object)
    for number, row in enumerate(table):
        stands = np.where(np.isnan(row), stands, row)
        held = np.flatnonzero(stands)
        if not len(held) or (closes is None and not _exceeds(stands[held], sectors[number, held], rules)):
            continue
        names = [symbols[at] for at in held]
        covariance = None if closes is None else covariance_of(closes, names, dates[number])
        groups = [SECTORS[at] if at >= 0 else None for at in sectors[number, held]]
        sized = size_positions(names, stands[held], rules, groups, covariance).frame
        smaller = (sized["binding"] != "").to_numpy()
        stands[held[smaller]] = row[held[smaller]] = sized["weight"].to_numpy()[smaller]
        if number == len(table) - 1:
            binding[names] = sized["binding"].to_numpy()
    return pd.DataFrame(table, asked.index, asked.columns), binding


def _sectors(workspace: "Workspace", symbols: list[str], dates: pd.DatetimeIndex) -> np.ndarray:
    """Numbers in `SECTORS` (T, N); -1 where none is known."""
    found = np.full((len(dates), len(symbols)), -1)
    for column, symbol in enumerate(symbols):
        known = workspace.classification.get(symbol)
        if known is not None and len(known):
            found[:, column] = sector_of(known, dates)
    return found


def _exceeds(weights: np.ndarray, sectors: np.ndarray, rules: SizingRules) -> bool:
    size = np.abs(weights)
    return (
        (rules.max_weight is not None and size.max() > rules.max_weight * _EXCEEDS)
        or (rules.max_gross is not None and size.sum() > rules.max_gross * _EXCEEDS)
        or (
            rules.max_sector_weight is not None
            and np.bincount(sectors + 1, size).max() > rules.max_sector_weight * _EXCEEDS
        )
    )
