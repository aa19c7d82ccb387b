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


def decide(losses: pd.DataFrame, champion_loss: pd.Series | None, horizon: int, settings: GateSettings) -> Decision:
    """Judge a challenger.

    The floor: its calibrated log-loss is not significantly worse than the class prior's. The first model of
    a scope needs no more. A later one must beat the champion on the dates both predicted out of sample, by
    more than the uncertainty of the difference (one-sided, `max_z` standard errors).

    Args:
        losses: index (symbol, date), columns model and prior: calibrated out-of-fold log-loss per row.
        champion_loss: the champion's out-of-sample log-loss per row, or None if there is no champion.
    """
    against_prior = newey_west_mean(losses["prior"] - losses["model"], horizon)
    evidence: dict[str, Any] = {"gain_over_prior": asdict(against_prior), "z_over_prior": against_prior.z}
    if against_prior.dates < settings.min_dates:
        reason = f"only {against_prior.dates} out-of-sample dates, gate.min_dates asks for {settings.min_dates}"
        return Decision(False, False, reason, evidence)
    floor = _shown("log-loss gain over the class prior", against_prior)
    if against_prior.z < -settings.max_z:
        return Decision(False, False, f"significantly worse than the class prior: {floor}", evidence)
    if champion_loss is None:
        return Decision(True, True, f"first model, not significantly worse than the class prior: {floor}", evidence)

    common = losses.index.intersection(champion_loss.dropna().index)
    difference = champion_loss.loc[common] - losses.loc[common, "model"]
    against_champion = newey_west_mean(difference, horizon)
    evidence |= {"gain_over_champion": asdict(against_champion), "z_over_champion": against_champion.z}
    if against_champion.dates < settings.min_dates:
        reason = f"only {against_champion.dates} dates in common with the champion, which stays"
        return Decision(False, True, reason, evidence)
    shown = _shown("log-loss gain over the champion", against_champion)
    if not difference.any():
        dates = against_champion.dates
        reason = f"no new evidence: it says the same as the champion on all {dates} dates, so the champion stays"
        return Decision(False, True, reason, evidence)
    if against_champion.z > settings.max_z:
        return Decision(True, True, f"beats the champion: {shown}", evidence)
    return Decision(False, True, f"does not beat the champion by more than its uncertainty: {shown}", evidence)


def _shown(what: str, estimate: Estimate) -> str:
    return f"{what} {estimate.mean:+.4f} ± {estimate.standard_error:.4f} nats on {estimate.dates} dates"
