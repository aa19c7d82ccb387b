"""How much the rows of a panel depend on each other: neighbouring labels share returns, symbols move together."""

from collections.abc import Iterator

import numpy as np
import pandas as pd


def intraclass_correlation(values: np.ndarray, dates: np.ndarray) -> float:
    """The correlation of two different rows of the same date; 0 where no date has two rows or nothing varies.

    The analysis of variance's estimate over all pairs (Fisher 1925), at most 1; noise can make it negative.

    Args:
        values: (n,) figures, one a row.
        dates: (n,) of each row.
    """
    _, codes, rows = np.unique(dates, return_inverse=True, return_counts=True)
    centred = values - values.mean()
    square = centred @ centred
    pairs = float((rows * (rows - 1)).sum())
    if pairs == 0 or square == 0:
        return 0.0
    sums = np.bincount(codes, weights=centred)
    return float(min((sums @ sums - square) / pairs / (square / len(values)), 1.0))


def rows_per_outcome(labels: np.ndarray, dates: np.ndarray, horizon: int) -> float:
    """How many rows hold about one independent outcome.

    The horizon, since that many neighbouring labels of a symbol share returns, times the design effect of
    clusters (Kish 1965) 1 + (rows of a date - 1) * intraclass correlation, of the class that correlates most.

    Args:
        labels: (n,) class numbers.
        dates: (n,) of each row.
    """
    _, rows = np.unique(dates, return_counts=True)
    size = (rows @ rows) / rows.sum()  # of the date that an average row belongs to
    correlation = max(intraclass_correlation((labels == number) * 1.0, dates) for number in np.unique(labels))
    return horizon * (1 + (size - 1) * max(correlation, 0.0))


def independent_rows(date_of: np.ndarray, symbol_of: np.ndarray, horizon: int, correlation: float) -> float:
    """How many independent outcomes some rows of a panel are worth, for the variance of their mean; >= 1.

    n^2 over the sum of all pairs' correlations, where labels `lag` sessions apart share (horizon - lag) /
    horizon of their returns, and those of two symbols correlate by `correlation` times that.

    Args:
        date_of: (n,) number of each row's date among the panel's dates in order.
        symbol_of: (n,) number of each row's symbol.
    """
    present = np.zeros((date_of.max() + 1, symbol_of.max() + 1), dtype="float32")
    present[date_of, symbol_of] = 1
    together = present.sum(axis=1)
    total = 0.0
    for lag in range(min(horizon, len(present))):
        later, earlier = slice(lag, None), slice(None, len(present) - lag)
        own = float(np.vdot(present[later], present[earlier]))
        every = float(together[later] @ together[earlier])
        weight = (1 if lag == 0 else 2) * (1 - lag / horizon)
        total += weight * (own + correlation * (every - own))
    return float(max(len(date_of) ** 2 / total, 1.0))


def latent_correlation(labels: np.ndarray, dates: np.ndarray) -> float:
    """Between symbols, the correlation of normal returns of which the labels are intervals; 0 <= rho < 1.

    Labels stand for intervals of a normal return with their own frequencies; each is replaced by that
    return's mean there. Two such means correlate by rho times their variance, up to terms of third order.
    """
    from scipy.stats import norm

    shares = np.bincount(labels) / len(labels)
    edges = norm.ppf(np.concatenate([[0.0], np.minimum(shares.cumsum(), 1.0)]))
    occurring = shares > 0
    means = np.zeros(len(shares))
    means[occurring] = -np.diff(norm.pdf(edges))[occurring] / shares[occurring]
    variance = shares @ means**2
    if variance == 0:
        return 0.0
    return float(np.clip(intraclass_correlation(means[labels], dates) / variance, 0.0, _MOST_CORRELATION))


_MOST_CORRELATION = 0.99
"""Symbols that always fell into the same class may still differ."""


def draw_labels(
    probabilities: np.ndarray, index: pd.MultiIndex, horizon: int, correlation: float, draws: int, seed: int
) -> Iterator[np.ndarray]:
    """Labels (n,) as they would fall if the forecasts were true, `draws` times.

    A row's label is the class whose interval of cumulated probability holds a normal variable: the sum of
    `horizon` daily shocks of its symbol, a part of which all symbols share. So each row follows its forecast
    exactly, while neighbouring dates overlap and symbols correlate as returns do (a Gaussian copula).

    Args:
        probabilities: (n, k) in the order of the classes, from the lowest return to the highest.
        index: (symbol, date) of each row.
        correlation: of the shocks of two symbols, from `latent_correlation`.
    """
    from scipy.special import ndtri

    dates, date_of = np.unique(index.get_level_values("date"), return_inverse=True)
    symbols, symbol_of = np.unique(index.get_level_values("symbol"), return_inverse=True)
    thresholds = ndtri(np.clip(probabilities.cumsum(axis=1)[:, :-1], 0, 1)).astype("float32").T
    random = np.random.default_rng(seed)
    days = len(dates) + horizon - 1
    common, own = np.float32(np.sqrt(correlation / horizon)), np.float32(np.sqrt((1 - correlation) / horizon))
    for _ in range(draws):
        shocks = random.standard_normal((days, len(symbols)), dtype="float32") * own
        if correlation > 0:
            shocks += random.standard_normal((days, 1), dtype="float32") * common
        total = shocks[: len(dates)].copy()
        for day in range(1, horizon):
            total += shocks[day : day + len(dates)]
        latent = total[date_of, symbol_of]
        labels = (latent > thresholds[0]).astype("int64")
        for threshold in thresholds[1:]:
            labels += latent > threshold
        yield labels
