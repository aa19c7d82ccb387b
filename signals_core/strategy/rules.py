"""From calibrated probabilities to what to hold: direction, strength, expected return, weight, and why not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from signals_core.errors import BundleError
from signals_core.execution.costs import BASIS_POINT, CostModel
from signals_core.ml.target import CLASSES, DOWN, UP
from signals_core.settings import Settings
from signals_core.strategy.base import SignalDirection
from signals_core.strategy.sizing import ClassMoments, SizingRules, expected_return, kelly_weights, size_positions

COLUMNS = ("direction", "strength", "expected_return", "weight", "binding", "reason")
_DIRECTIONS = {DOWN: SignalDirection.SHORT, UP: SignalDirection.LONG}


def moments_of(manifest: dict[str, Any]) -> ClassMoments:
    """The class moments of a model's training window.

    Raises:
        BundleError: an older program trained it, and kept none.
    """
    kept = manifest.get("class_moments")
    if kept is None:
        raise BundleError(f"{manifest['version_id']} has no class moments, which size positions: train it again")
    return ClassMoments(np.asarray(kept["mean"], dtype="float64"), np.asarray(kept["deviation"], dtype="float64"))


def round_trip_cost(settings: Settings) -> float:
    """What opening and closing a position costs, as a share of its value; a short's loan fee comes on top."""
    return 2 * CostModel.from_settings(settings.trading).one_way_bps * BASIS_POINT


def decide(
    symbols: Sequence[str],
    probabilities: np.ndarray,
    moments: ClassMoments,
    settings: Settings,
    sectors: Sequence[str | None] | None = None,
    covariance: np.ndarray | None = None,
) -> pd.DataFrame:
    """One row a symbol: `COLUMNS`.

    `strategy.rule` says which rows are signals. `confidence`, as specified: UP or DOWN is the likeliest class, and its
    probability is above `ml.confidence_threshold`. `expected_return`: the mean of the class means, weighted by the
    probabilities, exceeds the costs of the round trip by `sizing.min_expected_return_bps`; a calibrated probability of
    daily returns hardly ever exceeds .55. Signals are sized by a share of Kelly's weight, then capped; without expected
    gain after costs the weight is 0.

    Args:
        probabilities: (n, 3) of DOWN, FLAT, UP, without NaN.
        sectors: (n,), for the cap on a sector.
        covariance: (n, n) of daily returns, for a volatility target.

    Returns:
        Index symbol; direction (LONG, SHORT or empty), strength (probability of the direction), expected_return (over
        the horizon, signed, before costs), weight (signed share of equity), binding (caps that made it smaller), reason
        (why there is no signal).
    """
    expected = expected_return(probabilities, moments)
    cost = round_trip_cost(settings) + _loan_fee(settings) * (expected < 0)
    if settings.strategy.rule == "confidence":
        chosen = [_by_confidence(p, settings.ml.confidence_threshold) for p in probabilities]
    else:
        least = settings.sizing.min_expected_return_bps * BASIS_POINT
        chosen = [_by_return(p, mean, fee, least) for p, mean, fee in zip(probabilities, expected, cost, strict=True)]
    direction = [str(_DIRECTIONS[number]) if number in _DIRECTIONS else "" for number, _, _ in chosen]
    sign = np.array([float(number == UP) - float(number == DOWN) for number, _, _ in chosen])
    raw = kelly_weights(probabilities, moments, cost) if len(probabilities) else np.zeros(0)
    # A direction that the expected return does not support is not held: Kelly's weight has the other sign.
    sizing = size_positions(
        symbols, np.where(raw * sign > 0, raw, 0.0), SizingRules.from_settings(settings.sizing), sectors, covariance
    )
    found = pd.DataFrame(
        {
            "direction": direction,
            "strength": [strength for _, strength, _ in chosen],
            "expected_return": expected,
            "weight": sizing.weights.to_numpy(),
            "binding": sizing.frame["binding"].to_numpy(),
            "reason": [reason for _, _, reason in chosen],
        },
        index=pd.Index(list(symbols), name="symbol"),
    )
    idle = (sign != 0) & (found["weight"] == 0).to_numpy()
    found.loc[idle, "reason"] = "a signal, but no gain is expected after costs: not held"
    return found


def _loan_fee(settings: Settings) -> float:
    calendar_days = settings.ml.prediction_horizon * 7 / 5
    return CostModel.from_settings(settings.trading).borrow(-1.0, calendar_days)


def _by_confidence(probabilities: np.ndarray, threshold: float) -> tuple[int | None, float, str]:
    best = int(probabilities.argmax())
    strength = float(probabilities[best])
    if best not in _DIRECTIONS:
        return None, strength, "FLAT is the likeliest class"
    if strength <= threshold:
        return None, strength, f"{CLASSES[best]} is the likeliest class, below the threshold of {threshold:g}"
    return best, strength, ""


def _by_return(probabilities: np.ndarray, mean: float, cost: float, least: float) -> tuple[int | None, float, str]:
    number = UP if mean > 0 else DOWN
    strength = float(probabilities[number])
    if abs(mean) - cost <= least:
        return None, strength, f"expected return {mean:+.3%}, costs {cost:.3%}"
    return number, strength, ""
