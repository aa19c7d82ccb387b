from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from signals_core.errors import DataError
from signals_core.ml.overfitting import (
    SearchOverfitting,
    independent_trials,
    judge_search,
    pool_searches,
    probability_of_overfitting,
)


def slowly(scores: np.ndarray, blocks: int, measure) -> tuple[float, float]:
    """The probability and the slope, one combination after the other, as the paper describes it."""
    parts = np.split(np.arange(len(scores)), blocks)
    below, own, other = [], [], []
    for half in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([parts[i] for i in half])
        outside = np.concatenate([parts[i] for i in range(blocks) if i not in half])
        chosen = int(np.argmax([measure(column) for column in scores[inside].T]))
        later = np.array([measure(column) for column in scores[outside].T])
        share = rankdata(later)[chosen] / (scores.shape[1] + 1)
        below.append(1.0 if share < 0.5 else 0.5 if share == 0.5 else 0.0)
        own.append(measure(scores[inside][:, chosen]))
        other.append(later[chosen])
    return float(np.mean(below)), float(np.polyfit(own, other, 1)[0])


MEASURES = {"mean": np.mean, "sharpe": lambda x: np.mean(x) / np.std(x, ddof=1)}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("trials", [2, 7, 12])
def test_it_equals_the_paper_followed_step_by_step(measure, trials):
    scores = np.random.default_rng(trials).normal(0.05, 1, size=(64, trials))
    found = probability_of_overfitting(scores, blocks=8, measure=measure)
    probability, slope = slowly(scores, 8, MEASURES[measure])
    assert found.probability == pytest.approx(probability, abs=1e-12)
    assert found.slope == pytest.approx(slope, rel=1e-9)
    assert (found.combinations, found.trials) == (70, trials)


@pytest.mark.parametrize("measure", MEASURES)
def test_it_equals_purgedcv(measure):
    purgedcv = pytest.importorskip("purgedcv", reason="purgedcv, an oracle that is not a dependency, is not installed")
    scores = np.random.default_rng(3).normal(0.05, 1, size=(80, 10))
    theirs = purgedcv.probability_of_backtest_overfitting(scores.T, n_splits=8, metric=MEASURES[measure])
    ours = probability_of_overfitting(scores, blocks=8, measure=measure)
    assert ours.probability == pytest.approx(theirs.pbo, abs=1e-12)
    assert ours.slope == pytest.approx(theirs.slope, rel=1e-9)
    assert ours.probability_of_loss == pytest.approx((theirs.is_oos_performance[:, 1] < 0).mean(), abs=1e-12)


def test_choosing_among_noise_is_a_coin_toss():
    found = [
        probability_of_overfitting(np.random.default_rng(seed).normal(size=(480, 30))).probability for seed in range(40)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)


def test_a_trial_that_is_really_better_is_no_overfitting():
    scores = np.random.default_rng(0).normal(size=(480, 30))
    scores[:, 7] += 0.5
    found = probability_of_overfitting(scores)
    assert found.probability < 0.02
    assert found.probability_of_loss < 0.02


def test_trials_that_are_good_in_one_half_only_are_overfitting_for_sure():
    first = np.repeat([1.0, -1.0], 50)
    found = probability_of_overfitting(np.column_stack([first, -first]), blocks=2)
    assert (found.probability, found.probability_of_loss, found.combinations) == (1.0, 1.0, 2)


def test_equal_trials_are_chance():
    scores = np.tile(np.random.default_rng(1).normal(size=(64, 1)), (1, 5))
    assert probability_of_overfitting(scores, blocks=8).probability == 0.5


def test_sixteen_blocks_make_12870_combinations_however_they_are_batched(monkeypatch):
    scores = np.random.default_rng(2).normal(size=(130, 20))  # 16 blocks of unequal length
    whole = probability_of_overfitting(scores, measure="sharpe")
    monkeypatch.setattr("signals_core.ml.overfitting._AT_ONCE", 20 * 1000)
    assert probability_of_overfitting(scores, measure="sharpe") == whole
    assert whole.combinations == 12_870


@pytest.mark.parametrize(
    ("scores", "blocks", "text"),
    [
        (np.ones((64, 1)), 8, "at least 2 trials"),
        (np.ones((7, 3)), 8, "on 8 dates"),
        (np.full((64, 3), np.nan), 8, "missing"),
        (np.ones((64, 3)), 7, "even"),
    ],
)
def test_scores_that_cannot_be_halved_are_refused(scores, blocks, text):
    with pytest.raises(DataError, match=text):
        probability_of_overfitting(scores, blocks)


def test_equal_trials_count_once_and_independent_ones_all():
    random = np.random.default_rng(4)
    base = random.normal(size=(2000, 1))
    assert independent_trials(np.tile(base, (1, 12)) * np.arange(1, 13)) == pytest.approx(1)
    assert independent_trials(random.normal(size=(2000, 12))) == pytest.approx(12, abs=0.5)
    half = np.sqrt(0.5) * base + np.sqrt(0.5) * random.normal(size=(2000, 12))
    assert independent_trials(half) == pytest.approx(0.5 + 0.5 * 12, abs=0.4)


