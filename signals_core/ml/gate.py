"""The promotion gate: may this model serve? Decided on out-of-sample log-loss, with its uncertainty."""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from signals_core.ml.metrics import Estimate, newey_west_mean
from signals_core.settings import GateSettings


@dataclass(frozen=True)
class Decision:
    """Promoted or not, why, and the numbers it rests on."""

    promote: bool
    passes_floor: bool
    """Not significantly worse than the class prior: a model that fails this must not serve at all."""
    reason: str
    evidence: dict[str, Any]


@dataclass(frozen=True)
class CalibrationError:
    """How far probabilities are from what happens, on average over bins and classes."""

    classwise: float
    chance_high: float
    """What a model that is right exceeds in one case of twenty on as many dates."""


def decide(
    losses: pd.DataFrame,
    champion_loss: pd.Series | None,
    horizon: int,
    settings: GateSettings,
    calibration: CalibrationError | None = None,
    champion_age_days: int = 0,
) -> Decision:
    """Judge a challenger.

    The floors: its calibrated log-loss is not significantly worse than the class prior's, nor worse on average by
    more than `max_loss`; and its probabilities are not further from what happens than `max_calibration_error`, unless
    a model that is right would show as much by chance. The first model of a scope needs no more. A later one must beat
    the champion on the dates both predicted out of sample, by more than the uncertainty of the difference (one-sided,
    `max_z` standard errors). A champion trained more than `refresh_after_days` before the challenger also gives way to
    one that is not worse: the difference is above -`refresh_margin` with the same confidence (non-inferiority).

    Args:
        losses: index (symbol, date), columns model and prior: calibrated out-of-fold log-loss per row.
        champion_loss: the champion's out-of-sample log-loss per row, or None if there is no champion.
        calibration: of the challenger's out-of-fold probabilities; None: not known.
        champion_age_days: by which the champion's training ended earlier than the challenger's.
    """
    against_prior = newey_west_mean(losses["prior"] - losses["model"], horizon)
    evidence: dict[str, Any] = {"gain_over_prior": _with_interval(against_prior), "z_over_prior": against_prior.z}
    if calibration is not None:
        evidence["calibration"] = asdict(calibration)
    if against_prior.dates < settings.min_dates:
        reason = f"only {against_prior.dates} out-of-sample dates, gate.min_dates asks for {settings.min_dates}"
        return Decision(False, False, reason, evidence)
    floor = _shown("log-loss gain over the class prior", against_prior)
    if against_prior.z < -settings.max_z:
        return Decision(False, False, f"significantly worse than the class prior: {floor}", evidence)
    if against_prior.mean < -settings.max_loss:
        reason = f"worse than the class prior by more than gate.max_loss ({settings.max_loss:g}): {floor}"
        return Decision(False, False, reason, evidence)
    if calibration is not None and calibration.classwise > max(settings.max_calibration_error, calibration.chance_high):
        reason = (
            f"its probabilities are off by {calibration.classwise:.3f} on average (classwise); "
            f"gate.max_calibration_error is {settings.max_calibration_error:g}, and chance would show up to "
            f"{calibration.chance_high:.3f}"
        )
        return Decision(False, False, reason, evidence)
    if champion_loss is None:
        return Decision(True, True, f"first model, not significantly worse than the class prior: {floor}", evidence)

    common = losses.index.intersection(champion_loss.dropna().index)
    difference = champion_loss.loc[common] - losses.loc[common, "model"]
    against_champion = newey_west_mean(difference, horizon)
    evidence |= {
        "gain_over_champion": _with_interval(against_champion),
        "z_over_champion": against_champion.z,
        "champion_age_days": champion_age_days,
    }
    if against_champion.dates < settings.min_dates:
        reason = f"only {against_champion.dates} dates in common with the champion, which stays"
        return Decision(False, True, reason, evidence)
    shown = _shown("log-loss gain over the champion", against_champion)
    if against_champion.z > settings.max_z and difference.any():
        return Decision(True, True, f"beats the champion: {shown}", evidence)
    worst = against_champion.mean - settings.max_z * against_champion.standard_error
    due = settings.refresh_after_days is not None and champion_age_days >= settings.refresh_after_days
    if due and worst >= -settings.refresh_margin:
        reason = f"not worse than the champion, which was trained {champion_age_days} days earlier: {shown}"
        return Decision(True, True, reason, evidence)
    if not difference.any():
        dates = against_champion.dates
        reason = f"no new evidence: it says the same as the champion on all {dates} dates, so the champion stays"
        return Decision(False, True, reason, evidence)
    return Decision(False, True, f"does not beat the champion by more than its uncertainty: {shown}", evidence)


_NORMAL_95 = 1.96


def _interval(estimate: Estimate) -> tuple[float, float]:
    reach = _NORMAL_95 * estimate.standard_error
    return estimate.mean - reach, estimate.mean + reach


def _with_interval(estimate: Estimate) -> dict[str, Any]:
    return {**asdict(estimate), "interval_95": list(_interval(estimate))}


def _shown(what: str, estimate: Estimate) -> str:
    low, high = _interval(estimate)
    return f"{what} {estimate.mean:+.4f} (95 %: {low:+.4f} … {high:+.4f}) nats on {estimate.dates} dates"
