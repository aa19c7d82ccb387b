"""How predictions fared once their outcome was known: accuracy as specified, and a test for a signal that died.

Accuracy cannot tell a dead signal from a noisy one. What can is the model's own claim: a calibrated forecast p
against the class prior q expects to gain sum_k p_k ln(p_k / q_k) nats, and realises ln(p_y / q_y). The difference
has mean zero while the forecast is honest and falls below it when what it knew is no longer true.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from signals_core.ml.drift_store import SignalTest
from signals_core.ml.pipeline import labels_of
from signals_core.ml.target import NO_LABEL
from signals_core.ml.validation import PROBABILITY_COLUMNS

_PATH_LENGTH = 52
"""Periods of the statistic that a report shows."""
_FEWEST_GROUPS = 20
"""Out-of-sample periods from which a spread can be told."""
_LEAST_SPREAD = 1e-9


def rolling_accuracy(predictions: pd.DataFrame, labels: pd.Series, window: int) -> tuple[int, float | None]:
    """How many of the last predictions have matured, and the share that were right (None without any).

    Args:
        predictions: index (symbol, date), columns p_down, p_flat, p_up.
        labels: index (symbol, date), only labels that are known by now.
        window: how many of the last matured predictions count.
    """
    common = predictions.index.intersection(labels.index)
    latest = predictions.loc[common].sort_index(level="date").tail(window)
    if latest.empty:
        return 0, None
    right = latest[PROBABILITY_COLUMNS].to_numpy().argmax(axis=1) == labels.loc[latest.index]
    return len(latest), float(right.mean())


@dataclass(frozen=True)
class Yardstick:
    """What a model's gains are measured by: from its out-of-sample predictions, before it served."""

    prior: tuple[float, float, float]
    """Class shares of its training rows."""
    spread: float
    """Standard deviation of a period's mean difference of realised and expected gain, as a multiple of the deviation
    that one forecast of it expects of itself. Below 1 by as much as symbols and dates differ in their luck."""
    bias: float
    """The mean of the same, 0 at most, less one standard error: a model that was overconfident out of sample, or
    whose calibration was lucky there, has not died of it."""


def yardstick(
    prior: np.ndarray, probabilities: np.ndarray, priors: np.ndarray, label: pd.Series, label_end: pd.Series
) -> Yardstick | None:
    """The yardstick of a model, or None with too few periods.

    Args:
        prior: class shares of its training rows (3,).
        probabilities: calibrated out-of-sample probabilities (n, 3).
        priors: the class shares that each row's model was trained on (n, 3).
        label: what happened, index (symbol, date).
        label_end: the session at whose close it was known, same index.
    """
    rows = _gains(probabilities, priors, label, label_end)
    groups = _groups(rows)
    if len(groups) < _FEWEST_GROUPS:
        return None
    scaled = (groups["difference"] / groups["deviation"]).to_numpy()
    centred = scaled - scaled.mean()
    # Outcomes of a group's last dates overlap with those of the next group's first.
    neighbours = max(float(centred[1:] @ centred[:-1]), 0.0)
    variance = (float(centred @ centred) + 2 * neighbours) / (len(scaled) - 1)
    spread = max(variance**0.5, _LEAST_SPREAD)
    doubt = spread / len(scaled) ** 0.5
    return Yardstick(_three(prior), spread, min(float(scaled.mean()), 0.0) - doubt)


def signal_test(
    predictions: pd.DataFrame, outcomes: pd.DataFrame, yardsticks: Mapping[str, Yardstick], slack: float, limit: float
) -> SignalTest | None:
    """Page's cumulative sum over matured predictions; None before any matured.

    A new version begins anew after an alarm, and only then: weekly retrains must not hide a slow death.

    Args:
        predictions: index (symbol, date), columns p_down, p_flat, p_up, model_version.
        outcomes: index (symbol, date), columns label and label_end, only what is known by now.
        yardsticks: by model version; predictions of others are left out.
        slack: standard deviations a period that are let pass.
        limit: of the sum, in standard deviations.
    """
    judged = predictions[predictions["model_version"].isin(list(yardsticks))]
    common = judged.index.intersection(outcomes.index)
    judged, known = judged.loc[common], outcomes.loc[common]
    versions = judged["model_version"].to_numpy()
    if not len(judged):
        return None
    priors = np.array([yardsticks[version].prior for version in versions])
    rows = _gains(judged[PROBABILITY_COLUMNS].to_numpy(), priors, known["label"], known["label_end"])
    groups = _groups(rows.assign(version=versions))
    if groups.empty:
        return None
    statistic, serving, path = 0.0, None, []
    for row in groups.itertuples():
        measure = yardsticks[row.version]
        if row.version != serving and statistic > limit:
            statistic = 0.0
        serving = row.version
        deviations = (row.difference / row.deviation - measure.bias) / measure.spread
        # Bounded, so that a signal that has come back is believed in finite time.
        statistic = float(np.clip(statistic - deviations - slack, 0, 2 * limit))
        path.append((str(pd.Timestamp(row.label_end).date()), round(statistic, 4)))
    return SignalTest(
        periods=len(groups),
        statistic=statistic,
        limit=limit,
        realised_gain=float(groups["realised"].mean()),
        expected_gain=float((groups["realised"] - groups["difference"]).mean()),
        path=path[-_PATH_LENGTH:],
    )


def _gains(probabilities: np.ndarray, priors: np.ndarray, label: pd.Series, label_end: pd.Series) -> pd.DataFrame:
    """Per row: realised gain, realised less expected gain, and its deviation as the forecast expects it."""
    labels = labels_of(label)
    known = labels != NO_LABEL
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(np.maximum(probabilities, 1e-12) / priors)
    expected = (probabilities * ratio).sum(axis=1)
    variance = (probabilities * ratio**2).sum(axis=1) - expected**2
    realised = ratio[np.arange(len(labels)), np.maximum(labels, 0)]
    frame = pd.DataFrame(
        {
            "realised": realised,
            "difference": realised - expected,
            "variance": np.maximum(variance, 0),
            "label_end": label_end.to_numpy(),
        },
        index=label.index,
    )
    return frame[known]


def _groups(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over the dates of each period: the next begins on the date that the first outcome of the last is known.

    A period that has not seen the next one begin is left out: it would still change.
    """
    rows = rows.dropna(subset=["difference", "label_end"])
    by_date = rows.groupby(rows.index.get_level_values("date"), sort=True)
    dates = by_date[["realised", "difference", "variance"]].mean()
    dates["label_end"] = by_date["label_end"].max()
    if "version" in rows:
        dates["version"] = by_date["version"].first()
    dates = dates[dates["variance"] > _LEAST_SPREAD**2]  # a forecast equal to the prior claims nothing
    number, until, numbers = -1, None, []
    for day, end in dates["label_end"].items():
        if until is None or day >= until:
            number, until = number + 1, end
        numbers.append(number)
    by_period = dates.groupby(np.array(numbers, dtype="int64"))
    periods = by_period[["realised", "difference", "variance"]].mean()
    periods["deviation"] = np.sqrt(periods.pop("variance"))
    periods["label_end"] = by_period["label_end"].max()
    if "version" in dates:
        periods["version"] = by_period["version"].last()
    return periods.iloc[:-1]


def _three(prior: np.ndarray) -> tuple[float, float, float]:
    down, flat, up = (float(share) for share in prior)
    return down, flat, up
