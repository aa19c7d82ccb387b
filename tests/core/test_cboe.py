"""Cboe's index files: the CSV as it is, and what else a server may answer."""

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from signals_core.calendar import exchange_calendar, to_sessions
from signals_core.errors import ProviderError
from signals_core.market_data.providers.cboe import CboeProvider
from signals_core.market_data.screening import screen_bars
from tests.conftest import PROJECT
from tests.core.loopback import Loopback, Reply, serving

VIX = "/daily_prices/VIX_History.csv"
CSV = (
    b"DATE,OPEN,HIGH,LOW,CLOSE\r\n"
    b"01/02/1990,17.240000,17.240000,17.240000,17.240000\r\n"
    b"03/16/2020,57.830000,83.560000,57.830000,82.690000\r\n"
    b"12/31/2024,17.420000,17.930000,16.890000,17.350000\r\n"
)
REAL = Path(os.environ.get("SIGNALS_REAL_DATA", PROJECT.parents[2] / "shared" / "data"))


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving() as loopback:
        yield loopback


def provider(server: Loopback) -> CboeProvider:
    return CboeProvider(Path(), base_url=f"{server.url}/daily_prices", sleep=lambda seconds: None)


@pytest.mark.parametrize("symbol", ["^VIX", "VIX"])
def test_the_vix_is_read_month_first(server: Loopback, symbol: str) -> None:
    server.script(VIX, Reply(body=CSV))
    bars = provider(server).fetch_bars(symbol)
    assert bars is not None
    assert bars["date"].tolist() == [pd.Timestamp(day) for day in ("1990-01-02", "2020-03-16", "2024-12-31")]
    assert bars.loc[1, ["open", "high", "low", "close", "volume"]].tolist() == [57.83, 83.56, 57.83, 82.69, 0]


def test_other_indices_have_files_of_their_own(server: Loopback) -> None:
    server.script("/daily_prices/VIX9D_History.csv", Reply(body=CSV, gzipped=True))
    assert provider(server).fetch_bars("^VIX9D") is not None
    assert provider(server).fetch_bars("AAPL") is None


def test_only_what_is_new_is_handed_on(server: Loopback) -> None:
    server.script(VIX, Reply(body=CSV))
    bars = provider(server).fetch_bars("^VIX", date(2020, 3, 16))
    assert bars is not None
    assert bars["close"].tolist() == [82.69, 17.35]


def test_passing_faults_are_waited_out(server: Loopback) -> None:
    server.script(VIX, Reply(503), Reply(body=CSV, missing_bytes=30), Reply(body=CSV))
    assert provider(server).fetch_bars("^VIX") is not None
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(503), "status 503"),
        (Reply(403, b"<Error>AccessDenied</Error>"), "status 403"),
        (Reply(body=CSV, missing_bytes=30), "cut short"),
        (Reply(body=b"<!DOCTYPE html><html><body>Sorry, we are down</body></html>"), "no CSV of date, open"),
        (Reply(body=b""), "no CSV of date, open"),
        (Reply(body=b"DATE,OPEN,HIGH,LOW,CLOSE\r\n"), "empty or cut short"),
        (Reply(body=CSV + b"01/02/2025,17.9"), "empty or cut short"),
        (Reply(body=CSV.replace(b"03/16/2020", b"2020-03-16")), "no CSV of date, open"),
        (Reply(body=CSV.replace(b"82.690000", b"n.m.")), "no CSV of date, open"),
        (Reply(body=b"DATE,VVIX\r\n01/02/2025,99\r\n"), "its columns are date, vvix"),
        (Reply(body=b"\xff\xfe\x00"), "no CSV of date, open"),
    ],
)
def test_what_is_not_that_csv_is_an_error(server: Loopback, reply: Reply, problem: str) -> None:
    server.script(VIX, reply)
    with pytest.raises(ProviderError, match=problem):
        provider(server).fetch_bars("^VIX")


@pytest.mark.real_data
def test_the_real_history_passes_the_screening(server: Loopback) -> None:
    file = REAL / "bars" / "vix_1990_2026.parquet"
    if not file.is_file():
        pytest.skip(f"{file} does not exist: set SIGNALS_REAL_DATA to the folder of real test data")
    real = pd.read_parquet(file)
    text = real.rename(columns=str.upper).to_csv(index=False, date_format="%m/%d/%Y", float_format="%.6f")
    server.script(VIX, Reply(body=text.encode()))
    bars = provider(server).fetch_bars("^VIX")
    assert bars is not None
    pd.testing.assert_frame_equal(bars[list(real.columns)], real, check_dtype=False)
    screened = screen_bars(bars, "^VIX", to_sessions(exchange_calendar("XNYS").sessions))
    assert len(screened.good) > 0.99 * len(real)
