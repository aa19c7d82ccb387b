from datetime import date

import numpy as np
import pandas as pd
import pytest

from signals_core.ml.tuning import split_latest, tune
from signals_core.settings import TuningSettings
from tests.core.ml.helpers import QUICK_ML, make_panel

TUNING = TuningSettings(trials=3, max_rounds=10, early_stopping_rounds=3, seed=7)


@pytest.fixture(scope="module")
def year():
    """2020 in two symbols without its last five sessions, so that all rows are labelled."""
    panel = make_panel(start=date(2020, 1, 1), end=date(2021, 1, 1))
    known = panel.target["label"] >= 0
    return panel.features[known], panel.target[known]


def test_the_latest_quarter_of_the_dates_scores_and_no_date_is_split(year):
    _, target = year
    fit, score = split_latest(target, 0.25)
    dates = target.index.get_level_values("date")
    assert len(dates.unique()) == 248
    assert (dates[score].min(), dates[score].max()) == (pd.Timestamp("2020-09-28"), pd.Timestamp("2020-12-23"))
    assert len(dates[score].unique()) == 62
    assert set(pd.Series(dates[score]).value_counts()) == {2}
    assert not (fit & score).any()


def test_rows_whose_label_reaches_into_the_scoring_dates_do_not_fit(year):
    _, target = year
    fit, score = split_latest(target, 0.25)
    dates = target.index.get_level_values("date")
    assert target["label_end"][fit].max() < dates[score].min()
    assert dates[fit].max() == pd.Timestamp("2020-09-18")
    assert int((~fit & ~score).sum()) == 2 * 5


@pytest.mark.parametrize("space", ["regularised", "specification"])
def test_the_same_rows_and_seed_find_the_same_parameters(year, space):
    tuning = TUNING.model_copy(update={"search_space": space, "trials": 2 if space == "regularised" else 1})
    assert tune(*year, QUICK_ML, tuning) == tune(*year, QUICK_ML, tuning)


def test_another_seed_tries_other_parameters(year):
    other = TUNING.model_copy(update={"seed": 8})
    assert tune(*year, QUICK_ML, TUNING).params != tune(*year, QUICK_ML, other).params


def test_without_trials_the_parameters_of_the_settings_are_used(year):
    tuned = tune(*year, QUICK_ML, TuningSettings(trials=0))
    assert (tuned.rounds, tuned.params["max_depth"], tuned.trials) == (4, 2, 0)


def test_rounds_found_by_early_stopping_stay_within_the_limit(year):
    tuned = tune(*year, QUICK_ML, TUNING)
    assert 1 <= tuned.rounds <= 10
    assert 2 <= tuned.params["max_depth"] <= 4
    assert 0.8 < tuned.log_loss < 1.2


def test_only_the_rows_given_matter_and_purged_ones_not_at_all(year):
    features, target = year
    fit, score = split_latest(target, TUNING.validation_fraction)
    unused = ~(fit | score)
    assert unused.any()
    spoiled_features, spoiled_target = features.copy(), target.copy()
    spoiled_features[unused] = 1e9
    spoiled_target.loc[unused, "label"] = 0
    assert tune(spoiled_features, spoiled_target, QUICK_ML, TUNING) == tune(features, target, QUICK_ML, TUNING)


def test_labels_of_the_scoring_dates_choose_but_do_not_fit(year):
    features, target = year
    _, score = split_latest(target, TUNING.validation_fraction)
    turned = target.copy()
    turned.loc[score, "label"] = 2 - turned.loc[score, "label"]
    assert tune(features, turned, QUICK_ML, TUNING).log_loss != tune(features, target, QUICK_ML, TUNING).log_loss


def test_the_search_leaves_its_rows_untouched(year):
    features, target = (frame.copy() for frame in year)
    tune(features, target, QUICK_ML, TUNING)
    pd.testing.assert_frame_equal(features, year[0])
    pd.testing.assert_frame_equal(target, year[1])


def test_a_feature_that_knows_something_scores_better_than_noise(year):
    features, target = year
    noise = features.copy()
    noise["hint"] = np.random.default_rng(0).permutation(features["hint"].to_numpy())
    assert tune(features, target, QUICK_ML, TUNING).log_loss < tune(noise, target, QUICK_ML, TUNING).log_loss
