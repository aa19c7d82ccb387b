"""Pictures as PNG bytes: the same for Dagster's pages, the README and reports."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from signals_core.ml.monitoring import DriftReport
from signals_core.ml.reliability import ReliabilityBin
from signals_core.ml.validation import WindowResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"DOWN": "#c0392b", "FLAT": "#7f8c8d", "UP": "#1e8449"}
_INK, _ACCENT, _WARN = "#2c3e50", "#2471a3", "#d35400"


def reliability_diagram(bins: Sequence[ReliabilityBin], title: str) -> bytes:
    """Observed frequency against forecast per class, with 95 % intervals and the rows behind each point."""
    figure, axes = _figure(1, 3, 10.5, 3.9)
    classes = list(dict.fromkeys(b.class_name for b in bins))
    for axis, name in zip(axes, classes, strict=False):
        chosen = [b for b in bins if b.class_name == name]
        forecast, observed = (np.array([getattr(b, f) for b in chosen]) for f in ("forecast", "observed"))
        errors = [[b.observed - b.low for b in chosen], [b.high - b.observed for b in chosen]]
        low, high = (
            min(forecast.min(), *(b.low for b in chosen)),
            max(forecast.max(), *(b.high for b in chosen)),
        )
        pad = 0.05 * (high - low)
        axis.plot([low - pad, high + pad], [low - pad, high + pad], "--", color=_INK, lw=1, label="perfect")
        axis.errorbar(forecast, observed, yerr=errors, fmt="o", color=_COLOURS[name], capsize=3, label="95 % interval")
        axis.set(
            title=name,
            xlabel="forecast probability",
            xlim=(low - pad, high + pad),
            ylim=(low - pad, high + pad),
        )
        axis.text(
            0.97,
            0.04,
            f"{sum(b.rows for b in chosen):,} rows",
            transform=axis.transAxes,
            ha="right",
            color=_INK,
        )
    axes[0].set_ylabel("observed frequency")
    axes[0].legend(frameon=False, fontsize=8)
    return _png(figure, title)


def window_metrics(windows: Sequence[WindowResult], title: str) -> bytes:
    """Log-loss gain over the class prior per window with 95 % intervals, and accuracy."""
    figure, (top, bottom) = _figure(2, 1, 10.5, 5.2, share_x=True)
    starts = np.array([w.start for w in windows], dtype="datetime64[D]")
    gain = np.array([w.gain for w in windows])
    error = 1.96 * np.array([w.gain_error for w in windows])
    colours = [_COLOURS["UP"] if g > 0 else _COLOURS["DOWN"] for g in gain]
    top.bar(starts, gain, width=70, color=colours, alpha=0.75)
    top.errorbar(starts, gain, yerr=error, fmt="none", ecolor=_INK, elinewidth=0.8, capsize=2)
    top.axhline(0, color=_INK, lw=1)
    top.set_ylabel("log-loss gain over\nclass prior (nats)")
    bottom.plot(starts, [w.accuracy for w in windows], "o-", ms=3, color=_ACCENT, label="model")
    prior = [w.test_shares[int(np.argmax(w.prior))] for w in windows]
    bottom.plot(starts, prior, "s--", ms=3, color=_INK, alpha=0.6, label="always the likeliest class")
    bottom.set(ylabel="accuracy", xlabel="test start")
    bottom.legend(frameon=False, fontsize=8)
    return _png(figure, title)


def drift_bars(report: DriftReport, title: str, most: int = 30) -> bytes:
    """PSI by feature beside the largest the feature's own history shows."""
    known = sorted((f for f in report.features if f.psi is not None), key=lambda f: -(f.psi or 0))[:most]
    figure, axes = _figure(1, 1, 8, max(2.0, 0.24 * len(known) + 1.2))
    axis = axes[0]
    if not known:
        axis.text(0.5, 0.5, report.verdict, ha="center", va="center", color=_INK, wrap=True)
        axis.axis("off")
        return _png(figure, title)
    rows = np.arange(len(known))
    axis.barh(rows, [f.psi or 0 for f in known], color=[_WARN if f.alarm else _ACCENT for f in known], label="now")
    axis.plot(
        [f.own_history or 0 for f in known],
        rows,
        "|",
        ms=9,
        mew=2,
        color=_INK,
        label="largest block of the training period",
    )
    axis.axvline(0.2, color=_WARN, ls=":", lw=1, label="fixed level .2")
    axis.set_yticks(rows, [f.feature for f in known], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("population stability index")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    return _png(figure, title)


def importance_bars(importance: dict[str, float], title: str, most: int = 20) -> bytes:
    """Share of the total gain of each feature's splits, the largest first."""
    chosen = list(importance.items())[:most]
    figure, axes = _figure(1, 1, 8, max(2.0, 0.26 * len(chosen) + 1.2))
    axis = axes[0]
    axis.barh([name for name, _ in chosen], [share for _, share in chosen], color=_ACCENT)
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=8)
    axis.set_xlabel("share of total gain")
    return _png(figure, title)


def _figure(rows: int, columns: int, width: float, height: float, share_x: bool = False) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share_x).ravel().tolist()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    return figure, axes


def _png(figure: "Figure", title: str) -> bytes:
    figure.suptitle(title, fontsize=11, color=_INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return buffer.getvalue()
