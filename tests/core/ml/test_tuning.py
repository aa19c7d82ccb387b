import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from signals_core.ml import tuning
from signals_core.ml.metrics import log_loss_rows
from signals_core.ml.pipeline import MLPipeline
from signals_core.ml.splits import split_latest
from signals_core.ml.target import class_shares
from signals_core.ml.tuning import tune
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
    chosen = TUNING.model_copy(update={"search_space": space, "trials": 2 if space == "regularised" else 1})
    assert tune(*year, QUICK_ML, chosen) == tune(*year, QUICK_ML, chosen)


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


RESUMED = TuningSettings(trials=14, max_rounds=12, early_stopping_rounds=4, seed=7)


def with_the_date(features: pd.DataFrame) -> pd.DataFrame:
    """A column that is the same for every symbol on a date."""
    dates = features.index.get_level_values("date")
    return features.assign(market=pd.factorize(dates, sort=True)[0].astype(float))


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 6, 13])
def test_an_interrupted_search_goes_on_where_it_was_and_finds_the_same(year, tmp_path, monkeypatch, after):
    features, target = with_the_date(year[0]), year[1]
    undisturbed = tune(features, target, QUICK_ML, RESUMED)
    path, real, tried = tmp_path / "study", tuning._try, []

    def counting(*arguments):
        if len(tried) == after and not resumed:
            raise Killed
        tried.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(tuning, "_try", counting)
    resumed = False
    with pytest.raises(Killed):
        tune(features, target, QUICK_ML, RESUMED, study=path)
    resumed = True
    found = tune(features, target, QUICK_ML, RESUMED, study=path)
    assert found == undisturbed
    pd.testing.assert_frame_equal(found.trial_gains, undisturbed.trial_gains, check_exact=True)
    assert len(tried) == RESUMED.trials
    assert tune(features, target, QUICK_ML, RESUMED, study=path) == undisturbed
    assert len(tried) == RESUMED.trials


CHILD = """
import sys, time
from datetime import date
from pathlib import Path
from signals_core.ml import tuning
from tests.core.ml.helpers import QUICK_ML, make_panel
from tests.core.ml.test_tuning import RESUMED
real = tuning._try
def slowly(*arguments):
    time.sleep(0.15)
    return real(*arguments)
tuning._try = slowly
panel = make_panel(start=date(2020, 1, 1), end=date(2021, 1, 1))
known = panel.target["label"] >= 0
tuning.tune(panel.features[known], panel.target[known], QUICK_ML, RESUMED, study=Path(sys.argv[1]))
"""


def test_a_search_that_was_killed_outright_goes_on_and_finds_the_same(year, tmp_path):
    path = tmp_path / "study"
    file = tmp_path / "study-symbol_level"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], cwd=Path(__file__).parents[3])
    try:
        deadline = time.monotonic() + 60
        while not file.exists() or file.read_bytes().count(b"\n") < 5:
            assert child.poll() is None, "the search ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
    kept = file.read_bytes().count(b"\n") - 1  # the first line makes the study
    assert 4 <= kept < RESUMED.trials
    assert tune(*year, QUICK_ML, RESUMED, study=path) == tune(*year, QUICK_ML, RESUMED)


def test_a_line_cut_short_by_a_power_failure_is_one_trial_lost(year, tmp_path):
    undisturbed = tune(*year, QUICK_ML, RESUMED, study=tmp_path / "study")
    file = tmp_path / "study-symbol_level"
    file.write_bytes(file.read_bytes()[:-40])
    Path(f"{file}.lock").symlink_to(file)  # as a process leaves it that was killed while it wrote
    began = time.monotonic()
    assert tune(*year, QUICK_ML, RESUMED, study=tmp_path / "study") == undisturbed
    assert time.monotonic() - began < 20  # and not Optuna's half minute of waiting for the lock's owner


def test_trials_of_other_rows_are_not_taken_for_ones_of_these(year, tmp_path):
    features, target = year
    other = features + 1e-3 * np.arange(len(features))[:, None]
    tune(other, target, QUICK_ML, RESUMED, study=tmp_path / "study")
    found = tune(features, target, QUICK_ML, RESUMED, study=tmp_path / "study")
    assert found == tune(features, target, QUICK_ML, RESUMED)


def test_a_damaged_study_is_begun_anew(year, tmp_path):
    tune(*year, QUICK_ML, RESUMED, study=tmp_path / "study")
    (tmp_path / "study-symbol_level").write_bytes(b"not a journal\nnor this\n")
    assert tune(*year, QUICK_ML, RESUMED, study=tmp_path / "study") == tune(*year, QUICK_ML, RESUMED)


def test_a_study_can_be_read_with_optuna(year, tmp_path):
    tune(*year, QUICK_ML, RESUMED, study=tmp_path / "study")
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study-symbol_level"))
    )
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    assert len(study.trials) == RESUMED.trials
    assert study.best_value == tune(*year, QUICK_ML, RESUMED).log_loss


def test_hopeless_trials_are_given_up_and_the_best_is_none_of_them(year):
    patient = RESUMED.model_copy(update={"trials": 30, "max_rounds": 60, "early_stopping_rounds": 60})
    pruned = tune(*year, QUICK_ML, patient)
    assert 5 <= pruned.pruned < 30
    assert tune(*year, QUICK_ML, patient.model_copy(update={"pruning": False})).pruned == 0


