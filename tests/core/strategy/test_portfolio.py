"""Identities that hold for every backtest, whatever the strategy."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals_core.errors import DataError, SettingsError
from signals_core.execution.costs import CostModel
from signals_core.market_data.prices import adjust
from signals_core.strategy.panel import PricePanel
from signals_core.strategy.portfolio import Rules, simulate
from tests.core.strategy.markets import eventful_bars, eventful_panel, random_bars, random_weights, sessions

COSTS = CostModel(commission_bps=1, slippage_bps=4, borrow_bps_per_year=50)
MODES = pytest.mark.parametrize("tranches", [None, 5])
SEEDS = st.integers(0, 10**6)


def frame(rows: list[tuple[float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, sessions(len(rows)), ["open", "close"])


@MODES
@pytest.mark.parametrize("silence", [0.0, np.nan])
def test_without_signals_equity_is_flat_to_the_last_bit(tranches, silence):
    panel = eventful_panel(5, 120, seed=1)
    found = simulate(panel, np.full(panel.close.shape, silence), Rules(COSTS), tranches)
    assert (found.equity == 100_000.0).all()
    assert len(found.trades) == 0
    assert (found.ledger == 0).all(axis=None)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_buying_and_holding_earns_the_total_return_of_the_share(seed):
    bars, actions, _ = eventful_bars(1, 150, seed)
    symbol, own = next(iter(bars.items()))
    own = own.assign(open=own["open"].fillna(own["close"]))  # whoever holds it must be able to buy it
    adjusted = adjust(own.assign(high=own["open"], low=own["open"], volume=1.0), actions[symbol])
    panel = PricePanel.from_bars({symbol: own}, actions, dividends="reinvested")
    weights = np.full(panel.close.shape, np.nan)
    weights[0] = 1.0
    found = simulate(panel, weights)
    paid = adjusted["open"].iloc[1] / adjusted["close"].iloc[0]
    expected = 1 + adjusted["close"] / adjusted["close"].iloc[0] - paid
    assert found.equity.iloc[1:].to_numpy() / 100_000 == pytest.approx(expected.iloc[1:].to_numpy(), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, direction=st.sampled_from([1, -1]))
def test_a_held_share_earns_its_price_change_times_its_splits_and_its_dividends_in_cash(seed, direction):
    bars, actions, _ = eventful_bars(1, 150, seed)
    symbol, own = next(iter(bars.items()))
    own = own.assign(open=own["open"].fillna(own["close"]))  # whoever holds it must be able to buy it
    panel = PricePanel.from_bars({symbol: own}, actions)
    weights = np.full(panel.close.shape, np.nan)
    weights[0] = direction / 10  # a whole short could be ruined, and closed
    found = simulate(panel, weights)
    shares, dividends = direction * 10_000 / own["close"].iloc[0], 0.0
    own_actions = actions[symbol]
    for before, day in pairwise(panel.dates):
        due = own_actions[(own_actions["ex_date"] > before) & (own_actions["ex_date"] <= day)]
        shares *= due.loc[due["kind"] == "split", "value"].prod()
        if day > panel.dates[1]:
            dividends += shares * due.loc[due["kind"] == "dividend", "value"].sum()
        if day == panel.dates[1]:
            spent = shares * own["open"].iloc[1]
    assert found.cash.iloc[-1] == pytest.approx(100_000 - spent + dividends, rel=1e-9)
    assert found.equity.iloc[-1] == pytest.approx(
        100_000 - spent + dividends + shares * own["close"].iloc[-1], rel=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, tranches=st.sampled_from([None, 4]), whole=st.booleans())
def test_cash_and_positions_are_equity_at_every_bar_and_so_is_the_sum_of_the_ledger(seed, tranches, whole):
    panel = eventful_panel(5, 80, seed)
    rules = Rules(COSTS, cash_bps_per_year=200, whole_shares=whole)
    found = simulate(panel, random_weights(panel, seed), rules, tranches)
    tolerance = 1e-9 * found.equity_values.max()
    positions = np.nan_to_num(found.shares * panel.mark).sum(axis=1)
    assert np.abs(found.cash_values + positions - found.equity_values).max() < tolerance
    change = np.diff(found.equity_values, prepend=found.capital)
    assert np.abs(found.ledger.sum(axis=1) - change).max() < tolerance
    assert found.earned.sum() + found.ledger["interest"].sum() == pytest.approx(change.sum(), abs=tolerance)

    # The cash once more, from the trades alone.
    trades = found.trades
    held = np.vstack([np.zeros(5), found.shares[:-1]]) * panel.split
    paid = (held * panel.dividend).sum(axis=1) + found.ledger["interest"] + found.ledger["borrow"]
    spent = (trades["notional"] + trades["commission"]).groupby(trades["date"]).sum().reindex(panel.dates).fillna(0)
    assert np.abs(found.capital + (paid - spent).cumsum() - found.cash).max() < tolerance


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, tranches=st.sampled_from([None, 4]))
def test_the_more_trading_costs_the_less_is_left(seed, tranches):
    panel = eventful_panel(4, 80, seed)
    weights = random_weights(panel, seed)
    ends = [
        simulate(panel, weights, Rules(CostModel(cost, cost, 10 * cost)), tranches).equity_values
        for cost in (0, 1, 5, 20, 100)
    ]
    for cheap, dear in pairwise(ends):
        assert (dear <= cheap * (1 + 1e-12)).all()
    assert ends[-1][-1] < ends[0][-1]


@MODES
def test_each_cost_alone_lowers_the_result(tranches):
    panel = eventful_panel(4, 80, 5)
    weights = random_weights(panel, 5)
    free = simulate(panel, weights, Rules(), tranches).equity_values[-1]
    for costs in (CostModel(commission_bps=5), CostModel(slippage_bps=5), CostModel(borrow_bps_per_year=100)):
        assert simulate(panel, weights, Rules(costs), tranches).equity_values[-1] < free


@MODES
def test_signals_a_bar_later_give_another_result(tranches):
    panel = eventful_panel(4, 80, 6)
    weights = random_weights(panel, 6)
    late = np.vstack([np.full((1, 4), np.nan), weights[:-1]])
    now, then = (simulate(panel, w, Rules(COSTS), tranches).equity_values for w in (weights, late))
    assert abs(now[-1] - then[-1]) > 1.0


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, cut=st.integers(2, 58), tranches=st.sampled_from([None, 4]))
def test_nothing_that_happens_after_a_session_changes_it_and_its_weights_do_not_fill_in_it(seed, cut, tranches):
    """Weights and bars after `cut`, and the weights of `cut` itself, are others: the account up to `cut` is not."""
    panel = eventful_panel(4, 60, seed)
    weights = random_weights(panel, seed)
    random = np.random.default_rng(seed)
    other = weights.copy()
    other[cut:] = random.normal(0, 0.5, other[cut:].shape)
    future = {name: getattr(panel, name).copy() for name in ("open", "close", "member")}
    future["open"][cut + 1 :] *= random.uniform(0.5, 2, future["open"][cut + 1 :].shape)
    future["close"][cut + 1 :] *= random.uniform(0.5, 2, future["close"][cut + 1 :].shape)
    future["member"][cut + 1 :] = ~future["member"][cut + 1 :]
    rules = Rules(COSTS, min_hold_sessions=2, max_weight=0.4)
    one, two = simulate(panel, weights, rules, tranches), simulate(replace(panel, **future), other, rules, tranches)
    upto = slice(0, cut + 1)
    for name in ("equity_values", "cash_values", "shares", "traded"):
        assert np.array_equal(getattr(one, name)[upto], getattr(two, name)[upto]), name
    assert np.array_equal(one.ordered[:cut], two.ordered[:cut])


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, length=st.integers(3, 59))
def test_a_panel_cut_short_gives_the_beginning_of_the_whole_account(seed, length):
    bars, actions, members = eventful_bars(4, 60, seed)
    dates = sessions(60)
    whole, part = (
        PricePanel.from_bars(
            {s: b[b.index <= last] for s, b in bars.items()},
            {s: a[a["ex_date"] <= last] for s, a in actions.items()},
            members, missing_sessions=4, sessions=dates[dates <= last],
        )
        for last in (dates[-1], dates[length - 1])
    )  # fmt: skip
    weights = random_weights(whole, seed)
    one, two = simulate(whole, weights, Rules(COSTS)), simulate(part, weights[:length], Rules(COSTS))
    assert np.array_equal(one.equity_values[:length], two.equity_values)
    assert np.array_equal(one.ordered[:length], two.ordered)


def test_an_order_is_sized_at_the_close_and_filled_at_the_next_open():
    panel = PricePanel.from_bars({"AAA": frame([(10, 20), (25, 40), (50, 50)])})
    found = simulate(panel, np.array([[0.5], [np.nan], [np.nan]]), Rules(CostModel(slippage_bps=100)))
    (trade,) = found.trades.itertuples()
    assert (trade.decided, trade.date) == tuple(panel.dates[:2])
    assert trade.quantity == 2_500  # half of 100,000 at the close of 20
    assert trade.price == pytest.approx(25.25)  # the open of 25, one percent worse
    assert trade.slippage == pytest.approx(625)
    assert found.equity.tolist() == pytest.approx([100_000, 100_000 + 2_500 * (40 - 25.25), 100_000 + 2_500 * 24.75])


def test_a_halted_symbol_keeps_its_last_close_and_its_order_waits():
    bars = {"AAA": frame([(10, 10), (10, 10), (np.nan, np.nan), (8, 8), (8, 8)]), "BBB": frame([(1, 1)] * 5)}
    panel = PricePanel.from_bars(bars)
    weights = np.full((5, 2), np.nan)
    weights[0], weights[1, 0] = [1.0, 0.0], 0.0
    found = simulate(panel, weights)
    assert found.positions["AAA"].tolist() == [0, 10_000, 10_000, 0, 0]
    assert found.equity.tolist() == [100_000, 100_000, 100_000, 80_000, 80_000]


@pytest.mark.parametrize(("extra", "left"), [(0.0, 110_000), (-0.3, 77_000)])
def test_a_delisted_symbol_is_closed_at_its_last_price(extra, left):
    bars = {"AAA": frame([(10, 10), (10, 10), (11, 11)]), "BBB": frame([(1, 1)] * 6)}
    panel = PricePanel.from_bars(bars, delistings={"AAA": (sessions(3)[-1].date(), extra)})
    weights = np.full((6, 2), np.nan)
    weights[0] = [1.0, 0.0]
    found = simulate(panel, weights, Rules(COSTS))
    assert (found.positions["AAA"].iloc[:3] > 0).tolist() == [False, True, True]
    assert (found.positions["AAA"].iloc[3:] == 0).all()
    cost = found.ledger[["commission", "slippage"]].to_numpy().sum()
    assert found.equity.iloc[-1] == pytest.approx(left + cost, rel=1e-9)
    end = found.trades.iloc[-1]
    assert (end["kind"], end["date"], end["quantity"]) == ("settlement", sessions(4)[-1], -10_000)
    assert end["price"] == pytest.approx(11 * (1 + extra))


def test_a_symbol_that_stops_without_a_word_is_settled_after_so_many_sessions_and_not_before():
    bars = {"AAA": frame([(10, 10)] * 4), "BBB": frame([(1, 1)] * 12)}
    panel = PricePanel.from_bars(bars, missing_sessions=5)
    weights = np.full((12, 2), np.nan)
    weights[0] = [1.0, 0.0]
    held = simulate(panel, weights).positions["AAA"]
    assert (held > 0).tolist() == [False] + [True] * 7 + [False] * 4


def test_a_symbol_listed_late_is_not_held_before():
    bars = {"AAA": frame([(10, 10)] * 6).iloc[3:], "BBB": frame([(1, 1)] * 6)}
    panel = PricePanel.from_bars(bars)
    held = simulate(panel, np.full((6, 2), 0.5)).positions
    assert held["AAA"].tolist() == [0, 0, 0, 0, 5_000, 5_000]
    assert held["BBB"].tolist() == [0] + [50_000] * 5


def test_a_symbol_that_leaves_the_universe_is_sold_at_the_next_open():
    dates = sessions(6)
    members = pd.DataFrame({"AAA": [True, False]}, dates[[0, 3]])
    panel = PricePanel.from_bars({"AAA": frame([(10, 10)] * 6), "BBB": frame([(1, 1)] * 6)}, members=members)
    for tranches in (None, 3):
        held = simulate(panel, np.full((6, 2), 0.5), tranches=tranches).positions
        assert (held["AAA"] > 0).tolist() == [False, True, True, True, False, False]
        assert (held["BBB"] > 0).tolist() == [False] + [True] * 5


def test_tranches_overlap_and_each_is_held_for_its_sessions():
    panel = PricePanel.from_bars({"AAA": frame([(10, 10)] * 9)})
    weights = np.zeros((9, 1))
    weights[[1, 2, 3]] = 1.0
    found = simulate(panel, weights, tranches=4)
    assert found.positions["AAA"].tolist() == [0, 0, 2500, 5000, 7500, 7500, 5000, 2500, 0]
    assert found.trades["quantity"].tolist() == [2500, 2500, 2500, -2500, -2500, -2500]


@pytest.mark.parametrize(("sessions_held", "expected"), [(1, 1), (2, 2), (3, 3), (5, 5)])
def test_a_position_is_held_at_least_so_long_and_may_grow_meanwhile(sessions_held, expected):
    panel = PricePanel.from_bars({"AAA": frame([(10, 10)] * 10)})
    weights = np.zeros((10, 1))
    weights[1] = 0.5
    found = simulate(panel, weights, Rules(min_hold_sessions=sessions_held))
    assert int((found.positions["AAA"] > 0).sum()) == expected
    weights[2], weights[3:] = 1.0, -1.0
    held = simulate(panel, weights, Rules(min_hold_sessions=sessions_held)).positions["AAA"]
    assert int((held > 0).sum()) == max(expected, 2)
    assert held.iloc[-1] == -10_000


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, cap=st.sampled_from([0.05, 0.2]), tranches=st.sampled_from([None, 4]))
def test_no_position_is_ever_planned_beyond_its_cap(seed, cap, tranches):
    panel = eventful_panel(4, 60, seed)
    found = simulate(panel, random_weights(panel, seed, gross=8), Rules(COSTS, max_weight=cap), tranches)
    planned = np.nan_to_num(np.abs(found.ordered * panel.mark)) / found.equity_values[:, None]
    assert planned.max() <= cap * (1 + 1e-9)
    assert planned.max() > 0.9 * cap


@MODES
def test_the_order_of_symbols_does_not_matter_to_the_last_bit(tranches):
    bars, actions, members = eventful_bars(6, 80, 9)
    panel = PricePanel.from_bars(bars, actions, members)
    weights = panel.frame(random_weights(panel, 9))
    shuffled = np.random.default_rng(0).permutation(list(bars))
    again = PricePanel.from_bars({s: bars[s] for s in shuffled}, actions, members[shuffled])
    one = simulate(panel, weights, Rules(COSTS), tranches)
    two = simulate(again, weights[shuffled], Rules(COSTS), tranches)
    assert np.array_equal(one.equity_values, two.equity_values)
    pd.testing.assert_frame_equal(one.trades, two.trades)


@MODES
def test_ten_times_the_capital_is_ten_times_everything(tranches):
    panel = eventful_panel(4, 60, 2)
    weights = random_weights(panel, 2)
    small, large = (simulate(panel, weights, Rules(COSTS, capital=c), tranches) for c in (1e4, 1e5))
    assert large.equity_values == pytest.approx(10 * small.equity_values, rel=1e-9)
    assert small.turnover.to_numpy() == pytest.approx(large.turnover.to_numpy(), rel=1e-9, abs=1e-15)


def test_a_split_changes_shares_and_nothing_else():
    whole = random_bars(3, 60, 4)
    split = {symbol: bars.copy() for symbol, bars in whole.items()}
    day = sessions(60)[30]
    split["S01"].loc[day:] /= 4
    actions = {"S01": pd.DataFrame({"ex_date": [day], "kind": ["split"], "value": [4.0]})}
    one, two = PricePanel.from_bars(whole), PricePanel.from_bars(split, actions)
    weights = random_weights(one, 4)
    for tranches in (None, 5):
        first, second = (simulate(panel, weights, Rules(COSTS), tranches) for panel in (one, two))
        assert second.equity_values == pytest.approx(first.equity_values, rel=1e-12)
        assert second.shares[30:, 1] == pytest.approx(4 * first.shares[30:, 1], rel=1e-9)


def test_small_changes_are_not_traded_but_a_close_is():
    panel = PricePanel.from_bars({"AAA": frame([(10, 10)] * 8)})
    weights = np.array([[0.5], [0.52], [0.48], [0.56], [0.55], [0.01], [0.0], [0.0]])
    found = simulate(panel, weights, Rules(min_trade_weight=0.05))
    assert found.positions["AAA"].tolist() == pytest.approx([0, 5000, 5000, 5000, 5600, 5600, 100, 0])


def test_whole_shares_are_whole():
    panel = PricePanel.from_bars(random_bars(3, 60, 4))
    found = simulate(panel, random_weights(panel, 4), Rules(COSTS, whole_shares=True))
    assert (found.shares == found.shares.round()).all()
    assert (found.shares != 0).any()


def test_what_cannot_be_is_refused_by_name():
    panel = PricePanel.from_bars(random_bars(2, 10, 1))
    with pytest.raises(DataError, match="XXX"):
        simulate(panel, pd.DataFrame({"XXX": [0.1]}, panel.dates[:1]))
    with pytest.raises(DataError, match="2018-01-02"):
        simulate(panel, pd.DataFrame({"S00": [0.1]}, pd.DatetimeIndex(["2018-01-02"])))
    with pytest.raises(DataError, match=r"S01 at 2019-01-03 is infinite"):
        simulate(panel, panel.frame(np.where(np.arange(20).reshape(10, 2) == 3, np.inf, 0.0)))
    with pytest.raises(DataError, match="shape"):
        simulate(panel, np.zeros((3, 2)))
    with pytest.raises(SettingsError, match="minimum hold"):
        simulate(panel, np.zeros((10, 2)), Rules(min_hold_sessions=3), tranches=2)
    for wrong in (
        {"capital": 0},
        {"min_hold_sessions": 0},
        {"max_weight": -0.1},
        {"min_trade_weight": -1},
        {"capital": float("inf")},
    ):
        with pytest.raises(SettingsError):
            Rules(**wrong)
