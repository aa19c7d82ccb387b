"""Twenty-five years of SPY as it traded, with its dividends: the account earns what the fund did."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signals_core.market_data.prices import adjust
from signals_core.strategy.panel import PricePanel
from signals_core.strategy.performance import performance
from signals_core.strategy.portfolio import Rules, simulate

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / os.environ.get("SIGNALS_REAL_DATA", "../shared/data")
FILE = FOLDER / "bars" / "spdr_spy_qqq_2000_2025.parquet"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not FILE.exists(), reason="no real data: set SIGNALS_REAL_DATA to its folder"),
]


@pytest.fixture(scope="module")
def spy() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars as traded, and dividends."""
    rows = pd.read_parquet(FILE)
    rows = rows[rows["symbol"] == "SPY"].assign(date=lambda own: pd.to_datetime(own["date"]).astype("datetime64[us]"))
    bars = rows.set_index("date")[["open", "high", "low", "close", "volume"]].astype(float)
    paid = rows[rows["dividends"] > 0]
    return bars, pd.DataFrame({"ex_date": paid["date"], "kind": "dividend", "value": paid["dividends"].astype(float)})


def test_buy_and_hold_is_the_total_return_of_the_adjusted_close(spy):
    bars, dividends = spy
    panel = PricePanel.from_bars({"SPY": bars}, {"SPY": dividends}, dividends="reinvested")
    weights = np.full(panel.close.shape, np.nan)
    weights[0] = 1.0
    found = simulate(panel, weights)
    adjusted = adjust(bars, dividends, "forward")
    cash = 1 - adjusted["open"].iloc[1] / adjusted["close"].iloc[0]
    expected = cash + adjusted["close"] / adjusted["close"].iloc[0]
    assert found.equity.iloc[1:].to_numpy() / 1e5 == pytest.approx(expected.iloc[1:].to_numpy(), rel=1e-9)
    assert len(found.trades) == 1


def test_dividends_in_cash_are_those_paid_on_the_shares_held(spy):
    bars, dividends = spy
    panel = PricePanel.from_bars({"SPY": bars}, {"SPY": dividends})
    weights = np.full(panel.close.shape, np.nan)
    weights[0] = 1.0
    found = simulate(panel, weights)
    due = dividends[dividends["ex_date"] > panel.dates[1]]["value"].sum()
    assert found.ledger["dividends"].sum() == pytest.approx(due * found.shares[-1, 0], rel=1e-9)
    # What everybody knows of these years: about 7.5 % a year, half lost by 2009-03-09.
    reinvested = simulate(
        PricePanel.from_bars({"SPY": bars}, {"SPY": dividends}, dividends="reinvested"), weights, Rules()
    )
    figures = performance(reinvested)
    assert 0.065 < figures.cagr < 0.085
    assert (figures.drawdown_start, figures.drawdown_end) == ("2007-10-09", "2009-03-09")
    assert figures.max_drawdown == pytest.approx(-0.552, abs=0.01)
