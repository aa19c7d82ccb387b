"""The promotion gate: floors, champion against challenger, and when a fresher model may replace an old one."""

import json
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


def refreshing_after(days: int | None) -> GateSettings:
    return GateSettings(max_z=1.645, min_dates=60, refresh_after_days=days)


DATES = losses(0).index.get_level_values("date")


def since(number: int) -> date:
    """The first of the last so many dates."""
    return DATES.unique()[-number].date()


def challenger(began: int = 120) -> Challenger:
    """Tested by two windows: the second begins with so many of the last dates."""
    rows = losses(0.05)
    rows.loc[pd.Timestamp(since(began)) <= DATES, "window"] = str(since(began))
    return Challenger(rows, AS_OF)


def rival(lost: float, trained: int, version: str = "champion", seed: int = 1, noise: float = 0.003) -> Rival:
    """A model of the challenger's recipe, trained before so many of the last dates; on these the challenger loses."""
    rows = losses(0.05)[["model", "window"]].copy()
    own = pd.Timestamp(since(trained)) <= DATES
    rows.loc[own, "model"] += np.random.default_rng(seed).normal(-lost, noise, own.sum())
    rows.loc[own, "window"] = ""
    return Rival(version, rows, since(trained))


@pytest.mark.parametrize(("age", "promoted"), [(27, False), (28, True)])
def test_an_old_champion_gives_way_to_a_model_that_says_the_same(age, promoted):
    same = losses(0.05)
    decision = decide(same, same["model"], 5, GATE, champion_age_days=age)
    assert decision.promote is promoted
    if promoted:
        assert decision.evidence["basis"] == "refresh"
        assert decision.reason == "28 days fresher than the champion, and not worse: they say the same on all 200 dates"
    else:
        assert decision.reason.startswith("no new evidence: they say the same on all 200 dates")


def test_a_fresher_model_is_judged_where_it_differs_from_the_champion_alone():
    # Over all 200 dates .01 nats on 120 of them would be less: what was the same everywhere else must not hide it.
    worse = gate_decides(challenger(), rival(0.01, 120), 5, GATE)
    assert (worse.promote, worse.evidence.get("basis")) == (False, None)
    assert "it is significantly worse since then: log-loss gain over the champion -0.0" in worse.reason
    assert worse.evidence["gain_over_champion"]["dates"] == worse.evidence["gain_since_champion"]["dates"] == 120
    assert worse.evidence["recipe_gain_over_champion"] == {
        "mean": 0.0, "standard_error": 0.0, "dates": 80, "interval_95": [0.0, 0.0]
    }  # fmt: skip
    equal = gate_decides(challenger(), rival(0.0, 120, seed=2), 5, GATE)
    assert (equal.promote, equal.evidence["basis"]) == (True, "refresh")
    better = gate_decides(challenger(), rival(-0.01, 120), 5, GATE)
    assert (better.promote, better.evidence["basis"]) == (True, "superiority")


@pytest.mark.parametrize(("trained", "promoted"), [(59, True), (60, False)])
def test_too_few_dates_since_the_champion_say_nothing_of_a_fresher_model(trained, promoted):
    decision = gate_decides(challenger(trained), rival(0.05, trained), 5, GATE)
    assert decision.promote is promoted


@pytest.mark.parametrize(("began", "dates"), [(120, 120), (125, 120), (126, 0)])
def test_a_window_older_than_the_champion_does_not_speak_for_a_fresher_model(began, dates):
    decision = gate_decides(challenger(began), rival(0.05, 120), 5, GATE)
    assert decision.evidence["gain_since_champion"]["dates"] == dates
    assert decision.promote is (dates == 0)


def test_a_few_lucky_dates_are_no_superiority():
    decision = gate_decides(challenger(59), rival(-0.05, 59), 5, refreshing_after(None))
    assert not decision.promote
    assert decision.reason.startswith("they differ on 59 dates, gate.min_dates asks for 60")


def test_a_chain_of_fresh_models_cannot_slide_below_the_last_that_proved_itself():
    champion, proven = rival(0.0, 60), rival(0.01, 120, "v1")
    assert gate_decides(challenger(), champion, 5, GATE).promote
    decision = gate_decides(challenger(), champion, 5, GATE, proven)
    assert not decision.promote
    assert "significantly worse than v1, the last that proved itself (log-loss gain -0.0" in decision.reason
    assert "consider `signals models rollback v1`" in decision.reason
    assert decision.evidence["gain_over_proven"]["mean"] == pytest.approx(-0.01, abs=0.001)
    assert gate_decides(challenger(), champion, 5, GATE, rival(0.0, 120, "v1")).promote
    assert gate_decides(challenger(), champion, 5, GATE, replace(proven, version_id="champion")).promote, "the champion"


