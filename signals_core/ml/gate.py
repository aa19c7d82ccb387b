"""The promotion gate: may this model serve? Decided on out-of-sample log-loss, with its uncertainty."""

from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any, Literal

import pandas as pd

from signals_core.ml.metrics import Estimate, newey_west_mean, overlap_widening
from signals_core.settings import GateSettings

Basis = Literal["first", "superiority", "refresh"]
"""Why a model was promoted: none served, it beats the one that did, or it is a fresher one that is not worse."""


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


@dataclass(frozen=True, eq=False)
class Challenger:
    """The model that is judged."""

    losses: pd.DataFrame
    """Index (symbol, date); columns model and prior (calibrated out-of-fold log-loss) and window, whose model it is."""
    as_of: date
    """It was trained on earlier sessions only."""
    calibration: CalibrationError | None = None
    """Of its out-of-fold probabilities; None: not known."""


@dataclass(frozen=True, eq=False)
class Rival:
    """A model that the challenger is compared with."""

    version_id: str
    losses: pd.DataFrame
    """As the challenger's, without prior: out of fold before `as_of`; from then on its own, and window is empty."""
    as_of: date


def decide(
    challenger: Challenger,
    champion: Rival | None,
    horizon: int,
    settings: GateSettings,
    proven: Rival | None = None,
) -> Decision:
    """Judge a challenger.

    The floors: its calibrated log-loss is not significantly worse than the class prior's, nor worse on average by
    more than `max_loss`; and its probabilities are not further from what happens than `max_calibration_error`, unless
    a model that is right would show as much by chance. The first model of a scope needs no more.

    A later one is compared with the champion on the dates that both predicted out of sample and where they say
    something different. It is promoted if, on at least `min_dates` of them, it is better by more than the uncertainty
    of the difference (one-sided, `max_z` standard errors). A champion trained `refresh_after_days` or more before the
    challenger also gives way to one that is not worse, in one of two senses:

    - Of the same recipe, that is, both say the same wherever the same window tested both: what validation has shown
      of the recipe holds for both, and only dates after the champion's training can tell them apart. The fresher one
      is kept back only if it is significantly worse there; on fewer dates than four horizons, which show nothing of
      significance, if it is worse by more than `max_loss`.
    - Of another recipe: its disadvantage is below `refresh_margin` with the same confidence (non-inferiority).

    So that no chain of such replacements can slide downhill, the challenger must be not worse in the same sense than
    the proven model: the last one that was promoted for another reason than being fresh.

    Args:
        champion: the model in service; None: there is none.
        proven: None: it is the champion, or cannot be compared.
    """
    floor = _floors(challenger, horizon, settings)
    if not floor.promote or champion is None:
        return floor
    against = _Comparison.of(challenger, champion, horizon)
    age = (challenger.as_of - champion.as_of).days
    evidence = floor.evidence | against.evidence("champion") | {"champion_age_days": age}

    def decision(basis: Basis | None, reason: str) -> Decision:
        return Decision(basis is not None, True, reason, evidence if basis is None else evidence | {"basis": basis})

    if against.common_dates < settings.min_dates:
        return decision(None, f"only {against.common_dates} dates in common with the champion, which stays")
    if against.dates >= settings.min_dates and against.gain.z > settings.max_z:
        return decision("superiority", f"beats the champion: {against}")
    if settings.refresh_after_days is None or age < settings.refresh_after_days:
        return decision(None, against.why_not_better(settings))
    rivals = {"the champion": against}
    if proven is not None and proven.version_id != champion.version_id:
        rivals[f"{proven.version_id}, the last that was better than what it replaced"] = beside = _Comparison.of(
            challenger, proven, horizon
        )
        evidence |= beside.evidence("proven")
    for name, comparison in rivals.items():
        objection = comparison.why_worse(settings)
        if objection:
            return decision(None, f"it may not replace a champion {age} days older: against {name}, {objection}")
    sense = "of the same recipe" if against.same_recipe else "of another recipe"
    return decision("refresh", f"{age} days fresher than the champion, {sense}, and not worse: {against}")


