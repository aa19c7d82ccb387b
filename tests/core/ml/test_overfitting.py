from itertools import combinations

import numpy as np
import pytest
from scipy.stats import rankdata

from signals_core.errors import DataError
from signals_core.ml.overfitting import independent_trials, probability_of_overfitting


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
