"""Six ways to fool oneself, each applied where the project guards against it, and the check that catches it.

Every check is by index or by exchanging what could not be known; none looks at a score. Each test first shows
that the check is silent about the project as it is.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from signals_core.feature_store import FeatureStore
from signals_core.features import technical
from signals_core.features.leakage import cut_inputs, find_leaks
from signals_core.features.technical import TechnicalFeatureCalculator
from signals_core.ml import forward_calibration, logistic, tuning, validation
from signals_core.ml.audit import audit_calibration, audit_split, audit_window
from signals_core.ml.calibration import ConfidenceCalibrator
from signals_core.ml.forward_calibration import CALIBRATED_COLUMNS
from signals_core.ml.splits import PanelSplitter, RowUse, Window, WindowRows, calendar_windows, split_latest
from signals_core.ml.validation import PROBABILITY_COLUMNS, WalkForwardValidator, WindowResult, pool_out_of_fold
from signals_core.settings import MLSettings, TuningSettings, ValidationSettings
from signals_core.synthetic import Market, MarketModel, make_market
from signals_core.workspace import Panel

ML = MLSettings(min_training_samples=100)
TUNING = TuningSettings(trials=3, max_rounds=15, early_stopping_rounds=5)
MIN_ROWS = 100


@pytest.fixture(scope="module")
def market() -> Market:
    return make_market(["AAA", "BBB", "CCC"], "2018-10-01", "2021-01-01", MarketModel("planted_drift"), seed=1)


@pytest.fixture(scope="module")
def panel(market: Market) -> Panel:
    """From January 2019 on: 12 months of training and four tests of three months."""
    whole = market.panel(ML)
    rows = whole.features.index.get_level_values("date") >= "2019-01-01"
    return Panel(whole.features[rows], whole.target[rows])


@pytest.fixture(scope="module")
def windows(panel: Panel) -> list[Window]:
    dates = panel.features.index.get_level_values("date")
    return list(calendar_windows(dates.min().date(), dates.max().date() + pd.Timedelta(days=1), 12, 3, 3))


@pytest.fixture(scope="module")
def pooled(panel: Panel, windows: list[Window]) -> pd.DataFrame:
    return pool_out_of_fold([validator().run_window(window, panel.features, panel.target) for window in windows])


def validator() -> WalkForwardValidator:
    return WalkForwardValidator(ML, TUNING, ValidationSettings())


def window_breaches(panel: Panel, window: Window) -> list[str]:
    return audit_window(validator(), window, panel.features, panel.target)


def split_breaches(panel: Panel, searcher: ModuleType) -> list[str]:
    """Of the rows that a search for parameters fits on and scores on, seen where it asks for them."""
    asked: list[list[str]] = []
    split = searcher.split_latest

    def watched(target: pd.DataFrame, fraction: float) -> tuple[np.ndarray, np.ndarray]:
        fit, score = split(target, fraction)
        asked.append(audit_split(target, fit, score))
        return fit, score

    known = (panel.target["label"] >= 0).to_numpy()
    features, target = panel.features[known], panel.target[known]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searcher, "split_latest", watched)
        if searcher is tuning:
            tuning.tune(features, target, ML, TUNING)
        else:
            logistic.fit_logistic(features, target, TUNING.validation_fraction, ML.prediction_horizon, ["all"])
    assert asked
    return asked[0]


def calibration_breaches(pooled: pd.DataFrame) -> list[str]:
    return audit_calibration(forward_calibration.calibrate_forward, pooled, MIN_ROWS, ML.prediction_horizon)


def leaking_features(market: Market) -> set[str]:
    store, inputs = FeatureStore(Path()), market.inputs("AAA")
    values = store.compute(inputs)
    dates = values.index[[280, 333, 500]]
    leaks = find_leaks("AAA", values, lambda cut: store.compute(cut_inputs(inputs, cut, "XNYS")), dates)
    return {leak.feature for leak in leaks}


# 1 ---------------------------------------------------------------------------------------------------------


def sabotage_windows(patch: pytest.MonkeyPatch, change: Callable[[WindowRows], WindowRows]) -> None:
    """Let every window use rows as `change` says instead of as the splitter found."""
    split = PanelSplitter.split
    patch.setattr(PanelSplitter, "split", lambda self, window: change(split(self, window)))


def test_a_window_without_purge_is_caught(monkeypatch: pytest.MonkeyPatch, panel: Panel, windows: list[Window]) -> None:
    def without_purge(rows: WindowRows) -> WindowRows:
        return replace(rows, train_rows=np.flatnonzero(np.isin(rows.use, [RowUse.TRAIN, RowUse.PURGED])))

    assert window_breaches(panel, windows[0]) == []
    sabotage_windows(monkeypatch, without_purge)
    breaches = window_breaches(panel, windows[0])
    assert any("predictions" in breach for breach in breaches)


# 2 ---------------------------------------------------------------------------------------------------------


def test_a_window_of_shuffled_rows_is_caught(
    monkeypatch: pytest.MonkeyPatch, panel: Panel, windows: list[Window]
) -> None:
    def shuffled(rows: WindowRows) -> WindowRows:
        """The rows of both spans dealt out at random, as KFold(shuffle=True) would."""
        dealt = np.random.default_rng(0).permutation(np.concatenate([rows.train_rows, rows.test_rows]))
        trains, tests = np.split(dealt, [len(rows.train_rows)])
        return replace(rows, train_rows=np.sort(trains), test_rows=np.sort(tests))

    sabotage_windows(monkeypatch, shuffled)
    assert window_breaches(panel, windows[0]) != []


def shuffled_split(target: pd.DataFrame, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    score = np.random.default_rng(0).random(len(target)) < fraction
    return ~score, score


@pytest.mark.parametrize("searcher", [tuning, logistic], ids=["tuning", "logistic"])
def test_a_search_on_shuffled_folds_is_caught(
    monkeypatch: pytest.MonkeyPatch, panel: Panel, searcher: ModuleType
) -> None:
    assert split_breaches(panel, searcher) == []
    monkeypatch.setattr(searcher, "split_latest", shuffled_split)
    breaches = " ".join(split_breaches(panel, searcher))
    assert "dates are split" in breaches
    assert "fitted rows have a label that ends on" in breaches


@pytest.mark.parametrize("searcher", [tuning, logistic], ids=["tuning", "logistic"])
def test_a_search_without_purge_is_caught(monkeypatch: pytest.MonkeyPatch, panel: Panel, searcher: ModuleType) -> None:
    def unpurged(target: pd.DataFrame, fraction: float) -> tuple[np.ndarray, np.ndarray]:
        _, score = split_latest(target, fraction)
        return ~score, score

    monkeypatch.setattr(searcher, "split_latest", unpurged)
    (breach,) = split_breaches(panel, searcher)
    assert breach.startswith("15 fitted rows have a label that ends on")  # 5 sessions of 3 symbols


# 3 ---------------------------------------------------------------------------------------------------------


def calibrate_in_symbol_sorted_folds(pooled: pd.DataFrame, min_rows: int, horizon: int) -> pd.DataFrame:
    """CalibratedClassifierCV(cv=5) on rows sorted by symbol: each fold is calibrated on the other symbols' future."""
    raw, labels = pooled[PROBABILITY_COLUMNS].to_numpy(), pooled["label"].to_numpy()
    calibrated = np.empty_like(raw, dtype="float64")
    for fold in np.array_split(np.arange(len(pooled)), 5):
        others = np.setdiff1d(np.arange(len(pooled)), fold)
        calibrated[fold] = ConfidenceCalibrator().fit(raw[others], labels[others]).predict_proba(raw[fold])
    return pd.concat([pooled, pd.DataFrame(calibrated, pooled.index, CALIBRATED_COLUMNS)], axis=1)