def _floors(challenger: Challenger, horizon: int, settings: GateSettings) -> Decision:
    """The decision about a first model."""
    losses, calibration = challenger.losses, challenger.calibration
    gain = _mean(losses["prior"] - losses["model"], horizon)
    evidence: dict[str, Any] = {"gain_over_prior": _with_interval(gain), "z_over_prior": gain.z}
    if calibration is not None:
        evidence["calibration"] = asdict(calibration)
    shown = _shown("log-loss gain over the class prior", gain)
    objection = None
    if gain.dates < settings.min_dates:
        objection = f"only {gain.dates} out-of-sample dates, gate.min_dates asks for {settings.min_dates}"
    elif gain.z < -settings.max_z:
        objection = f"significantly worse than the class prior: {shown}"
    elif gain.mean < -settings.max_loss:
        objection = f"worse than the class prior by more than gate.max_loss ({settings.max_loss:g}): {shown}"
    elif calibration and calibration.classwise > max(settings.max_calibration_error, calibration.chance_high):
        objection = (
            f"its probabilities are off by {calibration.classwise:.3f} on average (classwise); "
            f"gate.max_calibration_error is {settings.max_calibration_error:g}, and chance would show up to "
            f"{calibration.chance_high:.3f}"
        )
    if objection:
        return Decision(False, False, objection, evidence)
    reason = f"first model, not significantly worse than the class prior: {shown}"
    return Decision(True, True, reason, evidence | {"basis": "first"})


@dataclass(frozen=True)
class _Comparison:
    """What the dates that both predicted out of sample say of a challenger and a rival."""

    gain: Estimate
    """Of the challenger, in nats, on the dates where the two say something different."""
    horizon: int
    common_dates: int
    same_recipe: bool
    """Both say the same wherever the same window tested both, and there are such rows."""

    @classmethod
    def of(cls, challenger: Challenger, rival: Rival, horizon: int) -> "_Comparison":
        both = challenger.losses.join(rival.losses.add_prefix("rival_"), how="inner").dropna(subset=["rival_model"])
        difference = both["rival_model"] - both["model"]
        beside = both["window"] == both["rival_window"]
        same_recipe = bool(beside.any() and not difference[beside].any())
        dates = both.index.get_level_values("date")
        told = difference[dates >= pd.Timestamp(rival.as_of)] if same_recipe else difference
        told = told[told.ne(0).groupby(level="date").transform("any")]
        gain = _mean(told, horizon) if len(told) else Estimate(0.0, 0.0, 0)
        return cls(gain, horizon, dates.nunique(), same_recipe)

    @property
    def dates(self) -> int:
        """On which the two say something different."""
        return self.gain.dates

    def __str__(self) -> str:
        if not self.dates:
            return f"they say the same on all {self.common_dates} dates"
        return f"{_shown('log-loss gain', self.gain)} on which they differ"

    def evidence(self, rival: str) -> dict[str, Any]:
        """Plain values, named after the rival."""
        return {
            f"gain_over_{rival}": _with_interval(self.gain),
            f"z_over_{rival}": self.gain.z,
            f"dates_with_{rival}": self.common_dates,
            f"same_recipe_as_{rival}": self.same_recipe,
        }

    def why_not_better(self, settings: GateSettings) -> str:
        """Why the champion stays where only a better model may replace it."""
        if not self.dates:
            return f"no new evidence: {self}, so the champion stays"
        if self.dates < settings.min_dates:
            return f"they differ on {self.dates} dates, gate.min_dates asks for {settings.min_dates}: {self}"
        return f"does not beat the champion by more than its uncertainty: {self}"

    def why_worse(self, settings: GateSettings) -> str:
        """Why a fresher model may not replace an old one, or nothing."""
        if not self.dates:
            return ""
        if self.same_recipe and self.dates < _FEWEST_HORIZONS * self.horizon:
            lost = self.gain.mean < -settings.max_loss
            return f"it is worse by more than gate.max_loss ({settings.max_loss:g}): {self}" if lost else ""
        if self.same_recipe:
            return f"it is significantly worse: {self}" if self.gain.z < -settings.max_z else ""
        if self.dates < settings.min_dates:
            return f"a model of another recipe, they differ on too few dates: {self}"
        worst = self.gain.mean - settings.max_z * self.gain.standard_error
        if worst < -settings.refresh_margin:
            return f"it could be worse by more than gate.refresh_margin ({settings.refresh_margin:g}): {self}"
        return ""


def _mean(values: pd.Series, horizon: int) -> Estimate:
    """Over dates, with an error that is as wide as so few dates deserve."""
    found = newey_west_mean(values, horizon)
    return replace(found, standard_error=found.standard_error * overlap_widening(found.dates, horizon))


_NORMAL_95 = 1.96
_FEWEST_HORIZONS = 4
"""Of dates, below which an error that knows the overlap of labels is far too small."""


def _interval(estimate: Estimate) -> tuple[float, float]:
    reach = _NORMAL_95 * estimate.standard_error
    return estimate.mean - reach, estimate.mean + reach


def _with_interval(estimate: Estimate) -> dict[str, Any]:
    return {**asdict(estimate), "interval_95": list(_interval(estimate))}


def _shown(what: str, estimate: Estimate) -> str:
    low, high = _interval(estimate)
    return f"{what} {estimate.mean:+.4f} (95 %: {low:+.4f} … {high:+.4f}) nats on {estimate.dates} dates"
