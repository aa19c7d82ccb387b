"""The technical features as one writes them with pandas, a symbol at a time: what the benchmarks compare with.

Nothing loops over rows: a window that pandas has no method for is a NumPy view of all windows, which is several
times faster than `rolling().apply`.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

YEAR = 252


def technical_with_pandas(bars: pd.DataFrame) -> pd.DataFrame:
    """Columns as of `features.technical.FEATURES`, from one symbol's bars."""
    open_, high, low, close, volume = (bars[name] for name in ("open", "high", "low", "close", "volume"))
    change, typical = close.diff(), (high + low + close) / 3
    found: dict[str, pd.Series] = {}

    gain, loss = _wilder(change.clip(lower=0), 14), _wilder(-change.clip(upper=0), 14)
    found["rsi_14"] = 100 * gain / (gain + loss)
    fast, slow = _ema(close, 12, 14), _ema(close, 26)
    macd = fast - slow
    signal = _ema(macd, 9)
    found["macd_pct"] = (macd / close).where(signal.notna())
    found["macd_signal_pct"] = signal / close
    found["macd_hist_pct"] = (macd - signal) / close
    for n in (1, 5, 10, 20, 60):
        found[f"roc_{n}"] = close.pct_change(n)
    lowest, highest = low.rolling(14).min(), high.rolling(14).max()
    fast_k = 100 * (close - lowest) / (highest - lowest)
    slow_k = fast_k.rolling(3).mean()
    slow_d = slow_k.rolling(3).mean()
    found["stoch_k_14_3"], found["stoch_d_3"] = slow_k.where(slow_d.notna()), slow_d
    found["willr_14"] = -100 * (highest - close) / (highest - lowest)
    mean = typical.rolling(20).mean()
    deviation = _windows(typical, 20, lambda w: np.abs(w - w.mean(axis=1, keepdims=True)).mean(axis=1))
    found["cci_20"] = (typical - mean) / (0.015 * deviation)
    flow, step = typical * volume, typical.diff()
    up, down = flow.where(step > 0, 0.0), flow.where(step < 0, 0.0)
    up, down = (side.where(step.notna()).rolling(14).sum() for side in (up, down))
    found["mfi_14"] = 100 * up / (up + down)

    sma = {n: close.rolling(n).mean() for n in (20, 50, 200)}
    for n, average in sma.items():
        found[f"close_to_sma_{n}"] = close / average - 1
    found["sma_50_to_200"] = sma[50] / sma[200] - 1
    ema_12, ema_26 = _ema(close, 12), _ema(close, 26)
    found["close_to_ema_12"], found["close_to_ema_26"] = close / ema_12 - 1, close / ema_26 - 1
    found["ema_12_to_26"] = ema_12 / ema_26 - 1
    rise, fall = high.diff(), -low.diff()
    true_range = pd.concat([high - low, (high - close.shift()).abs(), (low - close.shift()).abs()], axis=1).max(axis=1)
    true_range = true_range.where(close.shift().notna())
    plus = _wilder_sum(rise.where((rise > fall) & (rise > 0), 0.0).where(rise.notna()), 14)
    minus = _wilder_sum(fall.where((fall > rise) & (fall > 0), 0.0).where(fall.notna()), 14)
    width = _wilder_sum(true_range, 14)
    plus_di, minus_di = 100 * plus / width, 100 * minus / width
    directional = 100 * (plus_di - minus_di).abs() / (plus_di + minus_di)
    found["adx_14"] = _wilder(directional, 14)
    found["plus_di_14"], found["minus_di_14"] = plus_di, minus_di
    since_high = _windows(high, 26, lambda w: w[:, ::-1].argmax(axis=1))
    since_low = _windows(low, 26, lambda w: w[:, ::-1].argmin(axis=1))
    found["aroonosc_25"] = 100 * (since_low - since_high) / 25

    found["natr_14"] = 100 * _wilder(true_range, 14) / close
    spread = close.rolling(20).std(ddof=0)
    upper, lower = sma[20] + 2 * spread, sma[20] - 2 * spread
    found["bb_percent_b_20"] = (close - lower) / (upper - lower)
    found["bb_bandwidth_20"] = (upper - lower) / sma[20]
    returns = np.log(close).diff()
    found["hist_vol_20"], found["hist_vol_60"] = (returns.rolling(n).std() * np.sqrt(YEAR) for n in (20, 60))
    squared = np.log(high / low) ** 2
    found["parkinson_vol_20"] = np.sqrt(squared.rolling(20).mean() / (4 * np.log(2)) * YEAR)
    found["vol_ratio_20_60"] = found["hist_vol_20"] / found["hist_vol_60"]

    mean_volume = volume.rolling(20).mean()
    balance = (np.sign(change).fillna(1) * volume).cumsum()
    steps = np.arange(20) - 9.5
    slope = _windows(balance, 20, lambda w: w @ steps / (steps @ steps))
    found["obv_slope_20"] = slope / mean_volume
    found["close_to_vwap_20"] = close / (flow.rolling(20).sum() / volume.rolling(20).sum()) - 1
    found["volume_to_sma_20"] = volume / mean_volume
    location = ((close - low) - (high - close)) / (high - low)
    found["cmf_20"] = (location * volume).rolling(20).sum() / volume.rolling(20).sum()

    for n in (20, 252):
        found[f"dist_high_{n}"] = close / high.rolling(n).max() - 1
        found[f"dist_low_{n}"] = close / low.rolling(n).min() - 1
    found["range_pct"] = (high - low) / close
    found["close_location_value"] = location
    found["gap_pct"] = open_ / close.shift() - 1
    return pd.DataFrame(found)


def _windows(values: pd.Series, n: int, compute: Callable[[np.ndarray], np.ndarray]) -> pd.Series:
    windows = np.lib.stride_tricks.sliding_window_view(values.to_numpy(), n)
    return pd.Series(np.append(np.full(n - 1, np.nan), compute(windows)), index=values.index)


def _ema(values: pd.Series, span: int, offset: int = 0) -> pd.Series:
    """TA-Lib's: seeded by the plain mean of the first `span` values, `offset` rows later if asked."""
    first = values.first_valid_index()
    known = values.loc[first:].iloc[offset:]
    seeded = pd.concat([pd.Series([known.iloc[:span].mean()], index=known.index[span - 1 : span]), known.iloc[span:]])
    return seeded.ewm(span=span, adjust=False).mean().reindex(values.index)


def _wilder(values: pd.Series, n: int) -> pd.Series:
    """Wilder's smoothing, seeded by the plain mean of the first n values."""
    known = values.loc[values.first_valid_index() :]
    seeded = pd.concat([pd.Series([known.iloc[:n].mean()], index=known.index[n - 1 : n]), known.iloc[n:]])
    return seeded.ewm(alpha=1 / n, adjust=False).mean().reindex(values.index)


def _wilder_sum(values: pd.Series, n: int) -> pd.Series:
    """TA-Lib's sums of directional movement: n - 1 values summed, then each step loses 1/n and gains the next."""
    known = values.loc[values.first_valid_index() :]
    seed = known.iloc[: n - 1].sum()
    seeded = pd.concat([pd.Series([seed / n], index=known.index[n - 2 : n - 1]), known.iloc[n - 1 :]])
    return (seeded.ewm(alpha=1 / n, adjust=False).mean() * n).iloc[1:].reindex(values.index)
