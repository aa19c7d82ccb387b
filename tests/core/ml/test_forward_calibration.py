import json

import numpy as np
import pandas as pd
import pytest

from signals_core.ml.calibration import Method
from signals_core.ml.forward_calibration import (
    CALIBRATED_COLUMNS,
    DEFAULT,
    calibrate_and_choose,
    calibrate_forward,
    choose_method,
    fit_calibrator,
)
from signals_core.ml.metrics import log_loss_rows
from signals_core.ml.reliability import calibration_error
from tests.core.ml.forecasts import Forecasts, distorted, true_forecasts

METHODS: tuple[Method, ...] = ("sigmoid", "nested", "temperature", "dirichlet")
HORIZON = 5


def pooled(made: Forecasts, raw: np.ndarray, window_sessions: int = 125) -> pd.DataFrame:
    """Out-of-fold rows in windows of half a year, the raw forecasts given."""
    frame = made.frame()
    frame[["p_down", "p_flat", "p_up"]] = raw
    days = frame.index.unique("date").sort_values()
    number = pd.Series(np.arange(len(days)), days).reindex(frame.index.get_level_values("date")).to_numpy()
    later = days.append(pd.bdate_range(days[-1], periods=HORIZON + 1)[1:])
    frame["label_end"] = later[number + HORIZON]
    frame["window"] = [days[start].date().isoformat() for start in number // window_sessions * window_sessions]
    return frame.sort_index()


def losses(frame: pd.DataFrame, columns: list[str]) -> float:
    rows = frame.dropna(subset=CALIBRATED_COLUMNS)
    return float(log_loss_rows(rows[columns].to_numpy(), rows["label"].to_numpy()).mean())


RAW = ["p_down", "p_flat", "p_up"]


@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("seed", range(2))
def test_an_overconfident_model_is_repaired_out_of_sample_by_every_method(method, seed):
    """Forward, so the first windows have half a year to learn from; at least 90 % of the damage goes."""
    made = true_forecasts(1000, 20, seed)
    frame = calibrate_forward(pooled(made, distorted(made.probabilities, 3)), 250, HORIZON, method)
    best = losses(pooled(made, made.probabilities).join(frame[CALIBRATED_COLUMNS]), RAW)
    damage = losses(frame, RAW) - best
    assert damage > 0.06
    assert losses(frame, CALIBRATED_COLUMNS) - best < 0.1 * damage
    assert frame[CALIBRATED_COLUMNS].notna().all(axis=1).sum() == 20 * 875  # all but the first window


@pytest.mark.parametrize("method", METHODS)
def test_a_changed_future_changes_nothing_that_was_said_before_it(method):
    made = true_forecasts(500, 6, seed=1)
    frame = pooled(made, distorted(made.probabilities, 2))
    windows = sorted(frame["window"].unique())
    turned = frame.copy()
    future = (turned["label_end"] >= pd.Timestamp(windows[2])).to_numpy()
    turned.loc[future, "label"] = (turned.loc[future, "label"] + 1) % 3
    before, after = (calibrate_forward(rows, 250, HORIZON, method) for rows in (frame, turned))
    judged = (frame["window"] <= windows[2]).to_numpy()
    assert before.loc[judged, CALIBRATED_COLUMNS].equals(after.loc[judged, CALIBRATED_COLUMNS])
    assert not before.loc[~judged, CALIBRATED_COLUMNS].equals(after.loc[~judged, CALIBRATED_COLUMNS])


def mixed_up(made: Forecasts) -> np.ndarray:
    """A model that mistakes part of UP for DOWN: only the Dirichlet map can say so."""
    table = made.probabilities @ np.array([[0.75, 0.0, 0.25], [0.0, 1.0, 0.0], [0.45, 0.0, 0.55]])
    return table / table.sum(axis=1, keepdims=True)


def test_auto_chooses_by_earlier_windows_and_is_judged_in_later_ones():
    made = true_forecasts(1000, 20, seed=2, skill=0.5)
    frame = pooled(made, distorted(made.probabilities, 3))
    windows = sorted(frame["window"].unique())
    whole, choice = calibrate_and_choose(frame, 250, HORIZON, "auto")
    assert sorted(choice.windows) == windows[1:]
    for number in range(1, len(windows)):
        # Without this and all later windows, the same method is chosen for it.
        known = frame[(frame["window"] < windows[number]) & (frame["label_end"] < pd.Timestamp(windows[number]))]
        before = calibrate_and_choose(known, 250, HORIZON, "auto")[1]
        assert choice.windows[windows[number]] == (before.method if before.windows else DEFAULT)
    for method in METHODS:
        alone = calibrate_forward(frame, 250, HORIZON, method)
        rows = frame["window"].map(choice.windows).to_numpy() == method
        assert whole.loc[rows, CALIBRATED_COLUMNS].equals(alone.loc[rows, CALIBRATED_COLUMNS])


def test_a_future_in_which_another_method_wins_does_not_change_the_choice_before_it():
    made = true_forecasts(1000, 10, seed=3)
    frame = pooled(made, distorted(made.probabilities, 2))
    windows = sorted(frame["window"].unique())
    turned = frame.copy()
    future = (turned["label_end"] >= pd.Timestamp(windows[4])).to_numpy()
    turned.loc[future, "label"] = (turned.loc[future, "label"] + 2) % 3
    before, after = (calibrate_and_choose(rows, 250, HORIZON, "auto") for rows in (frame, turned))
    for key in windows[1:5]:
        assert before[1].windows[key] == after[1].windows[key]
        rows = (frame["window"] == key).to_numpy()
        assert before[0].loc[rows, CALIBRATED_COLUMNS].equals(after[0].loc[rows, CALIBRATED_COLUMNS])


def test_auto_finds_the_method_that_a_distortion_needs():
    made = true_forecasts(1500, 20, seed=4, skill=0.6)
    skewed = distorted(made.probabilities, 2.5, bias=(1.6, 1.0, 0.7))
    _, choice = calibrate_and_choose(pooled(made, skewed), 250, HORIZON, "auto")
    gains = {name: gain["mean"] for name, gain in choice.gain_over_raw.items()}
    assert choice.method == max(gains, key=lambda name: gains[name])
    assert choice.method != DEFAULT
    assert set(gains) == set(METHODS)


def test_another_method_must_beat_the_default_by_more_than_its_uncertainty():
    days = pd.bdate_range("2020-01-01", periods=400, name="date")
    noise = np.random.default_rng(5).normal(size=400)
    table = pd.DataFrame(
        {"sigmoid": 1.0, "nested": 1.0, "temperature": 1.0, "dirichlet": 1.0 - 0.001 + 0.1 * noise}, index=days
    )
    table["dirichlet"] += 0.999 - table["dirichlet"].mean()
    assert choose_method(table, HORIZON) == DEFAULT
    table["temperature"] -= 0.001  # the same every day: no doubt about it
    assert choose_method(table, HORIZON) == "temperature"
    assert choose_method(table[:0], HORIZON) == DEFAULT


def test_the_choice_is_plain_json_and_says_what_was_asked():
    made = true_forecasts(400, 5, seed=6)
    for method in (*METHODS, "auto"):
        _, choice = calibrate_and_choose(pooled(made, made.probabilities), 250, HORIZON, method)
        again = json.loads(json.dumps(choice.to_dict()))
        assert again["asked"] == method
        assert again["method"] == (choice.method if method == "auto" else method)
        assert set(again["gain_over_raw"]) == set(METHODS if method == "auto" else [method])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("dates", "most"), [(500, 0.04), (1500, 0.02)])
