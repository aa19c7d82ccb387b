"""Whether the views behind a strategy were right: by confidence, by rank, by quantile; errors know the overlap."""

import numpy as np
import pandas as pd

from signals_core.errors import DataError
from signals_core.ml.metrics import InformationCoefficient, information_coefficient, newey_west_mean
from signals_core.strategy.panel import PricePanel

__all__ = [
    "InformationCoefficient",
    "forward_returns",
    "hit_rate_by_confidence",
    "information_coefficient",
    "quantile_returns",
]


def forward_returns(panel: PricePanel, horizon: int) -> pd.Series:
    """What a view at the close of t could earn: from the open of t+1 to the open of t+1+horizon, dividends included.

    Index (symbol, date). NaN where an open is missing or the panel ends first. No costs.
    """
    grown = panel.total_return_factor()
    opens = panel.open * grown
    value = np.full(opens.shape, np.nan)
    value[: -horizon - 1] = opens[horizon + 1 :] / opens[1:-horizon] - 1
    frame = pd.DataFrame(value, panel.dates, pd.Index(panel.symbols, name="symbol"))
    return frame.T.stack(future_stack=True).rename_axis(["symbol", "date"]).rename("forward_return")


def hit_rate_by_confidence(
    signals: pd.DataFrame,
    forward_return: pd.Series,
    horizon: int,
    edges: tuple[float, ...] | None = None,
    groups: int = 5,
) -> pd.DataFrame:
    """How often the direction was right, by the strength of the signal.

    Args:
        signals: columns symbol, date, sign (1, -1), strength; see `signals_frame`.
        forward_return: index (symbol, date), over `horizon` sessions. A signal without one is left out; a return
            of exactly 0 is no hit.
        edges: of the groups by strength; None: groups of about equal size.

    Returns:
        One row a group, from weak to strong: low, high (strengths in it), signals, dates, hit_rate, error
        (Newey-West over dates), mean_return (signed by the direction) and return_error.
    """
    keys = pd.MultiIndex.from_frame(signals[["symbol", "date"]])
    known = forward_return.reindex(keys).to_numpy()
    rows = signals.assign(earned=signals["sign"].to_numpy() * known)[~np.isnan(known)]
    if edges is None:
        ranks = rows["strength"].rank(method="first").to_numpy() - 1
        number = (ranks * min(groups, max(len(rows), 1)) // max(len(rows), 1)).astype(int)
    else:
        number = np.searchsorted(np.asarray(edges), rows["strength"].to_numpy(), side="right")
    found = []
    for group in np.unique(number):
        own = rows[number == group].set_index(["symbol", "date"])
        hit, earned = newey_west_mean((own["earned"] > 0) * 1.0, horizon), newey_west_mean(own["earned"], horizon)
        found.append(
            {
                "low": own["strength"].min(), "high": own["strength"].max(), "signals": len(own), "dates": hit.dates,
                "hit_rate": hit.mean, "error": hit.standard_error,
                "mean_return": earned.mean, "return_error": earned.standard_error,
            }
        )  # fmt: skip
    columns = ["low", "high", "signals", "dates", "hit_rate", "error", "mean_return", "return_error"]
    return pd.DataFrame(found, columns=columns)


def quantile_returns(view: pd.Series, forward_return: pd.Series, horizon: int, quantiles: int = 5) -> pd.DataFrame:
    """Mean forward return by quantile of the view among the symbols of each date.

    Dates with fewer known symbols than quantiles are left out. Ties share the mean of their ranks.

    Args:
        view: index (symbol, date); p_up - p_down, say.
        forward_return: same index, over `horizon` sessions.

    Returns:
        Index 1 (lowest view) .. `quantiles`, and `spread` (highest less lowest, date by date): mean_return,
        error (Newey-West over dates), dates.

    Raises:
        DataError: fewer than two quantiles, or no date has enough symbols.
    """
    if quantiles < 2:
        raise DataError(f"{quantiles} quantiles cannot be compared: take two or more")
    table = pd.DataFrame({"view": view, "earned": forward_return}).dropna()
    dates = table.groupby(level="date")["view"]
    size = dates.transform("size")
    table, size = table[size >= quantiles], size[size >= quantiles]
    if not len(table):
        raise DataError(f"no date has {quantiles} symbols with a view and a return: take fewer quantiles")
    rank = table.groupby(level="date")["view"].rank(method="average")
    number = np.minimum(np.ceil((rank - 0.5) / size * quantiles), quantiles).clip(lower=1).astype(int)
    daily = table["earned"].groupby([table.index.get_level_values("date"), number.to_numpy()]).mean().unstack()
    daily = daily.reindex(columns=range(1, quantiles + 1)).rename_axis(index="date")
    daily["spread"] = daily[quantiles] - daily[1]
    found = {name: newey_west_mean(daily[name].dropna(), horizon) for name in daily}
    return pd.DataFrame(
        {
            "mean_return": {name: each.mean for name, each in found.items()},
            "error": {name: each.standard_error for name, each in found.items()},
            "dates": {name: each.dates for name, each in found.items()},
        }
    ).rename_axis("quantile")
