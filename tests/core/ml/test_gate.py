"""The promotion gate: floors, champion against challenger, and when a fresher model may replace an old one."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from signals_core.ml.gate import CalibrationError, Challenger, Decision, Rival
from signals_core.ml.gate import decide as gate_decides
from signals_core.settings import GateSettings

GATE = GateSettings(max_z=1.645, min_dates=60)
AS_OF = date(2026, 1, 4)


def losses(gain: float, dates: int = 200, noise: float = 0.01, seed: int = 0) -> pd.DataFrame:
    """A model `gain` nats better than the prior on average."""
    random = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [["AAA", "BBB"], pd.bdate_range("2021-01-04", periods=dates)], names=["symbol", "date"]
    )
    prior = np.full(len(index), 1.0986)
    model = prior - gain + random.normal(0, noise, len(index))
    return pd.DataFrame({"model": model, "prior": prior, "window": "2021-01-01"}, index=index)


def decide(
    challenger: pd.DataFrame,
    champion: pd.Series | None,
    horizon: int,
    settings: GateSettings,
    calibration: CalibrationError | None = None,
    champion_age_days: int = 0,
) -> Decision:
    """The decision about two models that the same window tested everywhere."""
    rival = None
    if champion is not None:
        rows = champion.to_frame("model").assign(window="2021-01-01")
        rival = Rival("champion", rows, AS_OF - timedelta(days=champion_age_days))
    return gate_decides(Challenger(challenger, AS_OF, calibration), rival, horizon, settings)


def test_the_first_model_serves_when_it_is_not_worse_than_the_prior():
    decision = decide(losses(0.0), None, 5, GATE)
    assert (decision.promote, decision.passes_floor) == (True, True)
    assert "first model" in decision.reason
    assert decision.evidence["gain_over_prior"]["dates"] == 200


def test_the_first_model_does_not_serve_when_it_is_significantly_worse_than_the_prior():
    decision = decide(losses(-0.05), None, 5, GATE)
    assert (decision.promote, decision.passes_floor) == (False, False)
    assert "significantly worse than the class prior" in decision.reason
    assert decision.evidence["z_over_prior"] < -1.645


def test_a_worse_mean_within_its_uncertainty_passes_the_floor():
    noisy = losses(-0.001, noise=0.3)
    decision = decide(noisy, None, 5, GATE)
    assert decision.evidence["z_over_prior"] > -1.645
    assert decision.promote


def test_a_challenger_that_beats_the_champion_is_promoted():
    challenger, champion = losses(0.05), losses(0.0, seed=1)
    decision = decide(challenger, champion["model"], 5, GATE)
    assert (decision.promote, decision.passes_floor) == (True, True)
    assert "beats the champion" in decision.reason
    assert decision.evidence["gain_over_champion"]["mean"] == pytest.approx(0.05, abs=0.002)


def test_a_challenger_better_by_less_than_its_uncertainty_is_not_promoted():
    challenger, champion = losses(0.0005, noise=0.2), losses(0.0, noise=0.2, seed=1)
    decision = decide(challenger, champion["model"], 5, GATE)
    assert abs(decision.evidence["z_over_champion"]) < 1.645
    assert (decision.promote, decision.passes_floor) == (False, True)
    assert "does not beat the champion" in decision.reason


def test_a_challenger_that_is_worse_than_the_champion_is_not_promoted():
    decision = decide(losses(0.01), losses(0.06, seed=1)["model"], 5, GATE)
    assert (decision.promote, decision.passes_floor) == (False, True)


def test_identical_predictions_leave_the_champion_in_service_even_without_a_margin():
    challenger = losses(0.05)
    for gate in (GATE, GateSettings(max_z=0, min_dates=60)):
        decision = decide(challenger, challenger["model"], 5, gate)
        assert not decision.promote
        assert decision.evidence["z_over_champion"] == 0.0


def test_the_floor_holds_also_for_a_challenger_that_beats_the_champion():
    decision = decide(losses(-0.05), losses(-0.2, seed=1)["model"], 5, GATE)
    assert (decision.promote, decision.passes_floor) == (False, False)


def live(lost: float, dates: int, version: str = "champion", seed: int = 1, noise: float = 0.003) -> Rival:
    """A rival of the challenger's own recipe, to which the challenger loses so much on the last dates, on average."""
    rows = losses(0.05)[["model", "window"]].copy()
    known = rows.index.get_level_values("date")
    first = known.unique()[-dates]
    late = known >= first
    difference = np.random.default_rng(seed).normal(-lost, noise, len(rows))
    rows["model"] = np.where(late, rows["model"] + difference, rows["model"])
    rows.loc[late, "window"] = ""
    return Rival(version, rows, first.date())