def test_independent_trials_use_the_mean_of_all_correlations():
    scores = np.random.default_rng(5).normal(size=(50, 6)) + np.random.default_rng(6).normal(size=(50, 1))
    matrix = np.corrcoef(scores.T)
    rho = matrix[np.triu_indices(6, 1)].mean()
    assert independent_trials(scores) == pytest.approx(rho + (1 - rho) * 6, rel=1e-9)


def test_a_constant_trial_has_no_correlation():
    with pytest.raises(DataError, match="1 of 3 trials"):
        independent_trials(np.column_stack([np.ones(9), np.arange(9.0), np.arange(9.0) ** 2]))


HORIZON = 5


def overlapping(seed: int, dates: int, trials: int) -> np.ndarray:
    """Scores of labels that reach over five sessions: neighbouring dates share four fifths of their news."""
    news = np.random.default_rng(seed).normal(size=(dates + HORIZON - 1, trials))
    return np.lib.stride_tricks.sliding_window_view(news, HORIZON, axis=0).sum(axis=-1)


def test_labels_that_overlap_flatter_unless_the_ends_of_blocks_are_left_out():
    found = np.array(
        [
            [probability_of_overfitting(overlapping(s, 125, 12), 12, overlap=o).probability for o in (0, HORIZON - 1)]
            for s in range(200)
        ]
    )
    plain, purged = found.mean(axis=0)
    assert purged == pytest.approx(0.5, abs=0.05)
    assert purged - plain > 0.03


def test_the_ends_of_blocks_but_the_last_are_not_looked_at():
    scores = np.random.default_rng(0).normal(size=(40, 4))
    spoiled = scores.copy()
    for end in (10, 20, 30):
        spoiled[end - 2 : end] += np.arange(4) * 100
    whole = probability_of_overfitting(scores, blocks=4, overlap=2)
    assert probability_of_overfitting(spoiled, blocks=4, overlap=2) == whole
    spoiled[38:] += np.arange(4) * 100
    assert probability_of_overfitting(spoiled, blocks=4, overlap=2) != whole


def searched(scores: np.ndarray) -> SearchOverfitting:
    return judge_search(pd.DataFrame(scores), HORIZON)


def test_a_search_among_equals_is_a_coin_toss_and_one_that_finds_the_better_is_not():
    noise = [searched(overlapping(seed, 125, 20)) for seed in range(60)]
    assert {(found.trials, found.dates, found.blocks, found.reason) for found in noise} == {(20, 125, 8, "")}
    assert np.mean([found.probability for found in noise]) == pytest.approx(0.5, abs=0.08)
    assert np.mean([found.independent_trials for found in noise]) == pytest.approx(20, abs=1)
    better = overlapping(0, 125, 20)
    better[:, 3] += 3
    found = searched(better)
    assert found.probability < 0.02
    assert found.probability_of_loss < 0.02


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((125, 2), "finished trials of the chosen columns: 2, at least 3 are needed"),
        ((0, 0), "finished trials of the chosen columns: 0, at least 3 are needed"),
        ((59, 8), "dates that score trials: 59, at least 60 are needed"),
    ],
)
def test_too_few_trials_or_dates_give_no_probability_but_a_reason(shape, reason):
    found = searched(np.random.default_rng(0).normal(size=shape))
    assert (found.probability, found.probability_of_loss, found.reason) == (None, None, reason)


def test_the_smallest_search_that_has_one_has_six_ways_to_halve_sixty_dates():
    found = searched(np.random.default_rng(0).normal(size=(60, 3)))
    assert found.blocks == 4
    assert found.probability * 12 == pytest.approx(round(found.probability * 12))


def test_trials_that_never_left_the_prior_do_not_count_as_independent():
    assert searched(np.zeros((125, 5))).independent_trials is None
    assert searched(np.zeros((125, 5))).probability == 0.5


def search(probability: float | None, reason: str = "") -> SearchOverfitting:
    return SearchOverfitting(probability, None if reason else 0.3, 10, 2.0, 125, 8, reason)


def test_windows_are_pooled_by_the_share_of_all_their_halves():
    pooled = pool_searches([search(0.1), search(None, "too few"), search(0.2), search(0.9)])
    assert (pooled.windows, pooled.without, pooled.trials, pooled.reason) == (3, 1, 30, "too few")
    assert pooled.probability == pytest.approx(0.4)
    assert (pooled.median, pooled.lowest, pooled.highest, pooled.probability_of_loss) == (0.2, 0.1, 0.9, 0.3)
    assert "overfitted 0.40 (.5 is chance), by window median 0.20, 0.10 to 0.90" in str(pooled)
    assert "without those given up early; 1 more have none: too few" in str(pooled)


def test_without_a_probability_in_any_window_there_is_none_and_the_reason_is_said():
    assert pool_searches([search(None, "why")]).probability is None
    assert str(pool_searches([search(None, "why")])) == "no probability that the search overfitted: why"
    assert str(pool_searches([])) == "no probability that the search overfitted: there is no window"
