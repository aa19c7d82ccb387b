"""The feature store: what is computed, what is reused, and what is never served."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signals_core.errors import DataError, MissingPrerequisite
from signals_core.feature_store import FeatureStore
from signals_core.features.catalog import CATEGORIES, feature_names
from signals_core.features.inputs import FeatureInputs
from signals_core.frame_store import months_of
from signals_core.market_data.ingest import ingest_bars
from signals_core.workspace import Workspace
from tests.project.bars import make_bars

SPAN = (date(2021, 1, 1), date(2021, 7, 1))
MONTHS = ("2021-01", "2021-02", "2021-03", "2021-04", "2021-05", "2021-06")


def bars_of(symbol: str) -> pd.DataFrame:
    return make_bars(symbol).set_index("date")


@pytest.fixture(scope="module")
def inputs() -> FeatureInputs:
    return FeatureInputs(
        bars_of("AAA"), spy_bars=bars_of("SPY"), sector_bars=bars_of("XLK"), insider_transactions=INSIDER
    )


INSIDER = pd.DataFrame(
    {"available_at": pd.to_datetime(["2020-11-02 12:00", "2021-03-10 12:00"]).as_unit("us"), "code": ["P", "S"],
     "shares": [10.0, -5.0], "price": 20.0}
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features")


def build(store: FeatureStore, inputs: FeatureInputs, start: date, end: date) -> dict[str, tuple[str, ...]]:
    """Build every category and the matrix; the months computed of each."""
    computed = {c: store.build_category(c, "AAA", inputs, start, end).computed for c in CATEGORIES}
    return {**computed, "matrix": store.build_matrix("AAA", start, end).computed}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


def restate(inputs: FeatureInputs, name: str, day: str) -> FeatureInputs:
    frame = getattr(inputs, name).copy()
    frame.loc[day, "close"] = frame.loc[day, "low"]
    return replace(inputs, **{name: frame})


def test_a_second_build_of_unchanged_inputs_computes_nothing(store: FeatureStore, inputs: FeatureInputs) -> None:
    first = build(store, inputs, *SPAN)
    assert all(months == MONTHS for months in first.values())
    before = {p: p.stat().st_mtime_ns for p in store.folder.rglob("*.parquet")}
    again = FeatureStore(store.folder)  # another process
    assert all(months == () for months in build(again, inputs, *SPAN).values())
    assert {p: p.stat().st_mtime_ns for p in store.folder.rglob("*.parquet")} == before
    assert again.build_category("technical", "AAA", inputs, *SPAN).reused == MONTHS


def test_a_restated_bar_makes_its_month_and_later_ones_stale(store: FeatureStore, inputs: FeatureInputs) -> None:
    build(store, inputs, *SPAN)
    computed = build(store, restate(inputs, "bars", "2021-04-15"), *SPAN)
    assert all(months == MONTHS[3:] for months in computed.values())


def test_a_restated_market_bar_touches_only_the_categories_that_read_it(
    store: FeatureStore, inputs: FeatureInputs
) -> None:
    build(store, inputs, *SPAN)
    computed = build(store, restate(inputs, "spy_bars", "2021-05-14"), *SPAN)
    assert computed == {c: MONTHS[4:] if c in ("cross_asset", "matrix") else () for c in (*CATEGORIES, "matrix")}


def test_a_new_fact_makes_stale_only_the_months_since_it_was_known(store: FeatureStore, inputs: FeatureInputs) -> None:
    build(store, inputs, *SPAN)
    sale = INSIDER.iloc[[1]].assign(available_at=pd.Timestamp("2021-05-20 12:00"))
    computed = build(store, replace(inputs, insider_transactions=pd.concat([INSIDER, sale])), *SPAN)
    assert computed["alternative"] == computed["matrix"] == MONTHS[4:]
    assert computed["technical"] == computed["fundamental"] == ()


def test_bars_after_a_month_leave_it_as_it_is(store: FeatureStore, inputs: FeatureInputs) -> None:
    build(store, replace(inputs, bars=inputs.bars.loc[:"2021-05-28"]), *SPAN)
    assert all(months == ("2021-06",) for months in build(store, inputs, *SPAN).values())


def test_changed_code_makes_every_month_stale(
    store: FeatureStore, inputs: FeatureInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(store, inputs, *SPAN)
    monkeypatch.setattr("signals_core.feature_store.source_digest", lambda *_: "another version of the source")
    newer = FeatureStore(store.folder)
    assert newer.load("AAA", *SPAN) is None
    assert all(months == MONTHS for months in build(newer, inputs, *SPAN).values())


def test_a_wider_span_reuses_the_months_of_a_narrower_one(store: FeatureStore, inputs: FeatureInputs) -> None:
    build(store, inputs, date(2021, 3, 1), date(2021, 4, 1))
    computed = build(store, inputs, *SPAN)
    assert all("2021-03" not in months and len(months) == 5 for months in computed.values())


def test_month_by_month_writes_the_same_bytes_as_one_range(tmp_path: Path, inputs: FeatureInputs) -> None:
    once, monthly = FeatureStore(tmp_path / "once"), FeatureStore(tmp_path / "monthly")
    build(once, inputs, *SPAN)
    for month in (5, 3, 1, 2, 6, 4):
        build(monthly, inputs, date(2021, month, 1), date(2021, month + 1, 1))
    assert len(files(once.folder)) == 6
    assert files(once.folder) == files(monthly.folder)


def test_stored_rows_equal_those_computed_at_once(store: FeatureStore, inputs: FeatureInputs) -> None:
    build(store, inputs, *SPAN)
    loaded = store.load("AAA", *SPAN)
    computed = store.compute_features(
        "AAA", inputs.bars, inputs.spy_bars, None, inputs.sector_bars, insider_transactions=INSIDER
    )
    assert list(loaded.columns) == list(computed.columns) == feature_names()
    pd.testing.assert_frame_equal(loaded, computed.loc[loaded.index].astype("float32"), check_freq=False)
    assert len(loaded) == 124
    assert loaded["vix_level"].isna().all()
    assert loaded["roc_20"].notna().all()


def test_a_matrix_is_not_served_when_a_category_changed_since(store: FeatureStore, inputs: FeatureInputs) -> None:
    build(store, inputs, *SPAN)
    store.build_category("technical", "AAA", restate(inputs, "bars", "2021-04-15"), *SPAN)
    assert store.load("AAA", *SPAN) is None
    assert len(store.load("AAA", date(2021, 1, 1), date(2021, 4, 1))) == 61
    store.build_matrix("AAA", *SPAN)
    assert len(store.load("AAA", *SPAN)) == 124


def test_nothing_stored_is_none(store: FeatureStore) -> None:
    assert store.load("AAA", *SPAN) is None


def test_a_matrix_names_the_category_it_lacks(store: FeatureStore, inputs: FeatureInputs) -> None:
    store.build_category("technical", "AAA", inputs, *SPAN)
    with pytest.raises(MissingPrerequisite, match=r"AAA 2021-01: no fundamental, cross_asset, alternative, temporal"):
        store.build_matrix("AAA", *SPAN)


def test_an_unfinished_later_month_does_not_block_a_finished_one(store: FeatureStore, inputs: FeatureInputs) -> None:
    january, february = (date(2021, 1, 1), date(2021, 2, 1)), (date(2021, 2, 1), date(2021, 3, 1))
    build(store, inputs, *january)
    store.build_category("technical", "AAA", inputs, *february)
    assert len(store.load("AAA", *january)) == 19
    assert store.build_matrix("AAA", *january).reused == ("2021-01",)


def test_a_damaged_category_file_is_computed_again(store: FeatureStore, inputs: FeatureInputs) -> None:
    build(store, inputs, *SPAN)
    expected = store.load("AAA", *SPAN)
    path = store.folder / "technical" / "symbol=AAA" / "year=2021.parquet"
    path.write_bytes(b"damaged")
    assert store.build_category("technical", "AAA", inputs, *SPAN).computed == MONTHS
    store.build_matrix("AAA", *SPAN)
    pd.testing.assert_frame_equal(store.load("AAA", *SPAN), expected)


def test_saved_features_are_loaded_as_float32_and_computed_again_by_a_build(
    store: FeatureStore, inputs: FeatureInputs
) -> None:
    features = store.compute_features("AAA", inputs.bars).loc["2021-01":"2021-06"]
    store.save("AAA", features)
    loaded = store.load("AAA", *SPAN)
    pd.testing.assert_frame_equal(loaded, features.astype("float32"), check_freq=False)
    assert store.load("BBB", *SPAN) is None
    assert store.build_category("technical", "AAA", inputs, *SPAN).computed == MONTHS


def test_bars_that_break_the_schema_are_refused(store: FeatureStore, inputs: FeatureInputs) -> None:
    with pytest.raises(DataError, match="bars of AAA break the schema"):
        store.compute_features("AAA", inputs.bars.iloc[::-1])


def facts_of(**changes: object) -> pd.DataFrame:
    moments = pd.to_datetime(["2021-01-04", "2021-02-01"])
    columns = {"available_at": moments, "settlement_date": moments, "shares_short": 5.0, "avg_daily_volume": 1.0}
    return pd.DataFrame(columns | changes)


@pytest.mark.parametrize(
    ("reports", "reason"),
    [
        (
            facts_of().drop(columns=["settlement_date", "shares_short"]),
            "no column settlement_date, shares_short; there",
        ),
        (facts_of(available_at=facts_of()["available_at"].dt.tz_localize("UTC")), "available_at has a time zone; use"),
        (
            facts_of(settlement_date=["2021-01-04", "2021-02-01"]),
            "settlement_date is of type .*: use pandas.to_datetime",
        ),
        (facts_of(available_at=pd.to_datetime(["2021-01-04", None])), "available_at is missing at row 1; leave"),
    ],
)
def test_facts_that_features_cannot_be_computed_from_are_refused(
    store: FeatureStore, inputs: FeatureInputs, reports: pd.DataFrame, reason: str
) -> None:
    with pytest.raises(DataError, match=f"short_interest of AAA: {reason}"):
        store.compute_features("AAA", inputs.bars, short_interest=reports)


def test_get_features_has_symbol_and_date_as_index(workspace: Workspace) -> None:
    ingest_bars(workspace.market, workspace.bar_provider("AAA"), ["AAA", "BBB", "SPY", "XLK"], "XNYS")
    found = workspace.features.get_features(["AAA", "BBB"], date(2021, 2, 10), date(2021, 3, 10), workspace)
    assert found.index.names == ["symbol", "date"]
    assert found.index.get_level_values("symbol").unique().tolist() == ["AAA", "BBB"]
    assert list(found.columns) == feature_names()
    assert set(months_of(found.index.get_level_values("date"))) == {"2021-02", "2021-03"}
    assert np.isclose(
        found.loc[("AAA", pd.Timestamp("2021-02-16")), "roc_1"],
        bars_of("AAA")["close"].pct_change().loc["2021-02-16"],
        rtol=1e-5,
    )


def test_get_features_keeps_to_its_span(workspace: Workspace) -> None:
    ingest_bars(workspace.market, workspace.bar_provider("AAA"), ["AAA"], "XNYS")
    found = workspace.features.get_features(["AAA"], date(2021, 2, 10), date(2021, 3, 10), workspace)
    dates = found.index.get_level_values("date")
    assert (dates.min(), dates.max()) == (pd.Timestamp("2021-02-10"), pd.Timestamp("2021-03-09"))
