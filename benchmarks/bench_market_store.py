"""The market store against what pandas and plain SQL do with the same rows: 500 symbols × 2,520 sessions.

Run with `make bench`. Both sides run alternately in one process; their outputs are checked equal before any
time is believed. PostgreSQL is the server of SIGNALS_TEST_POSTGRES_URL, or a local one; without it, SQLite only.
"""

import os
import platform
import signal
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from benchmarks.measuring import Measured, alternate, clocked, headings, line
from signals_core.calendar import sessions_between, to_sessions
from signals_core.market_data.availability import close_of_date
from signals_core.market_data.schemas import BAR_COLUMNS
from signals_core.market_data.store import MarketStore

SYMBOLS, SESSIONS = 500, 2520
LOADS, READS = 3, 7
NOW = datetime(2026, 1, 2, tzinfo=UTC)
CHUNK = 10_000
WIDTH = 46
DEFAULT_SERVER = "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres"
COLUMNS = ["symbol", "date", "available_at", *BAR_COLUMNS, "run_id"]
REQUIRED = {("postgresql", "load"): 5.0, ("postgresql", "latest"): 4.0}


def synthetic(symbols: int = SYMBOLS, sessions: int = SESSIONS) -> pd.DataFrame:
    """Random walks of every symbol on the same sessions: columns symbol, date, open, high, low, close, volume."""
    days = sessions_between("XNYS", date(2014, 1, 1), date(2025, 1, 1))[-sessions:]
    random = np.random.default_rng(11)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.015, (symbols, sessions)), axis=1)).ravel()
    open_ = close * np.exp(random.normal(0, 0.004, close.size))
    return pd.DataFrame(
        {
            "symbol": np.repeat([f"S{number:04d}" for number in range(symbols)], sessions),
            "date": np.tile(days, symbols),
            "open": open_,
            "high": np.maximum(open_, close) * 1.004,
            "low": np.minimum(open_, close) * 0.996,
            "close": close,
            "volume": random.integers(100_000, 9_000_000, close.size).astype(float),
        }
    )


def row(backend: str, what: str, ours: Measured, other: Measured | None = None) -> None:
    """Print one line of the table."""
    print(line(f"{backend:<11} {what}", WIDTH, ours, other), flush=True)


def same(ours: pd.DataFrame, other: pd.DataFrame) -> None:
    """Raise AssertionError unless two frames hold the same bars to the last bit."""
    pd.testing.assert_frame_equal(ours, other, check_exact=True, check_dtype=False)


def stored(engine: sa.Engine, table: str, where: str = "") -> pd.DataFrame:
    """Bars of a table in the order of symbol and date."""
    query = f"select symbol, date, available_at, {', '.join(BAR_COLUMNS)} from {table} {where} order by symbol, date"
    frame = pd.read_sql(sa.text(query), engine)
    return frame.assign(
        date=to_sessions(frame["date"]), available_at=pd.to_datetime(frame["available_at"]).astype("datetime64[us]")
    )


def bench_load(backend: str, new_url: Callable[[], str], bars: pd.DataFrame) -> tuple[str, float]:
    """A first load of all bars; returns the URL of a store that holds them, and the ratio."""
    available = np.asarray(close_of_date(bars["date"], "XNYS"))
    urls: dict[str, str] = {}

    def ours(_: int) -> float:
        urls["ours"] = new_url()
        store = MarketStore(urls["ours"])
        seconds = clocked(lambda: store.save_many_bars(bars, NOW))
        store.close()
        return seconds

    def to_sql(_: int) -> float:
        urls["to_sql"] = new_url()
        store = MarketStore(urls["to_sql"])  # the same tables, with the same keys
        engine = sa.create_engine(urls["to_sql"])
        rows = bars.assign(available_at=available, run_id=None, date=bars["date"].dt.date)[COLUMNS]
        seconds = clocked(lambda: rows.to_sql("bars", engine, if_exists="append", index=False, chunksize=CHUNK))
        engine.dispose()
        store.close()
        return seconds

    measured = alternate(LOADS, ours=ours, to_sql=to_sql)
    engines = {name: sa.create_engine(url) for name, url in urls.items()}
    found = {name: stored(engine, "bars") for name, engine in engines.items()}
    assert len(found["ours"]) == len(bars)
    assert found["ours"]["close"].tolist() == bars["close"].tolist()
    assert found["ours"]["available_at"].tolist() == found["to_sql"]["available_at"].tolist()
    same(found["ours"], found["to_sql"])
    for engine in engines.values():
        engine.dispose()
    row(backend, f"load {len(bars):,} bars | to_sql", measured["ours"], measured["to_sql"])
    return urls["ours"], measured["to_sql"].median / measured["ours"].median


def bench_again(backend: str, store: MarketStore, bars: pd.DataFrame) -> None:
    """A load of what is stored already, as every night does it."""
    assert store.save_many_bars(bars, NOW).changed == 0
    row(backend, "load the same again", Measured("ours", [clocked(lambda: store.save_many_bars(bars, NOW))]))


