"""The promotion gate: may this model serve? Decided on out-of-sample log-loss, with its uncertainty."""

import math
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
    """Index (symbol, date); columns model and prior (calibrated out-of-fold log-loss) and window (whose model says it:
    the first date that it tested)."""
    as_of: date
    """It was trained on earlier sessions only."""
    calibration: CalibrationError | None = None
    """Of its out-of-fold probabilities; None: not known."""
    fitted_gain: float | None = None
    """Of the fitted model itself, not calibrated, over the class prior on its training rows; None: not known."""


@dataclass(frozen=True, eq=False)
class Rival:
    """A model that the challenger is compared with."""

    version_id: str
    losses: pd.DataFrame
    """As the challenger's, without prior: out of fold before `as_of`; from then on its own, and window is empty."""
    as_of: date
    in_service_since: date | None = None
    """When a person put it into service, who must not be overruled for freshness soon after; None: the gate did."""


def decide(
    challenger: Challenger,
    champion: Rival | None,
    horizon: int,
    settings: GateSettings,
    proven: Rival | None = None,
) -> Decision:
    """Judge a challenger.

    The floors: its calibrated log-loss is not significantly worse than the class prior's, nor worse on average by
    more than `max_loss`; its probabilities are not further from what happens than `max_calibration_error`, unless a
    model that is right would show as much by chance; and the model as fitted is not worse than the prior by more than
    `max_loss` on rows it knows. The first model of a scope needs no more.

    A later one is compared with the champion where both predicted out of sample and say something different. That is of
    two kinds: dates before the champion's training that the same window tested for both, which judge the recipe; and
    dates that windows tested which began with the champion's training or later, which judge its age. (An older window's
    model does not speak for a fresher one.) It is promoted if, on at least `min_dates` of them, it is better by more
    than the uncertainty of the difference (one-sided, `max_z` standard errors). A champion that is
    `refresh_after_days` or more older also gives way to a fresher model if

    - over all dates of the first kind, equal ones included, the challenger's recipe is not worse by `refresh_margin`,
      with the same confidence (non-inferiority), and
    - on those of the second kind that differ, if they are `min_dates` or more, it is not significantly worse.

    So that no chain of such replacements slides downhill, it must also not be significantly worse than the proven
    model: the last one that was promoted for another reason than being fresh. That test is made again with every
    retrain, so its limit is wider.

    Args:
        champion: the model in service; None: there is none.
        proven: None: it is the champion, or cannot be compared.
    """
    floor = _floors(challenger, horizon, settings)
    if not floor.promote:
        return floor
    if champion is None:
        return replace(floor, evidence=floor.evidence | {"basis": "first"})
    against = _Comparison.of(challenger, champion, horizon)
    age = (challenger.as_of - max(champion.as_of, champion.in_service_since or champion.as_of)).days
    evidence = floor.evidence | against.evidence("champion") | {"champion_age_days": age}
    worse_than_proven = ""
    if proven is not None and proven.version_id != champion.version_id:
        beside = _Comparison.of(challenger, proven, horizon)
        evidence |= beside.evidence("proven") | {"proven": proven.version_id}
        worse_than_proven = beside.why_worse_for_long(proven, settings)

    def decision(basis: Basis | None, reason: str) -> Decision:
        return Decision(basis is not None, True, reason, evidence if basis is None else evidence | {"basis": basis})

    if against.common_dates < settings.min_dates:
        return decision(None, f"only {against.common_dates} dates in common with the champion, which stays")
    if against.told.dates >= settings.min_dates and against.told.z > settings.max_z:
        # What beats a champion and not the one that proved itself before is better, and has proved less.
        basis: Basis = "refresh" if worse_than_proven else "superiority"
        return decision(basis, f"beats the champion: {against}{'; ' if worse_than_proven else ''}{worse_than_proven}")
    if settings.refresh_after_days is None or age < settings.refresh_after_days:
        return decision(None, against.why_not_better(settings))
    objection = against.why_worse_recipe(settings) or against.why_worse_now(settings) or worse_than_proven
    if objection:
        return decision(None, f"it may not replace a champion {age} days older: {objection}")
    return decision("refresh", f"{age} days fresher than the champion, and not worse: {against}")


def _floors(challenger: Challenger, horizon: int, settings: GateSettings) -> Decision:
    """The decision about a first model."""
    losses, calibration = challenger.losses, challenger.calibration
    gain = _mean(losses["prior"] - losses["model"], horizon)
    evidence: dict[str, Any] = {"gain_over_prior": _with_interval(gain), "z_over_prior": _plain(gain.z)}
    if calibration is not None:
        evidence["calibration"] = asdict(calibration)
    if challenger.fitted_gain is not None:
        evidence["fitted_gain"] = challenger.fitted_gain
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
    elif challenger.fitted_gain is not None and challenger.fitted_gain < -settings.max_loss:
        objection = (
            f"the fitted model is {-challenger.fitted_gain:.4f} nats worse than the class prior on rows it was trained "
            f"on, gate.max_loss is {settings.max_loss:g}: look at what was fitted"
        )
    if objection:
        return Decision(False, False, objection, evidence)
    reason = f"first model, not significantly worse than the class prior: {shown}"
    return Decision(True, True, reason, evidence)


