"""Whatever a source gives: refused as a whole by name, or every row is kept as it was or refused with a reason."""

import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signals_core.calendar import sessions_between
from signals_core.errors import DataError
from signals_core.market_data.availability import close_of_date
from signals_core.market_data.continuity import screen_series
from signals_core.market_data.schemas import BAR_COLUMNS, validate_bars
from signals_core.market_data.screening import screen_bars, screen_facts, screen_members
from signals_core.market_data.store import MarketStore
from signals_core.market_data.tables import FACTS
from tests.project.bars import make_bars

SESSIONS = sessions_between("XNYS", date(2020, 1, 1), date(2022, 7, 2))
NOW = datetime(2026, 1, 2, tzinfo=UTC)
NEW_YORK = timezone(timedelta(hours=-5))
NO_BARS = make_bars("AAA").iloc[:0].set_index("date")

CELLS: tuple[Any, ...] = (
    None, math.nan, math.inf, -math.inf, pd.NA, pd.NaT, np.float32("nan"),
    "", " ", "N/A", "NA", "nan", "1e5", " 12.5 ", "1,000", "0x10", "inf", "-5", "٣", "２０２０-01-06", "naïve ☃",
    "x" * 300, True, False, np.True_, 0, -1, -0.0, 0.5, 1e308, 5e-324, 2**53 + 1, 2**70, 10**400, Decimal("1.5"), 1j,
    b"12", [1.0], {}, (1, 2), pd.Timedelta(days=1), pd.Period("2020-01-06"),
    "2020-01-06", "20200107", "2020-01-06T16:00", "2020-01-06T99:99", "2020-01-06T16:00-05:00", "2020-01-06Z",
    "03/04/2020", "2020-02-30", "0001-01-01", "9999-12-31", "1989-12-29", "2020-01-04", 20200106, 1.5783e18,
    pd.Timestamp("2020-01-07"), pd.Timestamp("2020-01-07 21:05"), pd.Timestamp("2020-01-07", tz="America/New_York"),
    date(2020, 1, 8), datetime(2020, 1, 8, 12, tzinfo=NEW_YORK), np.datetime64("2020-01-09"), np.datetime64("NaT"),
    "AAA", "BBB", "aaa", "BRK.B", "Q1", "FY", "Q5", "P", "S", "p", "P1",
)  # fmt: skip
DTYPES = ("object", "str", "string", "category", "float64", "bool", "datetime64[ns, UTC]", "timedelta64[ns]", "Int64")


def is_missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or cell is pd.NaT or (np.ndim(cell) == 0 and cell != cell)


def number(cell: Any) -> float:
    """Python's own reading of a cell that was accepted as a number."""
    if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
        return math.nan
    assert not isinstance(cell, bool | np.bool_ | timedelta | np.timedelta64 | date | pd.Period), f"{cell!r}: no number"
    return float(cell)


def moment(cell: Any) -> datetime:
    """Python's own reading of a cell that was accepted as a date or moment; with its offset, if it has one."""
    if isinstance(cell, str):
        assert cell.isascii(), f"{cell!r}: no ISO date"
        return datetime.fromisoformat(cell.strip())
    if isinstance(cell, datetime):
        return cell
    assert isinstance(cell, date | np.datetime64), f"{cell!r}: no date"
    return pd.Timestamp(cell).to_pydatetime()


def text(cell: Any) -> str:
    return "" if is_missing(cell) else str(cell).strip()


def same(stored: float, expected: float) -> bool:
    return stored == expected or (math.isnan(stored) and math.isnan(expected))


def available(cell: Any) -> pd.Timestamp:
    """When a cell of `available_at` says that a row could be read, in tz-naive UTC."""
    found = moment(cell)
    if found.tzinfo is not None:
        return pd.Timestamp(found).tz_convert("UTC").tz_localize(None)
    plain = pd.Timestamp(found)
    return close_of_date([plain], "XNYS")[0] if plain == plain.normalize() else plain


