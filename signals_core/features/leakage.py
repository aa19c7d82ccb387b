"""Lookahead, looked for where it would be: features recomputed on data cut at a moment must not change."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd

from signals_core.feature_store import FeatureStore
from signals_core.features.inputs import FeatureInputs
from signals_core.features.point_in_time import session_closes

_TOLERANCE = 1e-5
"""Relative; stored features are float32."""


@dataclass(frozen=True)
class Leak:
    """A feature whose stored value at a date differs from what could be known then."""

    feature: str
    date: pd.Timestamp
    stored: float
    knowable: float


def cut_inputs(inputs: FeatureInputs, session: pd.Timestamp, calendar: str) -> FeatureInputs:
    """Every input as it was knowable at the close of `session`."""
    close = session_closes(calendar, pd.DatetimeIndex([session]))[0]
    cut = {}
    for item in fields(inputs):
        frame = getattr(inputs, item.name)
        if frame is not None:
            known = frame["available_at"] <= close if "available_at" in frame else frame.index <= session
            cut[item.name] = frame[known]
    return replace(inputs, **cut)


def find_leaks(
    store: FeatureStore, symbol: str, inputs: FeatureInputs, stored: pd.DataFrame, dates: Iterable[pd.Timestamp],
    calendar: str,
) -> list[Leak]:  # fmt: skip
    """Compare the stored row of each date with the one computed from data cut at its close."""
    leaks = []
    for session in dates:
        cut = cut_inputs(inputs, session, calendar)
        frames = {item.name: getattr(cut, item.name) for item in fields(cut)}
        knowable = store.compute_features(symbol, **frames).loc[session]
        actual = stored.loc[session].astype("float64")
        same = np.isclose(actual, knowable[actual.index], rtol=_TOLERANCE, atol=1e-6, equal_nan=True)
        leaks += [Leak(str(name), session, float(actual[name]), float(knowable[name])) for name in actual.index[~same]]
    return leaks
