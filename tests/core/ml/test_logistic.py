from datetime import date

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from signals_core.ml.logistic import Standardiser, fit_logistic
from signals_core.ml.splits import split_latest
from tests.core.ml.helpers import make_panel

GROUPS = ("all", "symbol_level")


@pytest.fixture(scope="module")
def year():
    panel = make_panel(start=date(2020, 1, 1), end=date(2021, 1, 1))
    known = panel.target["label"] >= 0
    return panel.features[known], panel.target[known]


def test_it_is_scikit_learns_fit_of_standardised_columns(year):
    features, target = year
    model = fit_logistic(features, target, 0.25, 5, GROUPS)
    rows = StandardScaler().fit_transform(features)
    oracle = LogisticRegression(C=1 / (model.penalty * len(rows)), tol=1e-8, max_iter=1000).fit(rows, target["label"])
    assert model.predict_proba(features) == pytest.approx(oracle.predict_proba(rows), abs=5e-3)


def test_probabilities_sum_to_one_and_mean_the_class_shares(year):
    features, target = year
    table = fit_logistic(features, target, 0.25, 5, GROUPS).predict_proba(features)
    assert np.abs(table.sum(axis=1) - 1).max() < 1e-12
    assert table.mean(axis=0) == pytest.approx(target["label"].value_counts(normalize=True).sort_index(), abs=2e-3)


def test_noise_is_shrunk_to_the_class_shares_and_a_signal_is_not(year):
    features, target = year
    random = np.random.default_rng(1)
    noise = pd.DataFrame(random.normal(size=(len(features), 40)), index=features.index).rename(columns=str)
    assert fit_logistic(noise, target, 0.25, 5, GROUPS).penalty >= 0.3
    told = noise.assign(told=target["label"] + random.normal(0, 0.5, len(target)))
    assert fit_logistic(told, target, 0.25, 5, GROUPS).penalty <= 0.1


def test_the_scoring_dates_choose_the_penalty_and_rows_that_reach_into_them_do_not_fit_it(year):
    features, target = year
    fit, score = split_latest(target, 0.25)
    spoiled = target.copy()
    spoiled.loc[~(fit | score), "label"] = 0
    random = np.random.default_rng(1)
    told = features.assign(told=target["label"] + random.normal(0, 0.5, len(target)))
    assert fit_logistic(told, spoiled, 0.25, 5, GROUPS).penalty == fit_logistic(told, target, 0.25, 5, GROUPS).penalty


def test_a_market_wide_column_is_left_out_unless_it_helps_beyond_doubt(year):
    features, target = year
    day = pd.factorize(features.index.get_level_values("date"), sort=True)[0]
    model = fit_logistic(features.assign(day=day.astype(float)), target, 0.25, 5, GROUPS)
    assert (model.group, model.standardiser.columns) == ("symbol_level", list(features.columns))


def test_missing_values_take_the_median_of_training_and_a_flag_where_they_are_common():
    train = pd.DataFrame({"some": [1.0, 2.0, np.nan, 9.0], "none": np.nan, "constant": 3.0, "full": [1.0, 2, 3, 4]})
    standardiser = Standardiser.fit(train, list(train.columns))
    assert standardiser.columns == ["some", "constant", "full"]
    rows = standardiser.transform(pd.DataFrame({"some": [np.nan], "constant": [np.nan], "full": [100.0]}))
    # some (median 2), full (cut off at 5 deviations) and the flag of some; the constant says nothing.
    assert rows.shape == (1, 3)
    assert rows[0] == pytest.approx([(2 - 3.5) / np.std([1, 2, 2, 9]), 5, (1 - 0.25) / np.std([0, 0, 1, 0])])


def test_rows_of_the_test_cannot_change_the_scaling(year):
    features, target = year
    model = fit_logistic(features, target, 0.25, 5, GROUPS)
    alone = model.predict_proba(features.iloc[:1])
    wild = pd.concat([features.iloc[:1], features.iloc[1:50] * 1e6])
    assert np.array_equal(model.predict_proba(wild)[:1], alone)
