"""Temporal features: the date of the session itself."""

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
        columns = {
            "day_of_week": index.day_of_week + 1,
            "month": index.month,
            "quarter": index.quarter,
            "day_of_year": index.day_of_year,
            "is_month_end": is_month_end(self._calendar, index),
        }
        return pd.DataFrame(columns, index=inputs.bars.index).astype("float64")
