"""Random streams, autoregressions and OHLC bars: the parts that markets are made of, vectorised over sessions."""

import zlib

import numpy as np
import pandas as pd

FIRST_PRICE = 100.0
_TYPICAL_VOLUME = 1_000_000.0
_LOG_VOLUME_SPREAD, _VOLUME_PERSISTENCE = 0.4, 0.7
"""Busy days follow busy days; volume says nothing about the price."""


def stream(seed: int, name: str, purpose: str) -> np.random.Generator:
    """A generator of its own for each name and purpose, so that asking for more of one changes no other."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), zlib.crc32(purpose.encode())])


def normals(seed: int, names: tuple[str, ...], purpose: str, sessions: int) -> np.ndarray:
    """Standard normal draws (sessions, names); more sessions only add rows, more names only columns."""
    return np.column_stack([stream(seed, name, purpose).standard_normal(sessions) for name in names])


def autoregression(innovations: np.ndarray, persistence: float) -> np.ndarray:
    """A stationary AR(1) of unit variance along the first axis: x[t] = a x[t-1] + sqrt(1 - a^2) z[t], x[0] = z[0]."""
    from scipy.signal import lfilter

    shocks = innovations * np.sqrt(1 - persistence**2)
    shocks[0] = innovations[0]
    return np.asarray(lfilter([1.0], [1.0, -persistence], shocks, axis=0))


def make_bars(
    sessions: pd.DatetimeIndex,
    overnight: np.ndarray,
    intraday: np.ndarray,
    intraday_sd: np.ndarray,
    seed: int,
    name: str,
) -> pd.DataFrame:
    """Bars of one symbol from its log returns.

    High and low are drawn from the law of the extremes of a Brownian bridge from open to close (Glasserman
    2004, section 6.4): o + (d +- sqrt(d^2 - 2 s^2 ln U)) / 2 with d = c - o, each with a uniform U of its own.

    Args:
        sessions: index of the bars (t,).
        overnight: log(open / close before) (t,); the first is against `FIRST_PRICE`.
        intraday: log(close / open) (t,).
        intraday_sd: standard deviation of the diffusion between open and close (t,).
        seed: with `name`, of the extremes and the volume.
        name: of the symbol.

    Returns:
        Index `date`, columns open, high, low, close, volume (float64); valid under `bars_schema`.
    """
    closed = np.log(FIRST_PRICE) + np.cumsum(overnight + intraday)
    opened = closed - intraday
    exponential = stream(seed, name, "extremes").standard_exponential((len(sessions), 2))
    reach = np.sqrt(intraday[:, None] ** 2 + 2 * intraday_sd[:, None] ** 2 * exponential)
    high, low = opened + (intraday + reach[:, 0]) / 2, opened + (intraday - reach[:, 1]) / 2
    activity = autoregression(stream(seed, name, "volume").standard_normal(len(sessions)), _VOLUME_PERSISTENCE)
    frame = pd.DataFrame(
        {
            "open": np.exp(opened),
            # The extremes include both ends but for rounding.
            "high": np.exp(np.maximum(high, np.maximum(opened, closed))),
            "low": np.exp(np.minimum(low, np.minimum(opened, closed))),
            "close": np.exp(closed),
            "volume": np.round(_TYPICAL_VOLUME * np.exp(_LOG_VOLUME_SPREAD * activity)),
        },
        index=sessions.rename("date"),
    )
    return frame
