"""Every source cut at a random session leaves every feature of every row up to it as it was."""

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signals_core.features.catalog import feature_names
from signals_core.features.leakage import cut_inputs
from signals_core.input_provider import InputProvider
from signals_core.market_data.store import MarketStore
from tests.core.whole_market import (
    CLASSIFICATION,
    MOVED,
    SESSIONS,
    TICKERS,
    aged,
    feature_store,
    fill,
    opened,
    provider_of,
    sectors,
)

EXACT = {"rtol": 1e-12, "atol": 1e-13}
SAFE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CUTS = st.sampled_from(list(SESSIONS[80:-2]))


@pytest.fixture(scope="module")
def provider(market: MarketStore) -> InputProvider:
    return provider_of(market)


@pytest.fixture(scope="module")
def features(provider: InputProvider, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    store = feature_store(tmp_path_factory.mktemp("features"))
    return {ticker: store.compute(provider.inputs(ticker)) for ticker in TICKERS}


def equal(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, expected, check_freq=False, **EXACT)


def test_the_market_has_a_value_of_every_feature(features: dict[str, pd.DataFrame]) -> None:
    known = pd.concat(features.values()).notna().any()
    assert set(known.index[~known]) == set()
    assert list(known.index) == feature_names()


@settings(SAFE, max_examples=12)
@given(cut=CUTS, ticker=st.sampled_from(TICKERS))
def test_inputs_cut_by_the_provider_change_nothing_before(
    provider: InputProvider, features: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory,
    cut: pd.Timestamp, ticker: str,
) -> None:  # fmt: skip
    known = features[ticker].loc[:cut]
    if known.empty:
        return
    store = feature_store(tmp_path_factory.getbasetemp())
    equal(store.compute(provider.inputs_at(ticker, cut.date())), known)
    inputs = provider.inputs(ticker)
    equal(store.compute(cut_inputs(inputs, cut, "XNYS")), known)


def compare_with_evening_of(
    cut: pd.Timestamp, features: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Not the provider's own cut: the market of that evening is saved in a database of its own."""
    folder = tmp_path_factory.mktemp("evening")
    then = opened(folder, cut)
    provider = provider_of(then, cut)
    for ticker in TICKERS:
        if len(features[ticker].loc[:cut]):
            equal(feature_store(folder).compute(provider.inputs(ticker)), features[ticker].loc[:cut])
    then.close()


def test_a_store_that_never_heard_of_the_future_gives_the_same(
    features: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory
) -> None:
    compare_with_evening_of(pd.Timestamp("2020-01-31"), features, tmp_path_factory)


@pytest.mark.slow
@settings(SAFE, max_examples=25)
@given(cut=CUTS)
def test_whatever_the_evening(
    features: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory, cut: pd.Timestamp
) -> None:
    compare_with_evening_of(cut, features, tmp_path_factory)


@pytest.mark.parametrize(
    ("start", "earlier", "later"),
    [("1900-01-01", "information_technology", "energy"), ("1900-01-01", "utilities", "energy"),
     ("2019-02-04", "information_technology", "real_estate"), ("2019-02-04", "energy", "information_technology")],
)  # fmt: skip
def test_a_later_change_of_sector_changes_nothing_before(
    market: MarketStore, tmp_path_factory: pytest.TempPathFactory, start: str, earlier: str, later: str
) -> None:
    """Also of a sector that has no instrument of its own, and of a symbol whose first sector is not its oldest."""
    store = feature_store(tmp_path_factory.getbasetemp())
    whole = {**CLASSIFICATION, "AA": sectors((start, earlier), (str(MOVED.date()), later))}
    features = store.compute(provider_of(market, classification=whole).inputs("AA"))
    for cut in ("2019-02-01", "2019-02-08", "2019-09-13", "2019-12-02"):
        then = provider_of(market, pd.Timestamp(cut), classification=whole)
        equal(store.compute(then.inputs("AA")), features.loc[:cut])
        equal(
            store.compute(provider_of(market, classification=whole).inputs_at("AA", pd.Timestamp(cut).date())),
            features.loc[:cut],
        )


@settings(SAFE, max_examples=4)
@given(cut=CUTS, ages=st.tuples(st.integers(20, 150), st.integers(5, 40)))
def test_limits_of_staleness_see_no_future(
    market: MarketStore, tmp_path_factory: pytest.TempPathFactory, cut: pd.Timestamp, ages: tuple[int, int]
) -> None:
    chosen = aged(*ages)
    store = feature_store(tmp_path_factory.getbasetemp(), chosen)
    provider = provider_of(market, settings=chosen)
    whole = store.compute(provider.inputs("BB")).loc[:cut]
    equal(store.compute(provider.inputs_at("BB", cut.date())), whole)


def test_what_is_saved_later_is_seen_by_a_provider_that_has_read_before(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    store = MarketStore.embedded(tmp_path_factory.mktemp("growing") / "market.sqlite")
    fill(store, SESSIONS[-20], ["AA"])
    provider = provider_of(store)
    before = provider.inputs("AA")
    fill(store, None, ["AA"])
    after = provider.inputs("AA")
    assert len(after.bars) == len(before.bars) + 19
    assert len(after.short_interest) > len(before.short_interest)
    for (name, found), (_, expected) in zip(after.items(), provider_of(store).inputs("AA").items(), strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            pd.testing.assert_frame_equal(found, expected, check_freq=False, obj=name)
    store.close()
