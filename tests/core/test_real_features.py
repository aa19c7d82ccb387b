"""The same properties on real bars, filings, insiders' trades, short interest and implied volatility."""

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals_core.calendar import exchange_calendar, session_closes, to_sessions
from signals_core.feature_store import FeatureStore
from signals_core.features.catalog import catalog
from signals_core.features.inputs import FeatureInputs
from signals_core.features.sectors import chain_link
from signals_core.frame_store import months_of
from signals_core.input_provider import InputProvider
from signals_core.market_data.continuity import screen_series
from signals_core.market_data.providers.sec_companyfacts import quarterly_fundamentals
from signals_core.market_data.screening import screen_bars, screen_facts
from signals_core.market_data.store import MarketStore
from signals_core.settings import PartitionSettings, ReferenceSettings, Settings, UniverseSettings
from tests.core import as_of_oracle as oracle
from tests.core.test_feature_invariances import build, files, in_other_shares
from tests.core.test_technical_properties import by_talib, check_missing, still_rows
from tests.core.whole_market import sectors

pytestmark = pytest.mark.real_data
FOLDER = Path(__file__).parents[2] / os.environ.get("SIGNALS_REAL_DATA", "../shared/data")
SESSIONS = to_sessions(exchange_calendar("XNYS").sessions)
NOW = datetime(2025, 2, 22, tzinfo=UTC)
LONG, SHORT = ("AAPL", "GOOGL", "IBM"), ("AMZN", "GOOG", "MSFT")
"""Bars of 2006..2017 with filings; bars of 2021-12..2023-07 with insiders' trades and short interest."""
CALLED = {
    "filingDate": "available_at", "transactionDate": "transaction_date", "transactionCode": "code",
    "change": "shares", "transactionPrice": "price", "id": "document", "name": "insider", "share": "shares_after",
}  # fmt: skip


def read(name: str) -> pd.DataFrame:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{path} does not exist: set SIGNALS_REAL_DATA to the folder of the real test data")
    return pd.read_parquet(path)


def save_bars(store: MarketStore, symbol: str, raw: pd.DataFrame) -> None:
    raw = raw.rename(columns={"dividends": "dividend", "stock_splits": "split"})
    nothing = store.load_bars(symbol, adjustment="none")
    store.save_bars(symbol, screen_series(screen_bars(raw, symbol, SESSIONS), SESSIONS, nothing), NOW)


def save_facts(store: MarketStore, dataset: str, symbol: str, raw: pd.DataFrame, lag: int = 0) -> None:
    screened = screen_facts(dataset, raw, symbol, "XNYS", lag)
    store.save_facts(dataset, symbol, screened.good, NOW, rejected=screened.rejected)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MarketStore]:
    funds, old, new = (
        read(f"bars/{name}.parquet")
        for name in ("spdr_spy_qqq_2000_2025", "djia_5sym_2006_2017", "insider_5sym_2021_2023")
    )
    trades = read("insider/insider_5sym_2022_2023.parquet").rename(columns=CALLED)
    short = read("short_interest/finra_5sym_2018_2024.parquet").rename(columns={"short_interest": "shares_short"})
    opened = MarketStore.embedded(tmp_path_factory.mktemp("real") / "market.sqlite")
    for symbol in ("SPY", "XLK", "XLY"):
        save_bars(opened, symbol, funds[funds["symbol"] == symbol])
    save_bars(opened, "^VIX", read("bars/vix_1990_2026.parquet").assign(volume=0.0))
    for symbol in LONG:
        save_bars(opened, symbol, old[old["symbol"] == symbol])
    for symbol in SHORT:
        save_bars(opened, symbol, new[new["symbol"] == symbol])
        save_facts(opened, "insider_transactions", symbol, trades[trades["symbol"] == symbol])
        reports = short[short["symbol"] == symbol]
        save_facts(opened, "short_interest", symbol, reports.assign(available_at=reports["settlement_date"]), 8)
    for symbol, cik in (("AAPL", "0000320193"), ("GOOGL", "0001652044")):
        path = FOLDER / "fundamentals" / f"{symbol}_CIK{cik}.json.gz"
        if not path.is_file():
            pytest.skip(f"{path} does not exist: set SIGNALS_REAL_DATA to the folder of the real test data")
        with gzip.open(path) as file:
            save_facts(opened, "fundamentals", symbol, quarterly_fundamentals(json.load(file), {}))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def provider(store: MarketStore) -> InputProvider:
    chosen = Settings(
        universe=UniverseSettings(
            tickers=(*LONG, *SHORT),
            reference=ReferenceSettings(sectors={"information_technology": "XLK", "consumer_discretionary": "XLY"}),
        ),
        partitions=PartitionSettings(start=date(2006, 1, 1)),
    )
    technology = sectors(("1900-01-01", "information_technology"))
    moved = sectors(("1900-01-01", "information_technology"), ("2022-06-01", "consumer_discretionary"))
    classified = {**dict.fromkeys(("AAPL", "IBM", "MSFT"), technology), "AMZN": moved}
    return InputProvider(
        store, chosen, classified, lambda _, days: np.ones(len(days), dtype=bool), NOW, date(2025, 2, 21)
    )


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return FeatureStore(tmp_path_factory.mktemp("features"))


