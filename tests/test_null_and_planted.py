"""The whole pipeline on invented markets: it must find nothing where nothing is, and most of what is planted.

Figures are of calibrated out-of-sample probabilities, each window calibrated on earlier ones only. Windows of
24 months of training and 6 of test follow each other, so that every date is predicted once.
"""

import numpy as np
import pandas as pd
import pytest

from signals_core.ml.validation import WalkForwardValidator
from signals_core.settings import TuningSettings
from signals_core.synthetic import Market, MarketModel, make_market
from signals_core.synthetic.judgement import TEST_MONTHS, TRAIN_MONTHS, Judgement, judge
from signals_core.synthetic.market import Columns
from signals_core.workspace import Panel

pytestmark = pytest.mark.slow

SYMBOLS = 50
FIRST_TRAINING = pd.Timestamp("2012-01-01")
NULL_TESTS, PLANTED_TESTS = 6, 3
"""The first test period only calibrates: five and two are judged."""
NULL_SEEDS, PLANTED_SEEDS = (11, 12, 13), (21, 22, 23)
TUNING = TuningSettings(trials=6)


def invent(model: MarketModel, seed: int, tests: int, columns: Columns = "symbol_level") -> tuple[Market, Panel]:
    """A market with a year of warm-up, and its panel from the first training date on."""
    end = FIRST_TRAINING + pd.DateOffset(months=TRAIN_MONTHS + tests * TEST_MONTHS, days=7)
    start = FIRST_TRAINING - pd.DateOffset(months=13)
    market = make_market(SYMBOLS, start.date(), end.date(), model, seed)
    panel = market.panel(columns=columns)
    kept = panel.features.index.get_level_values("date") >= FIRST_TRAINING
    return market, Panel(panel.features[kept], panel.target[kept])


def judged(model: MarketModel, seed: int, tests: int, columns: Columns = "symbol_level") -> Judgement:
    market, panel = invent(model, seed, tests, columns)
    found = judge(market, panel, validator=WalkForwardValidator(tuning=TUNING))
    print(
        f"\n{model.kind} seed {seed} {columns} IC {model.information_coefficient}: {found}"
    )  # shown by -s and on failure
    return found


@pytest.mark.parametrize("seed", NULL_SEEDS)
def test_a_random_walk_has_no_skill(seed: int) -> None:
    found = judged(MarketModel("random_walk"), seed, NULL_TESTS)
    assert found.dates >= 500
    assert found.gain.z <= 2
    assert found.gain.mean >= -0.01
    assert found.confident_share <= 0.001
    assert abs(found.sharpe_ratio) <= 3 / np.sqrt(found.years)
    assert found.classwise_ece <= 0.04


@pytest.mark.parametrize("seed", NULL_SEEDS[:2])
def test_stochastic_volatility_has_no_direction(seed: int) -> None:
    """FLAT against a move can be known there, and is reported apart; the direction cannot."""
    found = judged(MarketModel("stochastic_volatility"), seed, NULL_TESTS)
    assert found.dates >= 500
    assert found.gain_direction.z <= 2
    assert found.gain_direction.mean >= -0.01
    assert found.confident_direction_share <= 0.001
    assert abs(found.sharpe_ratio) <= 3 / np.sqrt(found.years)
    assert found.gain_flat_or_move.mean > 0


@pytest.mark.parametrize(("coefficient", "least"), [(0.2, 0.40), (0.3, 0.60)])
def test_a_planted_drift_is_found(coefficient: float, least: float) -> None:
    """The share of the Bayes gain recovered in expectation, which is without the luck of the labels."""
    model = MarketModel("planted_drift", information_coefficient=coefficient)
    found = [judged(model, seed, PLANTED_TESTS) for seed in PLANTED_SEEDS]
    assert np.mean([item.raw_share for item in found]) >= least
    assert np.mean([item.share for item in found]) >= least  # calibration must not lose it again
    # The labels fell as the truth says: the expected gain is the realised one but for their luck.
    assert max(abs(item.luck.z) for item in found) <= 3


def test_market_wide_columns_do_not_hide_the_planted_drift() -> None:
    """With VIX and calendar, which identify dates: .3 is the aim."""
    model = MarketModel("planted_drift", information_coefficient=0.2)
    found = [judged(model, seed, PLANTED_TESTS, "complete") for seed in PLANTED_SEEDS[:2]]
    assert np.mean([item.raw_share for item in found]) >= 0.30
    assert np.mean([item.share for item in found]) >= 0.30
