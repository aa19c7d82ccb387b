"""Empty databases for tests of the market store: a new SQLite file, or a PostgreSQL schema dropped afterwards."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from signals_core.calendar import sessions_between
from signals_core.market_data.screening import ScreenedBars, screen_bars
from tests.project.bars import make_bars

POSTGRES_VARIABLE = "SIGNALS_TEST_POSTGRES_URL"
BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.services)]

SESSIONS = sessions_between("XNYS", date(2000, 1, 1), date(2024, 1, 1))
LOADED = datetime(2023, 1, 2, 12, tzinfo=UTC)
"""When the first load happens in most tests: after every bar of `make_bars`."""
LATER = datetime(2023, 3, 1, 12, tzinfo=UTC)
LAST = datetime(2023, 5, 1, 12, tzinfo=UTC)


@contextmanager
def empty_database(backend: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if backend == "sqlite":
        yield f"sqlite:///{folder / 'market.sqlite'}"
        return
    if not os.environ.get(POSTGRES_VARIABLE):
        pytest.skip(f"{POSTGRES_VARIABLE} is not set")
    with own_schema(os.environ[POSTGRES_VARIABLE]) as url:
        yield url


@contextmanager
def own_schema(server: str) -> Iterator[str]:
    """The URL of a new schema of a PostgreSQL server."""
    schema = f"signals_test_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sa.text(f"create schema {schema}"))
    try:
        # Extensions, such as TimescaleDB's functions, live in public.
        options = {"options": f"-csearch_path={schema},public"}
        yield sa.make_url(server).update_query_dict(options).render_as_string(hide_password=False)
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text(f"drop schema {schema} cascade"))
        engine.dispose()


@contextmanager
def recorded_sql() -> Iterator[list[str]]:
    """Every statement that any engine executes meanwhile."""
    statements: list[str] = []

    def note(_connection, _cursor, statement, *_rest):  # type: ignore[no-untyped-def]
        statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def raw_bars(sessions: int = 30) -> pd.DataFrame:
    """The first bars of AAA as a source gives them, from 2020-01-02."""
    return make_bars("AAA").iloc[:sessions].reset_index(drop=True)


def screen(raw: pd.DataFrame, symbol: str = "AAA") -> ScreenedBars:
    return screen_bars(raw, symbol, SESSIONS)