def test_right_forecasts_stay_calibrated_out_of_sample(method, seed, dates, most):
    """The classwise error on `dates` dates of 50 correlated symbols, each calibrated by the windows before it."""
    made = true_forecasts(dates + 125, 50, seed)
    frame = calibrate_forward(pooled(made, made.probabilities), 250, HORIZON, method).dropna(subset=CALIBRATED_COLUMNS)
    assert frame.index.unique("date").size == dates
    error = calibration_error(
        frame[CALIBRATED_COLUMNS].to_numpy(), frame["label"].to_numpy(), frame.index, HORIZON, draws=2
    )
    assert error.classwise <= most


@pytest.mark.parametrize("method", METHODS)
def test_calibration_of_right_forecasts_costs_next_to_nothing_and_of_wrong_ones_gains(method):
    """Mean over seeds, 500 dates to fit on, judged by the true probabilities of later rows."""
    costs, gains = [], []
    for seed in range(6):
        made, later = true_forecasts(500, 20, seed), true_forecasts(300, 20, seed + 100)
        truth = later.probabilities

        def divergence(said: np.ndarray, truth: np.ndarray = truth) -> float:
            return float((truth * np.log(truth / said)).sum(axis=1).mean())

        for factor, found in ((1.0, costs), (2.0, gains)):
            frame = made.frame()
            frame[RAW] = distorted(made.probabilities, factor)
            raw = distorted(truth, factor)
            found.append(divergence(raw) - divergence(fit_calibrator(frame, HORIZON, method).predict_proba(raw)))
    assert np.mean(costs) > -0.001
    assert np.mean(gains) > 0.015
