"""Pictures as PNG bytes: the same for Dagster's pages, the README and reports."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from signals_core.ml.drift_store import DriftReport
from signals_core.ml.reliability import ReliabilityBin
from signals_core.ml.validation import WindowResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

_COLOURS = {"DOWN": "#c0392b", "FLAT": "#7f8c8d", "UP": "#1e8449"}
_INK, _ACCENT, _WARN = "#2c3e50", "#2471a3", "#d35400"
_MAJOR = 0.2
"""The specification's level of a major drift, below which nothing alarms."""


def reliability_diagram(bins: Sequence[ReliabilityBin], title: str, note: str = "") -> bytes:
    """Observed frequency against forecast per class, with 95 % intervals and the rows behind each point.

    All classes have one scale, so that equal distances mean equal errors. A hollow point is a group whose interval
    does not hold its forecast; one in twenty would be by chance.

    Args:
        note: a line under the title: the calibration error beside chance's, say.
    """
    classes = list(dict.fromkeys(b.class_name for b in bins))
    figure, axes = _figure(2, max(len(classes), 1), 10.5, 4.6, heights=(5, 1), share_x="col")
    span = _common_span(bins)
    for column, name in enumerate(classes):
        chosen = [b for b in bins if b.class_name == name]
        _reliability_of_class(axes[column], chosen, span)
        _rows_of_class(axes[len(classes) + column], chosen, span)
    if classes:
        axes[0].set_ylabel("observed frequency, 95 % interval")
        axes[len(classes)].set_ylabel("rows")
        axes[0].plot([], [], "o", ms=6, mfc="white", mec=_INK, mew=1.2, label="interval misses the forecast")
        axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return _png(figure, f"{title}\n{note}" if note else title)


def _reliability_of_class(axis: "Axes", bins: Sequence[ReliabilityBin], span: float) -> None:
    colour = _COLOURS.get(bins[0].class_name, _ACCENT)
    middle = (min(_lowest(b) for b in bins) + max(_highest(b) for b in bins)) / 2
    low, high = middle - span / 2, middle + span / 2
    share = sum(b.rows * b.observed for b in bins) / sum(b.rows for b in bins)
    axis.plot([low, high], [low, high], "--", color=_INK, lw=1, label="forecast = observed")
    axis.axhline(share, color=_INK, lw=0.8, ls=":", label="how often it happened")
    axis.plot([b.forecast for b in bins], [b.observed for b in bins], color=colour, lw=0.8, alpha=0.35)
    for b in bins:
        face = colour if b.low <= b.forecast <= b.high else "white"
        axis.plot([b.forecast] * 2, [b.low, b.high], color=colour, lw=1.6, alpha=0.55, solid_capstyle="butt")
        axis.plot(b.forecast, b.observed, "o", ms=6, mfc=face, mec=colour, mew=1.6, zorder=3)
    axis.set(xlim=(low, high), ylim=(low, high))
    axis.set_title(bins[0].class_name, color=colour, fontweight="bold")


def _rows_of_class(axis: "Axes", bins: Sequence[ReliabilityBin], span: float) -> None:
    sizes = [b.rows for b in bins]
    colour = _COLOURS.get(bins[0].class_name, _ACCENT)
    axis.bar([b.forecast for b in bins], sizes, width=span / 45, color=colour, alpha=0.6)
    axis.set(xlabel="forecast probability", ylim=(0, 1.7 * max(sizes)), yticks=[])
    axis.grid(visible=False)
    axis.spines["left"].set_visible(False)
    words = f"{len(sizes)} groups of {np.mean(sizes):,.0f} rows"
    axis.text(0.5, 0.98, words, transform=axis.transAxes, ha="center", va="top", fontsize=8, color=_INK)


def _common_span(bins: Sequence[ReliabilityBin]) -> float:
    """The side of a square that holds the points and intervals of any one class, with a margin."""
    spans = [
        max(_highest(b) for b in bins if b.class_name == name) - min(_lowest(b) for b in bins if b.class_name == name)
        for name in {b.class_name for b in bins}
    ]
    return 1.1 * max(spans, default=1.0)


def _lowest(b: ReliabilityBin) -> float:
    return min(b.low, b.forecast)


