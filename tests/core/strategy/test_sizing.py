"""Kelly weights against the growth they maximise, and caps that hold and say so."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from signals_core.errors import DataError, SettingsError
from signals_core.strategy.sizing import (
    ClassMoments,
    SizingRules,
    expected_return,
    expected_return_direction,
    kelly_weights,
    return_variance,
    size_positions,
)

MOMENTS = ClassMoments(np.array([-0.03, 0.0, 0.03]), np.array([0.02, 0.005, 0.02]))
LOPSIDED = ClassMoments(np.array([-0.05, 0.001, 0.02]), np.array([0.03, 0.004, 0.015]))
PROBABILITIES = st.tuples(*[st.floats(0.01, 1)] * 3).map(lambda p: np.array(p) / sum(p))


@given(p=PROBABILITIES, cost=st.sampled_from([0.0, 0.001]))
def test_the_formula_is_that_of_the_facts(p, cost):
    m, s = LOPSIDED.mean, LOPSIDED.deviation
    mean = sum(p[k] * m[k] for k in range(3))
    variance = sum(p[k] * (s[k] ** 2 + m[k] ** 2) for k in range(3)) - mean**2
    expected = (mean - cost) / variance if mean > cost else (mean + cost) / variance if mean < -cost else 0.0
    assert kelly_weights(p[None], LOPSIDED, cost)[0] == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(p=PROBABILITIES)
def test_the_moments_are_those_of_the_mixture(p):
    """By drawing from it with quadrature: two points at m ± s have the class's mean and deviation."""
    points = np.concatenate([LOPSIDED.mean - LOPSIDED.deviation, LOPSIDED.mean + LOPSIDED.deviation])
    chances = np.concatenate([p, p]) / 2
    assert expected_return(p[None], LOPSIDED)[0] == pytest.approx(chances @ points)
    assert return_variance(p[None], LOPSIDED)[0] == pytest.approx(chances @ (points - chances @ points) ** 2)


def test_it_maximises_the_expected_growth_of_wealth():
    """Small returns, where the second order is all there is: a search over weights finds the same."""
    p = np.array([0.30, 0.38, 0.32])
    small = ClassMoments(MOMENTS.mean / 30, MOMENTS.deviation / 30)
    points = np.concatenate([small.mean - small.deviation, small.mean + small.deviation])
    chances = np.concatenate([p, p]) / 2
    weights = np.linspace(0, 200, 20_001)
    growth = (chances * np.log1p(weights[:, None] * points)).sum(axis=1)
    assert kelly_weights(p[None], small)[0] == pytest.approx(weights[growth.argmax()], rel=0.01)


def test_of_daily_stock_moves_it_is_far_above_any_cap():
    daily = ClassMoments(np.array([-0.018, 0.0, 0.018]), np.array([0.009, 0.003, 0.009]))
    assert kelly_weights(np.array([[0.25, 0.40, 0.35]]), daily)[0] > 5


@given(p=PROBABILITIES, moved=st.floats(0.001, 0.3), cost=st.sampled_from([0.0, 0.002]))
def test_the_likelier_up_is_the_larger_is_the_weight_capped_or_not(p, moved, cost):
    assume(p[0] > moved)
    more = p + np.array([-moved, 0.0, moved])
    raw = kelly_weights(np.stack([p, more]), MOMENTS, cost)
    assert raw[1] >= raw[0]
    others, rules = np.array([0.7, -0.5]), SizingRules(0.25, 0.2, 0.3, None, 0.4)
    capped = [size_positions(["A", "B", "C"], np.append(x, others), rules).weights["A"] for x in raw]
    assert capped[1] >= capped[0] - 1e-12


@given(p=PROBABILITIES, cost=st.floats(0, 0.02), threshold=st.floats(0, 0.01))
def test_the_expected_return_rule_speaks_where_costs_and_threshold_are_earned(p, cost, threshold):
    mean = expected_return(p[None], MOMENTS)[0]
    found = expected_return_direction(p[None], MOMENTS, cost, threshold)[0]
    assert found == (1 if mean - cost > threshold else -1 if -mean - cost > threshold else 0)
    if found:
        assert np.sign(kelly_weights(p[None], MOMENTS, cost)[0]) == found


def test_moments_are_estimated_class_by_class_and_unlabelled_rows_are_left_out():
    labels = np.array([0, 0, 1, 1, 2, 2, 2, -1])
    returns = np.array([-0.02, -0.04, 0.0, 0.002, 0.02, 0.03, np.nan, 9.0])
    found = ClassMoments.estimate(labels, returns)
    assert found.mean == pytest.approx([-0.03, 0.001, 0.025])
    assert found.deviation == pytest.approx([0.02 / np.sqrt(2), 0.002 / np.sqrt(2), 0.01 / np.sqrt(2)])
    with pytest.raises(DataError, match="class UP has 1 rows"):
        ClassMoments.estimate(labels[:5], returns[:5])


def test_what_are_no_probabilities_is_refused():
    for wrong in ([[0.5, 0.5, 0.5]], [[np.nan, 0.5, 0.5]], [[-0.1, 0.6, 0.5]]):
        with pytest.raises(DataError, match="row 0"):
            kelly_weights(np.array(wrong), MOMENTS)
    with pytest.raises(DataError, match="shape"):
        kelly_weights(np.array([0.2, 0.3, 0.5]), MOMENTS)
    with pytest.raises(DataError, match="no variance"):
        kelly_weights(np.array([[0.0, 1.0, 0.0]]), ClassMoments(np.zeros(3), np.zeros(3)))


