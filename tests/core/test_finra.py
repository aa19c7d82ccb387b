"""FINRA's short interest: pages, refusals, and when a figure could be known."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from signals_core.calendar import exchange_calendar
from signals_core.errors import ProviderError
from signals_core.market_data.providers.finra import FinraProvider, publication_date, published_short_interest
from signals_core.market_data.screening import screen_facts
from signals_core.market_data.store import MarketStore
from tests.conftest import PROJECT
from tests.core.loopback import Loopback, Reply, json_reply, serving

PATH = "/data/group/otcMarket/name/consolidatedShortInterest"
REAL = Path(os.environ.get("SIGNALS_REAL_DATA", PROJECT.parents[2] / "shared" / "data"))


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving() as loopback:
        yield loopback


def provider(server: Loopback, **options: Any) -> FinraProvider:
    return FinraProvider(Path(), base_url=server.url, sleep=lambda seconds: None, **options)


def record(settled: str, shares: int, symbol: str = "AAPL", **other: Any) -> dict[str, Any]:
    """One record with every field of the dataset."""
    return {
        "accountingYearMonthNumber": int(settled.replace("-", "")),
        "symbolCode": symbol,
        "issueName": "Apple Inc. Common Stock",
        "issuerServicesGroupExchangeCode": "R",
        "marketClassCode": "NNM",
        "currentShortPositionQuantity": shares,
        "previousShortPositionQuantity": shares - 100,
        "stockSplitFlag": None,
        "averageDailyVolumeQuantity": 58_000_000,
        "daysToCoverQuantity": 1.84,
        "revisionFlag": None,
        "changePercent": -1.8,
        "changePreviousNumber": 100,
        "settlementDate": settled,
        **other,
    }


def page(*records: dict[str, Any], total: int | None = None, **how: Any) -> Reply:
    return json_reply(list(records), headers={} if total is None else {"Record-Total": str(total)}, **how)


def asked(server: Loopback, number: int = -1) -> dict[str, Any]:
    return dict(json.loads(server.asked[number].body))


def test_a_settlement_is_available_at_the_close_of_the_session_after_its_publication(server: Loopback) -> None:
    server.script(PATH, page(record("2024-01-12", 106_300_000), record("2024-06-28", 120_000_000), total=2))
    found = provider(server).fetch_short_interest("AAPL")
    assert found is not None
    assert found["shares_short"].tolist() == [106_300_000, 120_000_000]
    assert found["avg_daily_volume"].tolist() == [58_000_000, 58_000_000]
    assert found["available_at"].tolist() == [
        pd.Timestamp("2024-01-26 21:00", tz="UTC"),
        pd.Timestamp("2024-07-12 20:00", tz="UTC"),
    ]
    assert found["document"].tolist() == ["FINRA", "FINRA"]
    assert asked(server)["compareFilters"] == [
        {"compareType": "EQUAL", "fieldName": "symbolCode", "fieldValue": "AAPL"}
    ]
    assert server.asked[0].headers["accept"] == "application/json"  # FINRA answers in CSV otherwise


def test_it_may_count_at_the_close_of_its_publication(server: Loopback) -> None:
    server.script(PATH, page(record("2024-01-12", 1), total=1))
    found = provider(server, date_only_lag_sessions=0).fetch_short_interest("AAPL")
    assert found is not None
    assert found["available_at"].tolist() == [pd.Timestamp("2024-01-25 21:00", tz="UTC")]


@pytest.mark.parametrize("total", [5, None])
def test_all_pages_are_read(server: Loopback, monkeypatch: pytest.MonkeyPatch, total: int | None) -> None:
    monkeypatch.setattr("signals_core.market_data.providers.finra._PAGE", 2)
    records = [record(day, 1) for day in ("2024-01-12", "2024-01-31", "2024-02-15", "2024-02-29", "2024-03-15")]
    pages = [records[:2], records[2:4], records[4:]]
    server.script(PATH, *(page(*rows, total=total) for rows in pages))
    found = provider(server).fetch_short_interest("AAPL")
    assert found is not None
    assert len(found) == 5
    assert [asked(server, number)["offset"] for number in range(3)] == [0, 2, 4]


def test_a_page_cut_at_three_megabytes_is_not_the_last(server: Loopback) -> None:
    server.script(PATH, page(record("2024-01-12", 1), total=2), page(record("2024-01-31", 1), total=2))
    found = provider(server).fetch_short_interest("AAPL")
    assert found is not None
    assert len(found) == 2
    assert asked(server)["offset"] == 1


def test_since_asks_for_what_was_published_since(server: Loopback) -> None:
    """Published on 2024-01-25 means settled on 2024-01-12: it must be asked for, and one cycle before it."""
    server.script(PATH, page(record("2024-01-12", 1), total=1))
    provider(server).fetch_short_interest("AAPL", datetime(2024, 1, 25, 20, tzinfo=UTC))
    settled = asked(server)["compareFilters"][1]
    assert (settled["fieldName"], settled["compareType"]) == ("settlementDate", "GREATER")
    assert "2023-12-15" < settled["fieldValue"] < "2023-12-29"


def test_share_classes_have_no_dot_at_finra(server: Loopback) -> None:
    server.script(PATH, page(record("2024-01-12", 1, symbol="BRKB"), total=1))
    assert provider(server).fetch_short_interest("BRK.B") is not None
    assert asked(server)["compareFilters"][0]["fieldValue"] == "BRKB"


@pytest.mark.parametrize("reply", [Reply(204), page(total=0), page()])
def test_a_symbol_without_records_is_none(server: Loopback, reply: Reply) -> None:
    server.script(PATH, reply)
    assert provider(server).fetch_short_interest("AAPL") is None


def test_passing_faults_are_waited_out(server: Loopback) -> None:
    good = page(record("2024-01-12", 1), total=1, gzipped=True)
    cut = page(record("2024-01-12", 1), total=1, missing_bytes=20)
    server.script(PATH, Reply(503), Reply(429, headers={"Retry-After": "1"}), cut, good)
    found = provider(server).fetch_short_interest("AAPL")
    assert found is not None
    assert (len(found), len(server.asked)) == (1, 4)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(400, b'{"statusCode": 400, "message": "Invalid filter"}'), "status 400"),
        (Reply(429), "status 429"),
        (Reply(503), "status 503"),
        (page(record("2024-01-12", 1), missing_bytes=20), "cut short"),
        (Reply(200, b"<html></html>"), "no JSON"),
        (json_reply({"message": "maintenance"}), "no list of records"),
        (json_reply([{"symbolCode": "AAPL", "settlementDate": "2024-01-12"}]), "no currentShortPositionQuantity"),
        (page(record("2024-01-12", 1, symbol="MSFT")), "other symbols"),
        (page(record("20240112", 1)), "dates of another format"),
        (page(total=3), "gave 0 of 3 records"),
    ],
)
def test_what_finra_refuses_or_garbles_is_an_error(server: Loopback, reply: Reply, problem: str) -> None:
    server.script(PATH, reply)
    with pytest.raises(ProviderError, match=problem):
        provider(server).fetch_short_interest("AAPL")


@pytest.mark.parametrize(
    ("settled", "published"),
    [
        ("2024-01-12", "2024-01-25"),  # Martin Luther King day between
        ("2023-12-29", "2024-01-11"),  # New Year's day between
        ("2024-06-14", "2024-06-27"),  # Juneteenth between
        ("2024-03-15", "2024-03-27"),
        ("2024-03-31", "2024-04-10"),  # a Sunday counts from the session before
    ],
)
def test_publication_is_eight_sessions_after_settlement(settled: str, published: str) -> None:
    (found,) = publication_date([settled], "XNYS")
    assert found == pd.Timestamp(published)
    sessions = exchange_calendar("XNYS").sessions
    assert ((sessions > pd.Timestamp(settled)) & (sessions <= found)).sum() == 8


def test_a_publication_outside_the_calendar_is_refused() -> None:
    with pytest.raises(ValueError, match="1980-01-15 is outside the calendar XNYS"):
        publication_date(["1980-01-15"], "XNYS")


def test_a_revision_is_a_version_of_the_same_settlement(server: Loopback, tmp_path: Path) -> None:
    store = MarketStore.embedded(tmp_path / "market.sqlite")
    revised = record("2024-01-12", 104, revisionFlag="R")
    server.script(PATH, page(record("2024-01-12", 100), total=1), page(revised, total=1))
    for now in (datetime(2024, 1, 26, tzinfo=UTC), datetime(2024, 2, 13, tzinfo=UTC)):
        found = provider(server).fetch_short_interest("AAPL")
        assert found is not None
        store.save_facts("short_interest", "AAPL", screen_facts("short_interest", found, "AAPL", "XNYS").good, now)
    versions = store.load_facts("short_interest", "AAPL")
    store.close()
    assert versions["shares_short"].tolist() == [100, 104]
    assert versions["settlement_date"].nunique() == 1
    assert versions["available_at"].tolist() == [pd.Timestamp("2024-01-26 21:00"), pd.Timestamp("2024-02-13")]


@pytest.mark.real_data
def test_real_short_interest_of_the_fifteenth_is_not_knowable_on_the_sixteenth() -> None:
    file = REAL / "short_interest" / "finra_5sym_2018_2024.parquet"
    if not file.is_file():
        pytest.skip(f"{file} does not exist: set SIGNALS_REAL_DATA to the folder of real test data")
    settled = pd.read_parquet(file)
    facts = published_short_interest(settled, "XNYS")
    available = facts["available_at"].dt.tz_convert("America/New_York")
    days = (available.dt.tz_localize(None).dt.normalize() - settled["settlement_date"]).dt.days
    assert days.between(10, 15).all()
    apple = facts[facts["symbol"] == "AAPL"].set_index("settlement_date")
    march = apple.loc["2018-03-15"]
    assert march["shares_short"] == 67_276_061
    assert march["available_at"] == pd.Timestamp("2018-03-27 20:00", tz="UTC")

    screened = screen_facts("short_interest", apple.reset_index(), "AAPL", "XNYS")
    assert screened.rejected.empty
    assert len(screened.good) == 168
    knowable = screened.good["available_at"] <= pd.Timestamp("2018-03-16 20:00")
    assert screened.good.loc[knowable, "settlement_date"].max() == pd.Timestamp(date(2018, 2, 28))
    assert np.asarray(screened.good["available_at"] > screened.good["settlement_date"]).all()
