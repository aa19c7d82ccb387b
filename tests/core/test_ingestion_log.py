"""Ingestion symbol by symbol, and its log: what failed, what was killed, and what is asked for the next time."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from signals_core.errors import DataError, MissingPrerequisite, ProviderError, ServiceDown, SettingsError
from signals_core.market_data.ingest import ingest_bars, ingest_facts
from signals_core.market_data.runs import IngestedSymbol, IngestionLog
from signals_core.market_data.store import MarketStore
from tests.core.stores import BACKENDS, LATER, LOADED, empty_database, raw_bars

SYMBOLS = ("AAA", "BBB", "CCC", "DDD")


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MarketStore]:
    with empty_database(request.param, tmp_path) as url:
        opened = MarketStore(url)
        yield opened
        opened.close()


@pytest.fixture
def log(store: MarketStore) -> IngestionLog:
    return IngestionLog(store.database)


class Killed(BaseException):
    """What ends a process is no exception of the source."""


class Source:
    """The same 30 bars of every symbol; raises what it is told to, and counts what it was asked."""

    def __init__(
        self, fails: dict[str, BaseException] | None = None, resumable: bool = False, name: str = "source"
    ) -> None:
        self.name, self.resumable, self.fails = name, resumable, fails or {}
        self.asked: list[tuple[str, date | datetime | None]] = []
        self.bars = raw_bars()
        self.facts = pd.DataFrame({"available_at": ["2020-04-24T20:30:00Z"], "settlement_date": ["2020-04-15"]})
        self.facts["shares_short"] = 5e6

    @property
    def symbols(self) -> list[str]:
        return [symbol for symbol, _ in self.asked]

    def _answer(self, frame: pd.DataFrame, symbol: str, since: date | datetime | None) -> pd.DataFrame | None:
        self.asked.append((symbol, since))
        if symbol in self.fails:
            raise self.fails[symbol]
        return None if symbol == "NONE" else frame

    def fetch_bars(self, symbol: str, since: date | None = None) -> pd.DataFrame | None:
        return self._answer(self.bars, symbol, since)

    def fetch_short_interest(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        return self._answer(self.facts, symbol, since)


def ingest(store: MarketStore, source: Source, *symbols: str, now: datetime = LOADED) -> dict[str, IngestedSymbol]:
    return {found.symbol: found for found in ingest_bars(store, source, symbols or SYMBOLS, "XNYS", now)}


def move(store: MarketStore, run: int, by: timedelta) -> None:
    """Let a run have started at another time."""
    query = sa.text("select started_at from ingestion_runs where run_id = :run")
    change = sa.text("update ingestion_runs set started_at = :moment where run_id = :run")
    with store.database.write() as connection:
        found = pd.Timestamp(str(connection.execute(query, {"run": run}).scalar_one())) + by
        connection.execute(change, {"run": run, "moment": found.strftime("%Y-%m-%d %H:%M:%S.%f")})


# -- the log ---------------------------------------------------------------------------------------------------


def test_an_unfinished_run_is_taken_up_with_what_it_has_done(log: IngestionLog) -> None:
    run, done = log.begin("bars", "yahoo", resume=True)
    assert done == frozenset()
    log.record(run, IngestedSymbol("AAA", rows=30, new=30))
    log.record(run, IngestedSymbol("BBB", problem="no answer"))
    assert log.begin("bars", "yahoo", resume=True) == (run, {"AAA"})
    log.record(run, IngestedSymbol("BBB", rows=3, new=3))
    assert log.begin("bars", "yahoo", resume=True) == (run, {"AAA", "BBB"})


def test_a_finished_run_is_not_taken_up(log: IngestionLog) -> None:
    run, _ = log.begin("bars", "yahoo", resume=True)
    log.record(run, IngestedSymbol("AAA", rows=30, new=30))
    log.finish(run)
    second, done = log.begin("bars", "yahoo", resume=True)
    assert second > run
    assert done == frozenset()


def test_an_unfinished_run_of_another_dataset_or_provider_is_not_taken_up(log: IngestionLog) -> None:
    run, _ = log.begin("bars", "yahoo", resume=True)
    log.record(run, IngestedSymbol("AAA", rows=30, new=30))
    others = [log.begin("short_interest", "yahoo", resume=True), log.begin("bars", "alpaca", resume=True)]
    assert [done for _, done in others] == [frozenset(), frozenset()]
    assert run not in {other for other, _ in others}
    assert log.begin("bars", "yahoo", resume=False)[1] == frozenset()


@pytest.mark.parametrize(("minutes", "taken_up"), [(24 * 60 - 1, True), (24 * 60 + 1, False)])
def test_an_unfinished_run_is_taken_up_for_a_day(
    store: MarketStore, log: IngestionLog, minutes: int, taken_up: bool
) -> None:
    run, _ = log.begin("bars", "yahoo", resume=True)
    log.record(run, IngestedSymbol("AAA", rows=30, new=30))
    move(store, run, -timedelta(minutes=minutes))
    found, done = log.begin("bars", "yahoo", resume=True)
    assert (found == run) == taken_up
    assert done == ({"AAA"} if taken_up else frozenset())


def test_the_latest_outcome_of_each_symbol_is_that_of_its_last_load(log: IngestionLog) -> None:
    first, _ = log.begin("bars", "yahoo", resume=False)
    log.record(first, IngestedSymbol("AAA", rows=30, new=30))
    log.record(first, IngestedSymbol("BBB", problem="no answer"))
    log.finish(first)
    other, _ = log.begin("short_interest", "finra", resume=False)
    log.record(other, IngestedSymbol("AAA", rows=1, new=1))
    second, _ = log.begin("bars", "alpaca", resume=False)
    log.record(second, IngestedSymbol("AAA", rows=11, new=1, restated=2, withdrawn=3, rejected=4))
    latest = log.latest("bars")
    assert list(latest.index) == ["AAA", "BBB"]
    assert latest.loc["AAA", ["rows", "new", "restated", "withdrawn", "rejected"]].tolist() == [11, 1, 2, 3, 4]
    assert latest["problem"].tolist() == [None, "no answer"]
    assert list(log.latest("bars", ["BBB", "ZZZ"]).index) == ["BBB"]
    assert log.latest("fundamentals").empty


def test_recent_runs_come_newest_first_with_their_totals(log: IngestionLog) -> None:
    for provider in ("yahoo", "alpaca", "files"):
        run, _ = log.begin("bars", provider, resume=False)
        log.record(run, IngestedSymbol("AAA", rows=30, new=20, restated=1))
        log.record(run, IngestedSymbol("BBB", rows=5, withdrawn=2, rejected=3))
        log.record(run, IngestedSymbol("CCC", problem="no answer"))
        if provider != "files":
            log.finish(run)
    log.begin("short_interest", "finra", resume=False)
    recent = log.recent()
    assert recent["provider"].tolist() == ["finra", "files", "alpaca", "yahoo"]
    totals = ["symbols", "rows", "new", "restated", "withdrawn", "rejected", "problems"]
    assert recent.loc[0, totals].tolist() == [0] * 7
    assert recent.loc[1, totals].tolist() == [3, 35, 20, 1, 2, 3, 1]
    assert recent["finished_at"].isna().tolist() == [True, True, False, False]
    assert log.recent(2)["provider"].tolist() == ["finra", "files"]


def test_providers_are_those_that_gave_something(log: IngestionLog) -> None:
    for dataset, provider, new in (("bars", "yahoo", 3), ("bars", "alpaca", 0), ("short_interest", "finra", 1)):
        run, _ = log.begin(dataset, provider, resume=False)
        log.record(run, IngestedSymbol("AAA", new=new))
    assert log.providers("bars") == {"yahoo"}
    assert log.providers("fundamentals") == frozenset()


# -- ingestion -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        KeyError("close"), ValueError("a\x00b"), OSError("no answer"), ProviderError("HTTP 500"), DataError("damaged"),
        AttributeError("x" * 5000), RecursionError(), ZeroDivisionError(), StopIteration(), MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_a_source_raises_for_a_symbol_is_reported_and_stops_no_other(
    store: MarketStore, log: IngestionLog, error: Exception
) -> None:
    found = ingest(store, Source({"BBB": error}))
    assert list(found) == list(SYMBOLS)
    assert {symbol: outcome.new for symbol, outcome in found.items()} == {"AAA": 30, "BBB": 0, "CCC": 30, "DDD": 30}
    assert [symbol for symbol, outcome in found.items() if outcome.problem] == ["BBB"]
    assert sorted(store.coverage()) == ["AAA", "CCC", "DDD"]
    assert log.latest("bars")["problem"].notna().tolist() == [False, True, False, False]
    assert log.recent()["finished_at"].notna().tolist() == [True]


def test_the_problem_of_an_unforeseen_error_names_the_source_the_symbol_and_the_error(store: MarketStore) -> None:
    found = ingest(store, Source({"BBB": KeyError("close")}))
    assert found["BBB"].problem == "source cannot read BBB: KeyError: 'close'"


@pytest.mark.parametrize(
    "error", [SettingsError("no key"), MissingPrerequisite("no file"), ServiceDown("down"), KeyboardInterrupt()]
)
def test_what_is_wrong_for_every_symbol_stops_the_run(
    store: MarketStore, log: IngestionLog, error: BaseException
) -> None:
    source = Source({"BBB": error})
    with pytest.raises(type(error)):
        ingest(store, source)
    assert source.symbols == ["AAA", "BBB"]
    assert list(log.latest("bars").index) == ["AAA"]
    assert log.recent()["finished_at"].isna().tolist() == [True]


def test_bars_that_lack_a_column_are_a_problem_of_their_symbol(store: MarketStore) -> None:
    source = Source()
    source.bars = source.bars.drop(columns="close")
    found = ingest(store, source, "AAA")
    assert "close" in str(found["AAA"].problem)
    assert store.coverage() == {}


def test_a_source_without_the_symbol_is_reported(store: MarketStore) -> None:
    found = ingest(store, Source(), "NONE", "AAA")
    assert found["NONE"].problem == "source has no bars of NONE"
    assert found["AAA"].problem is None


@pytest.mark.parametrize("symbol", ["N/A", "", "aapl", "A B", "A" * 40, "'; drop table bars; --", "Ä", "A\x00B"])
def test_what_is_no_symbol_is_reported_and_not_asked_for(store: MarketStore, symbol: str) -> None:
    source = Source()
    found = ingest_bars(store, source, [symbol, "AAA"], "XNYS", LOADED)
    assert repr(symbol) in str(found[0].problem)
    assert found[1].new == 30
    assert source.symbols == ["AAA"]


def test_a_killed_run_is_taken_up_where_it_stopped(store: MarketStore, log: IngestionLog) -> None:
    killed = Source({"AAA": OSError("no answer"), "CCC": Killed()}, resumable=True)
    with pytest.raises(Killed):
        ingest(store, killed)
    assert killed.symbols == ["AAA", "BBB", "CCC"]
    again = Source(resumable=True)
    found = ingest(store, again)
    assert again.symbols == ["AAA", "CCC", "DDD"]
    assert list(found) == list(SYMBOLS)
    assert sorted(store.coverage()) == list(SYMBOLS)
    assert len(log.recent()) == 1
    assert log.recent()["finished_at"].notna().all()
    third = Source(resumable=True)
    ingest(store, third)
    assert third.symbols == list(SYMBOLS)


def test_a_killed_run_of_a_source_that_is_not_resumable_begins_again(store: MarketStore) -> None:
    with pytest.raises(Killed):
        ingest(store, Source({"CCC": Killed()}))
    again = Source()
    ingest(store, again)
    assert again.symbols == list(SYMBOLS)


def test_a_killed_run_of_facts_is_taken_up_where_it_stopped(store: MarketStore) -> None:
    with pytest.raises(Killed):
        ingest_facts(store, "short_interest", Source({"CCC": Killed()}, resumable=True), SYMBOLS, "XNYS", LOADED)
    again = Source(resumable=True)
    ingest_facts(store, "short_interest", again, SYMBOLS, "XNYS", LOADED)
    assert again.symbols == ["CCC", "DDD"]
    assert [len(store.load_facts("short_interest", symbol)) for symbol in SYMBOLS] == [1] * 4


def test_a_second_load_asks_from_15_days_before_the_last_stored_bar(store: MarketStore) -> None:
    source = Source()
    ingest(store, source, "AAA")
    ingest(store, source, "AAA", "BBB", now=LATER)
    ingest_bars(store, source, ["AAA"], "XNYS", LATER, full=True)
    assert raw_bars()["date"].iloc[-1] == pd.Timestamp("2020-02-13")
    assert source.asked == [("AAA", None), ("AAA", date(2020, 1, 29)), ("BBB", None), ("AAA", None)]


def test_a_second_load_of_facts_asks_from_15_days_before_the_last_stored_one(store: MarketStore) -> None:
    source = Source()
    for moment in (LOADED, LATER):
        ingest_facts(store, "short_interest", source, ["AAA"], "XNYS", moment)
    assert source.asked == [("AAA", None), ("AAA", datetime(2020, 4, 9, 20, 30, tzinfo=UTC))]


def test_loading_again_changes_nothing(store: MarketStore, log: IngestionLog) -> None:
    source = Source()
    for moment in (LOADED, LATER):
        found = ingest(store, source, "AAA", now=moment)
        facts = ingest_facts(store, "short_interest", source, ["AAA"], "XNYS", moment)
    assert found["AAA"].changed == facts[0].changed == 0
    assert found["AAA"].rows == 30
    assert log.recent()["new"].tolist() == [0, 0, 1, 30]


@pytest.mark.parametrize(("moment", "last"), [("20:59:59", "2020-02-11"), ("21:00:00", "2020-02-12")])
def test_a_bar_of_a_session_that_has_not_closed_is_not_stored(store: MarketStore, moment: str, last: str) -> None:
    now = datetime.fromisoformat(f"2020-02-12T{moment}+00:00")  # the last two bars are of that day and the next
    found = ingest(store, Source(), "AAA", now=now)
    bars = store.load_bars("AAA")
    assert bars.index[-1] == pd.Timestamp(last)
    assert found["AAA"].new == len(bars)
    assert store.rejected("bars").empty
    assert ingest(store, Source(), "AAA", now=LOADED)["AAA"].new == 30 - len(bars)
    assert store.restated("bars") == {}


def test_the_run_that_stored_a_bar_is_kept_with_it(store: MarketStore, log: IngestionLog) -> None:
    ingest(store, Source(), "AAA")
    with store.database.read() as connection:
        runs = connection.execute(sa.text("select distinct run_id from bars")).scalars().all()
    assert runs == log.recent()["run_id"].tolist()


def test_a_source_that_lost_its_history_is_reported_and_nothing_is_stored(store: MarketStore) -> None:
    ingest(store, Source())
    source = Source()
    source.bars = source.bars.iloc[[0, 29]]
    found = ingest(store, source, "AAA", now=LATER)
    assert "lacks 28 of 30 bars" in str(found["AAA"].problem)
    assert found["AAA"].changed == 0
    assert store.coverage()["AAA"].sessions == 30
