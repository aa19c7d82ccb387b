"""What the whole pipeline finds on an invented market, against what there is to find."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from signals_core.errors import MissingPrerequisite
from signals_core.ml import metrics
from signals_core.ml.forward_calibration import CALIBRATED_COLUMNS, calibrate_forward
from signals_core.ml.pipeline import labels_of
from signals_core.ml.reliability import calibration_error
from signals_core.ml.target import DOWN, UP
from signals_core.ml.validation import PRIOR_COLUMNS, PROBABILITY_COLUMNS, WalkForwardValidator, pool_out_of_fold
from signals_core.settings import CalibrationSettings, MLSettings, TuningSettings, ValidationSettings
from signals_core.synthetic.market import Market
from signals_core.synthetic.truth import NormalTruth, expected_gain_rows

if TYPE_CHECKING:
    from signals_core.workspace import Panel

TRAIN_MONTHS, TEST_MONTHS = 24, 6
CONFIDENT = 0.55
"""The default of ml.confidence_threshold: a probability above it can become a signal."""
_SMALLEST_GAIN = 1e-9
"""Nats; below it nothing is planted."""


@dataclass(frozen=True)
class Judgement:
    """Out-of-sample figures of a pipeline on an invented market, over the rows that have calibrated probabilities."""

    dates: int
    gain: metrics.Estimate
    """Calibrated log-loss gain over each window's training shares, in nats."""
    gain_flat_or_move: metrics.Estimate
    gain_direction: metrics.Estimate
    confident_share: float
    """Of rows whose likeliest class has a calibrated probability above `CONFIDENT`."""
    confident_direction_share: float
    """The same of DOWN and UP only, which is what a signal needs."""
    sharpe_ratio: float
    years: float
    classwise_ece: float
    share: float
    """Of the Bayes gain that the calibrated probabilities recover in expectation; NaN where nothing is planted."""
    raw_share: float
    """The same of all out-of-fold rows before calibration."""
    realised_share: float
    """Recovered gain over Bayes gain on the labels as they fell: about the same mean, much more noise."""
    luck: metrics.Estimate
    """The gain on the labels as they fell less its expectation under the truth; NaN where nothing is planted."""


def judge(
    market: Market,
    panel: "Panel",
    ml: MLSettings | None = None,
    trials: int = 8,
    step_months: int = TEST_MONTHS,
    validator: WalkForwardValidator | None = None,
) -> Judgement:
    """Walk forward over a panel, calibrate each window on earlier ones, and compare with the truth.

    Args:
        market: whose truth it is.
        panel: features and target, from the first training date on.
        ml: default: the defaults.
        trials: Optuna trials a window.
        step_months: the same as the test's length predicts each date once.
        validator: instead of one with default settings and `trials`.

    Raises:
        MissingPrerequisite: no window is followed by one that could be calibrated on it.
    """
    ml = ml or MLSettings()
    validator = validator or WalkForwardValidator(ml, TuningSettings(trials=trials))
    results = validator.run(panel.features, panel.target, TRAIN_MONTHS, TEST_MONTHS, step_months)
    pooled = pool_out_of_fold(results)
    calibrated = calibrate_forward(pooled, CalibrationSettings().min_rows, ml.prediction_horizon)
    rows = calibrated[calibrated[CALIBRATED_COLUMNS].notna().all(axis=1)]
    if rows.empty:
        raise MissingPrerequisite("no window could be calibrated: the panel needs one more test period")
    return _judgement(market, calibrated, rows, panel.target["trade_return"], ml)


def _judgement(market: Market, every: pd.DataFrame, rows: pd.DataFrame, trades: pd.Series, ml: MLSettings) -> Judgement:
    labels, horizon = labels_of(rows["label"]), ml.prediction_horizon
    forecast, prior = rows[CALIBRATED_COLUMNS].to_numpy(), rows[PRIOR_COLUMNS].to_numpy()
    parts = [metrics.split_log_loss_rows(table, labels) for table in (prior, forecast)]
    whether, which = (pd.Series(p - f, index=rows.index) for p, f in zip(*parts, strict=True))
    views = pd.DataFrame(forecast, index=rows.index, columns=PROBABILITY_COLUMNS)
    sessions = trades.index.unique("date").sort_values()  # the last ones of each window are not among the rows
    daily = metrics.signal_returns(views, trades[rows.index], horizon, ValidationSettings().cost_bps, sessions)
    dates = rows.index.get_level_values("date").to_numpy()
    return Judgement(
        dates=len(np.unique(dates)),
        gain=metrics.newey_west_mean(whether + which, horizon),
        gain_flat_or_move=metrics.newey_west_mean(whether, horizon),
        gain_direction=metrics.newey_west_mean(which, horizon),
        confident_share=float((forecast.max(axis=1) > CONFIDENT).mean()),
        confident_direction_share=float((forecast[:, [DOWN, UP]].max(axis=1) > CONFIDENT).mean()),
        sharpe_ratio=metrics.sharpe_ratio(daily),
        years=len(daily) / metrics.SESSIONS_PER_YEAR,
        classwise_ece=calibration_error(forecast, labels, rows.index, horizon).classwise,
        **_shares(market, every, rows, ml),
    )


def _shares(market: Market, every: pd.DataFrame, rows: pd.DataFrame, ml: MLSettings) -> dict[str, Any]:
    """What of the possible gain over the windows' priors is recovered; see `Judgement`."""
    if not isinstance(market.truth, NormalTruth) or market.truth.bayes_gain(ml) < _SMALLEST_GAIN:
        none = metrics.Estimate(np.nan, np.nan, 0)
        return {"share": np.nan, "raw_share": np.nan, "realised_share": np.nan, "luck": none}
    bayes = market.truth.probabilities(ml)
    raw, raw_possible = _expected_and_possible(bayes, every, PROBABILITY_COLUMNS)
    expected, possible = _expected_and_possible(bayes, rows, CALIBRATED_COLUMNS)
    labels = labels_of(rows["label"])
    prior, forecast, truth = (
        metrics.log_loss_rows(table, labels)
        for table in (
            rows[PRIOR_COLUMNS].to_numpy(),
            rows[CALIBRATED_COLUMNS].to_numpy(),
            bayes.loc[rows.index].to_numpy(),
        )
    )
    luck = pd.Series(prior - forecast - expected, index=rows.index)
    return {
        "share": float(expected.sum() / possible.sum()),
        "raw_share": float(raw.sum() / raw_possible.sum()),
        "realised_share": float((prior - forecast).sum() / (prior - truth).sum()),
        "luck": metrics.newey_west_mean(luck, ml.prediction_horizon),
    }


def _expected_and_possible(
    bayes: pd.DataFrame, rows: pd.DataFrame, columns: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Expected gain over the windows' priors (n,), of the forecast and of Bayes' probabilities."""
    truth, prior = bayes.loc[rows.index].to_numpy(), rows[PRIOR_COLUMNS].to_numpy()
    forecast = rows[columns].to_numpy(dtype="float64")
    return expected_gain_rows(truth, forecast, prior), expected_gain_rows(truth, truth, prior)
