import numpy as np
import pandas as pd
import pytest

from signals_core.ml.gate import CalibrationError, decide
from signals_core.settings import GateSettings

GATE = GateSettings(max_z=1.645, min_dates=60)


def losses(gain: float, dates: int = 200, noise: float = 0.01, seed: int = 0) -> pd.DataFrame:
    """A model `gain` nats better than the prior on average."""
    random = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [["AAA", "BBB"], pd.bdate_range("2021-01-04", periods=dates)], names=["symbol", "date"]
    )
    prior = np.full(len(index), 1.0986)
    return pd.DataFrame({"model": prior - gain + random.normal(0, noise, len(index)), "prior": prior}, index=index)


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


@pytest.mark.parametrize(("age", "promoted"), [(27, False), (28, True)])
def test_an_old_champion_gives_way_to_a_model_that_is_not_worse(age, promoted):
    challenger = losses(0.05)
    decision = decide(challenger, challenger["model"], 5, GATE, champion_age_days=age)
    assert decision.promote is promoted
    assert not promoted or "not worse than the champion, which was trained 28 days earlier" in decision.reason


@pytest.mark.parametrize(("disadvantage", "promoted"), [(0.0002, True), (0.0015, False)])
def test_not_worse_is_what_lies_within_the_margin_with_confidence(disadvantage, promoted):
    champion = losses(0.05, noise=0.001)
    challenger = champion.assign(model=champion["model"] + disadvantage)
    decision = decide(challenger, champion["model"], 5, GATE, champion_age_days=100)
    assert decision.promote is promoted
    literal = GateSettings(max_z=1.645, min_dates=60, refresh_after_days=None)
    assert not decide(challenger, champion["model"], 5, literal, champion_age_days=100).promote


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
    frame = pd.DataFrame({"model": 1.0 - runs, "prior": 1.0}, index=index)
    z = [decide(frame, None, horizon, GATE).evidence["z_over_prior"] for horizon in (1, 5)]
    assert z[1] < z[0] / 1.5
