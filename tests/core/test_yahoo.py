"""Yahoo's chart service as yfinance asks it: bars in today's shares come out as they were traded."""

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import yfinance
import yfinance.base
import yfinance.cache
import yfinance.data
from curl_cffi import requests as curl

from signals_core.errors import MissingPrerequisite, ProviderError
from signals_core.market_data.providers.yahoo import YahooProvider, undo_splits
from tests.core.loopback import Loopback, Reply, json_reply, serving

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning:yfinance.*")  # yfinance's own

CHART = "/v8/finance/chart/AAPL"
SUMMARY = "/v10/finance/quoteSummary/AAPL"
NEVER_CLOSING = datetime(2020, 9, 5, tzinfo=UTC)  # a Saturday

# Apple in the shares of after 2020-08-31 (4:1; 7:1 on 2014-06-09), in single precision as Yahoo sends them.
CLOSES = {
    "2014-06-06": 23.056071,
    "2014-06-09": 23.425,
    "2020-08-06": 113.9025,
    "2020-08-07": 111.1125,
    "2020-08-28": 124.8075,
    "2020-08-31": 129.04,
    "2020-09-01": 134.18,
}
AS_TRADED = [645.57, 93.70, 455.61, 444.45, 499.23, 129.04, 134.18]
NOT_FOUND = {
    "chart": {"result": None, "error": {"code": "Not Found", "description": "No data found, symbol may be delisted"}}
}


def seconds(day: str) -> int:
    return int(pd.Timestamp(f"{day} 09:30", tz="America/New_York").timestamp())


def chart(closes: dict[str, float] = CLOSES, splits: dict[str, tuple[int, int]] | None = None) -> dict[str, Any]:
    """The v8 chart document of daily bars whose open, high and low are the close."""
    values = [float(np.float32(value)) for value in closes.values()]
    quote: dict[str, list[Any]] = dict.fromkeys(("open", "high", "low", "close"), values)
    splits = {"2014-06-09": (7, 1), "2020-08-31": (4, 1)} if splits is None else splits
    return {
        "chart": {
            "result": [
                {
                    "meta": {
                        "currency": "USD",
                        "symbol": "AAPL",
                        "instrumentType": "EQUITY",
                        "exchangeTimezoneName": "America/New_York",
                        "timezone": "EDT",
                        "gmtoffset": -14400,
                        "firstTradeDate": 345479400,
                        "regularMarketTime": seconds("2020-09-01"),
                        "priceHint": 2,
                        "dataGranularity": "1d",
                        "validRanges": ["1d", "5d", "1mo", "max"],
                    },
                    "timestamp": [seconds(day) for day in closes],
                    "events": {
                        "dividends": {str(seconds("2020-08-07")): {"amount": 0.205, "date": seconds("2020-08-07")}},
                        "splits": {
                            str(seconds(day)): {
                                "date": seconds(day),
                                "numerator": new,
                                "denominator": old,
                                "splitRatio": f"{new}:{old}",
                            }
                            for day, (new, old) in splits.items()
                        },
                    },
                    "indicators": {
                        "quote": [quote | {"volume": [187_630_000] * len(closes)}],
                        "adjclose": [{"adjclose": [value * 0.98 for value in values]}],
                    },
                }
            ],
            "error": None,
        }
    }


class LoopbackSession(curl.Session):
    """yfinance's addresses of cookies and crumbs are literals: the request's host is the narrowest seam."""

    server: Loopback

    def request(self, method: Any, url: str, *args: Any, **options: Any) -> Any:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.hostname.endswith("yahoo.com")
        return super().request(method, f"{self.server.url}{parts.path or '/'}", *args, **options)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.setattr(yfinance.data.SingletonMeta, "_instances", {})
    monkeypatch.setattr(yfinance.base, "_tz_info_fetch_ctr", 0)
    monkeypatch.setattr(yfinance.cache._TzCacheManager, "_tz_cache", yfinance.cache._TzCacheDummy())
    monkeypatch.setattr(yfinance.cache._CookieCacheManager, "_Cookie_cache", yfinance.cache._CookieCacheDummy())
    with serving() as loopback:
        monkeypatch.setattr(LoopbackSession, "server", loopback, raising=False)
        yfinance.data.YfData(session=LoopbackSession(impersonate="chrome"))
        loopback.script("/", Reply(headers={"Set-Cookie": "A3=test"}))
        loopback.script("/v1/test/getcrumb", Reply(body=b"crumb"))
        yield loopback
    yfinance.config.debug.hide_exceptions = True


