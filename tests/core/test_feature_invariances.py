"""What must not matter: the unit of a price, a split, the order of symbols, how a span was cut into partitions."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals_core.feature_store import FeatureStore
from signals_core.features.catalog import CATEGORIES, feature_names
from signals_core.features.inputs import FeatureInputs
from signals_core.frame_store import months_of
from signals_core.input_provider import InputProvider
from signals_core.market_data.screening import ScreenedBars
from signals_core.market_data.store import MarketStore
from signals_core.settings import UniverseSettings
from tests.core.whole_market import (
    NOW,
    SETTINGS,
    SPLIT,
    TICKERS,
    Facts,
    bars_of,
    facts_of,
    feature_store,
    fill,
    provider_of,
)

PRICES = ["open", "high", "low", "close"]
FACTORS = st.floats(1e-4, 1e4).filter(lambda k: abs(np.log(k)) > 0.01)
SPAN = (date(2018, 6, 1), date(2020, 10, 1))


@pytest.fixture(scope="module")
def provider(market: MarketStore) -> InputProvider:
    return provider_of(market)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return feature_store(tmp_path_factory.mktemp("features"))


def equal(found: pd.DataFrame, expected: pd.DataFrame, tolerance: float = 1e-8) -> None:
    pd.testing.assert_frame_equal(found, expected, check_freq=False, rtol=tolerance, atol=tolerance)


# -- units -------------------------------------------------------------------------------------------------


def in_other_shares(inputs: FeatureInputs, factor: float) -> FeatureInputs:
    """The same company in shares of `factor` old ones: prices times it, numbers of shares divided by it."""
    bars = inputs.bars.assign(**{n: inputs.bars[n] * factor for n in PRICES}, volume=inputs.bars["volume"] / factor)
    filed, trades, short = inputs.fundamentals, inputs.insider_transactions, inputs.short_interest
    assert filed is not None
    assert trades is not None
    assert short is not None
    return replace(
        inputs,
        bars=bars,
        fundamentals=filed.assign(
            shares_outstanding=filed["shares_outstanding"] / factor,
            dividends_per_share=filed["dividends_per_share"] * factor,
            eps=filed["eps"] * factor,
        ),
        insider_transactions=trades.assign(shares=trades["shares"] / factor, price=trades["price"] * factor),
        short_interest=short.assign(
            **{n: short[n] / factor for n in ("shares_short", "avg_daily_volume", "shares_float")}
        ),
    )


@settings(max_examples=15, deadline=None)
@given(factor=FACTORS, ticker=st.sampled_from(TICKERS))
def test_the_unit_of_a_price_changes_no_feature(
    provider: InputProvider, store: FeatureStore, factor: float, ticker: str
) -> None:
    inputs = provider.inputs(ticker)
    equal(store.compute(in_other_shares(inputs, factor)), store.compute(inputs))


@settings(max_examples=10, deadline=None)
@given(factors=st.tuples(FACTORS, FACTORS))
def test_the_level_of_an_instrument_changes_no_feature(
    provider: InputProvider, store: FeatureStore, factors: tuple[float, float]
) -> None:
    inputs = provider.inputs("AA")
    scaled = {
        name: frame * factor
        for name, frame, factor in zip(("spy_bars", "sector_bars"), (inputs.spy_bars, inputs.sector_bars), factors,
                                       strict=True)
    }  # fmt: skip
    equal(store.compute(replace(inputs, **scaled)), store.compute(inputs))


# -- a split -----------------------------------------------------------------------------------------------


def with_split(facts: Facts, ratio: float) -> Facts:
    """The facts of a company that splits: what is filed, traded or settled from the day on counts in new shares."""

    def times(frame: pd.DataFrame, moment: str, names: list[str], power: int = 1) -> pd.DataFrame:
        level = np.where(frame[moment] < SPLIT + pd.Timedelta(6, "h"), 1.0, ratio) ** power
        return frame.assign(**{name: frame[name] * level for name in names})

    filed = times(facts.fundamentals, "available_at", ["shares_outstanding"])
    filed = times(filed, "available_at", ["dividends_per_share", "eps"], -1)
    # A correction repeats the shares of its first filing; only its price is corrected.
    first = facts.insider_transactions.groupby(["document", "insider", "line"])["available_at"].transform("min")
    trades = times(facts.insider_transactions.assign(first=first), "first", ["shares"])
    trades = times(trades, "first", ["price"], -1).drop(columns="first")
    short = times(facts.short_interest, "settlement_date", ["shares_short", "avg_daily_volume", "shares_float"])
    return Facts(filed, trades, short)


def save(store: MarketStore, bars: pd.DataFrame, actions: pd.DataFrame, facts: Facts) -> InputProvider:
    fill(store, None, ["SPY", "XLE", "XLK", "^VIX"])
    nothing = pd.DataFrame({"item": [], "reason": []})
    store.save_bars("DD", ScreenedBars(bars, nothing, actions), NOW)
    for dataset, rows in facts.items():
        store.save_facts(dataset, "DD", rows.drop_duplicates(list(rows.columns)), NOW)
    return provider_of(store)


@pytest.mark.parametrize("ratio", [20.0, 1.5, 0.1])
def test_a_split_in_the_stored_bars_and_facts_changes_no_feature(
    tmp_path: Path, store: FeatureStore, ratio: float
) -> None:
    bars, facts = bars_of("DD"), facts_of("DD")
    after = np.where(bars.index < SPLIT, 1.0, ratio)
    raw = bars.assign(**{n: bars[n] / after for n in PRICES}, volume=bars["volume"] * after)
    split = pd.DataFrame({"ex_date": [SPLIT], "kind": ["split"], "value": [ratio]}).astype(
        {"ex_date": "datetime64[us]"}
    )
    whole, splitting = (MarketStore.embedded(tmp_path / name / "m.sqlite") for name in ("whole", "split"))
    without = save(whole, bars, split.iloc[:0], facts).inputs("DD")
    with_one = save(splitting, raw, split, with_split(facts, ratio)).inputs("DD")
    assert with_one.bars["split_adjustment"].nunique() == 2
    found, expected = store.compute(with_one), store.compute(without)
    assert expected.loc[SPLIT:].notna().any()[["pe_ratio", "insider_shares_90d_to_so", "short_interest_change"]].all()
    equal(found, expected)
    whole.close()
    splitting.close()


# -- order of symbols --------------------------------------------------------------------------------------


@settings(max_examples=2, deadline=None)
@given(order=st.permutations(TICKERS), listed=st.permutations(TICKERS))
def test_the_order_of_symbols_changes_nothing(
    market: MarketStore, tmp_path_factory: pytest.TempPathFactory, order: list[str], listed: list[str]
) -> None:
    """Neither the order of the universe in the settings nor that in which symbols are asked for."""
    universe = UniverseSettings(tickers=tuple(listed), reference=SETTINGS.universe.reference)
    chosen = SETTINGS.model_copy(update={"universe": universe})
    span = (date(2020, 2, 1), date(2020, 5, 1))
    stored = feature_store(tmp_path_factory.mktemp("permuted"), chosen)
    found = stored.get_features(order, *span, provider_of(market, settings=chosen))
    assert list(dict.fromkeys(found.index.get_level_values("symbol"))) == order
    usual = feature_store(tmp_path_factory.mktemp("usual")).get_features(TICKERS, *span, provider_of(market))
    pd.testing.assert_frame_equal(found.loc[list(TICKERS)], usual, rtol=0, atol=0)


# -- partitions --------------------------------------------------------------------------------------------


def build(store: FeatureStore, symbol: str, inputs: FeatureInputs, start: date, end: date) -> None:
    for category in CATEGORIES:
        store.build_category(category, symbol, inputs, start, end)
    store.build_matrix(symbol, start, end)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


def following(month: str) -> date:
    return (pd.Period(month) + 1).start_time.date()


def test_months_in_any_order_are_the_whole_and_the_same_bytes(provider: InputProvider, tmp_path: Path) -> None:
    compare_months_with_the_whole(provider, tmp_path, np.random.default_rng(5), "EE")


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**16), ticker=st.sampled_from(TICKERS))
def test_months_in_any_order_of_any_symbol(
    provider: InputProvider, tmp_path_factory: pytest.TempPathFactory, seed: int, ticker: str
) -> None:
    compare_months_with_the_whole(provider, tmp_path_factory.mktemp("parts"), np.random.default_rng(seed), ticker)


def compare_months_with_the_whole(
    provider: InputProvider, folder: Path, random: np.random.Generator, ticker: str
) -> None:
    inputs = provider.inputs(ticker)
    months = list(dict.fromkeys(months_of(pd.DatetimeIndex(inputs.bars.index))))
    random.shuffle(months)
    once, parts = feature_store(folder / "once"), feature_store(folder / "parts")
    build(once, ticker, inputs, *SPAN)
    for month in months:
        build(parts, ticker, inputs, pd.Timestamp(month).date(), following(month))
    assert len(files(once.folder)) == 6 * inputs.bars.index.year.nunique()
    assert files(once.folder) == files(parts.folder)
    glued = parts.load(ticker, *SPAN)
    assert glued is not None
    whole = once.compute_features(ticker, **dict(inputs.items()))
    assert list(whole.columns) == feature_names()
    assert glued.index.equals(inputs.bars.index)
    np.testing.assert_array_equal(glued.isna(), whole.isna())
    # Relative to the value, or to a scale of 1 for what crosses zero; stored values are float32.
    np.testing.assert_allclose(glued, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("last", ["2019-12-31", "2020-01-02", "2020-02-03", "2020-09-30"])
def test_one_more_day_is_computed_as_if_all_had_been(provider: InputProvider, tmp_path: Path, last: str) -> None:
    """Also the first of a year, and the day of a split: the files are the same to the byte."""
    index = provider.inputs("BB").bars.index
    day = pd.Timestamp(last)
    before = index[index.get_loc(day) - 1]
    grown, fresh = feature_store(tmp_path / "grown"), feature_store(tmp_path / "fresh")
    for session in (before, day):
        inputs = provider.inputs_at("BB", session.date())
        build(grown, "BB", inputs, SPAN[0], (session + pd.Timedelta(1, "D")).date())
    build(fresh, "BB", provider.inputs_at("BB", day.date()), SPAN[0], (day + pd.Timedelta(1, "D")).date())
    assert files(grown.folder) == files(fresh.folder)
    built = grown.build_category("technical", "BB", provider.inputs_at("BB", day.date()), *SPAN)
    assert built.computed == ()
