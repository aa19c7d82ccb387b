"""Covariance of daily returns as known at a close, for a volatility target."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from signals_core.workspace import Workspace

COVARIANCE_SESSIONS = 60


def adjusted_closes(workspace: "Workspace", symbols: Sequence[str]) -> pd.DataFrame:
    """Index date, columns symbols; adjusted forward, so that a later split or dividend changes no earlier close."""
    return pd.DataFrame({symbol: workspace.bars(symbol)["close"] for symbol in symbols}, columns=list(symbols))


def covariance_of(closes: pd.DataFrame, symbols: Sequence[str], day: date | pd.Timestamp) -> np.ndarray:
    """Of the returns of the last `COVARIANCE_SESSIONS` sessions up to and with a day.

    Args:
        closes: as from `adjusted_closes`; of these symbols at least.
        symbols: (n,), in the order of the result.
        day: the session at whose close it is known.

    Returns:
        (n, n) of simple daily returns, each pair over the sessions that both have; 0 where there are fewer than two. A
        symbol with fewer than two returns is taken to vary as much as the one that varies most.
    """
    known = closes.loc[: pd.Timestamp(day), list(symbols)].dropna(how="all").tail(COVARIANCE_SESSIONS + 1)
    returns = known.pct_change(fill_method=None).tail(COVARIANCE_SESSIONS)
    covariance = np.atleast_2d(returns.cov().to_numpy()).copy()
    unknown = np.isnan(np.diag(covariance))
    if unknown.any() and not unknown.all():
        covariance[unknown, unknown] = np.nanmax(np.diag(covariance))
    return np.nan_to_num(covariance)
