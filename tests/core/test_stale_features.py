"""What is stored is served only while it is what would be computed."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from signals_core import feature_store as module
from signals_core.errors import DataError
from signals_core.feature_store import FeatureStore
from signals_core.features.catalog import CATEGORIES
from signals_core.features.inputs import FeatureInputs
from signals_core.market_data.store import MarketStore
from tests.core.test_feature_invariances import build
from tests.core.whole_market import bars_of, provider_of

SPAN = (date(2019, 7, 1), date(2020, 7, 1))


@pytest.fixture(scope="module")
def inputs(market: MarketStore) -> FeatureInputs:
    return provider_of(market).inputs("BB")


@pytest.fixture
def stored(tmp_path: Path, inputs: FeatureInputs) -> FeatureStore:
    store = FeatureStore(tmp_path)
    build(store, "BB", inputs, *SPAN)
    assert store.load("BB", *SPAN) is not None
    return store


@pytest.mark.parametrize(
    "other",
    [{"max_age_days": {"fundamentals": 400}}, {"max_age_days": {"short_interest": 30}}, {"calendar": "XNAS"}],
    ids=["age of filings", "age of short interest", "calendar"],
)
def test_other_settings_are_a_miss_and_the_same_ones_are_not(
    stored: FeatureStore, inputs: FeatureInputs, other: dict[str, object]
) -> None:
    changed = FeatureStore(stored.folder, **other)  # type: ignore[arg-type]
    assert changed.load("BB", *SPAN) is None
    assert FeatureStore(stored.folder).load("BB", *SPAN) is not None
    build(changed, "BB", inputs, *SPAN)
    assert changed.load("BB", *SPAN) is not None
    assert FeatureStore(stored.folder).load("BB", *SPAN) is None


def test_other_code_is_a_miss(stored: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "source_digest", lambda *_: "another version")
    assert FeatureStore(stored.folder).load("BB", *SPAN) is None


CHANGES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "bars": lambda frame: frame.assign(volume=frame["volume"].where(frame.index != pd.Timestamp("2020-03-16"), 1.0)),
    "spy_bars": lambda frame: frame.assign(close=frame["close"].where(frame.index < pd.Timestamp("2020-06-15"), 1.0)),
    "vix_bars": lambda frame: frame.drop(pd.Timestamp("2019-09-17")),
    "sector_bars": lambda frame: frame * 1.01,
    "fundamentals": lambda frame: frame.assign(cash=frame["cash"] + 1),
    "sector_fundamentals": lambda frame: frame + 1,
    "insider_transactions": lambda frame: frame.iloc[1:],
    "short_interest": lambda frame: frame.assign(shares_float=1.0),
    "sectors": lambda frame: frame.assign(sector="utilities"),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_change_in_any_input_makes_months_stale_and_the_matrix_a_miss(
    stored: FeatureStore, inputs: FeatureInputs, name: str
) -> None:
    changed = replace(inputs, **{name: CHANGES[name](getattr(inputs, name))})
    touched = {c: stored.build_category(c, "BB", changed, *SPAN).computed for c in CATEGORIES}
    assert any(touched.values())
    assert stored.load("BB", *SPAN) is None
    stored.build_matrix("BB", *SPAN)
    found = stored.load("BB", *SPAN)
    assert found is not None
    pd.testing.assert_frame_equal(
        found, stored.compute(changed).loc[found.index].astype("float32"), check_freq=False, rtol=1e-6, atol=1e-6
    )


def test_a_day_on_which_the_exchange_was_closed_is_refused(tmp_path: Path) -> None:
    bars = bars_of("SPY").iloc[:10]
    bars.index = bars.index.where(bars.index != pd.Timestamp("2018-06-08"), pd.Timestamp("2018-06-09"))
    with pytest.raises(DataError, match="bars of SPY: 2018-06-09 is no session of the exchange; leave the row out"):
        FeatureStore(tmp_path).compute_features("SPY", bars)


def test_a_month_that_was_never_made_is_a_miss(tmp_path: Path, inputs: FeatureInputs) -> None:
    store = FeatureStore(tmp_path)
    for month in (date(2020, 1, 1), date(2020, 3, 1)):
        build(store, "BB", inputs, month, date(2020, month.month + 1, 1))
    assert store.load("BB", date(2020, 1, 1), date(2020, 4, 1), inputs) is None
    assert store.load("BB", date(2020, 3, 1), date(2020, 4, 1), inputs) is not None