def test_calibration_on_symbol_sorted_folds_is_caught(monkeypatch: pytest.MonkeyPatch, pooled: pd.DataFrame) -> None:
    assert pooled.index.is_monotonic_increasing  # sorted by symbol
    assert calibration_breaches(pooled) == []
    monkeypatch.setattr(forward_calibration, "calibrate_forward", calibrate_in_symbol_sorted_folds)
    assert len(calibration_breaches(pooled)) == pooled["window"].nunique() - 1


def test_calibration_with_labels_not_yet_known_is_caught(pooled: pd.DataFrame) -> None:
    """Earlier windows only, but without asking whether their last labels were known."""

    def too_early(rows: pd.DataFrame, min_rows: int, horizon: int) -> pd.DataFrame:
        known = rows.assign(label_end=rows.index.get_level_values("date"))
        return forward_calibration.calibrate_forward(known, min_rows, horizon).assign(label_end=rows["label_end"])

    late = pooled.copy()  # a horizon that reaches into the next window, as gaps in a symbol's bars do
    late["label_end"] = late["label_end"] + pd.Timedelta(days=10)
    assert audit_calibration(forward_calibration.calibrate_forward, late, MIN_ROWS, 5) == []
    assert audit_calibration(too_early, late, MIN_ROWS, 5) != []