def spoiled(base: pd.DataFrame, optional: dict[str, list[Any]]) -> st.SearchStrategy[pd.DataFrame]:
    """Frames made from good rows by a few of the things that sources do."""
    column, row = st.sampled_from([*base.columns, *optional]), st.integers(0, len(base) - 1)
    invented = st.one_of(st.floats(), st.floats().map(repr), st.integers(-5, 5), st.text(max_size=8))
    cell = st.integers(0, 4).flatmap(lambda chance: st.sampled_from(CELLS) if chance else invented)
    kinds = {
        "cell": st.tuples(column, row, cell),
        "whole column": st.tuples(column, cell),
        "dtype": st.tuples(column, st.sampled_from(DTYPES)),
        "repeat": st.tuples(row),
        "order": st.tuples(st.permutations(range(len(base)))),
        "index": st.tuples(st.sampled_from(["text", "equal", "dates"])),
        "missing": st.tuples(column),
        "doubled": st.tuples(column),
        "empty": st.just(()),
    }
    often = ["cell"] * 12 + ["dtype"] * 3 + ["whole column"] * 2 + ["repeat"] * 2 + ["order", "index"]
    change = st.sampled_from(often).flatmap(lambda kind: st.tuples(st.just(kind), kinds[kind]))
    rare = st.sampled_from(["missing", "doubled", "empty"]).flatmap(lambda kind: st.tuples(st.just(kind), kinds[kind]))
    changes = st.builds(
        lambda some, last, chance: some if chance else [*some, last],
        st.lists(change, min_size=1, max_size=8),
        rare,
        st.integers(0, 9),
    )
    extra = st.sets(st.sampled_from([*optional])) if optional else st.just(set())
    return st.builds(lambda more, made: spoil(base, {n: optional[n] for n in sorted(more)}, made), extra, changes)


def spoil(base: pd.DataFrame, optional: dict[str, list[Any]], changes: list[Any]) -> pd.DataFrame:
    frame = base.assign(**optional)
    for what, how in changes:
        if what in ("cell", "whole column", "dtype", "missing", "doubled") and how[0] not in frame:
            continue
        if what == "cell":
            cells = list(frame[how[0]])
            if how[1] < len(cells):
                cells[how[1]] = how[2]
            frame[how[0]] = objects(cells, frame.index)
        elif what == "whole column":
            frame[how[0]] = objects([how[1]] * len(frame), frame.index)
        elif what == "dtype":
            try:
                frame[how[0]] = frame[how[0]].astype(how[1])
            except (TypeError, ValueError, OverflowError):
                continue  # what cannot be made, no source gives
        elif what == "repeat":
            frame = pd.concat([frame, frame.iloc[[how[0]]]])
        elif what == "order":
            frame = frame.iloc[list(how[0])]
        elif what == "index":
            labels = {"text": [f"r{n}" for n in range(len(frame))], "equal": [7] * len(frame)}
            frame = frame.set_axis(labels.get(how[0], pd.date_range("1999", periods=len(frame))), axis=0)
        elif what == "missing":
            frame = frame.drop(columns=how[0])
        elif what == "doubled":
            return pd.concat([frame, frame[[how[0]]]], axis=1)
        else:
            frame = frame.iloc[:0]
    return frame


def objects(cells: list[Any], index: pd.Index) -> pd.Series:
    array = np.empty(len(cells), dtype=object)
    for at, cell in enumerate(cells):
        array[at] = cell
    return pd.Series(array, index=index)


def kept_rows(raw: pd.DataFrame, good: pd.DataFrame, rejected: pd.DataFrame) -> list[dict[str, Any]]:
    """The input rows that were accepted, once it is certain that each is either good or rejected with a reason."""
    assert rejected.index.is_unique
    assert set(rejected.index) <= set(range(len(raw)))
    assert len(good) + len(rejected) == len(raw)
    assert (rejected["reason"].str.len() > 0).all()
    gone = set(rejected.index)
    columns = {name: list(raw[name]) for name in raw.columns}
    return [{name: columns[name][at] for name in columns} for at in range(len(raw)) if at not in gone]


def is_refused_as_a_whole(error: DataError, raw: pd.DataFrame, needed: tuple[str, ...], what: str) -> None:
    missing = [name for name in needed if name not in raw]
    doubled = list(raw.columns[raw.columns.duplicated()])
    assert str(error).startswith(f"{what} ")
    assert missing or doubled
    assert all(str(name) in str(error) for name in (missing or doubled[:1]))


