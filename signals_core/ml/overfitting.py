"""Whether choosing the best of many trials chose anything: the probability of backtest overfitting.

Low is not skill: a search that always picks the least harmful of many useless trials is not overfitted either. That
is why the chance that the chosen trial is worse than no model stands beside it.

Written here and not imported. purgedcv 0.1.11 (MIT, no new dependencies) is sound, and the tests compare with
it where it is installed; but it scores every trial of every combination in a Python loop (hundreds of times
slower: over a minute for 100 trials in 16 blocks), and its Sharpe ratios know no serial correlation. skfolio 1.12
(BSD-3) has no probability of overfitting and brings a solver and plotly; pypbo is not on PyPI.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from signals_core.errors import DataError

BLOCKS = 16
"""Of the dates, as in Bailey et al. (2017): 12,870 ways to choose half of them."""
_AT_ONCE = 4_000_000
"""Scores held in memory at a time: 32 MB."""
_MIN_TRIALS, _MIN_BLOCKS = 3, 4
"""Fewer trials have no median to be below; fewer blocks make two ways to halve the dates, or none."""
_HORIZONS_A_BLOCK = 3
"""Length of a block; the last of the three is left out but for a session."""


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
    scores: np.ndarray, blocks: int = BLOCKS, measure: Literal["mean", "sharpe"] = "mean", overlap: int = 0
) -> Overfitting:
    """Combinatorially symmetric cross-validation (Bailey, Borwein, Lopez de Prado and Zhu 2017).

    The dates are cut into `blocks` runs of about equal length; for every half of them the best trial is
    chosen, and its rank in the other half is looked up. Ties share their ranks; a rank at the very median
    counts as half.

    Args:
        scores: (dates, trials), the higher the better: daily returns, or minus the daily mean log-loss.
        blocks: even.
        measure: of a half's dates: their mean, or their Sharpe ratio.
        overlap: dates after one whose scores share something with it, as labels of neighbouring dates share returns.
            So many are left out at the end of each block, or one half would know of the other: with 16 blocks of
            eight dates and labels of five sessions, choosing among noise would show .42.

    Raises:
        DataError: fewer than two trials or too few dates for the blocks, a missing score, or an odd `blocks`.
    """
    table = np.asarray(scores, dtype="float64")
    if table.ndim != 2 or table.shape[1] < 2 or len(table) < blocks * (overlap + 1):
        raise DataError(
            f"scores of shape {table.shape}: at least 2 trials on {blocks * (overlap + 1)} dates are needed"
        )
    if not np.isfinite(table).all():
        raise DataError("scores hold missing or infinite values: every trial needs one on every date")
    if blocks < 2 or blocks % 2:
        raise DataError(f"{blocks} blocks cannot be halved: take an even number")
    edges = np.linspace(0, len(table), blocks + 1).round().astype(int)
    used = np.ones(len(table))
    for end in edges[1:-1]:
        used[end - overlap : end] = 0
    powers = range(3 if measure == "sharpe" else 2)
    sums = np.stack([table**power * used[:, None] for power in powers])
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


@dataclass(frozen=True)
class SearchOverfitting:
    """What a search for parameters is worth: the best of its trials in one half of the scoring dates, in the other.

    A single figure is rough: among trials without any difference it lies between .1 and .9.
    """

    probability: float | None
    """That the best in one half is below the median in the other (.5 is chance); None with a `reason`."""
    probability_of_loss: float | None
    """That it is worse than the class prior in the other half."""
    trials: int
    """That finished, with the chosen columns. What was given up early has no full series and is not among them."""
    independent_trials: float | None
    """What they are worth if they were independent; None if fewer than two of them vary."""
    dates: int
    blocks: int
    reason: str = ""
    """Why there is no probability."""


def judge_search(gains: pd.DataFrame, horizon: int) -> SearchOverfitting:
    """Combinatorially symmetric cross-validation of the trials that a search chose the best of.

    Args:
        gains: (dates, trials) gain over the class prior, the higher the better.
        horizon: of the labels, in sessions. Blocks are at least three horizons long, and at most `BLOCKS`.
    """
    dates, trials = gains.shape
    blocks = min(dates // (_HORIZONS_A_BLOCK * horizon), BLOCKS) // 2 * 2
    scores = gains.to_numpy(dtype="float64")
    varying = scores[:, np.ptp(scores, axis=0) > 0] if dates else scores[:, :0]
    independent = independent_trials(varying) if varying.shape[1] > 1 else None
    reason = ""
    if trials < _MIN_TRIALS:
        reason = f"finished trials of the chosen columns: {trials}, at least {_MIN_TRIALS} are needed"
    elif blocks < _MIN_BLOCKS:
        reason = f"dates that score trials: {dates}, at least {_MIN_BLOCKS * _HORIZONS_A_BLOCK * horizon} are needed"
    if reason:
        return SearchOverfitting(None, None, trials, independent, dates, blocks, reason)
    found = probability_of_overfitting(scores, blocks, overlap=horizon - 1)
    return SearchOverfitting(found.probability, found.probability_of_loss, trials, independent, dates, blocks)


@dataclass(frozen=True)
class PooledOverfitting:
    """The searches of several windows together."""

    windows: int
    """That have a probability."""
    without: int
    """That have none."""
    trials: int
    """Finished ones, of all windows that have a probability."""
    probability: float | None = None
    """The mean: the share of all windows' halves in which the chosen trial was below the median."""
    median: float | None = None
    lowest: float | None = None
    highest: float | None = None
    probability_of_loss: float | None = None
    reason: str = ""
    """Why the last window without a probability has none."""

    def __str__(self) -> str:
        if self.probability is None:
            return f"no probability that the search overfitted: {self.reason}"
        without = f"; {self.without} more have none: {self.reason}" if self.without else ""
        return (
            f"probability that the search overfitted {self.probability:.2f} (.5 is chance), by window median "
            f"{self.median:.2f}, {self.lowest:.2f} to {self.highest:.2f}; the chosen trial is worse than the class "
            f"prior in {self.probability_of_loss:.2f} of the halves ({self.trials:,} finished trials of {self.windows} "
            f"windows, without those given up early{without})"
        )


def pool_searches(searches: Sequence[SearchOverfitting]) -> PooledOverfitting:
    """The figures over the windows of a scope."""
    found = [s for s in searches if s.probability is not None]
    reason = next((s.reason for s in reversed(searches) if s.reason), "" if searches else "there is no window")
    if not found:
        return PooledOverfitting(0, len(searches), 0, reason=reason)
    probabilities = [s.probability for s in found if s.probability is not None]
    return PooledOverfitting(
        len(found),
        len(searches) - len(found),
        sum(s.trials for s in found),
        float(np.mean(probabilities)),
        float(np.median(probabilities)),
        min(probabilities),
        max(probabilities),
        float(np.mean([s.probability_of_loss for s in found])),
        reason,
    )


def _measured(sums: np.ndarray, measure: str) -> np.ndarray:
    """The mean or the Sharpe ratio (halves, trials) from the sums of powers (moments, halves, trials)."""
    count, mean = sums[0], sums[1] / sums[0]
    if measure == "mean":
        return mean
    variance = np.maximum(sums[2] / count - mean**2, 0) * count / (count - 1)
    return np.divide(mean, np.sqrt(variance), out=np.zeros_like(mean), where=variance > 0)