def _highest(b: ReliabilityBin) -> float:
    return max(b.high, b.forecast)


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
    axis.axvline(_MAJOR, color=_WARN, ls=":", lw=1, label="fixed level .2")
    axis.set_yticks(rows, [f.feature for f in known], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("population stability index")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    return _png(figure, title)


def psi_heat_map(reports: Sequence[DriftReport], title: str, factor: float, most: int = 40) -> bytes:
    """PSI by feature and week, as a share of what raises an alarm: the feature's own past times `factor`.

    Features are in the order of the largest share shown; a cross marks a faulty feed, grey that nothing could be
    judged, and a line between weeks another model.

    Args:
        reports: one a week, the oldest first.
        factor: `monitoring.own_history_factor`.
    """
    shares, faults = _shares_of_limit(reports, factor)
    ranked = sorted(
        shares, key=lambda name: (-len(faults[name]), -max((v for v in shares[name] if v == v), default=-1))
    )
    chosen = ranked[:most]
    width = max(8.0, 0.32 * len(reports) + 4.2)
    figure, (axis,) = _figure(1, 1, width, max(2.4, 0.19 * len(chosen) + 1.6))
    if not chosen:
        axis.text(0.5, 0.5, "no report yet", ha="center", va="center", color=_INK)
        axis.axis("off")
        return _png(figure, title)
    table = np.array([shares[name] for name in chosen])
    axis.grid(visible=False)
    axis.set_facecolor("#e5e7e9")
    image = axis.pcolormesh(table, cmap=_drift_colours(), vmin=0, vmax=2, edgecolors="white", linewidth=0.6)
    for row, name in enumerate(chosen):
        for column in faults[name]:
            axis.text(column + 0.5, row + 0.5, "×", ha="center", va="center", fontsize=9, color=_INK, fontweight="bold")
    for column in range(1, len(reports)):
        if reports[column].model_version != reports[column - 1].model_version:
            axis.axvline(column, color=_INK, lw=1.2)
    axis.set_yticks(np.arange(len(chosen)) + 0.5, chosen, fontsize=7)
    every = max(1, len(reports) // 14)
    axis.set_xticks(
        np.arange(0, len(reports), every) + 0.5, [r.day for r in reports[::every]], rotation=45, ha="right", fontsize=7
    )
    axis.tick_params(length=0)
    axis.invert_yaxis()
    axis.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axis, shrink=min(1.0, 6 / len(chosen) + 0.3), pad=0.015, extend="max")
    bar.set_ticks([0, 0.5, 1, 1.5, 2], labels=["0", "½", "alarm level", "1½", "2 ×"])
    bar.ax.tick_params(labelsize=8, length=0)
    bar.outline.set_visible(False)
    note = "× faulty feed    grey: not judged"
    if len(ranked) > most:
        note += f"    {len(ranked) - most} quieter features are left out"
    if len({r.model_version for r in reports}) > 1:
        note += "    line: another model"
    axis.set_title(note, fontsize=8, color=_INK, loc="left")
    return _png(figure, title)


def _shares_of_limit(
    reports: Sequence[DriftReport], factor: float
) -> tuple[dict[str, list[float]], dict[str, list[int]]]:
    """By feature, the PSI of each report over its alarm level (NaN if not judged), and the reports with a fault."""
    names = dict.fromkeys(f.feature for report in reports for f in report.features)
    shares = {name: [np.nan] * len(reports) for name in names}
    faults: dict[str, list[int]] = {name: [] for name in names}
    for column, report in enumerate(reports):
        for f in report.features:
            if f.psi is not None:
                shares[f.feature][column] = f.psi / max(factor * (f.own_history or 0), _MAJOR)
            if f.fault:
                faults[f.feature].append(column)
    return shares, faults


def _drift_colours() -> "LinearSegmentedColormap":
    from matplotlib.colors import LinearSegmentedColormap

    stops = [(0, "#f4f6f7"), (0.25, "#d4e6f1"), (0.5, "#f5cba7"), (0.75, _WARN), (1, _COLOURS["DOWN"])]
    return LinearSegmentedColormap.from_list("drift", stops)


def signal_path(path: Sequence[tuple[str, float]], limit: float, title: str) -> bytes:
    """The statistic of the test for a dead signal by period, and its limit."""
    figure, (axis,) = _figure(1, 1, 8, 2.6)
    days = np.array([day for day, _ in path], dtype="datetime64[D]")
    values = np.array([value for _, value in path])
    axis.axhline(limit, color=_COLOURS["DOWN"], lw=1, ls="--", label="limit: the signal is dead")
    axis.fill_between(days, values, color=_ACCENT, alpha=0.15)
    axis.plot(days, values, "o-", ms=3, color=_ACCENT)
    axis.set(
        ylim=(0, max(1.15 * limit, 1.1 * float(values.max(initial=0)))), ylabel="cumulative shortfall\n(deviations)"
    )
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    axis.tick_params(axis="x", labelsize=8)
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


def _figure(
    rows: int,
    columns: int,
    width: float,
    height: float,
    share_x: "bool | Literal['col']" = False,
    heights: Sequence[float] | None = None,
) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share_x, height_ratios=heights).ravel().tolist()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    return figure, axes


def _png(figure: "Figure", title: str) -> bytes:
    figure.suptitle(title, fontsize=11, color=_INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return buffer.getvalue()


# For the pictures of other modules, in the same style.
INK, ACCENT, WARN, RISE, FALL = _INK, _ACCENT, _WARN, _COLOURS["UP"], _COLOURS["DOWN"]
new_figure, as_png = _figure, _png