@settings(max_examples=6, deadline=None)
@given(symbol=st.sampled_from([*LONG, *SHORT]), at=st.floats(0.05, 0.98))
def test_all_sources_cut_leave_every_row_before(
    provider: InputProvider, features: FeatureStore, symbol: str, at: float
) -> None:
    whole = features.compute(provider.inputs(symbol))
    cut = whole.index[int(at * len(whole))]
    found = features.compute(provider.inputs_at(symbol, cut.date()))
    pd.testing.assert_frame_equal(found, whole.loc[:cut], check_freq=False, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("symbol", [*LONG, *SHORT])
def test_real_bars_give_talibs_values_and_no_gap_but_the_catalogues(
    provider: InputProvider, features: FeatureStore, symbol: str
) -> None:
    bars = provider.inputs(symbol).bars
    found = features.compute(FeatureInputs(bars), ["technical"])
    check_missing(bars, found)
    usual = ~still_rows(bars)
    assert usual.mean() > 0.999
    for name, values in by_talib(bars).items():
        np.testing.assert_allclose(found[name][usual], values[usual], rtol=1e-8, atol=1e-10, err_msg=name)


DECIDED_BY_TIES = ["adx_14", "plus_di_14", "minus_di_14", "mfi_14"]
"""TA-Lib asks whether a move up equals one down. Prices in cents often tie, and rounding then decides."""


@pytest.mark.parametrize("symbol", ["AAPL", "GOOGL", "MSFT"])
def test_the_unit_of_a_share_changes_no_feature(provider: InputProvider, features: FeatureStore, symbol: str) -> None:
    """To 1e-8, of all but four in any unit; of those four too in a unit that rounds nothing, or without ties."""
    inputs = provider.inputs(symbol)
    noise = 1 + 1e-6 * np.random.default_rng(8).random((len(inputs.bars), 4))
    prices = inputs.bars[["open", "high", "low", "close"]] * noise
    untied = replace(inputs, bars=inputs.bars.assign(**dict(prices.items())))
    for factor in (0.37, 1130.0):
        check_unit(features, inputs, factor, DECIDED_BY_TIES)
        check_unit(features, untied, factor, [])
    for power_of_two in (0.125, 64.0):
        check_unit(features, inputs, power_of_two, [])


def check_unit(features: FeatureStore, inputs: FeatureInputs, factor: float, excepted: list[str]) -> None:
    found = features.compute(in_other_shares(inputs, factor)).drop(columns=excepted)
    expected = features.compute(inputs).drop(columns=excepted)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("symbol", ["AAPL", "GOOGL"])
def test_filings_of_ten_years_are_known_as_plain_loops_find_them(
    provider: InputProvider, features: FeatureStore, symbol: str
) -> None:
    inputs = provider.inputs(symbol)
    assert inputs.fundamentals is not None
    facts = [row for row in oracle.rows_of(inputs.fundamentals) if row["fiscal_period"] != "FY"]
    chosen = inputs.bars.iloc[::7]
    closes = session_closes("XNYS", pd.DatetimeIndex(chosen.index))
    prices = chosen["close"] / chosen["adjustment"]
    rows = [oracle.fundamental(facts, close, price) for close, price in zip(closes, prices, strict=True)]
    found = features.compute(inputs, ["fundamental"]).loc[chosen.index]
    names = [name for name in found if not name.endswith("_sector") and not name.startswith("sector_")]
    expected = pd.DataFrame(rows, index=chosen.index).reindex(columns=names).astype("float64")
    pd.testing.assert_frame_equal(found[names], expected, rtol=1e-9, atol=1e-12)
    assert found["earnings_yield"].notna().mean() > (0.6 if symbol == "AAPL" else 0.1)


@pytest.mark.parametrize("symbol", SHORT)
def test_insiders_and_short_interest_are_known_as_plain_loops_find_them(
    provider: InputProvider, features: FeatureStore, symbol: str
) -> None:
    inputs = provider.inputs(symbol)
    trades = [] if inputs.insider_transactions is None else oracle.rows_of(inputs.insider_transactions)
    reports = oracle.rows_of(inputs.short_interest)  # type: ignore[arg-type]
    closes = session_closes("XNYS", pd.DatetimeIndex(inputs.bars.index))
    rows = [oracle.insider(trades, close, np.nan, 1.0) | oracle.short_interest(reports, close) for close in closes]
    found = features.compute(inputs, ["alternative"])
    expected = pd.DataFrame(rows, index=inputs.bars.index).reindex(columns=found.columns).astype("float64")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-6)
    assert found["short_interest_change"].notna().all()
    assert found["insider_value_90d"].notna().any() == bool(trades)