def test_what_beats_a_champion_and_not_the_one_that_proved_itself_proves_nothing_itself():
    champion, proven = rival(-0.01, 120), rival(0.01, 120, "v1")
    decision = gate_decides(challenger(), champion, 5, GATE, proven)
    assert (decision.promote, decision.evidence["basis"]) == (True, "refresh")
    assert decision.reason.startswith("beats the champion: log-loss gain +0.0")
    assert "significantly worse than v1" in decision.reason
    assert gate_decides(challenger(), champion, 5, GATE).evidence["basis"] == "superiority"


def test_data_that_were_restated_do_not_keep_a_fresher_model_back():
    champion = rival(0.0, 60)
    rows = champion.losses.copy()
    told_anew = pd.Timestamp(since(190)) > DATES
    rows.loc[told_anew, "model"] += np.random.default_rng(2).normal(0, 1e-3, told_anew.sum())
    decision = gate_decides(challenger(60), replace(champion, losses=rows), 5, GATE)
    assert decision.promote
    assert decision.evidence["gain_over_champion"]["dates"] == 70
    assert decision.evidence["recipe_gain_over_champion"]["dates"] == 140


def test_windows_that_were_tested_anew_say_nothing_of_the_champion():
    champion = rival(0.0, 60)
    rows = champion.losses.copy()
    older = (pd.Timestamp(since(100)) <= DATES) & (pd.Timestamp(since(60)) > DATES)
    rows.loc[older, "model"] -= 0.05  # of an older window's model, which is not what serves
    rows.loc[older, "window"] = "2020-10-01"
    decision = gate_decides(challenger(60), replace(champion, losses=rows), 5, GATE)
    assert decision.evidence["gain_over_champion"]["dates"] == 60
    assert decision.promote


@pytest.mark.parametrize(("days", "promoted"), [(27, False), (28, True)])
def test_what_a_person_put_into_service_is_not_overruled_for_freshness_soon_after(days, promoted):
    champion = replace(rival(0.0, 60), in_service_since=AS_OF - timedelta(days=days))
    decision = gate_decides(challenger(), champion, 5, GATE)
    assert decision.promote is promoted
    assert decision.evidence["champion_age_days"] == days
    better = replace(rival(-0.01, 120), in_service_since=AS_OF)
    assert gate_decides(challenger(), better, 5, GATE).promote


@pytest.mark.parametrize(("disadvantage", "promoted"), [(0.0002, True), (0.0015, False)])
def test_a_recipe_is_not_worse_if_it_loses_less_than_the_margin_with_confidence(disadvantage, promoted):
    champion = losses(0.05, noise=0.001)
    rows = champion.assign(model=champion["model"] + disadvantage)
    decision = decide(rows, champion["model"], 5, GATE, champion_age_days=100)
    assert decision.promote is promoted
    assert promoted or "it could be worse by more than gate.refresh_margin (0.001)" in decision.reason
    assert not decide(rows, champion["model"], 5, refreshing_after(None), champion_age_days=100).promote


def test_a_difference_that_may_be_large_is_not_equality():
    rows, champion = losses(0.05, noise=0.2), losses(0.05, noise=0.2, seed=1)
    assert not decide(rows, champion["model"], 5, GATE, champion_age_days=100).promote


@pytest.mark.parametrize(("gain", "passes"), [(-0.0099, True), (-0.0101, False)])
def test_a_fitted_model_that_does_not_even_know_its_own_rows_does_not_serve(gain, passes):
    decision = gate_decides(replace(challenger(), fitted_gain=gain), None, 5, GATE)
    assert (decision.promote, decision.passes_floor) == (passes, passes)
    assert decision.evidence["fitted_gain"] == gain
    assert passes or "0.0101 nats worse than the class prior on rows it was trained on" in decision.reason


def test_the_evidence_is_plain_json_even_of_a_single_date():
    champion = rival(0.05, 1)
    decision = gate_decides(challenger(1), champion, 5, refreshing_after(None))
    assert decision.evidence["gain_over_champion"]["dates"] == 1
    assert json.loads(json.dumps(decision.evidence, allow_nan=False)) == decision.evidence


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