def check_bars(raw: pd.DataFrame, store: MarketStore | None = None, name: str = "AAA") -> None:
    try:
        screened = screen_bars(raw, "AAA", SESSIONS)
    except DataError as error:
        is_refused_as_a_whole(error, raw, ("date", *BAR_COLUMNS), "bars of AAA")
        return
    rows = kept_rows(raw, screened.good, screened.rejected)
    rows.sort(key=lambda row: moment(row["date"]).date())
    for (day, values), row in zip(screened.good.iterrows(), rows, strict=True):
        assert pd.Timestamp(moment(row["date"]).date()) == day
        assert day in SESSIONS
        assert row.get("symbol", "AAA") == "AAA"
        for column in BAR_COLUMNS:
            assert same(values[column], number(row[column])), f"{column}: {row[column]!r} became {values[column]!r}"
    validate_bars(screened.good, "AAA")
    series = screen_series(screened, SESSIONS, NO_BARS)
    refused_actions = len(screened.actions) - len(series.actions)  # each is a reason of its own; its bar is kept
    assert refused_actions >= 0
    assert len(series.good) + len(series.rejected) - refused_actions == len(raw)
    assert (series.rejected["reason"].str.len() > 0).all()
    pd.testing.assert_frame_equal(series.good, screened.good.loc[series.good.index], check_exact=True)
    if store is not None:
        store.save_bars(name, series, NOW)
        found = store.load_bars(name, adjustment="none")[list(BAR_COLUMNS)]
        pd.testing.assert_frame_equal(found, series.good, check_exact=True, check_freq=False)
        stored = store.load_actions(name).set_index(["ex_date", "kind"])["value"].to_dict()
        assert stored == series.actions.set_index(["ex_date", "kind"])["value"].to_dict()
        assert len(store.rejected("bars", name)) == len(series.rejected)


REQUIRED = {
    "fundamentals": ("available_at", "period_end"),
    "insider_transactions": ("available_at", "transaction_date", "code", "shares"),
    "short_interest": ("available_at", "settlement_date", "shares_short"),
}


def check_facts(dataset: str, raw: pd.DataFrame, store: MarketStore | None = None, name: str = "AAA") -> None:
    item = FACTS[dataset]
    try:
        screened = screen_facts(dataset, raw, "AAA", "XNYS")
    except DataError as error:
        is_refused_as_a_whole(error, raw, REQUIRED[dataset], f"{dataset} of AAA")
        return
    rows = kept_rows(raw, screened.good, screened.rejected)
    for kept, row in zip(screened.good.to_dict("records"), rows, strict=True):
        assert row.get("symbol", "AAA") == "AAA"
        assert kept[item.date] == pd.Timestamp(moment(row[item.date]).date())
        assert kept["available_at"] == available(row["available_at"])
        assert kept["available_at"] >= kept[item.date]
        for column in item.numbers():
            assert same(kept[column], number(row.get(column))), f"{column}: {row[column]!r} became {kept[column]!r}"
            assert not math.isinf(kept[column])
        for column in set(item.texts()) - {"symbol"}:
            given_text = text(row.get(column))
            unnamed = column == "document" and given_text == ""
            assert kept[column] == (f"{kept['available_at']:%Y-%m-%dT%H:%M:%S.%f}" if unnamed else given_text)
        if "line" in row and not is_missing(row["line"]):
            assert kept["line"] == (number(row["line"]) if text(row["line"]) else 0)
    if store is not None:
        store.save_facts(dataset, name, screened.good, NOW, rejected=screened.rejected)
        order = ["available_at", *(column for column in item.identity if column != "symbol")]
        found = store.load_facts(dataset, name).sort_values(order, ignore_index=True)
        expected = screened.good[found.columns].sort_values(order, ignore_index=True)
        pd.testing.assert_frame_equal(found, expected, check_exact=True, check_dtype=False)
        assert len(store.rejected(dataset, name)) == len(screened.rejected)


def check_members(raw: pd.DataFrame, store: MarketStore | None = None, name: str = "universe") -> None:
    try:
        screened = screen_members(raw)
    except DataError as error:
        is_refused_as_a_whole(error, raw, ("symbol", "start", "end"), "universe membership")
        return
    rows = kept_rows(raw, screened.good, screened.rejected)
    for kept, row in zip(screened.good.to_dict("records"), rows, strict=True):
        assert kept["symbol"] == text(row["symbol"])
        assert kept["valid_from"] == pd.Timestamp(moment(row["start"]).date())
        if pd.isna(kept["valid_to"]):
            assert text(row["end"]) == ""
        else:
            assert kept["valid_to"] == pd.Timestamp(moment(row["end"]).date())
            assert kept["valid_to"] > kept["valid_from"]
    for _, intervals in screened.good.groupby("symbol"):
        ordered = intervals.sort_values("valid_from")
        ends = ordered["valid_to"].fillna(pd.Timestamp("9999-12-31")).cummax()
        assert (ordered["valid_from"].iloc[1:].to_numpy() >= ends.iloc[:-1].to_numpy()).all(), "intervals overlap"
    if store is not None:
        facts = screened.good.assign(universe=name, available_at=pd.Timestamp("1990-01-02 21:00"))
        store.save("universe_membership", facts, NOW)
        expected = screened.good.sort_values(["symbol", "valid_from"], ignore_index=True)
        pd.testing.assert_frame_equal(store.memberships(name), expected, check_exact=True, check_dtype=False)


