"""What stored features look like: coverage, first valid date, distribution; as numbers and as a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_QUANTILES = (0.05, 0.5, 0.95)
_BINS = 40
_COLUMNS = 6
_TRIMMED = (0.005, 0.995)
"""What a histogram shows; the few values beyond would leave it one bar."""


@dataclass(frozen=True)
class FeatureProfile:
    """One feature over some rows."""

    name: str
    rows: int
    missing_share: float
    first_valid: date | None
    low: float
    """Its 5 % quantile; NaN without a value."""
    median: float
    high: float
    """Its 95 % quantile."""


def profile(frame: pd.DataFrame, names: Sequence[str] | None = None) -> list[FeatureProfile]:
    """The columns of a frame with index `date`, or (symbol, date); all, or those named."""
    dates = frame.index.get_level_values("date")
    found = []
    for name in frame.columns if names is None else names:
        values = frame[name].to_numpy(dtype="float64")
        known = np.isfinite(values)
        if not known.any():
            found.append(FeatureProfile(str(name), len(values), 1.0, None, np.nan, np.nan, np.nan))
            continue
        low, median, high = map(float, np.quantile(values[known], _QUANTILES))
        first = dates[known].min().date()
        found.append(FeatureProfile(str(name), len(values), float(1 - known.mean()), first, low, median, high))
    return found


def distributions(frames: Mapping[str, pd.DataFrame], title: str) -> bytes:
    """A PNG with a histogram a feature over the rows of all symbols, without its outermost hundredth.

    Args:
        frames: by symbol, the same columns.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    joined = pd.concat(frames.values()) if frames else pd.DataFrame()
    names = [str(name) for name in joined.columns]
    lines = max(-(-len(names) // _COLUMNS), 1)
    figure = Figure(figsize=(2.1 * _COLUMNS, 1.5 * lines + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    for at, name in enumerate(names):
        axes = figure.add_subplot(lines, _COLUMNS, at + 1)
        values = joined[name].to_numpy(dtype="float64")
        _histogram(axes, name, values[np.isfinite(values)], len(values))
    return _png(figure)


def _histogram(axes: "Axes", name: str, known: np.ndarray, rows: int) -> None:
    axes.set_title(name, fontsize=7)
    axes.tick_params(labelsize=6, left=False, labelleft=False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    if not len(known):
        axes.text(0.5, 0.5, "no data", ha="center", va="center", fontsize=8, transform=axes.transAxes)
        axes.set_xticks([])
        return
    low, high = np.quantile(known, _TRIMMED)
    if low == high:
        low, high = low - 0.5, high + 0.5
    axes.hist(known, bins=_BINS, range=(low, high), color="#4c78a8")
    axes.locator_params(axis="x", nbins=4)
    if len(known) < rows:
        text = f"{1 - len(known) / rows:.0%} missing"
        axes.text(0.98, 0.95, text, ha="right", va="top", fontsize=6, transform=axes.transAxes)


def _png(figure: "Figure") -> bytes:
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
