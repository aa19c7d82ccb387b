"""Whether XGBoost earned its place: pooled, paired comparison with its challengers on the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from signals_core.ml import metrics
from signals_core.ml.pipeline import labels_of
from signals_core.ml.validation import (
    CHAMPION,
    LOGISTIC,
    PRIOR_COLUMNS,
    PROBABILITY_COLUMNS,
    WindowResult,
    challenger_columns,
    pool_out_of_fold,
)

PRIOR = "prior"
Verdict = Literal["XGBoost is better", "no difference is shown", "the challenger is better"]
_EVIDENCE = 1.645
"""Standard errors that a difference must exceed, on either side."""


@dataclass(frozen=True)
class PooledChallenge:
    """XGBoost beside one challenger over all windows, each date once, from the latest window that tested it."""

    challenger: str
    rows: int
    windows: int
    log_loss: float
    xgboost_log_loss: float
    advantage: metrics.Estimate
    """Of XGBoost, by date: above 0 it is better. Its error is Newey-West."""
    verdict: Verdict

    def __str__(self) -> str:
        mean, error = self.advantage.mean, self.advantage.standard_error
        return f"against {self.challenger}: {mean:+.4f} ± {error:.4f} nats on {self.rows:,} rows; {self.verdict}"


def compare_challengers(results: Sequence[WindowResult], horizon: int) -> dict[str, PooledChallenge]:
    """XGBoost against prior, logistic regression and, where one served, champion: all uncalibrated but the champion.

    Args:
        results: windows of one scope, in any order.
        horizon: of the labels, in sessions.
    """
    if not results:
        return {}
    pooled = pool_out_of_fold(list(results))
    tables = {PRIOR: PRIOR_COLUMNS}
    tables |= {name: challenger_columns(name) for name in (LOGISTIC, CHAMPION)}
    found = {}
    for name, columns in tables.items():
        if not set(columns) <= set(pooled.columns):
            continue
        rows = pooled[pooled[columns].notna().all(axis=1)]
        if len(rows):
            found[name] = _compare(name, rows, columns, horizon)
    return found


def earned_its_place(challenges: dict[str, PooledChallenge]) -> bool:
    """Whether XGBoost is better than both the class prior and logistic regression by more than its uncertainty."""
    return all(name in challenges and challenges[name].verdict == "XGBoost is better" for name in (PRIOR, LOGISTIC))


def _compare(name: str, rows: pd.DataFrame, columns: list[str], horizon: int) -> PooledChallenge:
    labels = labels_of(rows["label"])
    own, rival = (
        metrics.log_loss_rows(rows[names].to_numpy("float64"), labels) for names in (PROBABILITY_COLUMNS, columns)
    )
    advantage = metrics.newey_west_mean(pd.Series(rival - own, index=rows.index), horizon)
    return PooledChallenge(
        name,
        len(rows),
        int(rows["window"].nunique()),
        float(rival.mean()),
        float(own.mean()),
        advantage,
        _verdict(advantage),
    )


def _verdict(advantage: metrics.Estimate) -> Verdict:
    if np.isnan(advantage.standard_error) or abs(advantage.z) <= _EVIDENCE:
        return "no difference is shown"
    return "XGBoost is better" if advantage.z > 0 else "the challenger is better"
