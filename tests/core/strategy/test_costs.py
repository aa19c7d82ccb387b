"""The cost model: scalars, arrays and sums agree, and numbers that were worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signals_core.errors import SettingsError
from signals_core.execution.costs import CostModel
from signals_core.settings_trading import TradingSettings

RATES = st.floats(0, 200)


def test_by_hand():
    costs = CostModel(commission_bps=10, slippage_bps=100, borrow_bps_per_year=365)
    assert costs.fill_price(50.0, 3.0) == pytest.approx(50.5)
    assert costs.fill_price(50.0, -3.0) == pytest.approx(49.5)
    assert costs.fill_price(50.0, 0.0) == 50.0
    assert costs.commission(-1000.0) == pytest.approx(1.0)
    assert costs.cash_flow(50.0, 2.0) == pytest.approx(-101 - 0.101)
    assert costs.cash_flow(50.0, -2.0) == pytest.approx(99 - 0.099)
    assert costs.borrow(-10_000.0, 3) == pytest.approx(3.0)
    assert costs.borrow(10_000.0, 3) == 0
    assert costs.one_way_bps == 110


@given(RATES, RATES, RATES, st.lists(st.tuples(st.floats(0.01, 1e4), st.floats(-1e4, 1e4)), min_size=1, max_size=9))
def test_arrays_are_scalars_one_by_one_and_totals_their_sum(commission, slippage, borrow, trades):
    costs = CostModel(commission, slippage, borrow)
    prices, quantities = np.array(trades).T
    flows = [costs.cash_flow(price, quantity) for price, quantity in trades]
    assert costs.cash_flow(prices, quantities) == pytest.approx(flows)
    scale = np.abs(prices * quantities).sum() + 1e-9
    assert costs.total_cash_flow(prices, quantities) == pytest.approx(sum(flows), abs=1e-12 * scale)
    fees = [costs.borrow(price * quantity, 3) for price, quantity in trades]
    assert costs.total_borrow(prices, quantities, 3) == pytest.approx(sum(fees), abs=1e-12 * scale)
    assert (costs.cash_flow(prices, quantities) <= -quantities * prices + 1e-12 * scale).all()


def test_the_settings_are_taken_over_and_impossible_costs_refused():
    assert CostModel.from_settings(TradingSettings()) == CostModel(1, 4, 50)
    for wrong in ({"commission_bps": -1}, {"slippage_bps": 10_000}, {"borrow_bps_per_year": float("nan")}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            CostModel(**wrong)
