"""A split changes how many shares there are and nothing else: no feature that counts shares may jump with it."""

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signals_core.calendar import sessions_between
from signals_core.features.alternative import AlternativeFeatureCalculator
from signals_core.features.fundamental import FundamentalFeatureCalculator
from signals_core.features.inputs import FeatureInputs, split_level
from signals_core.market_data.continuity import screen_series
from signals_core.market_data.prices import Adjustment
from signals_core.market_data.screening import ScreenedFacts, screen_bars, screen_facts
from signals_core.market_data.store import MarketStore
from tests.project.bars import make_bars

FOLDER = Path(__file__).parents[2] / os.environ.get("SIGNALS_REAL_DATA", "../shared/data")
NOW = datetime(2021, 1, 4, tzinfo=UTC)
SPLIT_DAY, RATIO = pd.Timestamp("2020-08-31"), 4.0
"""Apple's split: as traded 499.23 at the close of 2020-08-28 and 129.04 on 2020-08-31."""
SESSIONS = sessions_between("XNYS", date(2020, 7, 1), date(2020, 12, 1))


def as_traded() -> pd.DataFrame:
    """Synthetic bars of those months with that split, in the columns of a source."""
    raw = make_bars("AAPL", SESSIONS[0].date(), date(2020, 12, 1))
    after = (raw["date"] >= SPLIT_DAY).to_numpy()
    prices = ["open", "high", "low", "close"]
    raw[prices] = raw[prices].mul(np.where(after, 5 / RATIO, 5.0), axis=0)
    return raw.assign(
        volume=raw["volume"] * np.where(after, RATIO, 1), split=np.where(raw["date"] == SPLIT_DAY, RATIO, 0)
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MarketStore]:
    """A store with those bars."""
    opened = MarketStore.embedded(tmp_path / "market.sqlite")
    nothing = opened.load_bars("AAPL", adjustment="none")
    opened.save_bars("AAPL", screen_series(screen_bars(as_traded(), "AAPL", SESSIONS), SESSIONS, nothing), NOW)
    yield opened
    opened.close()


