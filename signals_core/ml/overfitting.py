"""Whether choosing the best of many trials chose anything: the probability of backtest overfitting.

Written here and not imported. purgedcv 0.1.11 (MIT, no new dependencies) is sound, and the tests compare with
it where it is installed; but it scores every trial of every combination in a Python loop (hundreds of times
slower: over a minute for 100 trials in 16 blocks), and its Sharpe ratios know no serial correlation. skfolio 1.12
(BSD-3) has no probability of overfitting and brings a solver and plotly; pypbo is not on PyPI.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from signals_core.errors import DataError

BLOCKS = 16
"""Of the dates, as in Bailey et al. (2017): 12,870 ways to choose half of them."""
_AT_ONCE = 4_000_000
"""Scores held in memory at a time: 32 MB."""


def independent_trials(scores: np.ndarray) -> float:
    """How many independent trials correlated ones are worth: rho + (1 - rho) * trials.

    Bailey and Lopez de Prado (2014, appendix 3), with rho the mean correlation of two trials, not below 0.

    Args:
        scores: (dates, trials) with at least two trials that vary.
    """
    trials = scores.shape[1]
    varying = scores.std(axis=0) > 0
    if trials < 2 or not varying.all():
        raise DataError(f"{int((~varying).sum())} of {trials} trials have constant scores: leave them out")
    # The mean of all correlations is the variance of the mean of the standardised trials.
    scaled = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    correlation = (scaled.mean(axis=1).var() * trials - 1) / (trials - 1)
    return float(max(correlation, 0) + (1 - max(correlation, 0)) * trials)


@dataclass(frozen=True)
class Overfitting:
    """What combinatorially symmetric cross-validation says about choosing the best of several trials."""

    probability: float
    """That the best in one half of the dates is below the median in the other; .5 is chance."""
    slope: float
    """Of the chosen trial's score in the other half on its score in its own; NaN if that does not vary."""
    probability_of_loss: float
    """That the chosen trial's score in the other half is below 0."""
    combinations: int
    trials: int


def probability_of_overfitting(
    scores: np.ndarray, blocks: int = BLOCKS, measure: Literal["mean", "sharpe"] = "mean"
) -> Overfitting:
    """Combinatorially symmetric cross-validation (Bailey, Borwein, Lopez de Prado and Zhu 2017).

    The dates are cut into `blocks` runs of about equal length; for every half of them the best trial is
    chosen, and its rank in the other half is looked up. Ties share their ranks; a rank at the very median
    counts as half.

    Args:
        scores: (dates, trials), the higher the better: daily returns, or minus the daily mean log-loss.
        blocks: even; long enough runs that a label's overlap into the next does not matter.
        measure: of a half's dates: their mean, or their Sharpe ratio.

    Raises:
        DataError: fewer than two trials or fewer dates than blocks, a missing score, or an odd `blocks`.
    """
    table = np.asarray(scores, dtype="float64")
    if table.ndim != 2 or table.shape[1] < 2 or len(table) < blocks:
        raise DataError(f"scores of shape {table.shape}: at least 2 trials on {blocks} dates are needed")
    if not np.isfinite(table).all():
        raise DataError("scores hold missing or infinite values: every trial needs one on every date")
    if blocks < 2 or blocks % 2:
        raise DataError(f"{blocks} blocks cannot be halved: take an even number")
    edges = np.linspace(0, len(table), blocks + 1).round().astype(int)
    sums = np.stack([np.ones_like(table), table, table**2] if measure == "sharpe" else [np.ones_like(table), table])
    by_block = np.add.reduceat(sums, edges[:-1], axis=1)  # (moments, blocks, trials)
    halves = np.array(list(combinations(range(blocks), blocks // 2)))
    chosen = np.zeros((len(halves), blocks))
    np.put_along_axis(chosen, halves, 1.0, axis=1)

    own, other, ranks = (np.empty(len(halves)) for _ in range(3))
    step = max(_AT_ONCE // table.shape[1], 1)
    for start in range(0, len(halves), step):
        rows = slice(start, start + step)
        inside, outside = (_measured(half @ by_block, measure) for half in (chosen[rows], 1 - chosen[rows]))
        best = inside.argmax(axis=1)[:, None]
        own[rows] = np.take_along_axis(inside, best, axis=1)[:, 0]
        found = np.take_along_axis(outside, best, axis=1)
        other[rows] = found[:, 0]
        ranks[rows] = (outside < found).sum(axis=1) + ((outside == found).sum(axis=1) + 1) / 2
    relative = ranks / (table.shape[1] + 1)
    deviation = own - own.mean()
    return Overfitting(
        probability=float((relative < 0.5).mean() + (relative == 0.5).mean() / 2),
        slope=float(deviation @ other / (deviation @ deviation)) if deviation.any() else np.nan,
        probability_of_loss=float((other < 0).mean()),
        combinations=len(halves),
        trials=table.shape[1],
    )


def _measured(sums: np.ndarray, measure: str) -> np.ndarray:
    """The mean or the Sharpe ratio (halves, trials) from the sums of powers (moments, halves, trials)."""
    count, mean = sums[0], sums[1] / sums[0]
    if measure == "mean":
        return mean
    variance = np.maximum(sums[2] / count - mean**2, 0) * count / (count - 1)
    return np.divide(mean, np.sqrt(variance), out=np.zeros_like(mean), where=variance > 0)
