"""From probabilities to what to hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signals_core.errors import BundleError
from signals_core.settings import Settings
from signals_core.strategy.rules import decide, moments_of, round_trip_cost
from signals_core.strategy.sizing import ClassMoments

RULES = ["confidence", "expected_return"]
MOMENTS = ClassMoments(np.array([-0.03, 0.0, 0.03]), np.array([0.02, 0.005, 0.02]))


def settings(**sections: dict[str, object]) -> Settings:
    return Settings(universe={"tickers": ["AAA"]}, **sections)  # type: ignore[arg-type]


def test_a_trade_pays_both_ways():
    assert round_trip_cost(settings(trading={"commission_bps": 1, "slippage_bps": 4})) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("probabilities", "direction", "reason"),
    [
        ((0.30, 0.36, 0.34), "LONG", ""),  # +.12 % against .10 %, far below the confidence threshold
        ((0.34, 0.36, 0.30), "", "expected return -0.120%, costs 0.110%"),  # a week of the loan fee on top
        ((0.32, 0.35, 0.33), "", "expected return +0.030%, costs 0.100%"),
        ((0.40, 0.35, 0.25), "SHORT", ""),
    ],
)
def test_the_expected_return_rule_asks_for_more_than_the_costs(probabilities, direction, reason):
    least = 2.5 if "-0.120" in reason else 0
    chosen = settings(strategy={"rule": "expected_return"}, sizing={"min_expected_return_bps": least})
    row = decide(["AAA"], np.array([probabilities]), MOMENTS, chosen).loc["AAA"]
    assert (row["direction"], row["reason"]) == (direction, reason)
    assert (row["weight"] > 0, row["weight"] < 0) == (direction == "LONG", direction == "SHORT")


def test_a_confident_direction_without_gain_after_costs_is_a_signal_that_is_not_held():
    # UP is likely, and UP earns less than trading costs.
    poor = ClassMoments(np.array([-0.03, 0.0, 0.0105]), np.array([0.02, 0.005, 0.001]))
    costly = settings(trading={"slippage_bps": 200})
    row = decide(["AAA"], np.array([[0.05, 0.15, 0.8]]), poor, costly).loc["AAA"]
    assert (row["direction"], row["weight"]) == ("LONG", 0.0)
    assert row["reason"] == "a signal, but no gain is expected after costs: not held"


def test_caps_say_that_they_bind():
    frame = decide(
        ["AAA", "BBB", "CCC", "DDD"],
        np.array([[0.1, 0.1, 0.8]] * 4),
        MOMENTS,
        settings(sizing={"max_weight": 0.2, "max_sector_weight": 0.3}),
        ["energy", "energy", "utilities", None],
    )
    assert frame["weight"].tolist() == pytest.approx([0.15, 0.15, 0.2, 0.2])
    assert frame["binding"].tolist() == ["max_weight, max_sector_weight"] * 2 + ["max_weight"] * 2


@given(
    st.lists(st.tuples(*[st.floats(0.01, 1)] * 3), min_size=1, max_size=8),
    st.sampled_from(["confidence", "expected_return"]),
)
def test_what_is_held_has_the_signals_sign_and_keeps_the_caps(parts, rule):
    table = np.array(parts)
    table /= table.sum(axis=1, keepdims=True)
    frame = decide([f"S{n}" for n in range(len(table))], table, MOMENTS, settings(strategy={"rule": rule}))
    sign = frame["direction"].map({"LONG": 1, "SHORT": -1, "": 0})
    assert (frame["weight"] * sign >= 0).all()
    assert (frame.loc[sign == 0, "weight"] == 0).all()
    assert (frame["weight"].abs() <= 0.1 + 1e-12).all()
    assert frame["weight"].abs().sum() <= 1 + 1e-12
    assert ((frame["reason"] == "") == (frame["weight"] != 0)).all()


def test_a_model_without_class_moments_says_what_to_do():
    with pytest.raises(BundleError, match="v1 has no class moments, which size positions: train it again"):
        moments_of({"version_id": "v1"})
