"""The one as-of join: what was knowable at the close of each session.

A fact is knowable at session t when its `available_at` is not after the close of t.
"""

from datetime import timedelta

import numpy as np
import pandas as pd

from signals_core.calendar import DATE_UNIT, exchange_calendar


def session_closes(calendar: str, sessions: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """The close of each session, tz-naive UTC.

    Raises:
        KeyError: a date is no session of the exchange.
    """
    closes = exchange_calendar(calendar).closes
    found = closes.loc[sessions.as_unit("ns")]
    return pd.DatetimeIndex(found).tz_convert("UTC").tz_localize(None).as_unit(DATE_UNIT)


def as_of_join(closes: pd.DatetimeIndex, facts: pd.DataFrame) -> pd.DataFrame:
    """The latest row of `facts` available at each close.

    Args:
        closes: m sorted moments, as from `session_closes`.
        facts: n rows with `available_at` (tz-naive UTC); of rows with equal `available_at`, the last wins.

    Returns:
        m rows in the order of `closes` with the other columns of `facts`; missing before the first fact.
    """
    ordered = facts.sort_values("available_at", kind="stable")
    position = np.searchsorted(ordered["available_at"].to_numpy(), closes.to_numpy(), side="right") - 1
    known = position >= 0
    values = ordered.drop(columns="available_at")
    if values.empty:
        return values.reindex(range(len(closes)))
    return values.iloc[np.where(known, position, 0)].reset_index(drop=True).where(known[:, None])


def trailing_sum(closes: pd.DatetimeIndex, available_at: pd.Series, amounts: pd.Series, days: int) -> np.ndarray:
    """The sum of `amounts` that became available in the `days` calendar days up to each close (m,).

    NaN before the first fact: nothing is known then, which differs from zero.
    """
    order = np.argsort(available_at.to_numpy(), kind="stable")
    moments = available_at.to_numpy()[order]
    cumulative = np.concatenate([[0.0], np.nancumsum(amounts.to_numpy(dtype="float64")[order])])
    upto = np.searchsorted(moments, closes.to_numpy(), side="right")
    before = np.searchsorted(moments, (closes - timedelta(days=days)).to_numpy(), side="right")
    return np.where(upto > 0, cumulative[upto] - cumulative[before], np.nan)
