"""Technical features of one symbol's bars. TA-Lib computes what TA-Lib defines; all are scale-free."""

from functools import cache
from types import SimpleNamespace
from typing import Any

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

    def calculate(self, inputs: FeatureInputs) -> pd.DataFrame:
        """One row a bar, one float64 column a feature of `FEATURES`; NaN in each feature's warm-up."""
        values = technical_values(*bar_values(inputs.bars))
        return pd.DataFrame(values.T, index=inputs.bars.index, columns=_NAMES)


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


def technical_values(
    open_: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray, volume: np.ndarray
) -> np.ndarray:
    """Every technical feature of n sorted bars: (features, n) float64 in the order of `FEATURES`; NaN is missing."""
    talib = _talib()
    into = _Columns(len(close))
    with np.errstate(divide="ignore", invalid="ignore"):
        _momentum(into, talib, high, low, close, volume)
        _trend(into, talib, high, low, close)
        _volatility(into, talib, high, low, close)
        typical = talib.TYPPRICE(high, low, close)
        _volume(into, talib, high, low, close, volume, typical)
        _patterns(into, talib, open_, high, low, close)
        _define_still_stretches(into, talib, high, low, close, volume, typical)
    infinite = np.isinf(into.values)
    if infinite.any():
        into.values[infinite] = np.nan
    return into.values


class _Columns:
    """The features as rows of one array."""

    def __init__(self, length: int) -> None:
        self.values = np.empty((len(_ORDER), length))

    def __setitem__(self, name: str, values: np.ndarray) -> None:
        self.values[_ROW[name]] = values

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[_ROW[name]]


def _momentum(
    into: _Columns, talib: Any, high: np.ndarray, low: np.ndarray, close: np.ndarray, volume: np.ndarray
) -> None:
    macd, signal, histogram = talib.MACD(close, 12, 26, 9)
    into["macd_pct"], into["macd_signal_pct"], into["macd_hist_pct"] = macd / close, signal / close, histogram / close
    into["rsi_14"] = talib.RSI(close, 14)
    for sessions in (1, 5, 10, 20, 60):
        into[f"roc_{sessions}"] = talib.ROCP(close, sessions)
    into["stoch_k_14_3"], into["stoch_d_3"] = talib.STOCH(high, low, close, 14, 3, 0, 3, 0)
    into["willr_14"] = talib.WILLR(high, low, close, 14)
    into["cci_20"] = talib.CCI(high, low, close, 20)
    into["mfi_14"] = talib.MFI(high, low, close, volume, 14)


def _trend(into: _Columns, talib: Any, high: np.ndarray, low: np.ndarray, close: np.ndarray) -> None:
    sma = {sessions: talib.SMA(close, sessions) for sessions in (20, 50, 200)}
    ema_12, ema_26 = talib.EMA(close, 12), talib.EMA(close, 26)
    for sessions, mean in sma.items():
        into[f"close_to_sma_{sessions}"] = close / mean - 1
    into["sma_50_to_200"] = sma[50] / sma[200] - 1
    into["close_to_ema_12"] = close / ema_12 - 1
    into["close_to_ema_26"] = close / ema_26 - 1
    into["ema_12_to_26"] = ema_12 / ema_26 - 1
    into["adx_14"] = talib.ADX(high, low, close, 14)
    into["plus_di_14"] = talib.PLUS_DI(high, low, close, 14)
    into["minus_di_14"] = talib.MINUS_DI(high, low, close, 14)
    into["aroonosc_25"] = talib.AROONOSC(high, low, 25)


def _volatility(into: _Columns, talib: Any, high: np.ndarray, low: np.ndarray, close: np.ndarray) -> None:
    upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0, 0)
    width = upper - lower
    returns = np.full(len(close), np.nan)
    returns[1:] = np.log(close[1:] / close[:-1])
    into["natr_14"] = talib.NATR(high, low, close, 14)
    into["bb_percent_b_20"] = (close - lower) / width
    into["bb_bandwidth_20"] = width / middle
    for sessions in (20, 60):
        unbiased = np.sqrt(sessions / (sessions - 1) * SESSIONS_PER_YEAR)
        into[f"hist_vol_{sessions}"] = talib.STDDEV(returns, sessions, 1.0) * unbiased
    squared_range = np.log(high / low) ** 2
    into["parkinson_vol_20"] = np.sqrt(talib.SMA(squared_range, 20) * (SESSIONS_PER_YEAR / (4 * np.log(2))))
    into["vol_ratio_20_60"] = into["hist_vol_20"] / into["hist_vol_60"]


def _volume(
    into: _Columns,
    talib: Any,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    volume: np.ndarray,
    typical: np.ndarray,
) -> None:
    mean_volume = talib.SMA(volume, 20)
    vwap = talib.SMA(typical * volume, 20) / mean_volume
    location = _close_location(high, low, close)
    money_flow = talib.SMA(location * volume, 20)
    into["close_location_value"] = location
    into["obv_slope_20"] = talib.LINEARREG_SLOPE(talib.OBV(close, volume), 20) / mean_volume
    into["close_to_vwap_20"] = close / vwap - 1
    into["volume_to_sma_20"] = volume / mean_volume
    into["cmf_20"] = money_flow / mean_volume


def _patterns(
    into: _Columns, talib: Any, open_: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray
) -> None:
    for sessions in (20, 252):
        into[f"dist_high_{sessions}"] = close / talib.MAX(high, sessions) - 1
        into[f"dist_low_{sessions}"] = close / talib.MIN(low, sessions) - 1
    gap = np.full(len(close), np.nan)
    gap[1:] = open_[1:] / close[:-1] - 1
    into["range_pct"] = (high - low) / close
    into["gap_pct"] = gap


_SHORTEST_STRETCH = 13
"""Rows in which nothing moves, from which on some feature below has no range, no flow or no deviation."""


def _define_still_stretches(
    into: _Columns,
    talib: Any,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    volume: np.ndarray,
    typical: np.ndarray,
) -> None:
    """Where nothing moved or nothing was traded, in place of 0 / 0 and of the rounding of sums that run on."""
    still = (close[1:] == close[:-1]) | (typical[1:] == typical[:-1]) | (high[1:] == low[1:]) | (volume[1:] == 0)
    if not still[::_SHORTEST_STRETCH].any():  # a stretch that long holds one of these rows
        return

    def constant(values: np.ndarray, sessions: int) -> np.ndarray:
        return talib.MAX(values, sessions) == talib.MIN(values, sessions)

    def define(name: str, where: np.ndarray, value: float) -> None:
        into[name] = np.where(where & ~np.isnan(into[name]), value, into[name])

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
    into["bb_bandwidth_20"] = np.where(constant(close, 20), 0.0, into["bb_bandwidth_20"])
    for sessions in (20, 60):
        define(f"hist_vol_{sessions}", constant(close, sessions + 1), 0.0)
    into["vol_ratio_20_60"] = into["hist_vol_20"] / into["hist_vol_60"]
    no_spread = talib.MAX(high - low, 20) == 0
    into["parkinson_vol_20"] = np.where(no_spread, 0.0, into["parkinson_vol_20"])
    nothing_traded = talib.MAX(volume, 20) == 0
    for name in ("obv_slope_20", "close_to_vwap_20", "volume_to_sma_20", "cmf_20"):
        define(name, nothing_traded, np.nan)


def _close_location(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    location = (close + close - high - low) / (high - low)
    return np.where(high > low, location, 0.0)