def provider(now: datetime = NEVER_CLOSING, **options: Any) -> YahooProvider:
    return YahooProvider(Path(), now=lambda: now, **{"attempts": 3, "sleep": lambda seconds: None, **options})


def test_splits_are_undone_in_prices_volumes_and_dividends(server: Loopback) -> None:
    server.script(CHART, json_reply(chart()))
    bars = provider().fetch_bars("AAPL")
    assert bars is not None
    assert list(bars.columns) == ["date", "open", "high", "low", "close", "volume", "dividend", "split"]
    assert bars["date"].dt.strftime("%Y-%m-%d").tolist() == list(CLOSES)
    assert bars["close"].tolist() == AS_TRADED
    assert bars["low"].tolist() == AS_TRADED
    assert bars["split"].tolist() == [0, 7, 0, 0, 0, 4, 0]
    assert bars["dividend"].tolist() == [0, 0, 0, 0.82, 0, 0, 0]
    assert bars["volume"].tolist() == [6_701_071, 46_907_500, 46_907_500, 46_907_500, 46_907_500, *[187_630_000] * 2]


def test_only_what_is_new_is_asked_for_and_later_splits_are_undone_all_the_same(server: Loopback) -> None:
    recent = {day: close for day, close in CLOSES.items() if day >= "2020-08-28"}
    server.script(CHART, json_reply(chart(recent, {"2020-08-31": (4, 1)})))
    bars = provider().fetch_bars("AAPL", date(2020, 8, 28))
    assert bars is not None
    assert bars["close"].tolist() == [499.23, 129.04, 134.18]
    query = server.asked[-1].query
    assert int(query["period1"][0]) == pd.Timestamp("2020-08-28", tz="America/New_York").timestamp()
    assert int(query["period2"][0]) == pd.Timestamp("2020-09-05", tz="America/New_York").timestamp()
    assert (query["interval"], query["events"]) == (["1d"], ["div,splits,capitalGains"])


@pytest.mark.parametrize(("hour", "last"), [(19, "2020-08-31"), (20, "2020-09-01")])
def test_the_bar_of_a_session_that_has_not_closed_is_left_out(server: Loopback, hour: int, last: str) -> None:
    server.script(CHART, json_reply(chart()))
    bars = provider(datetime(2020, 9, 1, hour, tzinfo=UTC)).fetch_bars("AAPL")  # New York closes at 20:00 UTC
    assert bars is not None
    assert bars["date"].iloc[-1] == pd.Timestamp(last)


def test_on_the_day_of_a_split_one_asks_after_the_close(server: Loopback) -> None:
    until_split = {day: close for day, close in CLOSES.items() if day <= "2020-08-31"}
    server.script(CHART, json_reply(chart(until_split)))
    with pytest.raises(ProviderError, match="AAPL is split today; ask again after the session's close"):
        provider(datetime(2020, 8, 31, 13, tzinfo=UTC)).fetch_bars("AAPL")
    bars = provider(datetime(2020, 8, 31, 20, tzinfo=UTC)).fetch_bars("AAPL")
    assert bars is not None
    assert bars["close"].tolist() == AS_TRADED[:-1]


def test_a_split_changes_nothing_of_what_was_fetched_before_it(server: Loopback) -> None:
    """Else each split would store every bar of the past as restated."""
    before = {day: 4 * close for day, close in CLOSES.items() if day < "2020-08-31"}
    server.script(CHART, json_reply(chart(before, {"2014-06-09": (7, 1)})))
    earlier = provider(datetime(2020, 8, 29, tzinfo=UTC)).fetch_bars("AAPL")
    server.script(CHART, json_reply(chart()))
    later = provider().fetch_bars("AAPL")
    assert earlier is not None
    assert later is not None
    prices = ["date", "open", "high", "low", "close", "split"]
    pd.testing.assert_frame_equal(earlier[prices], later[prices].iloc[: len(before)], check_exact=True)