def test_the_same_log_loss_comes_from_a_model_trained_on_the_rows_that_trials_fit(year):
    """The score of a trial is what `MLPipeline.predict` would have scored, weights undone."""
    features, target = year
    tuned = tune(features, target, QUICK_ML, RESUMED)
    fit, score = split_latest(target, RESUMED.validation_fraction)
    pipeline = MLPipeline(QUICK_ML, RESUMED.seed)
    pipeline.train(features[fit], target["label"][fit], tuned.params, tuned.rounds)
    losses = log_loss_rows(pipeline.predict(features[score]), target["label"].to_numpy()[score])
    assert tuned.log_loss == pytest.approx(losses.mean(), abs=1e-6)


def test_half_the_trials_go_without_market_wide_columns_and_luck_is_not_enough_for_them(year, monkeypatch):
    features, target = with_the_date(year[0]), year[1]
    groups, real = [], tuning._try

    def noting(trial, rows, group):
        groups.append((group, len(rows.columns[group])))
        return real(trial, rows, group)

    monkeypatch.setattr(tuning, "_try", noting)
    tuned = tune(features, target, QUICK_ML, RESUMED)
    assert pd.Series(groups).value_counts().to_dict() == {("symbol_level", 3): 7, ("all", 4): 7}
    assert tuned.group == "symbol_level"
    assert set(tuned.suggested) == {"symbol_level", "all"}


def test_market_wide_columns_that_truly_help_are_used():
    """Every symbol moves with the market, and the market's next days are known from one column of all."""
    panel = make_panel(start=date(2019, 1, 1), end=date(2021, 1, 1))
    known = panel.target["label"] >= 0
    target = panel.target[known].copy()
    day = target.index.get_level_values("date")
    regime = (np.arange(len(day.unique())) // 3 % 3)[pd.factorize(day, sort=True)[0]]
    target["label"] = regime.astype("int8")
    features = panel.features[known].assign(regime=regime.astype(float))
    assert tune(features, target, QUICK_ML, RESUMED).group == "all"


@pytest.mark.parametrize("groups", [("all",), ("symbol_level",)])
def test_one_group_of_columns_gets_every_trial(year, groups):
    tuned = tune(with_the_date(year[0]), year[1], QUICK_ML, TUNING.model_copy(update={"feature_groups": groups}))
    assert (tuned.group, list(tuned.suggested)) == (groups[0], list(groups))


def test_a_warm_start_is_tried_first_and_only_adds_a_candidate(year, monkeypatch):
    first, real = [], tuning._try

    def noting(trial, rows, group):
        loss = real(trial, rows, group)
        first.append((dict(trial.params), loss))
        return loss

    monkeypatch.setattr(tuning, "_try", noting)
    warm = tune(*year, QUICK_ML, RESUMED.model_copy(update={"seed": 99})).suggested
    first.clear()
    tuned = tune(*year, QUICK_ML, RESUMED, warm=warm)
    assert first[0][0] == warm["symbol_level"]
    assert tuned.log_loss <= first[0][1]
    assert tune(*year, QUICK_ML, RESUMED, warm=warm) == tuned


def test_every_finished_trial_keeps_its_gain_over_the_class_prior_date_by_date(year):
    features, target = with_the_date(year[0]), year[1]
    patient = RESUMED.model_copy(update={"trials": 30, "max_rounds": 60, "early_stopping_rounds": 60})
    tuned = tune(features, target, QUICK_ML, patient)
    gains = tuned.trial_gains
    fit, score = split_latest(target, patient.validation_fraction)
    assert gains.index.equals(target.index[score].get_level_values("date").unique().sort_values())
    assert 0 < tuned.pruned == patient.trials - gains.shape[1]
    # The class prior's log-loss less the search's own; every date has both symbols here.
    prior = class_shares(target["label"][fit])
    prior_loss = log_loss_rows(prior, target["label"].to_numpy()[score]).mean()
    best = gains[tuned.group].mean().max()
    assert best == pytest.approx(prior_loss - tuned.log_loss, abs=1e-6)
    assert tuned.gains_of_choice().mean().max() == best
    assert tuned.gains_of_choice().shape[1] < gains.shape[1]


def test_the_gain_of_a_date_is_the_mean_of_its_rows_however_many_it_has(year):
    features, target = year
    few = ~((target.index.get_level_values("symbol") == "BBB") & (np.arange(len(target)) % 3 == 0))
    tuned = tune(features[few], target[few], QUICK_ML, TUNING)
    _, score = split_latest(target[few], TUNING.validation_fraction)
    rows = target[few][score].groupby("date").size()
    assert set(rows) == {1, 2}
    prior_loss = log_loss_rows(
        class_shares(target[few]["label"][split_latest(target[few], TUNING.validation_fraction)[0]]),
        target[few]["label"].to_numpy()[score],
    ).mean()
    weighted = (tuned.trial_gains.mul(rows, axis=0)).sum() / rows.sum()
    assert weighted.max() == pytest.approx(prior_loss - tuned.log_loss, abs=1e-6)


def test_without_trials_there_are_no_gains(year):
    tuned = tune(*year, QUICK_ML, TuningSettings(trials=0))
    assert tuned.trial_gains.empty
    assert tuned.gains_of_choice().shape == (0, 0)
