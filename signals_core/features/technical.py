"""Technical features of one symbol's bars. TA-Lib computes what TA-Lib defines; all are scale-free."""

import math
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from signals_core.features.catalog import Feature, Need
from signals_core.features.inputs import FeatureInputs, bar_values

SESSIONS_PER_YEAR = 252
_NO_RANGE = 50.0
"""RSI, MFI and the stochastics of a price that did not move: neither end of the scale."""


_WILDER, _STILL, _UNTRADED = "Wilder 1978", "the price did not move", "nothing was traded in 20 sessions"


def _feature(name: str, formula: str, unit: str, warm_up: int, source: str = "", missing: str = "") -> Feature:
    return Feature(name, "technical", formula, unit, warm_up, source=source, missing=missing)


FEATURES = (
    _feature("rsi_14", "RSI(close, 14); 50 where the price did not move", "0..100", 14, f"{_WILDER}; TA-Lib"),
    _feature("macd_pct", "MACD(12, 26, 9) / close", "ratio", 33, "Appel 1979; TA-Lib"),
    _feature("macd_signal_pct", "MACD signal / close", "ratio", 33, "Appel 1979; TA-Lib"),
    _feature("macd_hist_pct", "MACD histogram / close", "ratio", 33, "TA-Lib"),
    *(_feature(f"roc_{n}", f"close / close[-{n}] - 1", "return", n) for n in (1, 5, 10, 20, 60)),
    _feature("stoch_k_14_3", "slow %K of STOCH(14, 3, 3); 50 where there was no range", "0..100", 17, "Lane; TA-Lib"),
    _feature("stoch_d_3", "%D, the 3-session mean of slow %K", "0..100", 17, "Lane; TA-Lib"),
    _feature("willr_14", "WILLR(14); -50 where there was no range", "-100..0", 13, "Williams 1973; TA-Lib"),
    _feature("cci_20", "CCI(20); 0 where the price did not move", "index", 19, "Lambert 1980; TA-Lib"),
    _feature("mfi_14", "MFI(14); 50 where no money flowed", "0..100", 14, "Quong and Soudack 1989; TA-Lib"),
    *(_feature(f"close_to_sma_{n}", f"close / SMA({n}) - 1", "ratio", n - 1, "TA-Lib") for n in (20, 50, 200)),
    _feature("sma_50_to_200", "SMA(50) / SMA(200) - 1", "ratio", 199, "TA-Lib"),
    _feature("close_to_ema_12", "close / EMA(12) - 1", "ratio", 11, "TA-Lib"),
    _feature("close_to_ema_26", "close / EMA(26) - 1", "ratio", 25, "TA-Lib"),
    _feature("ema_12_to_26", "EMA(12) / EMA(26) - 1", "ratio", 25, "TA-Lib"),
    _feature("adx_14", "ADX(14)", "0..100", 27, f"{_WILDER}; TA-Lib"),
    _feature("plus_di_14", "+DI(14)", "0..100", 14, f"{_WILDER}; TA-Lib"),
    _feature("minus_di_14", "-DI(14)", "0..100", 14, f"{_WILDER}; TA-Lib"),
    _feature("aroonosc_25", "Aroon oscillator(25)", "-100..100", 25, "Chande 1995; TA-Lib"),
    _feature("natr_14", "ATR(14) / close * 100", "percent", 14, f"{_WILDER}; TA-Lib"),
    _feature(
        "bb_percent_b_20",
        "(close - lower) / (upper - lower) of BBANDS(20, 2)",
        "ratio",
        19,
        "Bollinger; TA-Lib",
        _STILL,
    ),
    _feature("bb_bandwidth_20", "(upper - lower) / middle of BBANDS(20, 2)", "ratio", 19, "Bollinger; TA-Lib"),
    _feature("hist_vol_20", "standard deviation of 20 log returns * sqrt(252)", "annualised", 20),
    _feature("hist_vol_60", "standard deviation of 60 log returns * sqrt(252)", "annualised", 60),
    _feature("parkinson_vol_20", "sqrt(mean ln(high/low)^2 / (4 ln 2) * 252)", "annualised", 19, "Parkinson 1980"),
    _feature("vol_ratio_20_60", "hist_vol_20 / hist_vol_60", "ratio", 60, missing=_STILL),
    _feature(
        "obv_slope_20",
        "least-squares slope of OBV over 20 / SMA(volume, 20)",
        "ratio",
        19,
        "Granville 1963; TA-Lib",
        _UNTRADED,
    ),
    _feature(
        "close_to_vwap_20", "close / (sum typical price * volume / sum volume over 20) - 1", "ratio", 19, "", _UNTRADED
    ),
    _feature("volume_to_sma_20", "volume / SMA(volume, 20)", "ratio", 19, "", _UNTRADED),
    _feature("cmf_20", "sum CLV * volume / sum volume over 20", "-1..1", 19, "Chaikin money flow", _UNTRADED),
    *(_feature(f"dist_high_{n}", f"close / highest high of {n} - 1", "ratio", n - 1) for n in (20, 252)),
    *(_feature(f"dist_low_{n}", f"close / lowest low of {n} - 1", "ratio", n - 1) for n in (20, 252)),
    _feature("range_pct", "(high - low) / close", "ratio", 0),
    _feature("close_location_value", "((close - low) - (high - close)) / (high - low); 0 without range", "-1..1", 0),
    _feature("gap_pct", "open / previous close - 1", "return", 1),
)


