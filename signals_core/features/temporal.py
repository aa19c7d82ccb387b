"""Temporal features: the date of the session itself."""

import numpy as np
import pandas as pd

from signals_core.calendar import is_month_end
from signals_core.features.catalog import Feature, Need
from signals_core.features.inputs import FeatureInputs


def _feature(name: str, formula: str, unit: str) -> Feature:
    return Feature(name, "temporal", formula, unit, market_wide=True, calendar=True)


FEATURES = (
    _feature("day_of_week", "Monday 1 .. Friday 5", "1..5"),
    _feature("month", "month of the year", "1..12"),
    _feature("quarter", "quarter of the year", "1..4"),
    _feature("day_of_year", "day of the year", "1..366"),
    _feature("is_month_end", "last session of the month by the exchange's calendar", "0 or 1"),
)


_NAMES = pd.Index([feature.name for feature in FEATURES])  # made once: an index of texts is slow to make


class TemporalFeatureCalculator:
    """The calendar position of each session."""

    features = FEATURES
    needs: tuple[Need, ...] = ("bars",)
    lookback = 0

    def __init__(self, calendar: str = "XNYS") -> None:
        self._calendar = calendar

    def calculate(self, inputs: FeatureInputs) -> pd.DataFrame:
        """One row a bar, one float64 column a feature of `FEATURES`; never missing."""
        index = pd.DatetimeIndex(inputs.bars.index)
        days = index.to_numpy().astype("datetime64[D]")
        month = days.astype("datetime64[M]").astype(int) % 12 + 1
        columns = [
            (days.astype(int) + 3) % 7 + 1,  # 1970-01-01 was a Thursday
            month,
            (month + 2) // 3,
            (days - days.astype("datetime64[Y]")).astype(int) + 1,
            is_month_end(self._calendar, index),
        ]
        return pd.DataFrame(np.array(columns, dtype="float64").T, index=inputs.bars.index, columns=_NAMES)
