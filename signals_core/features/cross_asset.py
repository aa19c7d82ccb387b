"""Cross-asset features: the symbol against the market, its sector and implied volatility.

Another instrument's value at t is its close of the same session; a session it lacks stays missing.
"""

import numpy as np
import pandas as pd

from signals_core.features.catalog import Feature, Need
from signals_core.features.inputs import FeatureInputs

_WINDOW = 20
_CORRELATION_WINDOW = 60
_NO_VARIANCE = 1e-18
"""Of daily returns; less is the rounding of a price that did not move."""


def _feature(name: str, formula: str, unit: str, warm_up: int, need: Need, market_wide: bool = False) -> Feature:
    missing = "the instrument has no bar of a session that is needed"
    return Feature(
        name, "cross_asset", formula, unit, warm_up, ("bars", need), missing=missing, market_wide=market_wide
    )


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


_ORDER = [feature.name for feature in FEATURES]
_NAMES = pd.Index(_ORDER)  # made once: an index of texts is slow to make


class CrossAssetFeatureCalculator:
    """Correlation, relative strength and the volatility index."""

    features = FEATURES
    needs: tuple[Need, ...] = ("bars", "spy_bars", "sector_bars", "vix_bars")
    lookback = _CORRELATION_WINDOW + 1

    def calculate(self, inputs: FeatureInputs) -> pd.DataFrame:
        """One row a bar, one float64 column a feature of `FEATURES`; NaN where an instrument is missing."""
        index = inputs.bars.index
        close = inputs.bars["close"].to_numpy(dtype="float64")
        spy, sector, vix = (_closes(bars, index) for bars in (inputs.spy_bars, inputs.sector_bars, inputs.vix_bars))
        with np.errstate(divide="ignore", invalid="ignore"):
            gross, gross_spy, gross_sector = (_gross(values, _WINDOW) for values in (close, spy, sector))
            columns = {
                "corr_spy_60": _correlation(_gross(close, 1) - 1, _gross(spy, 1) - 1, _CORRELATION_WINDOW),
                "relative_strength_spy_20": gross / gross_spy,
                "relative_strength_sector_20": gross / gross_sector,
                "excess_return_spy_20": gross - gross_spy,
                "excess_return_sector_20": gross - gross_sector,
                "vix_level": vix,
                "vix_change_5": _gross(vix, 5) - 1,
            }
        values = np.array([columns[name] for name in _ORDER])
        values[~np.isfinite(values)] = np.nan
        return pd.DataFrame(values.T, index=index, columns=_NAMES)


def _closes(bars: pd.DataFrame | None, index: pd.Index) -> np.ndarray:
    """The instrument's close of each session (n,), NaN where it has none."""
    if bars is None or bars.empty:
        return np.full(len(index), np.nan)
    close = bars["close"].to_numpy(dtype="float64")
    if len(index) == len(bars) and bars.index.equals(index):
        return close
    at = np.minimum(bars.index.searchsorted(index), len(bars) - 1)
    return np.where(bars.index.to_numpy()[at] == index.to_numpy(), close[at], np.nan)


def _gross(values: np.ndarray, sessions: int) -> np.ndarray:
    """Value over the value that many sessions before (n,); NaN at first."""
    found = np.full(len(values), np.nan)
    found[sessions:] = values[sessions:] / values[: max(len(values) - sessions, 0)]
    return found


def _correlation(left: np.ndarray, right: np.ndarray, window: int) -> np.ndarray:
    """Pearson's correlation over each `window` of pairs (n,); NaN where a pair or either variance is missing."""
    both = np.isfinite(left) & np.isfinite(right)
    x, y = np.where(both, left, 0.0), np.where(both, right, 0.0)
    sums = np.cumsum([both.astype("float64"), x, y, x * y, x * x, y * y], axis=1)
    before = np.zeros_like(sums)
    before[:, window:] = sums[:, :-window]
    pairs, sum_x, sum_y, sum_xy, sum_xx, sum_yy = (sums - before) / window
    variance_x, variance_y = sum_xx - sum_x**2, sum_yy - sum_y**2
    found = np.clip((sum_xy - sum_x * sum_y) / np.sqrt(variance_x * variance_y), -1, 1)
    defined = (np.rint(pairs * window) == window) & (np.minimum(variance_x, variance_y) > _NO_VARIANCE)
    return np.where(defined, found, np.nan)
