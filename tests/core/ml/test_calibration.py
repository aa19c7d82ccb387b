import json

import numpy as np
import pytest

from signals_core.errors import BundleError, MissingPrerequisite
from signals_core.ml.calibration import (
    ConfidenceCalibrator,
    DirichletCalibrator,
    NestedCalibrator,
    TemperatureCalibrator,
    calibrator_of,
    read_calibrator,
)
from signals_core.ml.metrics import log_loss_rows
from tests.core.ml.forecasts import distorted

KINDS = (ConfidenceCalibrator, NestedCalibrator, TemperatureCalibrator, DirichletCalibrator)
ALL = pytest.mark.parametrize("kind", KINDS)
METHODS = pytest.mark.parametrize("method", ["sigmoid", "nested", "temperature", "dirichlet"])


def truth(rows: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities, mild ones around (.3, .4, .3), and what happened."""
    random = np.random.default_rng(seed)
    table = random.dirichlet([9, 12, 9], rows)
    labels = (random.random((rows, 1)) > table.cumsum(axis=1)).sum(axis=1)
    return table, labels


def test_a_model_three_times_too_sure_is_brought_back_to_the_truth():
    table, labels = truth()
    sure = distorted(table, 3)
    calibrator = ConfidenceCalibrator().fit(sure, labels)
    fresh, happened = truth(seed=1)
    before, after = distorted(fresh, 3), calibrator.predict_proba(distorted(fresh, 3))
    best = log_loss_rows(fresh, happened).mean()
    assert log_loss_rows(before, happened).mean() - best > 0.05
    assert log_loss_rows(after, happened).mean() - best < 0.005
    assert np.abs(after - fresh).mean() < 0.02
    assert (calibrator.slopes < 0.6).all()


@ALL
def test_a_true_forecast_stays_what_it_is(kind):
    table, labels = truth()
    assert np.abs(kind().fit(table, labels).predict_proba(table) - table).mean() < 0.01


@ALL
@pytest.mark.parametrize("factor", [1.5, 3])
def test_every_method_undoes_overconfidence(kind, factor):
    table, labels = truth()
    calibrator = kind().fit(distorted(table, factor), labels)
    fresh, happened = truth(seed=1)
    after = calibrator.predict_proba(distorted(fresh, factor))
    best = log_loss_rows(fresh, happened).mean()
    assert log_loss_rows(after, happened).mean() - best < 0.005
    assert np.abs(after - fresh).mean() < 0.02


def test_the_temperature_is_how_much_too_sure_the_model_was():
    table, labels = truth(rows=100_000)
    shifted = distorted(table, 3, bias=(1.5, 1.0, 0.6))
    calibrator = TemperatureCalibrator().fit(shifted, labels)
    assert calibrator.slope == pytest.approx([1 / 3], abs=0.02)
    undone = -np.log([1.5, 1.0, 0.6]) / 3
    assert calibrator.biases - calibrator.biases.mean() == pytest.approx(undone - undone.mean(), abs=0.02)


def test_only_the_dirichlet_map_undoes_a_confusion_of_two_classes():
    table, labels = truth(60_000)
    mixed = np.exp(np.log(table) @ np.array([[1.3, 0.0, 0.5], [0.0, 1.0, 0.0], [-0.4, 0.0, 0.7]]).T)
    mixed /= mixed.sum(axis=1, keepdims=True)
    left = {
        kind: np.abs(kind().fit(mixed, labels).predict_proba(mixed) - table).mean()
        for kind in (ConfidenceCalibrator, TemperatureCalibrator, DirichletCalibrator)
    }
    assert left[DirichletCalibrator] < 0.01
    assert left[DirichletCalibrator] < 0.5 * min(left[ConfidenceCalibrator], left[TemperatureCalibrator])


@ALL
@pytest.mark.parametrize("factor", [0.5, 1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_on_the_rows_it_was_fitted_on_calibration_is_never_worse_than_none(kind, factor, seed):
    table, labels = truth(400, seed)
    raw = distorted(table, factor)
    calibrated = kind().fit(raw, labels).predict_proba(raw)
    assert log_loss_rows(calibrated, labels).mean() <= log_loss_rows(raw, labels).mean() + 1e-4


@ALL
def test_few_independent_rows_move_right_forecasts_little(kind):
    """Fifty labels of one symbol whose neighbours overlap are ten outcomes: nothing is known, little is changed."""
    moved = []
    for seed in range(20):
        table, labels = truth(50, seed)
        moved.append(np.abs(kind(overlap=5).fit(table, labels).predict_proba(table) - table).mean())
    assert np.mean(moved) < 0.015


@ALL
def test_a_model_that_says_the_opposite_is_told_it_knows_nothing_by_every_method(kind):
    table, labels = truth()
    opposite = distorted(table, -1)
    said = kind().fit(opposite, labels).predict_proba(opposite)
    assert said == pytest.approx(np.tile(np.bincount(labels) / len(labels), (len(said), 1)), abs=0.05)


def test_a_model_that_says_the_opposite_gets_slopes_of_zero():
    table, labels = truth()
    opposite = (1 / table) / (1 / table).sum(axis=1, keepdims=True)
    calibrator = ConfidenceCalibrator().fit(opposite, labels)
    assert calibrator.slopes == pytest.approx([0, 0, 0], abs=1e-9)
    shares = np.bincount(labels) / len(labels)
    assert calibrator.predict_proba(opposite)[0] == pytest.approx(shares, abs=0.01)


@pytest.mark.parametrize("seed", range(10))
def test_the_slope_is_never_negative_on_noise(seed):
    random = np.random.default_rng(seed)
    calibrator = ConfidenceCalibrator().fit(random.dirichlet([5, 5, 5], 200), random.integers(0, 3, 200))
    assert (calibrator.slopes >= 0).all()


@ALL
@pytest.mark.parametrize("factor", [0.5, 1, 3])
def test_mean_probabilities_match_how_often_each_class_happened(kind, factor):
    table, labels = truth()
    shifted = distorted(table, factor) * [1.5, 1.0, 0.6]
    shifted /= shifted.sum(axis=1, keepdims=True)
    calibrated = kind().fit(shifted, labels).predict_proba(shifted)
    assert calibrated.mean(axis=0) == pytest.approx(np.bincount(labels) / len(labels), abs=0.01)
    assert np.abs(calibrated.sum(axis=1) - 1).max() < 1e-12


@ALL
def test_forecasts_of_zero_and_one_stay_finite(kind):
    table, labels = truth(rows=500)
    calibrator = kind().fit(table, labels)
    calibrated = calibrator.predict_proba(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert np.isfinite(calibrated).all()
    assert calibrated.sum(axis=1) == pytest.approx([1, 1])


@ALL
def test_a_class_that_never_happened_is_refused_by_name(kind):
    table, labels = truth(rows=500)
    with pytest.raises(MissingPrerequisite, match="no FLAT"):
        kind().fit(table, np.where(labels == 1, 0, labels))


@ALL
def test_predicting_or_storing_before_fitting_is_refused(kind):
    with pytest.raises(MissingPrerequisite, match="not fitted"):
        kind().predict_proba(np.full((1, 3), 1 / 3))
    with pytest.raises(MissingPrerequisite, match="not fitted"):
        kind().to_dict()


@METHODS
def test_state_survives_json_to_the_last_bit(method):
    table, labels = truth(rows=2000)
    calibrator = calibrator_of(method, overlap=5).fit(distorted(table, 2), labels)
    again = read_calibrator(json.loads(json.dumps(calibrator.to_dict())))
    assert type(again) is type(calibrator)
    assert np.array_equal(again.predict_proba(table), calibrator.predict_proba(table))
    assert again.rows == 2000


def state(**changes):
    whole = {
        "format": 1,
        "method": "sigmoid",
        "classes": ["DOWN", "FLAT", "UP"],
        "slopes": [1.0, 1.0, 1.0],
        "intercepts": [0.0, 0.0, 0.0],
        "rows": 500,
    }
    return {k: v for k, v in {**whole, **changes}.items() if v is not ...}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, "format 2"),
        ({"format": ...}, "format None"),
        ({"method": "isotonic"}, "isotonic"),
        ({"slopes": [1.0, 1.0]}, "3 slopes"),
        ({"intercepts": [0.0]}, "3 intercepts"),
        ({"slopes": [1.0, float("nan"), 1.0]}, "not finite"),
        ({"intercepts": [0.0, 0.0, float("inf")]}, "not finite"),
    ],
)
def test_state_that_is_not_three_finite_numbers_of_this_format_is_refused(changes, text):
    assert ConfidenceCalibrator.from_dict(state()).rows == 500
    with pytest.raises(BundleError, match=text):
        ConfidenceCalibrator.from_dict(state(**changes))


@pytest.mark.parametrize("key", ["slopes", "intercepts", "rows"])
def test_state_that_lacks_a_key_is_refused_as_a_damaged_bundle(key):
    with pytest.raises(BundleError):
        ConfidenceCalibrator.from_dict(state(**{key: ...}))


def test_state_of_another_class_order_is_refused():
    with pytest.raises(BundleError):
        ConfidenceCalibrator.from_dict(state(classes=["UP", "FLAT", "DOWN"]))


def test_state_written_by_the_first_version_still_serves():
    said = read_calibrator(state(slopes=[0.5, 0.5, 0.5])).predict_proba(np.array([[0.2, 0.3, 0.5]]))
    separate = np.sqrt(np.array([0.2, 0.3, 0.5]) / np.array([0.8, 0.7, 0.5]))
    separate = separate / (1 + separate)
    assert said[0] == pytest.approx(separate / separate.sum())


@METHODS
def test_a_state_is_read_by_its_own_method_only(method):
    table, labels = truth(rows=500)
    kept = calibrator_of(method, overlap=5).fit(table, labels).to_dict()
    for kind in KINDS:
        if isinstance(calibrator_of(method, overlap=5), kind):
            assert np.array_equal(kind.from_dict(kept).predict_proba(table), read_calibrator(kept).predict_proba(table))
        else:
            with pytest.raises(BundleError, match=method):
                kind.from_dict(kept)


@pytest.mark.parametrize(
    ("method", "changes", "text"),
    [
        ("nested", {"slopes": [1.0, 1.0, 1.0]}, "needs 2 slopes"),
        ("nested", {"intercepts": [float("inf"), 0.0]}, "not finite"),
        ("temperature", {"slope": [1.0, 1.0]}, "needs 1 slope"),
        ("temperature", {"biases": [0.0, float("nan"), 0.0]}, "not finite"),
        ("dirichlet", {"weights": [1.0] * 9}, "needs 3 x 3 weights"),
        ("dirichlet", {"weights": "none"}, "no numbers"),
        ("dirichlet", {"classes": ["UP", "FLAT", "DOWN"]}, "classes"),
        ("dirichlet", {"format": 2}, "format 2"),
        ("isotonic", {}, "isotonic"),
    ],
)
def test_state_of_other_methods_is_refused_with_the_reason(method, changes, text):
    whole = {
        "nested": {"slopes": [1.0] * 2, "intercepts": [0.0] * 2},
        "temperature": {"slope": [1.0], "biases": [0.0] * 3},
        "dirichlet": {"weights": np.eye(3).tolist(), "biases": [0.0] * 3},
        "isotonic": {},
    }[method]
    kept = {"format": 1, "method": method, "classes": ["DOWN", "FLAT", "UP"], "rows": 9, **whole}
    if method != "isotonic":
        assert read_calibrator(kept).predict_proba(np.array([[0.2, 0.3, 0.5]]))[0] == pytest.approx([0.2, 0.3, 0.5])
    with pytest.raises(BundleError, match=text):
        read_calibrator({**kept, **changes})


def test_nested_sigmoids_judge_direction_apart_from_volatility():
    """A model right about FLAT, and three times too sure of the direction."""
    table, labels = truth(60_000)
    flat, up = table[:, 1], table[:, 2] / (1 - table[:, 1])
    sure = 1 / (1 + np.exp(-3 * np.log(up / (1 - up))))
    said = np.column_stack([(1 - flat) * (1 - sure), flat, (1 - flat) * sure])
    calibrator = NestedCalibrator().fit(said, labels)
    assert calibrator.slopes == pytest.approx([1, 1 / 3], abs=0.05)
    left = {kind: np.abs(kind().fit(said, labels).predict_proba(said) - table).mean() for kind in KINDS}
    assert left[NestedCalibrator] < 0.005
    assert left[NestedCalibrator] < 0.5 * left[ConfidenceCalibrator]


def test_a_direction_that_is_noise_is_taken_back_while_the_volatility_stays():
    random = np.random.default_rng(0)
    flat, noise = random.beta(12, 18, 60_000), random.normal(0, 0.4, 60_000)
    labels = np.where(random.random(60_000) < flat, 1, 2 * random.integers(0, 2, 60_000))
    up = 1 / (1 + np.exp(-noise))
    said = np.column_stack([(1 - flat) * (1 - up), flat, (1 - flat) * up])
    calibrator = NestedCalibrator().fit(said, labels)
    assert calibrator.slopes == pytest.approx([1, 0], abs=0.05)
    assert np.abs(calibrator.predict_proba(said)[:, 1] - flat).mean() < 0.005
    assert calibrator.predict_proba(said)[:, 2] == pytest.approx((1 - flat) / 2, abs=0.03)


def test_nested_state_says_what_it_means():
    kept = {"format": 1, "method": "nested", "classes": ["DOWN", "FLAT", "UP"], "rows": 9}
    said = read_calibrator({**kept, "slopes": [1.0, 0.5], "intercepts": [0.0, 0.2]}).predict_proba(
        np.array([[0.2, 0.3, 0.5]])
    )
    up = 1 / (1 + np.exp(-(0.5 * np.log(0.5 / 0.2) + 0.2)))
    assert said[0] == pytest.approx([0.7 * (1 - up), 0.3, 0.7 * up])
