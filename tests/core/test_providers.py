"""Sources of bars, and loading them symbol by symbol."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from signals_core.calendar import exchange_calendar, to_sessions
from signals_core.errors import SettingsError
from signals_core.market_data.ingest import ingest_bars, ingest_facts
from signals_core.market_data.providers.base import open_provider
from signals_core.market_data.providers.demo import DemoProvider
from signals_core.market_data.providers.files import FilesProvider
from signals_core.market_data.screening import screen_bars
from signals_core.market_data.store import MarketStore
from tests.project.bars import make_bars

DEMO_SYMBOLS = ("AAPL", "IBM", "MSFT", "GOOG", "AMZN", "NVDA", "^GSPC", "^IXIC")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MarketStore]:
    opened = MarketStore.embedded(tmp_path / "market.sqlite")
    yield opened
    opened.close()


def test_files_are_read_from_csv_and_parquet_with_any_column_case(project: Path) -> None:
    expected = make_bars("AAA")
    provider = FilesProvider(project)
    csv = provider.fetch_bars("AAA")
    assert csv["close"].tolist() == expected["close"].tolist()
    expected.rename(columns=str.upper).iloc[:7].to_parquet(project / "data" / "bars" / "AAA.parquet")
    parquet = provider.fetch_bars("AAA")
    assert list(parquet.columns) == ["date", "open", "high", "low", "close", "volume"]
    assert len(parquet) == 7


def test_a_symbol_without_a_file_is_none_and_a_missing_folder_an_error(project: Path) -> None:
    assert FilesProvider(project).fetch_bars("^VIX") is None
    with pytest.raises(SettingsError, match=r"market_data\.options\.directory: .*nowhere is no folder"):
        FilesProvider(project, directory="nowhere").fetch_bars("AAA")


@pytest.mark.parametrize(
    ("fetch", "option", "columns"),
    [
        ("fetch_fundamentals", "fundamentals_directory", "Available_At,PERIOD_END,Fiscal_Period,Revenue"),
        ("fetch_insider_transactions", "insider_directory", "available_at,transaction_date,CODE,shares"),
        ("fetch_short_interest", "short_interest_directory", "available_at,settlement_date,Document,shares_short"),
    ],
)
def test_each_kind_of_facts_is_read_from_its_own_folder(
    project: Path, fetch: str, option: str, columns: str
) -> None:  # fmt: skip
    folder = project / "facts"
    provider = FilesProvider(project, **{option: "facts"})
    with pytest.raises(SettingsError, match=rf"options\.{option}: .*facts is no folder"):
        getattr(provider, fetch)("NA")
    folder.mkdir()
    assert getattr(provider, fetch)("NA") is None
    (folder / "NA.csv").write_text(f"symbol,{columns}\nNA,2024-01-25,2024-01-12,N/A,\nNA,2024-01-26,2024-01-12,,7\n")
    frame = getattr(provider, fetch)("NA")
    assert list(frame.columns) == ["symbol", *columns.lower().split(",")]
    assert frame.iloc[:, 0].tolist() == ["NA", "NA"]  # a ticker, no missing value
    assert frame.iloc[:, 3].tolist() == ["N/A", ""]
    assert frame.iloc[:, 4].isna().tolist() == [True, False]


def test_the_file_of_short_interest_is_stored(project: Path, store: MarketStore) -> None:
    folder = project / "data" / "short_interest"
    folder.mkdir()
    (folder / "AAA.csv").write_text(
        "available_at,settlement_date,shares_short\n2022-01-26,2022-01-14,100\n2022-02-09,2022-01-31,n.a.\n"
    )
    (done,) = ingest_facts(store, "short_interest", FilesProvider(project), ["AAA"], "XNYS")
    assert (done.rows, done.rejected, done.problem) == (1, 1, None)
    assert store.load_facts("short_interest", "AAA")["available_at"].tolist() == [pd.Timestamp("2022-01-26 21:00")]


def test_the_demo_has_real_prices_of_known_days() -> None:
    provider = DemoProvider(Path())
    apple = provider.fetch_bars("AAPL").set_index("date")
    assert apple.loc["2005-02-25", "close"] == 88.99
    assert apple.loc["2005-02-28", "close"] == 44.86
    change = (apple["close"] * apple["adjustment"]).pct_change()
    assert change.loc["2005-02-28"] == pytest.approx(2 * 44.86 / 88.99 - 1, rel=1e-3)
    index = provider.fetch_bars("^GSPC").set_index("date")
    assert index.loc["2008-10-15", "close"] == pytest.approx(907.84, abs=0.005)
    assert provider.fetch_bars("^VIX") is None
    assert provider.fetch_bars("SPY") is None


@pytest.mark.parametrize("symbol", DEMO_SYMBOLS)
def test_the_demos_bars_are_those_of_the_exchanges_sessions(symbol: str) -> None:
    sessions = to_sessions(exchange_calendar("XNYS").sessions)
    screened = screen_bars(DemoProvider(Path()).fetch_bars(symbol), symbol, sessions)
    assert screened.rejected.empty
    index = screened.good.index
    assert index[-1] == pd.Timestamp("2013-03-01")
    assert index[0] == pd.Timestamp("2004-08-19" if symbol == "GOOG" else "2000-03-01")
    expected = sessions[(sessions >= index[0]) & (sessions <= index[-1])]
    assert list(expected.difference(index)) == []


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("yahu", {}, "'yahu' is neither of files, demo, .*nor package.module:ClassName"),
        ("no.such.module:Provider", {}, "cannot load no.such.module:Provider"),
        ("signals_core.market_data.providers.files:Nothing", {}, "cannot load .*Nothing"),
        ("files", {"folder": "x"}, "market_data: options do not fit .*FilesProvider.*folder"),
        ("demo", {"directory": "x"}, "market_data: options do not fit .*DemoProvider"),
        (":Provider", {}, "market_data: cannot load :Provider"),
    ],
)
def test_a_provider_that_cannot_be_opened_is_a_settings_error(
    tmp_path: Path, name: str, options: dict[str, str], problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        open_provider(name, options, tmp_path)


def test_a_provider_of_ones_own_is_opened_by_its_path(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "my_source.py").write_text(
        "class Mine:\n    name = 'mine'\n    def __init__(self, root, scale):\n        self.scale = scale\n"
        "    def fetch_bars(self, symbol, since=None):\n        return None\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    assert open_provider("my_source:Mine", {"scale": 3}, project).scale == 3
    with pytest.raises(SettingsError, match="my_source:Mine has no method fetch_short_interest; choose another"):
        open_provider("my_source:Mine", {"scale": 3}, project, "fetch_short_interest")
    built_in = open_provider("files", {"directory": "data/bars"}, project)
    assert len(built_in.fetch_bars("AAA")) == len(make_bars("AAA"))


def test_loading_twice_changes_nothing_the_second_time(project: Path, store: MarketStore) -> None:
    provider = FilesProvider(project)
    first = ingest_bars(store, provider, ["AAA", "BBB"], "XNYS")
    assert [(done.symbol, done.rows, done.changed, done.rejected) for done in first] == [
        ("AAA", 630, 630, 0),
        ("BBB", 630, 630, 0),
    ]
    assert [done.changed for done in ingest_bars(store, provider, ["AAA", "BBB"], "XNYS")] == [0, 0]


def test_a_symbol_that_cannot_be_loaded_does_not_stop_the_others(project: Path, store: MarketStore) -> None:
    bars = project / "data" / "bars"
    make_bars("AAA").drop(columns="volume").to_csv(bars / "AAA.csv", index=False)

    done = ingest_bars(store, FilesProvider(project), ["AAA", "^VIX", "BBB"], "XNYS")

    assert "lack the column(s) volume" in str(done[0].problem)
    assert done[0].rows == 0
    assert done[1].problem == "files has no bars of ^VIX"
    assert (done[2].rows, done[2].problem) == (630, None)
    assert list(store.coverage()) == ["BBB"]


def test_an_unreadable_file_does_not_stop_the_others(project: Path, store: MarketStore) -> None:
    (project / "data" / "bars" / "AAA.parquet").write_bytes(b"PAR1 and then nothing")
    done = ingest_bars(store, FilesProvider(project), ["AAA", "BBB"], "XNYS")
    assert done[0].problem is not None
    assert list(store.coverage()) == ["BBB"]


def test_rejected_rows_are_counted_and_listed(project: Path, store: MarketStore) -> None:
    spoiled = make_bars("AAA")
    spoiled.loc[spoiled["date"] == "2021-03-04", "high"] = 0.01
    spoiled.to_csv(project / "data" / "bars" / "AAA.csv", index=False)
    (done,) = ingest_bars(store, FilesProvider(project), ["AAA"], "XNYS")
    assert (done.rows, done.changed, done.rejected) == (629, 629, 1)
    assert store.rejected("bars", "AAA")["item"].tolist() == ["2021-03-04"]
    assert store.load_bars("AAA", date(2021, 3, 4), date(2021, 3, 5)).empty