# -- caps ------------------------------------------------------------------------------------------------------

BOOKS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(-20, 20), min_size=n, max_size=n),
        st.lists(st.sampled_from(["energy", "utilities", None]), min_size=n, max_size=n),
    )
)
RULES = st.builds(
    SizingRules,
    kelly_fraction=st.sampled_from([0.1, 0.25, 1.0]),
    max_weight=st.sampled_from([None, 0.05, 0.3]),
    max_sector_weight=st.sampled_from([None, 0.2, 1.0]),
    target_volatility=st.sampled_from([None, 0.05, 0.2]),
    max_gross=st.sampled_from([None, 0.5, 1.5]),
)


def covariance_of(count: int) -> np.ndarray:
    return 0.0002 * (0.3 + 0.7 * np.eye(count))


@given(book=BOOKS, rules=RULES)
def test_no_cap_is_ever_exceeded_and_signs_stay(book, rules):
    raw, sectors = np.array(book[0]), book[1]
    names = [f"S{i}" for i in range(len(raw))]
    found = size_positions(names, raw, rules, sectors, covariance_of(len(raw)))
    weights = found.weights.to_numpy()
    assert (np.abs(weights) <= (rules.max_weight or np.inf) * (1 + 1e-12)).all()
    for sector in set(sectors):
        own = np.array([s == sector for s in sectors])
        assert np.abs(weights[own]).sum() <= (rules.max_sector_weight or np.inf) * (1 + 1e-12)
    assert np.abs(weights).sum() <= (rules.max_gross or np.inf) * (1 + 1e-12)
    assert found.volatility <= (rules.target_volatility or np.inf) * (1 + 1e-12)
    assert (weights * raw >= 0).all()
    assert (np.abs(weights) <= np.abs(raw) * rules.kelly_fraction * (1 + 1e-12)).all()


@given(book=BOOKS, rules=RULES, seed=st.integers(0, 1000))
def test_the_order_of_symbols_does_not_matter(book, rules, seed):
    raw, sectors = np.array(book[0]), book[1]
    names = [f"S{i}" for i in range(len(raw))]
    order = np.random.default_rng(seed).permutation(len(raw))
    one = size_positions(names, raw, rules, sectors, covariance_of(len(raw)))
    two = size_positions(
        [names[i] for i in order], raw[order], rules, [sectors[i] for i in order], covariance_of(len(raw))
    )
    assert two.weights[names].to_numpy() == pytest.approx(one.weights.to_numpy(), rel=1e-9, abs=1e-15)
    assert set(one.binding) == set(two.binding)


@given(book=BOOKS, rules=RULES)
def test_a_cap_is_named_exactly_where_it_made_a_weight_smaller(book, rules):
    raw = np.array(book[0])
    found = size_positions([f"S{i}" for i in range(len(raw))], raw, rules, book[1], covariance_of(len(raw)))
    stages = ["fractional", "after_max_weight", "after_max_sector_weight", "after_target_volatility", "weight"]
    for _, row in found.frame.iterrows():
        expected = [
            cap
            for cap, before, after in zip(
                ["max_weight", "max_sector_weight", "target_volatility", "max_gross"], stages, stages[1:], strict=False
            )
            if abs(row[after]) < abs(row[before]) * (1 - 1e-12)
        ]
        assert row["binding"] == ", ".join(expected)
        assert set(expected) <= set(found.binding)


def test_an_example_by_hand():
    found = size_positions(
        ["A", "B", "C", "D"],
        np.array([10.0, -10.0, 0.2, 0.0]),
        SizingRules(0.25, 0.1, 0.15, None, 0.1),
        ["energy", "energy", "utilities", None],
    )
    assert found.frame["fractional"].tolist() == [2.5, -2.5, 0.05, 0.0]
    assert found.frame["after_max_weight"].tolist() == [0.1, -0.1, 0.05, 0.0]
    assert found.frame["after_max_sector_weight"].tolist() == pytest.approx([0.075, -0.075, 0.05, 0.0])
    assert found.weights.tolist() == pytest.approx([0.0375, -0.0375, 0.025, 0.0])
    assert found.frame["binding"].tolist() == [
        "max_weight, max_sector_weight, max_gross",
        "max_weight, max_sector_weight, max_gross",
        "max_gross",
        "",
    ]
    assert str(found) == (
        "gross 0.10, net +0.03; caps that bind (symbols): max_weight (2), max_sector_weight (2), max_gross (3)"
    )


def test_what_cannot_be_sized_is_refused():
    with pytest.raises(SettingsError, match="covariance"):
        size_positions(["A"], np.array([1.0]), SizingRules(target_volatility=0.1))
    with pytest.raises(DataError, match="weight of B"):
        size_positions(["A", "B"], np.array([1.0, np.inf]))
    with pytest.raises(DataError, match="named once"):
        size_positions(["A", "A"], np.array([1.0, 1.0]))
    for wrong in ({"kelly_fraction": 0}, {"max_weight": -1}, {"max_gross": float("nan")}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            SizingRules(**wrong)
