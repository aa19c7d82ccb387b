"""The one as-of join: what was knowable at the close of each session.

A fact is knowable at session t when its `available_at` is not after the close of t.
"""

from collections.abc import Callable
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
    ordered = facts.sort_values("available_at", kind="stable").reset_index(drop=True)
    position = np.searchsorted(ordered["available_at"].to_numpy(), closes.to_numpy(), side="right") - 1
    # Position -1, before the first fact, is no row: reindexing makes it missing.
    return ordered.drop(columns="available_at").reindex(position).reset_index(drop=True)


def known_states(
    facts: pd.DataFrame, period: str, describe: Callable[[pd.DataFrame], dict[str, object]]
) -> pd.DataFrame:
    """What was known after each publication: one row per distinct `available_at`, for `as_of_join`.

    Args:
        facts: every version of every fact.
        period: the column that says what a fact is about, such as `period_end`.
        describe: given the latest version of each period known at that moment, in order of period, the
            values to keep.
    """
    ordered = facts.sort_values(["available_at", period], kind="stable")
    rows = []
    for moment in ordered["available_at"].unique():
        versions = ordered[ordered["available_at"] <= moment]
        latest = versions.drop_duplicates(period, keep="last").sort_values(period)
        rows.append({"available_at": moment, **describe(latest)})
    return pd.DataFrame(rows)


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