@dataclass(frozen=True)
class _Comparison:
    """What the dates that both predicted out of sample say of a challenger and a rival; gains are the challenger's."""

    recipe: Estimate
    """On dates before the rival's training, tested by the same window for both; where all windows differ, all dates."""
    now: Estimate
    """On dates that the rival predicted itself, where the two say something different, of windows begun since then."""
    told: Estimate
    """On dates of either kind where the two say something different."""

    @classmethod
    def of(cls, challenger: Challenger, rival: Rival, horizon: int) -> "_Comparison":
        both = challenger.losses.join(rival.losses.add_prefix("rival_"), how="inner").dropna(subset=["rival_model"])
        difference = both["rival_model"] - both["model"]
        trained = pd.Timestamp(rival.as_of)
        early = both.index.get_level_values("date") < trained
        beside = (both["window"] == both["rival_window"]).to_numpy() & early
        recipe = beside if beside.any() else early
        now = ~early & (pd.to_datetime(both["window"]) >= trained - _SAME_AGE).to_numpy()
        differs = difference.ne(0).groupby(level="date").transform("any").to_numpy()
        return cls(*(_mean(difference[rows], horizon) for rows in (recipe, now & differs, (recipe | now) & differs)))

    @property
    def common_dates(self) -> int:
        """Of the first kind."""
        return self.recipe.dates

    def __str__(self) -> str:
        if not self.told.dates:
            return f"they say the same on all {self.common_dates} dates"
        return f"{_shown('log-loss gain', self.told)} on which they differ"

    def evidence(self, rival: str) -> dict[str, Any]:
        """Plain values, named after the rival."""
        return {
            f"gain_over_{rival}": _with_interval(self.told),
            f"z_over_{rival}": _plain(self.told.z),
            f"recipe_gain_over_{rival}": _with_interval(self.recipe),
            f"gain_since_{rival}": _with_interval(self.now),
        }

    def why_not_better(self, settings: GateSettings) -> str:
        """Why the champion stays where only a better model may replace it."""
        if not self.told.dates:
            return f"no new evidence: {self}, so the champion stays"
        if self.told.dates < settings.min_dates:
            return f"they differ on {self.told.dates} dates, gate.min_dates asks for {settings.min_dates}: {self}"
        return f"does not beat the champion by more than its uncertainty: {self}"

    def why_worse_recipe(self, settings: GateSettings) -> str:
        """Why validation speaks against the challenger's recipe, or nothing."""
        worst = self.recipe.mean - settings.max_z * self.recipe.standard_error
        if worst >= -settings.refresh_margin:
            return ""
        shown = _shown("log-loss gain over the champion's recipe", self.recipe)
        return f"it could be worse by more than gate.refresh_margin ({settings.refresh_margin:g}): {shown}"

    def why_worse_now(self, settings: GateSettings) -> str:
        """Why what came after the champion's training speaks against the challenger, or nothing."""
        if self.now.dates < settings.min_dates or self.now.z >= -settings.max_z:
            return ""
        return f"it is significantly worse since then: {_shown('log-loss gain over the champion', self.now)}"

    def why_worse_for_long(self, proven: Rival, settings: GateSettings) -> str:
        """Why the challenger is not what the proven model was, or nothing."""
        if self.told.dates < settings.min_dates or self.told.z >= -_REPEATED * settings.max_z:
            return ""
        return (
            f"significantly worse than {proven.version_id}, the last that proved itself "
            f"({_shown('log-loss gain', self.told)}): consider `signals models rollback {proven.version_id}`"
        )


_SAME_AGE = pd.Timedelta(days=7)
"""By which a window may have begun before a model was trained and still be called as fresh: a retrain's interval."""
_REPEATED = 1.75
"""By which the limit of a test that is made again and again is wider: of 1,500 histories of two equal models, each
judged after each of twenty quarters, 3.5 % were ever called worse; 27 % without it."""


def _mean(values: pd.Series, horizon: int) -> Estimate:
    """Over dates, with an error that is as wide as so few dates deserve."""
    if values.empty:
        return Estimate(0.0, 0.0, 0)
    found = newey_west_mean(values, horizon)
    return replace(found, standard_error=found.standard_error * overlap_widening(found.dates, horizon))


_NORMAL_95 = 1.96


def _interval(estimate: Estimate) -> tuple[float, float]:
    reach = _NORMAL_95 * estimate.standard_error
    return estimate.mean - reach, estimate.mean + reach


def _with_interval(estimate: Estimate) -> dict[str, Any]:
    values = {name: _plain(value) for name, value in asdict(estimate).items()}
    return {**values, "interval_95": [_plain(end) for end in _interval(estimate)]}


def _plain(value: float) -> float | None:
    """None for what JSON has no number for."""
    return value if math.isfinite(value) else None


def _shown(what: str, estimate: Estimate) -> str:
    low, high = _interval(estimate)
    return f"{what} {estimate.mean:+.4f} (95 %: {low:+.4f} … {high:+.4f}) nats on {estimate.dates} dates"
