"""Technical features of one symbol's bars. TA-Lib computes what TA-Lib defines; all are scale-free."""

from typing import Any

import numpy as np
import pandas as pd

from signals_core.features.catalog import Feature, Need
from signals_core.features.inputs import FeatureInputs

SESSIONS_PER_YEAR = 252
_NO_RANGE = 50.0
"""RSI, MFI and the stochastics of a price that did not move: neither end of the scale."""


def _feature(name: str, formula: str, unit: str, warm_up: int) -> Feature:
    return Feature(name, "technical", formula, unit, warm_up)


FEATURES = (
    _feature("rsi_14", "RSI(close, 14), Wilder (TA-Lib); 50 where the price did not move", "0..100", 14),
    _feature("macd_pct", "MACD(12, 26, 9) / close (TA-Lib)", "ratio", 33),
    _feature("macd_signal_pct", "MACD signal / close (TA-Lib)", "ratio", 33),
    _feature("macd_hist_pct", "MACD histogram / close (TA-Lib)", "ratio", 33),
    *(_feature(f"roc_{n}", f"close / close[-{n}] - 1", "return", n) for n in (1, 5, 10, 20, 60)),
    _feature("stoch_k_14_3", "slow %K of STOCH(14, 3, 3) (TA-Lib); 50 where there was no range", "0..100", 17),
    _feature("stoch_d_3", "%D, the 3-session mean of slow %K (TA-Lib)", "0..100", 17),
    _feature("willr_14", "WILLR(14) (TA-Lib)", "-100..0", 13),
    _feature("cci_20", "CCI(20) (TA-Lib)", "index", 19),
    _feature("mfi_14", "MFI(14) (TA-Lib)", "0..100", 14),
    *(_feature(f"close_to_sma_{n}", f"close / SMA({n}) - 1", "ratio", n - 1) for n in (20, 50, 200)),
    _feature("sma_50_to_200", "SMA(50) / SMA(200) - 1", "ratio", 199),
    _feature("close_to_ema_12", "close / EMA(12) - 1 (TA-Lib)", "ratio", 11),
    _feature("close_to_ema_26", "close / EMA(26) - 1 (TA-Lib)", "ratio", 25),
    _feature("ema_12_to_26", "EMA(12) / EMA(26) - 1 (TA-Lib)", "ratio", 25),
    _feature("adx_14", "ADX(14), Wilder (TA-Lib)", "0..100", 27),
    _feature("plus_di_14", "+DI(14), Wilder (TA-Lib)", "0..100", 14),
    _feature("minus_di_14", "-DI(14), Wilder (TA-Lib)", "0..100", 14),
    _feature("aroonosc_25", "Aroon oscillator(25) (TA-Lib)", "-100..100", 25),
    _feature("natr_14", "ATR(14) / close * 100, Wilder (TA-Lib)", "percent", 14),
    _feature("bb_percent_b_20", "(close - lower) / (upper - lower) of BBANDS(20, 2) (TA-Lib)", "ratio", 19),
    _feature("bb_bandwidth_20", "(upper - lower) / middle of BBANDS(20, 2) (TA-Lib)", "ratio", 19),
    _feature("hist_vol_20", "standard deviation of 20 log returns * sqrt(252)", "annualised", 20),
    _feature("hist_vol_60", "standard deviation of 60 log returns * sqrt(252)", "annualised", 60),
    _feature(
        "parkinson_vol_20",
        "sqrt(mean ln(high/low)^2 / (4 ln 2)) * sqrt(252), Parkinson 1980",
        "annualised",
        19,
    ),
    _feature("vol_ratio_20_60", "hist_vol_20 / hist_vol_60", "ratio", 60),
    _feature("obv_slope_20", "least-squares slope of OBV over 20 / SMA(volume, 20) (TA-Lib)", "ratio", 19),
    _feature("close_to_vwap_20", "close / (sum typical price * volume / sum volume over 20) - 1", "ratio", 19),
    _feature("volume_to_sma_20", "volume / SMA(volume, 20)", "ratio", 19),
    _feature("cmf_20", "Chaikin money flow: sum CLV * volume / sum volume over 20", "-1..1", 19),
    *(_feature(f"dist_high_{n}", f"close / highest high of {n} - 1", "ratio", n - 1) for n in (20, 252)),
    *(_feature(f"dist_low_{n}", f"close / lowest low of {n} - 1", "ratio", n - 1) for n in (20, 252)),
    _feature("range_pct", "(high - low) / close", "ratio", 0),
    _feature("close_location_value", "((close - low) - (high - close)) / (high - low); 0 without range", "-1..1", 0),
    _feature("gap_pct", "open / previous close - 1", "return", 1),
)


class TechnicalFeatureCalculator:
    """Momentum, trend, volatility, volume and patterns."""

    needs: tuple[Need, ...] = ("bars",)

    def calculate(self, inputs: FeatureInputs) -> pd.DataFrame:
        """One row a bar, one float64 column a feature of `FEATURES`; NaN in each feature's warm-up."""
        import talib

        bars = inputs.bars
        columns = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            for part in (_momentum, _trend, _volatility, _volume, _patterns):
                columns.update(part(bars, talib))
        frame = pd.DataFrame(columns, index=bars.index)[[feature.name for feature in FEATURES]]
        return frame.replace([np.inf, -np.inf], np.nan)