# 4 ---------------------------------------------------------------------------------------------------------


def test_prices_scaled_by_the_full_sample_are_caught(monkeypatch: pytest.MonkeyPatch, market: Market) -> None:
    assert leaking_features(market) == set()
    honest = technical.bar_values

    def scaled(bars: pd.DataFrame) -> np.ndarray:
        """Min-max scaling to 1..2 over the whole history, as a scaler fitted before the split does."""
        low, high = bars["low"].min(), bars["high"].max()
        *prices, volume = honest(bars)
        return np.array([*((price - low) / (high - low) + 1 for price in prices), volume])

    monkeypatch.setattr(technical, "bar_values", scaled)
    leaking = leaking_features(market)
    assert {"roc_5", "natr_14", "close_to_sma_200", "gap_pct"} <= leaking
    assert "volume_to_sma_20" not in leaking


# 5 ---------------------------------------------------------------------------------------------------------


def test_tuning_on_the_test_window_is_caught(
    monkeypatch: pytest.MonkeyPatch, panel: Panel, windows: list[Window]
) -> None:
    honest = WalkForwardValidator.run_window

    def tuned_on_the_test(
        self: WalkForwardValidator, window: Window, features: pd.DataFrame, target: pd.DataFrame
    ) -> WindowResult:
        rows = PanelSplitter(target).split(window)
        tune = tuning.tune
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                validation,
                "tune",
                lambda *given, **named: tune(features[rows.test], target[rows.test], *given[2:], **named),
            )
            return honest(self, window, features, target)

    assert window_breaches(panel, windows[1]) == []
    monkeypatch.setattr(WalkForwardValidator, "run_window", tuned_on_the_test)
    breaches = window_breaches(panel, windows[1])
    assert "params of the model" in breaches or "rounds of the model" in breaches


# 6 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feature", ["gap_pct", "rsi_14", "hist_vol_60"])
def test_a_feature_shifted_one_day_ahead_is_caught(
    monkeypatch: pytest.MonkeyPatch, market: Market, feature: str
) -> None:
    honest = TechnicalFeatureCalculator.calculate

    def peek(self: TechnicalFeatureCalculator, inputs: object) -> pd.DataFrame:
        frame = honest(self, inputs)  # type: ignore[arg-type]
        return frame.assign(**{feature: frame[feature].shift(-1)})

    monkeypatch.setattr(TechnicalFeatureCalculator, "calculate", peek)
    assert leaking_features(market) == {feature}


# -----------------------------------------------------------------------------------------------------------


def test_a_model_that_looks_at_later_features_of_the_test_is_caught(panel: Panel, windows: list[Window]) -> None:
    """Each test row less the mean of all test rows: no label is touched, and nothing of training."""

    class Centred:
        def run_window(self, window: Window, features: pd.DataFrame, target: pd.DataFrame) -> WindowResult:
            dates = features.index.get_level_values("date")
            tested = (dates >= pd.Timestamp(window.test_start)) & (dates < pd.Timestamp(window.test_end))
            level = features[tested].mean().fillna(0).to_numpy() * np.asarray(tested)[:, None]
            return validator().run_window(window, features - level, target)

    (breach,) = audit_window(Centred(), windows[0], panel.features, panel.target)
    assert "predictions, the first of AAA on 2020-01-02" in breach
