"""The label: forward return over the horizon, as DOWN, FLAT or UP; and when it became known."""

import numpy as np
import pandas as pd

from signals_core.settings import MLSettings

CLASSES = ("DOWN", "FLAT", "UP")
DOWN, FLAT, UP = range(3)
NO_LABEL = -1

TARGET_COLUMNS = ("label", "forward_return", "label_end", "trade_return")


def make_target(bars: pd.DataFrame, settings: MLSettings) -> pd.DataFrame:
    """Labels of every bar.

    Args:
        bars: index `date`; columns open and close.

    Returns:
        Same index, columns
        label (int8): 0 DOWN, 1 FLAT, 2 UP of close[t+h] / close[t] - 1 against the thresholds; -1 for the
        last h rows, which have none;
        forward_return (float64): that return, NaN where there is no label;
        label_end (date): session t+h, at whose close the label became known, NaT where there is none;
        trade_return (float64): open[t+2] / open[t+1] - 1, what one session's holding earns if it is bought
        at the first open after the close of t.
    """
    horizon = settings.prediction_horizon
    close, open_ = bars["close"], bars["open"]
    forward = close.shift(-horizon) / close - 1
    label = np.select(
        [forward.isna(), forward < settings.down_threshold, forward > settings.up_threshold],
        [NO_LABEL, DOWN, UP],
        default=FLAT,
    )
    return pd.DataFrame(
        {
            "label": label.astype("int8"),
            "forward_return": forward,
            "label_end": pd.Series(bars.index, index=bars.index).shift(-horizon),
            "trade_return": open_.shift(-2) / open_.shift(-1) - 1,
        },
        index=bars.index,
    )


def class_shares(labels: np.ndarray | pd.Series) -> np.ndarray:
    """The share of DOWN, FLAT and UP (3,) among labels that exist."""
    counts = np.bincount(np.asarray(labels)[np.asarray(labels) >= 0], minlength=len(CLASSES))
    return counts / max(counts.sum(), 1)