GOOD_BARS = make_bars("AAA").iloc[:8].reset_index(drop=True)
BARS = spoiled(
    GOOD_BARS,
    {"split": [0.0, 0, 0, 2, 0, 1, 0, 0], "dividend": [0.0, 0, 0.2, 0, 0, 0, 0, 0], "adjustment": [0.5] * 4 + [1.0] * 4,
     "symbol": ["AAA"] * 8},
)  # fmt: skip
FUNDAMENTALS = spoiled(
    pd.DataFrame(
        {"available_at": ["2020-01-06", "2020-04-06T20:30", "2020-07-06T16:30-04:00", "2020-10-06"],
         "period_end": pd.to_datetime(["2019-12-31", "2020-03-31", "2020-06-30", "2020-09-30"]),
         "revenue": [100.0, 110.0, 120.0, 130.0], "shares_outstanding": 1e6, "total_equity": -5.0}
    ),
    {"document": ["a", "b", "c", "d"], "fiscal_period": ["Q4", "Q1", "Q2", "Q3"], "symbol": ["AAA"] * 4},
)  # fmt: skip
INSIDERS = spoiled(
    pd.DataFrame(
        {"available_at": pd.DatetimeIndex(["2020-01-06 21:30"] * 2 + ["2020-01-07 00:00", "2020-01-08 00:00"]),
         "transaction_date": ["2020-01-02", "2020-01-02", "2020-01-03", "2020-01-06"], "code": ["P", "S", "S", "A"],
         "shares": [10.0, -5.0, -5.0, 100.0], "price": [10.0, 10.5, 10.5, np.nan]}
    ),
    {"document": ["a", "a", "b", "c"], "insider": ["Ann", "Ann", "Bob", "Cy"], "line": [1, 2, 1, 1],
     "shares_after": [10, 5, 7, 9], "symbol": ["AAA"] * 4},
)  # fmt: skip
SHORT_INTEREST = spoiled(
    pd.DataFrame(
        {"available_at": ["2020-01-27", "2020-02-11", "2020-02-26"],
         "settlement_date": pd.to_datetime(["2020-01-15", "2020-01-31", "2020-02-14"]), "shares_short": [10, 20, 30]}
    ),
    {"avg_daily_volume": [5.0, 6.0, 7.0], "shares_float": [100.0, None, 100.0], "document": ["", "x", "y"]},
)  # fmt: skip
MEMBERS = spoiled(
    pd.DataFrame(
        {"symbol": ["AAA", "AAA", "BRK.B", "NA"], "start": ["1996-01-02", "2005-03-01", "2010-02-16", "2000-01-03"],
         "end": ["2001-06-01", "", "", "2004-07-01"]}
    ),
    {},
)  # fmt: skip

SOURCES: dict[str, tuple[st.SearchStrategy[pd.DataFrame], Callable[..., None]]] = {
    "bars": (BARS, check_bars),
    "fundamentals": (FUNDAMENTALS, lambda *given_: check_facts("fundamentals", *given_)),
    "insider_transactions": (INSIDERS, lambda *given_: check_facts("insider_transactions", *given_)),
    "short_interest": (SHORT_INTEREST, lambda *given_: check_facts("short_interest", *given_)),
    "members": (MEMBERS, check_members),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MarketStore]:
    folder: Path = tmp_path_factory.mktemp("bad_input")
    opened = MarketStore.embedded(folder / "market.sqlite")
    yield opened
    opened.close()


def try_many(source: str, store: MarketStore, examples: int) -> None:
    frames, check = SOURCES[source]
    count = iter(range(1_000_000))

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(frames, st.sampled_from([False] * 19 + [True]))
    def each_is_kept_as_it_was_or_refused_by_name(raw: pd.DataFrame, is_stored: bool) -> None:
        # Each example has a name of its own in the one store, so that none sees what another left there.
        check(raw, *((store, f"{source[:4].upper()}{next(count)}") if is_stored else ()))

    each_is_kept_as_it_was_or_refused_by_name()


@pytest.mark.parametrize("source", SOURCES)
def test_bad_input_is_refused_by_name_and_reason_and_the_rest_is_unchanged(source: str, store: MarketStore) -> None:
    try_many(source, store, 100)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_ten_thousand_bad_inputs_are_refused_by_name_and_reason(source: str, store: MarketStore) -> None:
    try_many(source, store, 2_000)
