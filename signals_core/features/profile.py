"""What stored features look like: coverage, first valid date, distribution; as numbers and as a picture."""

import io
import textwrap
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
_WORTH_SAYING, _LETTERS = 0.01, 200
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
    known = {str(name): values[np.isfinite(values)] for name, values in joined.astype("float64").items()}
    shown = {name: values for name, values in known.items() if len(values)}
    absent = [name for name in known if name not in shown]
    lines = max(-(-len(shown) // _COLUMNS), 1)
    figure = Figure(figsize=(2.1 * _COLUMNS, 1.5 * lines + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    for at, (name, values) in enumerate(shown.items()):
        _histogram(figure.add_subplot(lines, _COLUMNS, at + 1), name, values, len(joined))
    if absent:
        figure.supxlabel(textwrap.fill(f"no data: {', '.join(absent)}", _LETTERS), fontsize=7)
    return _png(figure)


def _histogram(axes: "Axes", name: str, known: np.ndarray, rows: int) -> None:
    missing = 1 - len(known) / rows
    axes.set_title(name if missing < _WORTH_SAYING else f"{name} ({missing:.0%} missing)", fontsize=7)
    axes.tick_params(labelsize=6, left=False, labelleft=False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    low, high = np.quantile(known, _TRIMMED)
    if low == high:
        low, high = low - 0.5, high + 0.5
    axes.hist(known, bins=_BINS, range=(low, high), color="#4c78a8")
    axes.locator_params(axis="x", nbins=4)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