def test_undoing_splits_is_the_inverse_of_adjusting_by_them() -> None:
    random = np.random.default_rng(5)
    for _ in range(20):
        split = np.where(random.random(300) < 0.02, random.choice([2.0, 1.5, 10.0, 0.1, 0.125], 300), 0.0)
        later = [np.prod([ratio for ratio in split[row + 1 :] if ratio]) for row in range(300)]
        traded = np.round(random.uniform(1, 900, 300), 2)
        adjusted = (traded / later).astype(np.float32).astype(float)
        frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close", "dividend"), adjusted))
        raw = undo_splits(frame.assign(volume=1000 * np.array(later), split=split))
        np.testing.assert_allclose(raw["close"], traded, rtol=2e-7)
        assert raw["volume"].tolist() == [1000.0] * 300


@pytest.mark.parametrize("summary", [Reply(404, b"{}"), json_reply({"quoteSummary": {"result": None}}, status=404)])
def test_a_symbol_that_yahoo_does_not_know_is_none(server: Loopback, summary: Reply) -> None:
    server.script(CHART, json_reply(NOT_FOUND, status=404))
    server.script(SUMMARY, summary)
    waited: list[float] = []
    assert provider(sleep=waited.append).fetch_bars("AAPL") is None
    assert provider(sleep=waited.append).fetch_bars("AAPL") is None
    assert provider(sleep=waited.append).fetch_bars("AAPL") is None  # yfinance looks in the summary only twice
    assert waited == []


def test_a_symbol_delisted_since_its_time_zone_was_seen_is_none(server: Loopback) -> None:
    server.script(CHART, json_reply(chart()), json_reply(NOT_FOUND, status=404))
    assert provider().fetch_bars("AAPL") is None


def test_no_bars_in_the_days_asked_for_is_none(server: Loopback) -> None:
    empty = chart()
    empty["chart"]["result"][0]["indicators"] = {"quote": [{}], "adjclose": [{}]}
    del empty["chart"]["result"][0]["timestamp"]
    server.script(CHART, json_reply(empty))
    assert provider().fetch_bars("AAPL", date(2020, 8, 28)) is None


def test_dots_are_dashes_at_yahoo(server: Loopback) -> None:
    server.script("/v8/finance/chart/BRK-B", json_reply(chart()))
    assert provider().fetch_bars("BRK.B") is not None


def test_a_refusal_for_asking_too_often_is_waited_out(server: Loopback) -> None:
    refused = Reply(429, b"Too Many Requests")
    server.script(CHART, refused, refused, json_reply(chart()))  # yfinance itself asks a second time
    waited: list[float] = []
    assert provider(sleep=waited.append).fetch_bars("AAPL") is not None
    assert len(waited) == 1


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(429, b"Too Many Requests"), "YFRateLimitError: Too Many Requests"),
        (Reply(500, b"<html>Internal Server Error</html>"), "JSONDecodeError"),
        (Reply(200, b'{"chart": {"result": [{"meta"'), "JSONDecodeError"),
        (json_reply(chart(), missing_bytes=10), "AAPL: "),
        (json_reply({"finance": {"result": None, "error": {"description": "Invalid Crumb"}}}, status=401), "AAPL: "),
    ],
)
@pytest.mark.parametrize("zone_known", [False, True])
def test_what_is_no_answer_is_an_error_after_some_attempts(
    server: Loopback, reply: Reply, problem: str, zone_known: bool
) -> None:
    server.script(CHART, *[json_reply(chart())] * zone_known, reply)
    waited: list[float] = []
    with pytest.raises(ProviderError, match=f"^Yahoo: AAPL: .*{problem.removeprefix('AAPL: ')}.*3 attempts"):
        provider(sleep=waited.append).fetch_bars("AAPL")
    assert len(waited) == 2


def test_without_yfinance_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yfinance", None)
    monkeypatch.setitem(sys.modules, "yfinance.exceptions", None)
    with pytest.raises(MissingPrerequisite, match=r"pip install 'signals\[yahoo\]'"):
        provider().fetch_bars("AAPL")
