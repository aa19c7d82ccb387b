import numpy as np
import pandas as pd
import pytest

from signals_core.errors import DataError, MissingPrerequisite
from signals_core.ml.pipeline import MLPipeline, labels_of
from signals_core.ml.target import make_target
from signals_core.settings import MLSettings, XgbParams
from tests.core.ml.helpers import make_panel, tiny_pipeline

PARAMS = XgbParams(n_estimators=30, max_depth=2, learning_rate=0.2, subsample=1, colsample_bytree=1)


def market(rows: int = 3000, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """One column whose low values mean DOWN and high ones UP; shares .1, .7, .2."""
    random = np.random.default_rng(seed)
    features = pd.DataFrame({"x": random.normal(size=rows), "noise": random.normal(size=rows)})
    score = features["x"] + 0.5 * random.normal(size=rows)
    return features, pd.Series(np.digitize(score, np.quantile(score, [0.1, 0.8])))


@pytest.fixture(scope="module")
def balanced() -> tuple[MLPipeline, pd.DataFrame, pd.Series]:
    features, labels = market()
    pipeline = MLPipeline(MLSettings(xgb_params=PARAMS))
    pipeline.train(features, labels)
    return pipeline, features, labels


def test_probabilities_come_in_the_order_down_flat_up(balanced):
    pipeline, _, _ = balanced
    table = pipeline.predict(pd.DataFrame({"x": [-3.0, 0.0, 3.0], "noise": [0.0, 0.0, 0.0]}))
    assert table.argmax(axis=1).tolist() == [0, 1, 2]


def test_probabilities_sum_to_one(balanced):
    pipeline, features, _ = balanced
    table = pipeline.predict(features)
    assert table.shape == (3000, 3)
    assert (table > 0).all()
    assert np.abs(table.sum(axis=1) - 1).max() < 1e-12


def test_mean_probability_matches_class_shares_when_weights_are_balanced(balanced):
    pipeline, features, labels = balanced
    assert labels.value_counts(normalize=True).sort_index().to_numpy() == pytest.approx([0.1, 0.7, 0.2], abs=1e-9)
    assert pipeline.predict(features).mean(axis=0) == pytest.approx([0.1, 0.7, 0.2], abs=0.03)


def test_the_trees_themselves_were_balanced(balanced):
    import xgboost as xgb

    pipeline, features, _ = balanced
    raw = pipeline.booster.predict(xgb.DMatrix(features[pipeline.features]))
    assert raw.mean(axis=0)[1] < 0.55  # against a share of .7: without weights the undoing would be wrong


def test_undoing_the_weights_equals_multiplying_by_the_prior_and_normalising():
    pipeline = MLPipeline()
    pipeline.prior = np.array([0.2, 0.5, 0.3])
    assert pipeline.restore_prior(np.array([[0.5, 0.25, 0.25]])) == pytest.approx(np.array([[1 / 3, 5 / 12, 1 / 4]]))


def test_without_weighting_the_trees_probabilities_are_served_as_they_are():
    features, labels = market()
    pipeline = MLPipeline(MLSettings(class_weighting="none", xgb_params=PARAMS))
    pipeline.train(features, labels)
    assert pipeline.row_weights(labels.to_numpy()) is None
    assert pipeline.predict(features).mean(axis=0) == pytest.approx([0.1, 0.7, 0.2], abs=0.01)


def test_balanced_weights_give_each_class_a_third_of_the_total():
    labels = np.array([0] * 10 + [1] * 70 + [2] * 20)
    weights = MLPipeline().row_weights(labels)
    assert [weights[labels == k].sum() for k in range(3)] == pytest.approx([100 / 3] * 3)


def test_too_few_rows_are_refused_with_both_numbers():
    features, labels = market(rows=600)
    labels[499:] = -1
    with pytest.raises(MissingPrerequisite, match=r"499 labelled training rows.*asks for 500"):
        MLPipeline().train(features, labels)


def test_a_class_that_never_happened_is_refused_by_name():
    features, labels = market()
    with pytest.raises(MissingPrerequisite, match="no training row is DOWN"):
        MLPipeline(MLSettings(xgb_params=PARAMS)).train(features, labels.replace({0: 1}))


def test_an_absent_column_is_refused_by_name(balanced):
    pipeline, features, _ = balanced
    with pytest.raises(DataError, match="features lack noise"):
        pipeline.predict(features[["x"]])


def test_columns_are_found_by_name_and_not_by_position(balanced):
    pipeline, features, _ = balanced
    shuffled = features.assign(extra=1.0)[["noise", "extra", "x"]]
    assert np.array_equal(pipeline.predict(shuffled), pipeline.predict(features))


def test_predicting_before_training_is_refused():
    with pytest.raises(MissingPrerequisite, match="train or load one first"):
        MLPipeline().predict(pd.DataFrame({"x": [1.0]}))


def test_the_same_rows_settings_and_seed_give_the_same_bytes():
    first, rows = tiny_pipeline()
    second, _ = tiny_pipeline()
    assert first.booster.save_raw("ubj") == second.booster.save_raw("ubj")
    assert np.array_equal(first.predict(rows), second.predict(rows))


def test_another_seed_gives_another_model():
    features, labels = market()
    settings = MLSettings(xgb_params=PARAMS.model_copy(update={"subsample": 0.5}))
    tables = []
    for seed in (0, 1):
        pipeline = MLPipeline(settings, seed)
        pipeline.train(features, labels)
        tables.append(pipeline.predict(features))
    assert not np.array_equal(*tables)


def test_rows_without_a_label_do_not_train():
    features, labels = market()
    spoiled = features.copy()
    spoiled.loc[2000:, "x"] *= -1  # would teach the opposite
    pipelines = [MLPipeline(MLSettings(xgb_params=PARAMS)) for _ in range(2)]
    figures = pipelines[0].train(spoiled, labels.where(labels.index < 2000))
    pipelines[1].train(features[:2000], labels[:2000])
    assert figures["rows"] == 2000
    assert np.array_equal(pipelines[0].predict(features), pipelines[1].predict(features))


def test_a_column_without_any_value_is_left_out_of_the_model():
    features, labels = market()
    pipeline = MLPipeline(MLSettings(xgb_params=PARAMS))
    assert pipeline.train(features.assign(empty=np.nan), labels)["features"] == 2
    assert pipeline.features == ["x", "noise"]


def test_a_feature_that_knows_something_beats_the_prior():
    panel = make_panel(end=pd.Timestamp("2021-08-01").date())
    figures = MLPipeline(MLSettings(xgb_params=PARAMS)).train(panel.features, panel.target["label"])
    assert figures["log_loss"] < figures["prior_log_loss"]


def test_prepare_target_labels_by_the_forward_return_and_leaves_the_last_rows_without():
    close = [100.0, 100.0, 100.0, 102.0, 100.5, 98.0]
    settings = MLSettings(prediction_horizon=2)
    label = MLPipeline(settings).prepare_target(pd.DataFrame({"price": close}), close_col="price")
    # 100 -> 100, 100 -> 102, 100 -> 100.5, 102 -> 98
    assert label[:4].tolist() == [1, 2, 1, 0]
    assert label[4:].isna().all()
    assert str(label.dtype) == "Int8"


def test_a_return_of_exactly_the_threshold_is_flat():
    bars = pd.DataFrame({"open": [1.0] * 4, "close": [100.0, 100.0, 101.0, 99.0]})
    settings = MLSettings(prediction_horizon=2, up_threshold=101.0 / 100 - 1, down_threshold=99.0 / 100 - 1)
    assert make_target(bars, settings)["label"].tolist() == [1, 1, -1, -1]


def test_missing_labels_count_as_none():
    assert labels_of(pd.Series([0, None, 2], dtype="Int8")).tolist() == [0, -1, 2]
