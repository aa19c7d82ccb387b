"""How every benchmark measures: sides in turn in one process, and what is printed of them."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from signals_core.synthetic import Market, MarketModel, make_market
from signals_core.synthetic.market import Columns, Kind
from signals_core.workspace import Panel

FIRST_TRAINING = pd.Timestamp("2012-01-01")


@dataclass(frozen=True)
class Measured:
    """Seconds of one side, repetition by repetition."""

    name: str
    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def alternate(repeats: int, **sides: Callable[[int], float]) -> dict[str, Measured]:
    """Measure the sides in turn, the first to go being another one each time."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        names = list(sides) if repeat % 2 == 0 else list(reversed(sides))
        for name in names:
            seconds[name].append(sides[name](repeat))
    return {name: Measured(name, found) for name, found in seconds.items()}


def clocked(work: Callable[[], Any]) -> float:
    """Seconds by the clock on the wall."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def worked(work: Callable[[], Any]) -> float:
    """CPU seconds of this process: another one on the machine does not count."""
    began = time.process_time()
    work()
    return time.process_time() - began


def headings(width: int) -> str:
    """Of the columns of `line`."""
    return f"{'':<{width}} {'ours: min':>10} {'median ms':>10} {'rival: min':>10} {'median ms':>10} {'ratio':>8}"


def line(what: str, width: int, ours: Measured, other: Measured | None = None) -> str:
    """Milliseconds of both sides and how many times longer the other took."""

    def shown(measured: Measured) -> str:
        return f"{min(measured.seconds) * 1e3:10.2f} {measured.median * 1e3:10.2f}"

    text = f"{what:<{width}} {shown(ours)}"
    return text if other is None else f"{text} {shown(other)} {other.median / ours.median:7.1f}×"


def interval(values: Sequence[float]) -> str:
    """Mean ± 1.96 standard errors."""
    return f"{np.mean(values):+.4f} ± {1.96 * np.std(values, ddof=1) / np.sqrt(len(values)):.4f}"


def invented_panel(
    kind: Kind, symbols: int, seed: int, tests: int, coefficient: float, columns: Columns = "symbol_level"
) -> tuple[Market, Panel]:
    """A market with a year of warm-up before 24 months of training and `tests` half-years, and its panel."""
    end = FIRST_TRAINING + pd.DateOffset(months=24 + 6 * tests, days=7)
    start = FIRST_TRAINING - pd.DateOffset(months=13)
    model = MarketModel(kind, information_coefficient=coefficient)
    market = make_market(symbols, start.date(), end.date(), model, seed)
    panel = market.panel(columns=columns)
    kept = panel.features.index.get_level_values("date") >= FIRST_TRAINING
    return market, Panel(panel.features[kept], panel.target[kept])
