"""Alpaca's two services through alpaca-py: pages, corporate actions on their ex-dates, refusals."""

import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from signals_core.calendar import exchange_calendar, to_sessions
from signals_core.errors import MissingPrerequisite, ProviderError, SettingsError
from signals_core.market_data.providers.alpaca import AlpacaProvider
from signals_core.market_data.screening import screen_bars
from tests.core.loopback import Loopback, Reply, json_reply, serving

pytestmark = pytest.mark.filterwarnings("ignore:websockets.legacy:DeprecationWarning")  # alpaca-py's own

BARS, ACTIONS = "/v2/stocks/bars", "/v1/corporate-actions"
KEY_ID, SECRET = "PK-TEST-ID", "very-secret-value"
SATURDAY = datetime(2020, 9, 5, tzinfo=UTC)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.setenv("APCA_API_KEY_ID", KEY_ID)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    with serving() as loopback:
        loopback.script(ACTIONS, corporate_actions({}))
        yield loopback


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been slept."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def provider(server: Loopback, now: datetime = SATURDAY, **options: Any) -> AlpacaProvider:
    urls = {"url_override": server.url, "actions_url_override": server.url}
    return AlpacaProvider(Path(), now=lambda: now, **{**urls, **options})


def bar(day: str, close: float, hour: str = "04:00") -> dict[str, Any]:
    """A daily bar: it begins at midnight in New York, which is 04:00 UTC in summer and 05:00 in winter."""
    begin = f"{day}T{hour}:00Z"
    return {"t": begin, "o": close - 1, "h": close + 1, "l": close - 2, "c": close, "v": 1e6, "n": 9, "vw": close}


def bars(*rows: dict[str, Any], symbol: str = "AAPL", following: str | None = None) -> Reply:
    return json_reply({"bars": {symbol: list(rows)} if rows else {}, "next_page_token": following})


def corporate_actions(found: dict[str, Any], following: str | None = None) -> Reply:
    return json_reply({"corporate_actions": found, "next_page_token": following})


def forward_split(ex_date: str, new: float, old: float = 1) -> dict[str, Any]:
    dates = {"ex_date": ex_date, "process_date": ex_date, "record_date": "2020-08-24"}
    return {"id": "a", "symbol": "AAPL", "cusip": "037833100", "new_rate": new, "old_rate": old, **dates}


def dividend(ex_date: str, rate: float, paid: str, special: bool = False) -> dict[str, Any]:
    dates = {"ex_date": ex_date, "process_date": paid, "payable_date": paid}
    return {"id": "b", "symbol": "AAPL", "rate": rate, "special": special, "foreign": False, **dates}


def test_all_pages_become_bars_of_the_exchanges_dates(server: Loopback) -> None:
    server.script(
        BARS,
        bars(bar("2020-01-03", 297.43, hour="05:00"), bar("2020-08-27", 500.04), following="cGFnZTI="),
        bars(bar("2020-08-28", 499.23)),
    )
    found = provider(server).fetch_bars("AAPL")
    assert found is not None
    assert found["date"].dt.strftime("%Y-%m-%d").tolist() == ["2020-01-03", "2020-08-27", "2020-08-28"]
    assert found["close"].tolist() == [297.43, 500.04, 499.23]
    assert {"open", "high", "low", "volume", "split", "dividend"} <= set(found.columns)
    first, second = [request for request in server.asked if request.path == BARS]
    assert first.query["symbols"] == ["AAPL"]
    assert (first.query["adjustment"], first.query["feed"], first.query["timeframe"]) == (["raw"], ["iex"], ["1Day"])
    assert first.query["start"] == ["2016-01-01T05:00:00+00:00"]
    assert second.query["page_token"] == ["cGFnZTI="]
    assert first.headers["apca-api-key-id"] == KEY_ID


def test_splits_and_dividends_are_on_their_ex_dates(server: Loopback) -> None:
    server.script(BARS, bars(*(bar(day, 100) for day in ("2020-08-06", "2020-08-07", "2020-08-28", "2020-08-31"))))
    server.script(
        ACTIONS,
        corporate_actions(
            {"cash_dividends": [dividend("2020-08-07", 0.82, "2020-08-13")]},
            following="bmV4dA==",
        ),
        corporate_actions(
            {
                "forward_splits": [forward_split("2020-08-31", 4)],
                "cash_dividends": [dividend("2020-08-07", 1.5, "2020-08-20", special=True)],
                "reverse_splits": [{**forward_split("2020-08-06", 1, 10), "old_cusip": "x", "new_cusip": "y"}],
            }
        ),
    )
    found = provider(server).fetch_bars("AAPL")
    assert found is not None
    assert found["split"].tolist() == [0.1, 0, 0, 4]
    assert found["dividend"].tolist() == pytest.approx([0, 2.32, 0, 0])
    query = next(request for request in server.asked if request.path == ACTIONS).query
    assert query["types"] == ["forward_split,reverse_split,cash_dividend"]
    assert query["end"][0] > "2020-12-01"  # filed under the day of payment, which may be ahead