class TechnicalFeatureCalculator:
    """Momentum, trend, volatility, volume and patterns."""

    features = FEATURES
    needs: tuple[Need, ...] = ("bars",)
    lookback = 350
    """ADX, which Wilder smooths twice, is then within 1e-9 of what all history gives, which float32 does not show."""

    def calculate(self, inputs: FeatureInputs, last: int | None = None) -> pd.DataFrame:
        """One row a bar (of the `last` ones), one float64 column a feature of `FEATURES`; NaN in the warm-up."""
        values = technical_values(bar_values(inputs.bars), last)
        index = inputs.bars.index
        return pd.DataFrame(values.T, index=index[len(index) - values.shape[1] :], columns=_NAMES)


_ORDER = [feature.name for feature in FEATURES]
_NAMES = pd.Index(_ORDER)  # made once: an index of texts is slow to make
_ROW = {name: row for row, name in enumerate(_ORDER)}


@cache
def _talib() -> SimpleNamespace:
    """TA-Lib's functions on arrays, without the look for pandas and polars that costs more than a short window."""
    import talib

    return SimpleNamespace(
        **{name: getattr(function, "__wrapped__", function) for name, function in vars(talib).items()}
    )


def technical_values(bars: np.ndarray, last: int | None = None) -> np.ndarray:
    """Every technical feature of n sorted bars: (features, n) float64 in the order of `FEATURES`; NaN is missing.

    Args:
        bars: (5, n) open, high, low, close and volume, each contiguous, as from `bar_values`.
        last: only that many last bars: (features, last). What has a window reads no more than it; what Wilder or
            exponential means smooth reads all bars given.
    """
    talib, whole = _talib(), _Bars(*bars)
    rows = bars.shape[1] if last is None else min(last, bars.shape[1])
    into = _Columns(rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        _smoothed(into, talib, whole)
        _long_windows(into, talib, whole.near(rows + _LONG_WINDOW))
        recent = whole.near(rows + _SHORT_WINDOW)
        typical = talib.TYPPRICE(recent.high, recent.low, recent.close)
        _momentum(into, talib, recent)
        _volatility(into, talib, recent)
        _volume(into, talib, recent, typical)
        _patterns(into, talib, recent)
        _define_still_stretches(into, talib, recent, typical)
    infinite = np.isinf(into.values)
    if infinite.any():
        into.values[infinite] = np.nan
    return into.values


_SHORT_WINDOW, _LONG_WINDOW = 61, 252
"""Bars before a row that features other than the smoothed ones read, at most."""


class _Bars(NamedTuple):
    open_: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray

    def near(self, rows: int) -> "_Bars":
        """The last rows."""
        first = len(self.close) - rows
        return self if first <= 0 else _Bars(*(values[first:] for values in self))


class _Columns:
    """The features as rows of one array; of what is put in, the last `rows` values count."""

    def __init__(self, rows: int) -> None:
        self.values = np.empty((len(_ORDER), rows))
        self._rows = rows

    def __setitem__(self, name: str, values: np.ndarray) -> None:
        self.values[_ROW[name]] = self.tail(values)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[_ROW[name]]

    def tail(self, values: np.ndarray) -> np.ndarray:
        """The last `rows` values."""
        return values[len(values) - self._rows :]

    def ratio(self, name: str, values: np.ndarray, base: np.ndarray) -> None:
        """values / base."""
        np.divide(self.tail(values), self.tail(base), out=self.values[_ROW[name]])

    def change(self, name: str, values: np.ndarray, base: np.ndarray) -> None:
        """values / base - 1."""
        row = self.values[_ROW[name]]
        np.divide(self.tail(values), self.tail(base), out=row)
        row -= 1


def _smoothed(into: _Columns, talib: Any, bars: _Bars) -> None:
    """What depends on every bar before it, ever less."""
    _, high, low, close, _ = bars
    macd, signal, histogram = talib.MACD(close, 12, 26, 9)
    into.ratio("macd_pct", macd, close)
    into.ratio("macd_signal_pct", signal, close)
    into.ratio("macd_hist_pct", histogram, close)
    into["rsi_14"] = talib.RSI(close, 14)
    ema_12, ema_26 = talib.EMA(close, 12), talib.EMA(close, 26)
    into.change("close_to_ema_12", close, ema_12)
    into.change("close_to_ema_26", close, ema_26)
    into.change("ema_12_to_26", ema_12, ema_26)
    into["adx_14"] = talib.ADX(high, low, close, 14)
    into["plus_di_14"] = talib.PLUS_DI(high, low, close, 14)
    into["minus_di_14"] = talib.MINUS_DI(high, low, close, 14)
    into["natr_14"] = talib.NATR(high, low, close, 14)


def _long_windows(into: _Columns, talib: Any, bars: _Bars) -> None:
    close = bars.close
    sma_50, sma_200 = talib.SMA(close, 50), talib.SMA(close, 200)
    into.change("close_to_sma_50", close, sma_50)
    into.change("close_to_sma_200", close, sma_200)
    into.change("sma_50_to_200", sma_50, sma_200)
    into.change("dist_high_252", close, talib.MAX(bars.high, 252))
    into.change("dist_low_252", close, talib.MIN(bars.low, 252))


def _momentum(into: _Columns, talib: Any, bars: _Bars) -> None:
    _, high, low, close, volume = bars
    for sessions in (1, 5, 10, 20, 60):
        into[f"roc_{sessions}"] = talib.ROCP(close, sessions)
    into["stoch_k_14_3"], into["stoch_d_3"] = talib.STOCH(high, low, close, 14, 3, 0, 3, 0)
    into["willr_14"] = talib.WILLR(high, low, close, 14)
    into["cci_20"] = talib.CCI(high, low, close, 20)
    into["mfi_14"] = talib.MFI(high, low, close, volume, 14)
    into.change("close_to_sma_20", close, talib.SMA(close, 20))
    into["aroonosc_25"] = talib.AROONOSC(high, low, 25)


_ANNUALISED_20, _ANNUALISED_60 = (float(np.sqrt(n / (n - 1) * SESSIONS_PER_YEAR)) for n in (20, 60))
"""TA-Lib divides by n, and returns are of a session."""


def _volatility(into: _Columns, talib: Any, bars: _Bars) -> None:
    close = bars.close
    upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0, 0)
    width = upper - lower
    into.ratio("bb_percent_b_20", close - lower, width)
    into.ratio("bb_bandwidth_20", width, middle)
    returns = np.full(len(close), np.nan)
    np.log(close[1:] / close[:-1], out=returns[1:])
    for name, sessions, annualised in (("hist_vol_20", 20, _ANNUALISED_20), ("hist_vol_60", 60, _ANNUALISED_60)):
        np.multiply(into.tail(talib.STDDEV(returns, sessions, 1.0)), annualised, out=into[name])
    into.ratio("vol_ratio_20_60", into["hist_vol_20"], into["hist_vol_60"])
    squared_range = np.log(bars.high / bars.low)
    squared_range *= squared_range
    mean = into.tail(talib.SMA(squared_range, 20))
    np.sqrt(mean * (SESSIONS_PER_YEAR / (4 * math.log(2))), out=into["parkinson_vol_20"])


