"""Small markets with everything that happens to shares."""

from datetime import date

import numpy as np
import pandas as pd

from signals_core.calendar import sessions_between
from signals_core.strategy.panel import PricePanel


def sessions(count: int, start: date = date(2019, 1, 1)) -> pd.DatetimeIndex:
    return sessions_between("XNYS", start, date(start.year + 2 + count // 250, 1, 1))[:count].rename("date")


def random_bars(symbols: int, count: int, seed: int, volatility: float = 0.02) -> dict[str, pd.DataFrame]:
    """Independent random walks with gaps at the open."""
    random = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(random.normal(0, volatility, (count, symbols)), axis=0))
    open_ = np.vstack([close[:1], close[:-1]]) * np.exp(random.normal(0, volatility / 2, (count, symbols)))
    dates = sessions(count)
    return {f"S{i:02d}": pd.DataFrame({"open": open_[:, i], "close": close[:, i]}, dates) for i in range(symbols)}


def eventful_bars(
    symbols: int, count: int, seed: int
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame], pd.DataFrame]:
    """Bars with halts, late listings and ends, splits and dividends, and a membership that comes and goes."""
    random = np.random.default_rng(seed)
    bars, actions = {}, {}
    for symbol, frame in random_bars(symbols, count, seed).items():
        first = int(random.integers(0, count // 3)) if random.random() < 0.3 else 0
        last = int(random.integers(count // 2, count)) if random.random() < 0.3 else count
        kept = (np.arange(count) >= first) & (np.arange(count) < last) & (random.random(count) > 0.08)
        kept[first] = True
        frame = frame[kept].copy()
        frame.loc[random.random(len(frame)) < 0.03, "open"] = np.nan
        rows = []
        for day in frame.index[1:]:
            if random.random() < 0.04:
                ratio = float(random.choice([2.0, 3.0, 0.1, 1.05]))
                rows.append((day, "split", ratio))
                frame.loc[day:, ["open", "close"]] /= ratio
            if random.random() < 0.05:
                rows.append((day, "dividend", float(frame.loc[day, "close"] * random.uniform(0.001, 0.03))))
        bars[symbol] = frame
        actions[symbol] = pd.DataFrame(rows, columns=["ex_date", "kind", "value"]).astype(
            {"ex_date": "datetime64[us]", "value": "float64"}
        )
    dates = sessions(count)
    inside = pd.DataFrame(random.random((4, symbols)) > 0.15, dates[:: max(count // 4, 1)][:4], list(bars))
    return bars, actions, inside


def eventful_panel(symbols: int, count: int, seed: int, missing_sessions: int = 4) -> PricePanel:
    bars, actions, members = eventful_bars(symbols, count, seed)
    return PricePanel.from_bars(bars, actions, members, missing_sessions=missing_sessions, sessions=sessions(count))


def random_weights(panel: PricePanel, seed: int, gross: float = 1.0, silent: float = 0.2) -> np.ndarray:
    """(T, N) of both signs, some zero, some NaN."""
    random = np.random.default_rng(seed)
    table = random.normal(0, gross / len(panel.symbols), panel.close.shape)
    table[random.random(table.shape) < silent] = np.nan
    table[random.random(table.shape) < silent] = 0.0
    return table
