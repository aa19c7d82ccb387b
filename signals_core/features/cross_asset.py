"""Cross-asset features: the symbol against the market, its sector and implied volatility.

Another instrument's value at t is its close of the same session; a session it lacks stays missing.
"""

import numpy as np
import pandas as pd

from signals_core.features.catalog import Feature, Need
from signals_core.features.inputs import FeatureInputs

_WINDOW = 20


def _feature(name: str, formula: str, unit: str, warm_up: int, need: Need, market_wide: bool = False) -> Feature:
    return Feature(name, "cross_asset", formula, unit, warm_up, ("bars", need), market_wide)


FEATURES = (
    _feature("corr_spy_60", "correlation of 60 daily returns with the market's", "-1..1", 60, "spy_bars"),
    _feature("relative_strength_spy_20", "gross return of 20 sessions / the market's", "ratio", 20, "spy_bars"),
    _feature(
        "relative_strength_sector_20",
        "gross return of 20 sessions / the sector's",
        "ratio",
        20,
        "sector_bars",
    ),
    _feature("excess_return_spy_20", "return of 20 sessions - the market's", "return", 20, "spy_bars"),
    _feature("excess_return_sector_20", "return of 20 sessions - the sector's", "return", 20, "sector_bars"),
    _feature("vix_level", "VIX close", "annualised percent", 0, "vix_bars", market_wide=True),
    _feature("vix_change_5", "VIX close / VIX close[-5] - 1", "ratio", 5, "vix_bars", market_wide=True),
)


class CrossAssetFeatureCalculator:
    """Correlation, relative strength and the volatility index."""

    needs: tuple[Need, ...] = ("bars", "spy_bars", "sector_bars", "vix_bars")

    def calculate(self, inputs: FeatureInputs) -> pd.DataFrame:
        """One row a bar, one float64 column a feature of `FEATURES`; NaN where an instrument is missing."""
        close = inputs.bars["close"]
        spy = _closes(inputs.spy_bars, close.index)
        sector = _closes(inputs.sector_bars, close.index)
        vix = _closes(inputs.vix_bars, close.index)
        gross, gross_spy, gross_sector = (s / s.shift(_WINDOW) for s in (close, spy, sector))
        returns, returns_spy = close / close.shift(1) - 1, spy / spy.shift(1) - 1
        frame = pd.DataFrame(
            {
                "corr_spy_60": returns.rolling(60).corr(returns_spy).clip(-1, 1),
                "relative_strength_spy_20": gross / gross_spy,
                "relative_strength_sector_20": gross / gross_sector,
                "excess_return_spy_20": gross - gross_spy,
                "excess_return_sector_20": gross - gross_sector,
                "vix_level": vix,
                "vix_change_5": vix / vix.shift(5) - 1,
            },
            index=close.index,
        )
        return frame.replace([np.inf, -np.inf], np.nan)


def _closes(bars: pd.DataFrame | None, index: pd.Index) -> pd.Series:
    if bars is None or bars.empty:
        return pd.Series(np.nan, index=index)
    return bars["close"].reindex(index)
