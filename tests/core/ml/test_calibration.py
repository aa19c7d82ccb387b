import json

import numpy as np
import pytest

from signals_core.errors import BundleError, MissingPrerequisite
from signals_core.ml.calibration import ConfidenceCalibrator
from signals_core.ml.metrics import log_loss_rows


def truth(rows: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities, mild ones around (.3, .4, .3), and what happened."""
    random = np.random.default_rng(seed)
    table = random.dirichlet([9, 12, 9], rows)
    labels = (random.random((rows, 1)) > table.cumsum(axis=1)).sum(axis=1)
    return table, labels


def distorted(table: np.ndarray, factor: float) -> np.ndarray:
    """The same forecasts with logits `factor` times as large."""
    raised = table**factor
    return raised / raised.sum(axis=1, keepdims=True)


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


def test_a_true_forecast_stays_what_it_is():
    table, labels = truth()
    assert np.abs(ConfidenceCalibrator().fit(table, labels).predict_proba(table) - table).mean() < 0.01


def test_a_model_that_says_the_opposite_is_told_it_knows_nothing():
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


@pytest.mark.parametrize("factor", [0.5, 1, 3])
def test_mean_probabilities_match_how_often_each_class_happened(factor):
    table, labels = truth()
    shifted = distorted(table, factor) * [1.5, 1.0, 0.6]
    shifted /= shifted.sum(axis=1, keepdims=True)
    calibrated = ConfidenceCalibrator().fit(shifted, labels).predict_proba(shifted)
    assert calibrated.mean(axis=0) == pytest.approx(np.bincount(labels) / len(labels), abs=0.01)
    assert np.abs(calibrated.sum(axis=1) - 1).max() < 1e-12


def test_forecasts_of_zero_and_one_stay_finite():
    table, labels = truth(rows=500)
    calibrator = ConfidenceCalibrator().fit(table, labels)
    calibrated = calibrator.predict_proba(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert np.isfinite(calibrated).all()
    assert calibrated.sum(axis=1) == pytest.approx([1, 1])


def test_a_class_that_never_happened_is_refused_by_name():
    table, labels = truth(rows=500)
    with pytest.raises(MissingPrerequisite, match="no FLAT"):
        ConfidenceCalibrator().fit(table, np.where(labels == 1, 0, labels))


def test_predicting_or_storing_before_fitting_is_refused():
    with pytest.raises(MissingPrerequisite, match="not fitted"):
        ConfidenceCalibrator().predict_proba(np.full((1, 3), 1 / 3))
    with pytest.raises(MissingPrerequisite, match="not fitted"):
        ConfidenceCalibrator().to_dict()


def test_state_survives_json_to_the_last_bit():
    table, labels = truth(rows=2000)
    calibrator = ConfidenceCalibrator().fit(distorted(table, 2), labels)
    again = ConfidenceCalibrator.from_dict(json.loads(json.dumps(calibrator.to_dict())))
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
        ({"intercepts": [0.0]}, "3 slopes"),
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