def of_own_recipe(champion: Rival, proven: Rival | None = None, gate: GateSettings = GATE) -> Decision:
    return gate_decides(Challenger(losses(0.05), AS_OF), champion, 5, gate, proven)


@pytest.mark.parametrize(("age", "promoted"), [(27, False), (28, True)])
def test_an_old_champion_gives_way_to_a_model_that_says_the_same(age, promoted):
    challenger = losses(0.05)
    decision = decide(challenger, challenger["model"], 5, GATE, champion_age_days=age)
    assert decision.promote is promoted
    if promoted:
        assert decision.evidence["basis"] == "refresh"
        assert decision.reason == (
            "28 days fresher than the champion, of the same recipe, and not worse: they say the same on all 200 dates"
        )
    else:
        assert decision.reason.startswith("no new evidence: they say the same on all 200 dates")


def test_a_model_of_the_same_recipe_is_judged_only_where_it_differs_from_the_champion():
    # Over all 200 dates .01 nats on 60 of them are .003: what was the same everywhere else must not hide it.
    worse = of_own_recipe(live(0.01, 60))
    assert not worse.promote
    assert "against the champion, it is significantly worse: log-loss gain -0.0" in worse.reason
    assert worse.evidence["gain_over_champion"]["dates"] == 60
    assert worse.evidence["dates_with_champion"] == 200
    assert worse.evidence["same_recipe_as_champion"] is True
    equal = of_own_recipe(live(0.0, 60))
    assert (equal.promote, equal.evidence["basis"]) == (True, "refresh")
    better = of_own_recipe(live(-0.01, 60))
    assert (better.promote, better.evidence["basis"]) == (True, "superiority")


@pytest.mark.parametrize(("lost", "promoted"), [(0.005, True), (0.02, False)])
def test_a_few_dates_keep_a_fresher_model_back_only_if_it_is_far_worse(lost, promoted):
    decision = of_own_recipe(live(lost, 19))
    assert decision.promote is promoted
    assert promoted or "it is worse by more than gate.max_loss (0.01)" in decision.reason


def test_a_few_lucky_dates_are_no_superiority():
    decision = of_own_recipe(live(-0.05, 59), gate=refreshing_after(None))
    assert not decision.promote
    assert decision.reason.startswith("they differ on 59 dates, gate.min_dates asks for 60")


def refreshing_after(days: int | None) -> GateSettings:
    return GateSettings(max_z=1.645, min_dates=60, refresh_after_days=days)


def test_a_chain_of_fresh_models_cannot_slide_below_the_last_that_proved_itself():
    champion = live(0.0, 25)
    proven = live(0.01, 120, "v1")
    assert of_own_recipe(champion).promote
    decision = of_own_recipe(champion, proven)
    assert not decision.promote
    assert "against v1, the last that was better than what it replaced, it is significantly worse" in decision.reason
    assert decision.evidence["gain_over_proven"]["mean"] == pytest.approx(-0.01, abs=0.001)
    assert of_own_recipe(champion, live(0.0, 120, "v1")).promote
    assert of_own_recipe(champion, replace(proven, version_id="champion")).promote, "it is the champion itself"


def test_windows_that_were_tested_anew_do_not_make_another_recipe():
    champion = live(0.0, 60)
    rows = champion.losses.copy()
    dates = rows.index.get_level_values("date")
    older = (dates >= dates.unique()[100]) & (dates < dates.unique()[140])
    rows.loc[older, "model"] -= 0.05  # of an older window's model, which is not what serves
    rows.loc[older, "window"] = "2020-10-01"
    decision = of_own_recipe(replace(champion, losses=rows))
    assert decision.evidence["same_recipe_as_champion"] is True
    assert decision.evidence["gain_over_champion"]["dates"] == 60
    assert decision.promote