def _prices(bars: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    names = ("open", "high", "low", "close", "volume")
    open_, high, low, close, volume = (bars[name].to_numpy(dtype="float64") for name in names)
    return open_, high, low, close, volume


def _momentum(bars: pd.DataFrame, talib: Any) -> dict[str, np.ndarray]:
    _, high, low, close, volume = _prices(bars)
    macd, signal, histogram = talib.MACD(close, 12, 26, 9)
    slow_k, slow_d = talib.STOCH(high, low, close, 14, 3, 0, 3, 0)
    flat_14 = talib.MAX(close, 15) == talib.MIN(close, 15)
    typical = (high + low + close) / 3
    flat_typical = talib.MAX(typical, 15) == talib.MIN(typical, 15)
    flat_range = talib.MAX(high, 14) == talib.MIN(low, 14)
    return {
        "rsi_14": np.where(flat_14, _NO_RANGE, talib.RSI(close, 14)),
        "macd_pct": macd / close,
        "macd_signal_pct": signal / close,
        "macd_hist_pct": histogram / close,
        **{f"roc_{n}": talib.ROCP(close, n) for n in (1, 5, 10, 20, 60)},
        "stoch_k_14_3": np.where(flat_range & ~np.isnan(slow_k), _NO_RANGE, slow_k),
        "stoch_d_3": np.where(flat_range & ~np.isnan(slow_d), _NO_RANGE, slow_d),
        "willr_14": np.where(flat_range, -_NO_RANGE, talib.WILLR(high, low, close, 14)),
        "cci_20": talib.CCI(high, low, close, 20),
        "mfi_14": np.where(flat_typical, _NO_RANGE, talib.MFI(high, low, close, volume, 14)),
    }


def _trend(bars: pd.DataFrame, talib: Any) -> dict[str, np.ndarray]:
    _, high, low, close, _ = _prices(bars)
    sma = {n: talib.SMA(close, n) for n in (20, 50, 200)}
    ema_12, ema_26 = talib.EMA(close, 12), talib.EMA(close, 26)
    return {
        **{f"close_to_sma_{n}": close / mean - 1 for n, mean in sma.items()},
        "sma_50_to_200": sma[50] / sma[200] - 1,
        "close_to_ema_12": close / ema_12 - 1,
        "close_to_ema_26": close / ema_26 - 1,
        "ema_12_to_26": ema_12 / ema_26 - 1,
        "adx_14": talib.ADX(high, low, close, 14),
        "plus_di_14": talib.PLUS_DI(high, low, close, 14),
        "minus_di_14": talib.MINUS_DI(high, low, close, 14),
        "aroonosc_25": talib.AROONOSC(high, low, 25),
    }


def _volatility(bars: pd.DataFrame, talib: Any) -> dict[str, np.ndarray]:
    _, high, low, close, _ = _prices(bars)
    upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0, 0)
    returns = pd.Series(np.log(close)).diff()
    volatility = {n: (returns.rolling(n).std() * np.sqrt(SESSIONS_PER_YEAR)).to_numpy() for n in (20, 60)}
    squared_range = np.log(high / low) ** 2
    return {
        "natr_14": talib.NATR(high, low, close, 14),
        "bb_percent_b_20": (close - lower) / (upper - lower),
        "bb_bandwidth_20": (upper - lower) / middle,
        "hist_vol_20": volatility[20],
        "hist_vol_60": volatility[60],
        "parkinson_vol_20": np.sqrt(talib.SMA(squared_range, 20) / (4 * np.log(2)) * SESSIONS_PER_YEAR),
        "vol_ratio_20_60": volatility[20] / volatility[60],
    }


def _volume(bars: pd.DataFrame, talib: Any) -> dict[str, np.ndarray]:
    _, high, low, close, volume = _prices(bars)
    mean_volume = talib.SMA(volume, 20)
    typical_value = (high + low + close) / 3 * volume
    vwap = talib.SMA(typical_value, 20) / mean_volume
    money_flow = talib.SMA(_close_location(high, low, close) * volume, 20)
    return {
        "obv_slope_20": talib.LINEARREG_SLOPE(talib.OBV(close, volume), 20) / mean_volume,
        "close_to_vwap_20": close / vwap - 1,
        "volume_to_sma_20": volume / mean_volume,
        "cmf_20": money_flow / mean_volume,
    }


def _patterns(bars: pd.DataFrame, talib: Any) -> dict[str, np.ndarray]:
    open_, high, low, close, _ = _prices(bars)
    previous_close = np.concatenate([[np.nan], close[:-1]])
    return {
        **{f"dist_high_{n}": close / talib.MAX(high, n) - 1 for n in (20, 252)},
        **{f"dist_low_{n}": close / talib.MIN(low, n) - 1 for n in (20, 252)},
        "range_pct": (high - low) / close,
        "close_location_value": _close_location(high, low, close),
        "gap_pct": open_ / previous_close - 1,
    }


def _close_location(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    spread = high - low
    return np.where(spread > 0, (2 * close - high - low) / np.where(spread > 0, spread, 1), 0.0)
