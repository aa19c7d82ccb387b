"""Pictures of a backtest as PNG bytes; each says how sure one can be."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from signals_core.plots import ACCENT, FALL, INK, RISE, WARN, as_png, new_figure
from signals_core.strategy.backtest import Backtest
from signals_core.strategy.performance import Performance, by_month, by_year

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_INTERVAL = 1.96


def equity_curve(backtest: Backtest, figures: Performance, title: str, benchmark: pd.Series | None = None) -> bytes:
    """Equity on a log scale with the benchmark and the band of luck, and the drawdown under it.

    The band is where an account with the same volatility and no skill ends up 95 % of the time: around the capital,
    growing with the root of time.

    Args:
        backtest: what happened.
        figures: of it; its headline is the line under the title.
        title: over the picture.
        benchmark: in money; index dates, see `benchmark_equity`.
    """
    figure, (top, bottom) = new_figure(2, 1, 10.5, 5.8, share_x=True, heights=(3, 1))
    dates, capital = backtest.dates.to_numpy(), backtest.capital
    years = np.arange(len(dates)) / 252
    spread = np.exp(_INTERVAL * figures.volatility * np.sqrt(years))
    top.fill_between(dates, capital / spread, capital * spread, color=INK, alpha=0.08, lw=0, label="no skill, 95 %")
    if benchmark is not None:
        top.plot(benchmark.index, benchmark, color=WARN, lw=1.1, alpha=0.85, label=str(benchmark.name))
    positive = np.where(backtest.equity_values > 0, backtest.equity_values, np.nan)
    top.plot(dates, positive, color=ACCENT, lw=1.5, label="equity after costs")
    top.axhline(capital, color=INK, lw=0.8, ls=":")
    if not figures.volatility > 0:
        top.set_ylim(0.9 * capital, 1.1 * capital)
    top.set_yscale("log")
    _money_axis(top)
    top.set_ylabel("equity, log scale")
    top.legend(frameon=False, fontsize=8, loc="upper left")
    bottom.fill_between(dates, 100 * backtest.drawdown, 0, color=FALL, alpha=0.35, lw=0)
    lowest = int(backtest.drawdown.to_numpy().argmin())
    if figures.max_drawdown < 0:
        depth = 100 * figures.max_drawdown
        bottom.plot(dates[lowest], depth, "o", ms=4, color=FALL)
        right = lowest > 0.8 * len(dates)
        bottom.annotate(
            f"{depth:.1f} %", (dates[lowest], depth), xytext=(-6 if right else 6, 2), textcoords="offset points",
            fontsize=8, color=FALL, ha="right" if right else "left",
        )  # fmt: skip
    bottom.set_ylabel("drawdown, %")
    bottom.set_xlim(dates[0], dates[-1])
    return as_png(figure, f"{title}\n{_wrapped(figures.headline())}")


def exposure_picture(backtest: Backtest, title: str) -> bytes:
    """Longs, shorts and their net over time, and the turnover, as shares of equity; means of 5 sessions."""
    figure, (top, bottom) = new_figure(2, 1, 10.5, 4.8, share_x=True, heights=(3, 1))
    shown = 100 * backtest.exposure.rolling(5, min_periods=1).mean()
    dates = backtest.dates.to_numpy()
    top.fill_between(dates, shown["long"], 0, color=RISE, alpha=0.3, lw=0, label="long")
    top.fill_between(dates, shown["short"], 0, color=FALL, alpha=0.3, lw=0, label="short")
    top.plot(dates, shown["net"], color=INK, lw=1.1, label="net")
    top.axhline(0, color=INK, lw=0.8)
    top.set_ylabel("% of equity")
    top.legend(frameon=False, fontsize=8, loc="upper left", ncols=3)
    low, high = top.get_ylim()
    top.set_ylim(low, high + 0.15 * (high - low))
    turnover = 100 * backtest.turnover.rolling(5, min_periods=1).mean()
    bottom.fill_between(dates, turnover, 0, color=ACCENT, alpha=0.5, lw=0)
    bottom.set_ylabel("turnover,\n% a session")
    bottom.set_xlim(dates[0], dates[-1])
    note = f"{backtest.annual_turnover:.1f} times equity bought and sold a year"
    return as_png(figure, f"{title}\n{note}")


def quantile_bars(quantiles: pd.DataFrame, title: str, horizon: int) -> bytes:
    """Mean forward return by quantile of the view, and the spread, with 95 % intervals (`quantile_returns`)."""
    figure, (axis,) = new_figure(1, 1, 8, 3.8)
    mean, error = 1e4 * quantiles["mean_return"].to_numpy(), 1e4 * _INTERVAL * quantiles["error"].to_numpy()
    places = np.arange(len(mean)) + np.where(quantiles.index == "spread", 0.6, 0)
    colours = [RISE if value > 0 else FALL for value in mean]
    axis.bar(places, mean, color=colours, alpha=0.6, width=0.7)
    axis.errorbar(places, mean, yerr=error, fmt="none", ecolor=INK, elinewidth=1, capsize=4)
    axis.axhline(0, color=INK, lw=1)
    last = len(mean) - 1
    names = ["1\nlowest view", *map(str, range(2, last)), f"{last}\nhighest view", f"{last} less 1"]
    axis.set_xticks(places, names)
    axis.tick_params(axis="x", length=0)
    axis.grid(visible=False, axis="x")
    axis.set_ylabel(f"return over {horizon} sessions, basis points")
    note = f"95 % intervals, Newey-West over {int(quantiles['dates'].iloc[-1]):,} dates; no costs"
    return as_png(figure, f"{title}\n{note}")


def confidence_bars(hits: pd.DataFrame, title: str) -> bytes:
    """Share of right directions by the strength of the signal, with 95 % intervals (`hit_rate_by_confidence`)."""
    figure, (axis,) = new_figure(1, 1, 8, 3.8)
    places = np.arange(len(hits))
    axis.errorbar(
        places, hits["hit_rate"], yerr=_INTERVAL * hits["error"],
        fmt="o", ms=6, color=ACCENT, ecolor=INK, elinewidth=1, capsize=4,
    )  # fmt: skip
    axis.axhline(0.5, color=INK, lw=1, ls=":", label="a coin")
    axis.set_xlim(-0.6, len(hits) - 0.4)
    names = [f"{row.low:.3f} to {row.high:.3f}\n{row.signals:,} signals" for row in hits.itertuples(index=False)]
    axis.set_xticks(places, names, fontsize=8)
    axis.grid(visible=False, axis="x")
    axis.set(xlabel="strength of the signal", ylabel="direction was right")
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    return as_png(figure, f"{title}\n95 % intervals, Newey-West over dates")


def monthly_heat_map(backtest: Backtest, title: str) -> bytes:
    """Return of each month and year in percent, one colour scale, symmetric about 0."""
    months, years = 100 * by_month(backtest), 100 * by_year(backtest)["return"]
    figure, (axis,) = new_figure(1, 1, 9, 1.3 + 0.34 * len(months))
    limit = max(float(np.nanpercentile(np.abs(months.to_numpy()), 95)), 1e-9)
    axis.grid(visible=False)
    axis.imshow(months.to_numpy(), cmap=_rise_and_fall(), vmin=-limit, vmax=limit, aspect="auto")
    for row in range(len(months)):
        for column, value in enumerate(months.iloc[row]):
            if not np.isnan(value):
                ink = "white" if abs(value) > 0.75 * limit else INK
                axis.text(column, row, f"{value:+.1f}", ha="center", va="center", fontsize=8, color=ink)
        whole = years.iloc[row]
        colour = RISE if whole > 0 else FALL
        axis.text(12, row, f"{whole:+.1f}", ha="center", va="center", fontsize=8, fontweight="bold", color=colour)
    axis.set_xlim(-0.5, 12.5)
    axis.set_xticks(range(13), [*_MONTHS, "year"], fontsize=8)
    axis.set_yticks(range(len(months)), months.index.tolist(), fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return as_png(figure, f"{title}\nreturn after costs, %")


def _wrapped(words: str, width: int = 110) -> str:
    import textwrap

    return textwrap.fill(words, width)


def _rise_and_fall() -> "Colormap":
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("returns", [FALL, "#f7f9f9", RISE])


def _money_axis(axis: "Axes") -> None:
    """Plain amounts at round places: a log axis says 10^5 of its own accord."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_ylim()
    steps = (1.0, 2.0, 5.0) if high / low > 10 else tuple(np.arange(1, 10, 1.0 if high / low > 3 else 0.5))
    axis.yaxis.set_major_locator(LogLocator(subs=steps))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