def bench_latest(store: MarketStore, server: str) -> float:
    """The last bar of every symbol."""
    engine = sa.create_engine(server)
    names = ["symbol", "date", *BAR_COLUMNS]
    query = sa.text(f"SELECT DISTINCT ON (symbol) {', '.join(names)} FROM bars ORDER BY symbol, date DESC")
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("VACUUM ANALYZE bars"))

    def distinct_on() -> pd.DataFrame:
        with engine.connect() as connection:
            frame = pd.DataFrame(connection.execute(query).all(), columns=names)
        return frame.assign(date=to_sessions(frame["date"])).set_index("symbol")

    same(store.latest_bars(), distinct_on())
    measured = alternate(READS, ours=lambda _: clocked(store.latest_bars), distinct_on=lambda _: clocked(distinct_on))
    engine.dispose()
    row("postgresql", "latest bar of each | DISTINCT ON", measured["ours"], measured["distinct_on"])
    return measured["distinct_on"].median / measured["ours"].median


def bench_reads(backend: str, store: MarketStore, bars: pd.DataFrame) -> None:
    """Two years of a symbol, and every symbol whole."""
    symbols = sorted(bars["symbol"].unique())
    start = bars["date"].iloc[SESSIONS - 504].date()
    reader = sa.create_engine(store.database.url)

    def read_sql(symbol: str) -> pd.DataFrame:
        query = sa.text(
            f"select date, {', '.join(BAR_COLUMNS)} from bars where symbol = :symbol and date >= :start order by date"
        )
        frame = pd.read_sql(query, reader, params={"symbol": symbol, "start": str(start)})
        return frame.assign(date=to_sessions(frame["date"])).set_index("date")

    found = store.load_bars(symbols[7], start)
    assert len(found) == 504
    same(found[list(BAR_COLUMNS)], read_sql(symbols[7]))
    measured = alternate(
        READS * 5,
        ours=lambda repeat: clocked(lambda: store.load_bars(symbols[repeat % len(symbols)], start)),
        read_sql=lambda repeat: clocked(lambda: read_sql(symbols[repeat % len(symbols)])),
    )
    reader.dispose()
    row(backend, "two years of a symbol | read_sql", measured["ours"], measured["read_sql"])

    def everything(_: int) -> float:
        return clocked(lambda: [store.load_bars(symbol) for symbol in symbols])

    closes = np.concatenate([store.load_bars(symbol)["close"].to_numpy() for symbol in symbols])
    assert np.array_equal(closes, bars["close"].to_numpy())
    row(backend, f"all bars of {len(symbols)} symbols", Measured("ours", [everything(n) for n in range(2)]))
    row(backend, "latest bar of each", Measured("ours", [clocked(store.latest_bars) for _ in range(READS)]))
    row(backend, "coverage of all", Measured("ours", [clocked(store.coverage) for _ in range(3)]))


@contextmanager
def schemas(server: str) -> Iterator[Callable[[], str]]:
    """Makes schemas of a server, each with the URL to use it; all are dropped at the end."""
    engine, made = sa.create_engine(server), []

    def new() -> str:
        made.append(f"signals_bench_{uuid.uuid4().hex[:12]}")
        with engine.begin() as connection:
            connection.execute(sa.text(f"create schema {made[-1]}"))
        options = {"options": f"-csearch_path={made[-1]},public"}
        return sa.make_url(server).update_query_dict(options).render_as_string(hide_password=False)

    try:
        yield new
    finally:
        for schema in made:
            with engine.begin() as connection:
                connection.execute(sa.text(f"drop schema if exists {schema} cascade"))
        engine.dispose()


def run(backend: str, new_url: Callable[[], str], bars: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Every measurement on one backend; the ratios of those that have a rival."""
    url, ratio = bench_load(backend, new_url, bars)
    store, ratios = MarketStore(url), {(backend, "load"): ratio}
    try:
        if backend == "postgresql":
            ratios[backend, "latest"] = bench_latest(store, url)
        bench_reads(backend, store, bars)
        bench_again(backend, store, bars)
    finally:
        store.close()
    return ratios


def server_of(url: str) -> str | None:
    """The server's version; None if it does not answer."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return str(connection.execute(sa.text("show server_version")).scalar_one())
    except sa.exc.OperationalError:
        return None
    finally:
        engine.dispose()


def main() -> int:
    """Print the table; 1 if a required ratio is missed."""
    pa.set_cpu_count(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the schemas are dropped then too
    server = os.environ.get("SIGNALS_TEST_POSTGRES_URL", DEFAULT_SERVER)
    postgresql, bars = server_of(server), synthetic()
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, pandas {pd.__version__}, "
        f"SQLAlchemy {sa.__version__}, pyarrow {pa.__version__}, SQLite {sqlite3.sqlite_version}, "
        f"PostgreSQL {postgresql or '—'}; one thread; {SYMBOLS} symbols × {SESSIONS:,} sessions"
    )
    print(headings(WIDTH))
    with tempfile.TemporaryDirectory() as folder:
        ratios = run("sqlite", lambda: f"sqlite:///{Path(folder) / uuid.uuid4().hex}.sqlite", bars)
    if postgresql is None:
        print(f"PostgreSQL is left out: {sa.make_url(server).render_as_string()} does not answer")
    else:
        with schemas(server) as new_url:
            ratios |= run("postgresql", new_url, bars)
    missed = {key: least for key, least in REQUIRED.items() if key in ratios and ratios[key] < least}
    for (backend, what), least in missed.items():
        print(f"missed: {backend} {what} is {ratios[backend, what]:.1f}×, required {least:.0f}×")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