def _volume(into: _Columns, talib: Any, bars: _Bars, typical: np.ndarray) -> None:
    _, high, low, close, volume = bars
    mean_volume = talib.SMA(volume, 20)
    location = _close_location(high, low, close)
    into["close_location_value"] = location
    into.ratio("obv_slope_20", talib.LINEARREG_SLOPE(talib.OBV(close, volume), 20), mean_volume)
    mean_price = talib.SMA(typical * volume, 20)
    mean_price /= mean_volume
    into.change("close_to_vwap_20", close, mean_price)
    into.ratio("volume_to_sma_20", volume, mean_volume)
    into.ratio("cmf_20", talib.SMA(location * volume, 20), mean_volume)


def _patterns(into: _Columns, talib: Any, bars: _Bars) -> None:
    open_, high, low, close, _ = bars
    into.change("dist_high_20", close, talib.MAX(high, 20))
    into.change("dist_low_20", close, talib.MIN(low, 20))
    gap = np.full(len(close), np.nan)
    np.divide(open_[1:], close[:-1], out=gap[1:])
    gap -= 1
    into["gap_pct"] = gap
    into.ratio("range_pct", high - low, close)


_SHORTEST_STRETCH = 13
"""Rows in which nothing moves, from which on some feature below has no range, no flow or no deviation."""