def without_splits(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.drop(columns="split_adjustment")


def read_real(name: str) -> pd.DataFrame:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{path} does not exist: set SIGNALS_REAL_DATA to the folder of the real test data")
    return pd.read_parquet(path)


def save(store: MarketStore, dataset: str, screened: ScreenedFacts) -> pd.DataFrame:
    store.save_facts(dataset, "AAPL", screened.good, NOW, rejected=screened.rejected)
    return store.load_facts(dataset, "AAPL")


# -- how many shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("adjustment", ["backward", "forward"])
def test_a_share_of_the_first_bar_has_become_four_from_the_day_of_the_split_on(
    store: MarketStore, adjustment: Adjustment
) -> None:
    bars = store.load_bars("AAPL", adjustment=adjustment)
    moments = pd.DatetimeIndex(
        ["1999-01-04", "2020-07-01", "2020-08-28 20:30", "2020-08-30", "2020-08-31", "2020-08-31 20:00", "2031-01-02"]
    )
    assert split_level(bars, moments).tolist() == [1, 1, 1, 1, 4, 4, 4]
    assert split_level(without_splits(bars), moments).tolist() == [1] * 7


def test_a_filing_of_the_evening_before_a_split_counts_in_the_shares_of_that_day(store: MarketStore) -> None:
    evening = pd.DatetimeIndex([pd.Timestamp("2020-08-30 21:00", tz="America/New_York").tz_convert("UTC")])
    assert evening[0].date() == SPLIT_DAY.date()  # in UTC it is the next day already
    assert split_level(store.load_bars("AAPL"), evening.tz_localize(None)).tolist() == [1]


# -- short interest ----------------------------------------------------------------------------------------


def real_short_interest() -> ScreenedFacts:
    """FINRA's reports, published eight sessions after settlement."""
    raw = read_real("short_interest/finra_5sym_2018_2024.parquet").rename(columns={"short_interest": "shares_short"})
    raw = raw[(raw["symbol"] == "AAPL") & raw["settlement_date"].between("2020-07-01", "2020-11-30")]
    raw = raw.assign(available_at=raw["settlement_date"])
    return screen_facts("short_interest", raw, "AAPL", "XNYS", date_only_lag_sessions=8)


@pytest.mark.real_data
@pytest.mark.parametrize("adjustment", ["backward", "forward"])
def test_apple_s_short_interest_did_not_triple_with_its_split(store: MarketStore, adjustment: Adjustment) -> None:
    reports, bars = save(store, "short_interest", real_short_interest()), store.load_bars("AAPL", adjustment=adjustment)
    found = AlternativeFeatureCalculator().calculate(FeatureInputs(bars, short_interest=reports))[
        "short_interest_change"
    ]
    known = pd.Timestamp("2020-09-11")  # the settlement of 2020-08-31; Labor Day lies between
    assert found["2020-09-10"] == pytest.approx(23_658_754 / 26_502_377 - 1)
    assert found[known] == pytest.approx(79_684_337 / (4 * 23_658_754) - 1)
    assert found[known] == pytest.approx(-0.158, abs=5e-4)
    assert found["2020-09-28"] == pytest.approx(90_218_872 / 79_684_337 - 1)
    assert found.abs().max() < 0.5


@pytest.mark.real_data
def test_without_the_splits_it_would_have_tripled(store: MarketStore) -> None:
    reports, bars = save(store, "short_interest", real_short_interest()), without_splits(store.load_bars("AAPL"))
    found = AlternativeFeatureCalculator().calculate(FeatureInputs(bars, short_interest=reports))[
        "short_interest_change"
    ]
    assert found["2020-09-11"] == pytest.approx(79_684_337 / 23_658_754 - 1)
    assert found["2020-09-11"] > 2


@pytest.mark.parametrize("lag", [1.0, 5.0])
def test_ratios_within_one_report_are_as_published(store: MarketStore, lag: float) -> None:
    reports = pd.DataFrame(
        {"settlement_date": pd.to_datetime(["2020-08-14", "2020-08-31"]), "shares_short": [10.0, 44.0],
         "available_at": pd.to_datetime(["2020-08-26 20:00", "2020-09-11 20:00"]),
         "avg_daily_volume": [5.0, 20.0], "shares_float": [1000.0, 4000.0]}
    )  # fmt: skip
    reports["available_at"] += pd.Timedelta(minutes=lag)
    bars = store.load_bars("AAPL")
    found = AlternativeFeatureCalculator().calculate(FeatureInputs(bars, short_interest=reports))
    before, after = found.loc["2020-09-11"], found.loc["2020-09-14"]
    assert before[["short_interest_to_float", "days_to_cover"]].tolist() == pytest.approx([0.01, 2.0])
    assert after[["short_interest_to_float", "days_to_cover"]].tolist() == pytest.approx([0.011, 2.2])
    assert after["short_interest_change"] == pytest.approx(0.1)


# -- fundamentals ------------------------------------------------------------------------------------------

QUARTERS = screen_facts(
    "fundamentals",
    pd.DataFrame(
        {
            "available_at": ["2019-10-31", "2020-01-29", "2020-05-01", "2020-07-31", "2020-10-30"],
            "period_end": ["2019-09-30", "2019-12-31", "2020-03-31", "2020-06-30", "2020-09-30"],
            "fiscal_period": ["Q4", "Q1", "Q2", "Q3", "Q4"],
            "net_income": 1000.0,
            "revenue": 5000.0,
            "total_equity": 6000.0,
            "total_debt": 500.0,
            "cash": 100.0,
            "ebitda": 1500.0,
            "shares_outstanding": [100.0, 100.0, 100.0, 100.0, 400.0],
            "dividends_per_share": [2.0, 2.0, 2.0, 2.0, 0.5],
        }
    ),
    "AAPL",
    "XNYS",
).good
VALUATION = ["pe_ratio", "pb_ratio", "ps_ratio", "ev_to_ebitda", "earnings_yield", "book_to_price", "sales_to_price",
             "ebitda_to_ev", "dividend_yield"]  # fmt: skip


@pytest.mark.parametrize("adjustment", ["backward", "forward"])
def test_market_value_does_not_jump_between_a_split_and_the_next_filing(
    store: MarketStore, adjustment: Adjustment
) -> None:
    bars = store.load_bars("AAPL", adjustment=adjustment)
    found = FundamentalFeatureCalculator().calculate(FeatureInputs(bars, fundamentals=QUARTERS)).loc["2020-07-31":]
    traded = as_traded().set_index("date")["close"].loc["2020-07-31":]
    value = traded * np.where(traded.index < SPLIT_DAY, 100.0, 400.0)
    np.testing.assert_allclose(found["pe_ratio"], value / 4000, rtol=1e-12)
    np.testing.assert_allclose(found["book_to_price"], 6000 / value, rtol=1e-12)
    np.testing.assert_allclose(found["dividend_yield"], 8 * 100 / value, rtol=1e-12)
    assert found[VALUATION].notna().all(axis=None)
    assert found[VALUATION].pct_change().abs().max().max() < 0.15


def test_without_the_splits_it_would_jump_and_jump_back_with_the_next_filing(store: MarketStore) -> None:
    bars = without_splits(store.load_bars("AAPL"))
    found = FundamentalFeatureCalculator().calculate(FeatureInputs(bars, fundamentals=QUARTERS))["pe_ratio"]
    assert found["2020-08-31"] / found["2020-08-28"] == pytest.approx(1 / 4, rel=0.15)
    assert found["2020-10-30"] / found["2020-10-29"] == pytest.approx(4, rel=0.15)


# -- insider transactions ----------------------------------------------------------------------------------


def test_a_sale_before_a_split_counts_in_the_shares_of_the_outstanding_ones(store: MarketStore) -> None:
    trades = pd.DataFrame(
        {"available_at": pd.to_datetime(["2020-08-20 20:30", "2020-09-10 20:30"]), "code": ["S", "P"],
         "transaction_date": pd.to_datetime(["2020-08-19", "2020-09-09"]), "shares": [-10.0, 4.0],
         "price": [500.0, 125.0]}
    )  # fmt: skip
    inputs = FeatureInputs(store.load_bars("AAPL"), fundamentals=QUARTERS, insider_transactions=trades)
    found = AlternativeFeatureCalculator().calculate(inputs)["insider_shares_90d_to_so"]
    assert found["2020-08-21":"2020-09-10"].tolist() == pytest.approx([-0.1] * len(found["2020-08-21":"2020-09-10"]))
    assert found["2020-09-11"] == pytest.approx(-0.09)
    assert found["2020-10-30"] == pytest.approx(-0.09)  # the next filing counts four times as many shares


@pytest.mark.real_data
def test_the_transactions_that_were_filed_twice_are_dropped_and_counted(store: MarketStore) -> None:
    contract = {
        "filingDate": "available_at", "transactionDate": "transaction_date", "transactionCode": "code",
        "change": "shares", "transactionPrice": "price", "id": "document", "name": "insider", "share": "shares_after",
    }  # fmt: skip
    raw = read_real("insider/insider_5sym_2022_2023.parquet").rename(columns=contract)
    kept = {}
    for symbol, rows in raw.groupby("symbol"):
        screened = screen_facts("insider_transactions", rows, str(symbol), "XNYS")
        saved = store.save_facts("insider_transactions", str(symbol), screened.good, NOW, rejected=screened.rejected)
        assert saved.new == len(screened.good)
        kept[symbol] = (len(rows), len(screened.good))
    assert kept == {"AAPL": (167, 167), "AMZN": (334, 334), "GOOGL": (297, 297), "MSFT": (191, 189)}
    refused = store.rejected("insider_transactions")
    assert refused[["symbol", "item", "reason"]].values.tolist() == [
        ["MSFT", "2022-12-12", "exact duplicate"], ["MSFT", "2022-09-19", "exact duplicate"],
    ]  # fmt: skip
    stored = store.load_facts("insider_transactions", "MSFT")
    granted = stored[(stored["insider"] == "Walmsley Emma N") & (stored["shares_after"] == 9358)]
    assert granted[["shares", "shares_after"]].values.tolist() == [[233.0, 9358.0]]