def test_a_split_on_a_day_without_a_bar_is_told_all_the_same(server: Loopback) -> None:
    server.script(BARS, bars(bar("2020-08-28", 499.23), bar("2020-09-01", 134.18)))
    server.script(ACTIONS, corporate_actions({"forward_splits": [forward_split("2020-08-31", 4)]}))
    found = provider(server).fetch_bars("AAPL")
    assert found is not None
    screened = screen_bars(found, "AAPL", to_sessions(exchange_calendar("XNYS").sessions))
    assert screened.good.index.strftime("%Y-%m-%d").tolist() == ["2020-08-28", "2020-09-01"]
    assert screened.actions[["kind", "value"]].to_numpy().tolist() == [["split", 4.0]]
    assert screened.actions["ex_date"].tolist() == [pd.Timestamp("2020-08-31")]


@pytest.mark.parametrize(("minute", "last"), [(15, "2020-08-31"), (16, "2020-09-01")])
def test_the_last_bar_waits_for_the_close_and_late_trades(server: Loopback, minute: int, last: str) -> None:
    server.script(BARS, bars(bar("2020-08-31", 129.04), bar("2020-09-01", 134.18)))
    now = datetime(2020, 9, 1, 20, minute, tzinfo=UTC)
    found = provider(server, now).fetch_bars("AAPL")
    assert found is not None
    assert found["date"].iloc[-1] == pd.Timestamp(last)
    # The free plan refuses the last quarter of an hour.
    assert server.asked[0].query["end"] == [f"2020-09-01T{'19:59' if minute == 15 else '20:00'}:00+00:00"]


def test_since_looks_back_for_dividends_paid_since(server: Loopback) -> None:
    server.script(BARS, bars(bar("2020-08-31", 129.04)))
    provider(server, start=date(2020, 7, 1)).fetch_bars("AAPL", date(2020, 8, 31))
    provider(server).fetch_bars("AAPL", date(2020, 8, 31))
    asked = [request.query["start"][0][:10] for request in server.asked]
    assert asked == ["2020-07-02", "2020-07-02", "2020-07-02", "2020-07-02"]


@pytest.mark.parametrize("symbol", ["GONE", "^VIX"])
def test_no_bars_are_none(server: Loopback, symbol: str) -> None:
    server.script(BARS, bars())
    assert provider(server).fetch_bars(symbol) is None


def test_retry_after_is_obeyed(server: Loopback, waited: list[float]) -> None:
    server.script(BARS, Reply(429, b"{}", {"Retry-After": "7"}), Reply(503), bars(bar("2020-08-31", 129.04)))
    assert provider(server).fetch_bars("AAPL") is not None
    assert waited[0] == 7


def test_too_many_requests_for_ever_is_an_error(server: Loopback, waited: list[float]) -> None:
    server.script(BARS, Reply(429, b'{"message": "too many requests."}', {"Retry-After": "1"}))
    with pytest.raises(ProviderError, match="Alpaca: bars of AAPL: RetryError; try again later"):
        provider(server).fetch_bars("AAPL")
    assert waited == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("path", "reply", "problem"),
    [
        (
            BARS,
            Reply(403, b'{"message": "subscription does not permit querying recent SIP data"}'),
            "status 403; check",
        ),
        (BARS, Reply(401, f"bad key {KEY_ID} {SECRET}".encode()), "status 401; check the keys"),
        (ACTIONS, Reply(400, b"<html>"), "corporate actions of AAPL: status 400"),
        (BARS, Reply(200, b'{"bars": {"AAPL": [{"t"'), "bars of AAPL: JSONDecodeError"),
        (BARS, json_reply({"bars": {}}, missing_bytes=5), "bars of AAPL: "),
        (BARS, Reply(200, b"<html>maintenance</html>"), "bars of AAPL: JSONDecodeError"),
        (BARS, Reply(200, b""), "bars of AAPL: not in the known format"),
        (BARS, json_reply({"message": "?"}), "bars of AAPL: not in the known format"),
        (BARS, bars({"t": "2020-08-31T04:00:00Z", "o": 1}), "bars of AAPL: not in the known format"),
        (ACTIONS, corporate_actions({"forward_splits": [{"new_rate": 4}]}), "actions of AAPL: not in the known format"),
    ],
)
def test_what_alpaca_refuses_or_garbles_is_an_error_without_the_keys(
    server: Loopback, path: str, reply: Reply, problem: str
) -> None:
    server.script(BARS, bars(bar("2020-08-31", 129.04)))
    server.script(path, reply)
    with pytest.raises(ProviderError, match=problem) as raised:
        provider(server).fetch_bars("AAPL")
    assert KEY_ID not in str(raised.value)
    assert SECRET not in str(raised.value)


def test_no_connection_is_an_error(server: Loopback, waited: list[float]) -> None:
    with pytest.raises(ProviderError, match="bars of AAPL: ConnectionError"):
        provider(server, url_override="http://127.0.0.1:9").fetch_bars("AAPL")


@pytest.mark.parametrize("missing", ["APCA_API_KEY_ID", "APCA_API_SECRET_KEY"])
def test_missing_keys_are_named(server: Loopback, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delenv(missing)
    with pytest.raises(SettingsError, match=f"set the environment variables {missing}$"):
        provider(server).fetch_bars("AAPL")
    assert server.asked == []


def test_an_unknown_feed_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"options\.feed: 'otc' is neither of iex, sip"):
        AlpacaProvider(Path(), feed="otc")


def test_without_alpaca_py_the_error_says_what_to_install(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "alpaca.common.exceptions", None)
    with pytest.raises(MissingPrerequisite, match=r"pip install 'signals\[alpaca\]'"):
        provider(server).fetch_bars("AAPL")