def _define_still_stretches(into: _Columns, talib: Any, bars: _Bars, typical: np.ndarray) -> None:
    """Where nothing moved or nothing was traded, in place of 0 / 0 and of the rounding of sums that run on."""
    _, high, low, close, volume = bars
    still = (close[1:] == close[:-1]) | (typical[1:] == typical[:-1]) | (high[1:] == low[1:]) | (volume[1:] == 0)
    if not still[::_SHORTEST_STRETCH].any():  # a stretch that long holds one of these rows
        return

    def constant(values: np.ndarray, sessions: int) -> np.ndarray:
        return talib.MAX(values, sessions) == talib.MIN(values, sessions)

    def define(name: str, where: np.ndarray, value: float, warm: bool = True) -> None:
        row = into[name]
        here = into.tail(where)
        row[here & ~np.isnan(row) if warm else here] = value

    no_range = talib.MAX(high, 14) == talib.MIN(low, 14)
    define("rsi_14", constant(close, 15), _NO_RANGE)
    define("stoch_k_14_3", no_range, _NO_RANGE)
    define("stoch_d_3", no_range, _NO_RANGE)
    define("willr_14", no_range, -_NO_RANGE)
    # Money flows only where the typical price changes and something is traded.
    flows = np.append(False, (typical[1:] != typical[:-1]) & (volume[1:] > 0)).astype("float64")
    define("mfi_14", talib.MAX(flows, 14) == 0, _NO_RANGE)
    # The mean of equal prices can differ from them by its rounding, which CCI would magnify.
    define("cci_20", constant(typical, 20), 0.0)
    define("bb_percent_b_20", constant(close, 20), np.nan)
    define("bb_bandwidth_20", constant(close, 20), 0.0, warm=False)
    for sessions in (20, 60):
        define(f"hist_vol_{sessions}", constant(close, sessions + 1), 0.0)
    into.ratio("vol_ratio_20_60", into["hist_vol_20"], into["hist_vol_60"])
    define("parkinson_vol_20", talib.MAX(high - low, 20) == 0, 0.0, warm=False)
    nothing_traded = talib.MAX(volume, 20) == 0
    for name in ("obv_slope_20", "close_to_vwap_20", "volume_to_sma_20", "cmf_20"):
        define(name, nothing_traded, np.nan)


def _close_location(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    location = (close + close - high - low) / (high - low)
    return np.where(high > low, location, 0.0)
