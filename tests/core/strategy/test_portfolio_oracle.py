"""The engine against an account that does the same event by event."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals_core.execution.costs import CostModel
from signals_core.strategy.portfolio import Rules, simulate
from tests.core.strategy.markets import eventful_panel, random_weights
from tests.core.strategy.slow_account import SlowAccount

RULES = st.builds(
    Rules,
    costs=st.builds(
        CostModel,
        commission_bps=st.sampled_from([0.0, 1.0, 30.0]),
        slippage_bps=st.sampled_from([0.0, 4.0, 50.0]),
        borrow_bps_per_year=st.sampled_from([0.0, 50.0, 3000.0]),
    ),
    capital=st.sampled_from([1_000.0, 1e6]),
    cash_bps_per_year=st.sampled_from([0.0, 400.0]),
    min_hold_sessions=st.sampled_from([1, 1, 3]),
    max_weight=st.sampled_from([None, 0.1, 0.5]),
    min_trade_weight=st.sampled_from([0.0, 0.0, 0.05]),
    whole_shares=st.booleans(),
)


def agree(panel, weights, rules, tranches) -> None:
    fast = simulate(panel, weights, rules, tranches)
    slow = SlowAccount(panel, rules, tranches).run(weights)
    scale = max(1.0, np.abs(fast.equity_values).max())
    for name in ("equity", "cash"):
        ours = getattr(fast, f"{name}_values")
        assert np.abs(ours - [day[name] for day in slow]).max() <= 1e-9 * scale, name
    for name, ours in (("shares", fast.shares), ("traded", fast.traded), ("ordered", fast.ordered)):
        theirs = np.array([[day[name][s] for s in panel.symbols] for day in slow])
        assert np.abs(ours - theirs).max() <= 1e-9 * max(1.0, np.abs(theirs).max()), name


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    symbols=st.integers(1, 6),
    count=st.integers(8, 60),
    rules=RULES,
    tranches=st.sampled_from([None, None, 3, 5]),
    gross=st.sampled_from([0.5, 1.0, 4.0]),
)
def test_it_is_the_account_that_does_one_event_after_the_other(seed, symbols, count, rules, tranches, gross):
    panel = eventful_panel(symbols, count, seed)
    agree(panel, random_weights(panel, seed + 1, gross), rules, tranches)


@pytest.mark.parametrize("tranches", [None, 5])
def test_also_over_years_with_everything_happening(tranches):
    panel = eventful_panel(8, 500, seed=3)
    assert panel.settled.any()
    assert (panel.split != 1).any()
    assert (panel.dividend > 0).any()
    assert not panel.member.all()
    rules = Rules(
        CostModel(1, 4, 50), cash_bps_per_year=100, min_hold_sessions=3, max_weight=0.3, min_trade_weight=0.01
    )
    agree(panel, random_weights(panel, 4), rules, tranches)


def test_also_when_the_account_is_ruined():
    panel = eventful_panel(3, 60, seed=11)
    weights = np.full(panel.close.shape, -20.0)
    rules = Rules(CostModel(10, 20, 5000))
    agree(panel, weights, rules, None)
    found = simulate(panel, weights, rules)
    assert found.ruined_on is not None
    assert not found.ordered[found.dates >= found.ruined_on].any()
