"""The same target weights through the portfolio engine and through planning, orders and the paper account."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signals_core.execution.brokers.paper import PaperBroker
from signals_core.execution.costs import CostModel
from signals_core.execution.limits import Quote
from signals_core.execution.planning import Book, Intention, plan_orders
from signals_core.settings_trading import ExecutionSettings, OrderLimits
from signals_core.strategy.panel import PricePanel
from signals_core.strategy.portfolio import Rules, simulate
from tests.core.execution.markets import CALENDAR, SESSIONS, after_close, raw_bars, store_with

COSTS = CostModel(commission_bps=1, slippage_bps=4, borrow_bps_per_year=200)
SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
FIRST = 2
DAYS = [day.date() for day in SESSIONS[FIRST:]]
WIDE = OrderLimits(max_order_notional=1e9, max_position_share=10, max_gross=10, max_price_age_sessions=9)


@pytest.mark.parametrize("whole_shares", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fills_and_equity_are_the_same(seed: int, whole_shares: bool, tmp_path: Path) -> None:
    raw = {symbol: raw_bars(100 * seed + n) for n, symbol in enumerate(SYMBOLS)}
    store = store_with(tmp_path, raw)
    random = np.random.default_rng(seed)
    weights = random.normal(0, 0.2, (len(DAYS), len(SYMBOLS))) * (random.random((len(DAYS), len(SYMBOLS))) < 0.8)

    bars = {symbol: store.load_bars(symbol, adjustment="none").loc[SESSIONS[FIRST] :] for symbol in SYMBOLS}
    actions = {symbol: store.load_actions(symbol) for symbol in SYMBOLS}
    panel = PricePanel.from_bars(bars, actions, sessions=SESSIONS[FIRST:])
    rules = Rules(costs=COSTS, capital=1e6, cash_bps_per_year=100, whole_shares=whole_shares)
    backtest = simulate(panel, weights, rules)

    moment = after_close(DAYS[0])
    broker = PaperBroker(tmp_path / "paper", store, CALENDAR, COSTS, lambda: moment, 1e6, 10, 100)
    settings = ExecutionSettings(whole_shares=whole_shares, min_order_notional=0, limits=WIDE)
    mark = pd.DataFrame(panel.mark, DAYS, list(panel.symbols))
    for number, day in enumerate(DAYS):
        moment = after_close(day)
        account, waiting = broker.account(), broker.list_open()
        book = Book("paper", account, {p.symbol: p for p in broker.positions()}, waiting)
        assert account.equity == pytest.approx(backtest.equity_values[number], rel=1e-12)
        np.testing.assert_allclose([book.held(s) for s in panel.symbols], backtest.shares[number], atol=1e-9)
        if day == DAYS[-1]:
            break
        quotes = {symbol: Quote(float(mark.at[day, symbol]), day, 0) for symbol in SYMBOLS}
        targets = pd.DataFrame({"symbol": panel.symbols, "weight": weights[number]})
        plan = plan_orders(targets, book, quotes, Intention("test", "UNIVERSE", DAYS[number + 1]), settings)
        assert all(row.status != "refused" for row in plan.rows)
        for order in plan.orders:
            broker.submit(order)
    fills = [flow for flow in broker.book.cash_flows() if flow[2] == "trade"]
    assert len(fills) == np.count_nonzero(np.abs(backtest.traded) > 1e-9)
    assert len(fills) > 100
    broker.close()
    store.close()