@pytest.mark.parametrize(("disadvantage", "promoted"), [(0.0002, True), (0.0015, False)])
def test_of_another_recipe_not_worse_is_what_lies_within_the_margin_with_confidence(disadvantage, promoted):
    champion = losses(0.05, noise=0.001)
    challenger = champion.assign(model=champion["model"] + disadvantage)
    decision = decide(challenger, champion["model"], 5, GATE, champion_age_days=100)
    assert decision.promote is promoted
    assert (
        "of another recipe" if promoted else "it could be worse by more than gate.refresh_margin"
    ) in decision.reason
    assert not decide(challenger, champion["model"], 5, refreshing_after(None), champion_age_days=100).promote


def test_another_recipe_needs_the_margin_on_enough_dates():
    challenger, champion = losses(0.05), losses(0.05)["model"].copy()
    champion.iloc[:59] += 1e-6
    decision = decide(challenger, champion, 5, GATE, champion_age_days=100)
    assert not decision.promote
    assert "a model of another recipe, they differ on too few dates" in decision.reason


def test_a_difference_that_may_be_large_is_not_equality():
    challenger, champion = losses(0.05, noise=0.2), losses(0.05, noise=0.2, seed=1)
    assert not decide(challenger, champion["model"], 5, GATE, champion_age_days=100).promote


@pytest.mark.parametrize(("error", "chance", "passes"), [(0.099, 0.02, True), (0.11, 0.02, False), (0.11, 0.12, True)])
def test_probabilities_that_are_off_do_not_serve(error, chance, passes):
    decision = decide(losses(0.05), None, 5, GATE, CalibrationError(error, chance))
    assert (decision.promote, decision.passes_floor) == (passes, passes)
    assert passes or "off by 0.110 on average (classwise); gate.max_calibration_error is 0.1" in decision.reason


def test_a_loss_above_the_floor_does_not_serve_even_if_it_may_be_chance():
    decision = decide(losses(-0.05), None, 5, GateSettings(max_z=10_000, min_dates=60))
    assert (decision.promote, decision.passes_floor) == (False, False)
    assert "by more than gate.max_loss (0.01)" in decision.reason


def test_the_interval_is_kept_and_shown():
    decision = decide(losses(0.0), None, 5, GATE)
    low, high = decision.evidence["gain_over_prior"]["interval_95"]
    assert low < decision.evidence["gain_over_prior"]["mean"] < high
    assert f"(95 %: {low:+.4f} … {high:+.4f})" in decision.reason


@pytest.mark.parametrize(("dates", "promoted"), [(59, False), (60, True)])
def test_fewer_dates_than_the_minimum_are_not_judged(dates, promoted):
    decision = decide(losses(0.05, dates=dates), None, 5, GATE)
    assert decision.promote is promoted
    assert promoted or decision.reason == "only 59 out-of-sample dates, gate.min_dates asks for 60"


@pytest.mark.parametrize(("common", "promoted"), [(59, False), (60, True)])
def test_too_few_dates_in_common_leave_the_champion_in_service(common, promoted):
    challenger, champion = losses(0.05), losses(0.0, seed=1)["model"]
    dates = challenger.index.get_level_values("date").unique()[-common:]
    decision = decide(challenger, champion[champion.index.get_level_values("date").isin(dates)], 5, GATE)
    assert decision.promote is promoted
    assert promoted or "only 59 dates in common with the champion" in decision.reason


def test_only_dates_that_both_predicted_are_compared():
    challenger, champion = losses(0.05), losses(0.0, seed=1)["model"]
    champion.iloc[100:200] = np.nan
    dates_before = decide(challenger, champion, 5, GATE).evidence["gain_over_champion"]["dates"]
    extra = champion.copy()
    extra.index = extra.index.set_levels(extra.index.levels[1] + pd.Timedelta(days=4000), level="date")
    decision = decide(challenger, pd.concat([champion, extra - 9]), 5, GATE)
    assert decision.evidence["gain_over_champion"]["dates"] == dates_before == 200


def test_overlapping_labels_make_the_gate_more_careful():
    # A gain that comes in long runs: ten independent runs, not two hundred dates.
    random = np.random.default_rng(0)
    runs = np.repeat(random.normal(0.05, 0.1, 20), 10)
    index = pd.MultiIndex.from_product([["AAA"], pd.bdate_range("2021-01-04", periods=200)], names=["symbol", "date"])
    frame = pd.DataFrame({"model": 1.0 - runs, "prior": 1.0, "window": ""}, index=index)
    z = [decide(frame, None, horizon, GATE).evidence["z_over_prior"] for horizon in (1, 5)]
    assert z[1] < z[0] / 1.5