def test_the_months_of_a_real_symbol_are_the_whole(provider: InputProvider, tmp_path: Path) -> None:
    inputs, span = provider.inputs("AMZN"), (date(2021, 12, 1), date(2023, 8, 1))
    once, parts = FeatureStore(tmp_path / "once"), FeatureStore(tmp_path / "parts")
    build(once, "AMZN", inputs, *span)
    months = list(dict.fromkeys(months_of(pd.DatetimeIndex(inputs.bars.index))))
    for month in np.random.default_rng(3).permutation(months):
        build(parts, "AMZN", inputs, pd.Timestamp(month).date(), (pd.Period(month) + 1).start_time.date())
    assert files(once.folder) == files(parts.folder)
    glued = parts.load("AMZN", *span)
    assert glued is not None
    np.testing.assert_allclose(glued, once.compute(inputs), rtol=1e-6, atol=1e-6)


def test_a_fund_that_was_listed_in_mid_history(store: MarketStore, features: FeatureStore) -> None:
    """XLC trades from 2018-06-19: a sector's instrument before that is another one."""
    raw = read("bars/spdr_spy_qqq_2000_2025.parquet")
    save_bars(store, "XLC", raw[raw["symbol"] == "XLC"])
    xlc, spy = (store.load_bars(symbol, adjustment="forward") for symbol in ("XLC", "SPY"))
    found = features.compute(FeatureInputs(xlc, spy_bars=spy), ["technical", "cross_asset"])
    needed = [n for n in found if not {"sector_bars", "vix_bars"} & set(catalog()[n].needs)]
    late = {n: int(found[n].isna().sum()) for n in needed}
    assert late == {n: catalog()[n].warm_up for n in needed}
    linked = chain_link([(pd.Timestamp("2000-01-01"), spy), (pd.Timestamp("2018-06-01"), xlc)])
    assert linked is not None
    gap = linked.index.to_series().diff().max()
    assert gap < pd.Timedelta(25, "D")
    returns = linked["close"].pct_change().loc[xlc.index[1] :]
    np.testing.assert_allclose(returns, xlc["close"].pct_change().loc[xlc.index[1] :], rtol=1e-9, atol=1e-12)
