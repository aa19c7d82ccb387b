"""One database behind the market store: SQLite, PostgreSQL, or PostgreSQL with TimescaleDB.

The SQL is the same text for all; only bulk transfer and hypertables differ, and that difference ends here.
"""

import io
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from signals_core.errors import ServiceDown

Tier = Literal["sqlite", "postgresql", "timescaledb"]

_PATIENCE_SECONDS, _PAUSE_SECONDS = 60, 0.02
"""How long a writer of a SQLite file waits for another."""


class Database:
    """Connections and transactions; safe for several threads and processes at once."""

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        self._engine = sa.create_engine(self.url)
        if self.backend == "sqlite":
            _configure_sqlite(self._engine)

    @property
    def backend(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.url.get_backend_name()

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that changes something: all of it, or nothing."""
        try:
            with self._engine.execution_options(writes=True).begin() as connection:
                yield connection
        except OperationalError as error:
            raise self._down(error) from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database."""
        # Several queries of one reader must not see a load begin between them.
        options = {"isolation_level": "REPEATABLE READ"} if self.backend == "postgresql" else {}
        try:
            with self._engine.connect().execution_options(**options) as connection:
                yield connection
        except OperationalError as error:
            raise self._down(error) from error

    def version(self) -> str:
        """The database's own version and the tier in use."""
        query = "select sqlite_version()" if self.backend == "sqlite" else "show server_version"
        with self.read() as connection:
            number = connection.execute(sa.text(query)).scalar_one()
            tier = tier_of(connection)
        return f"{self.backend} {number}" + ("" if tier == self.backend else f" with {tier}")

    def _down(self, error: OperationalError) -> ServiceDown:
        shown = self.url.render_as_string(hide_password=True)
        return ServiceDown(f"market store {shown}: {str(error.orig).strip()}; start it or set stores.market_url")


def tier_of(connection: sa.Connection) -> Tier:
    """What the database can do: TimescaleDB counts only where its library is really loaded.

    `CREATE EXTENSION timescaledb` without it ends the connection, so that is looked up first.
    """
    if connection.dialect.name == "sqlite":
        return "sqlite"
    loaded = connection.execute(sa.text("show shared_preload_libraries")).scalar_one()
    return "timescaledb" if "timescaledb" in [name.strip() for name in loaded.split(",")] else "postgresql"


def make_hypertables(connection: sa.Connection, dates: dict[str, str]) -> None:
    """Turn tables into hypertables by year of a date column, compressed after two years where the licence allows.

    Args:
        connection: of a database whose `tier_of` is timescaledb.
        dates: the date column of each table; it belongs to the table's primary key.
    """
    connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS timescaledb"))
    compresses = connection.execute(sa.text("SHOW timescaledb.license")).scalar_one() == "timescale"
    for table, column in dates.items():
        connection.execute(
            sa.text(
                f"SELECT create_hypertable('{table}', by_range('{column}', INTERVAL '1 year'), "
                "if_not_exists => true, migrate_data => true)"
            )
        )
        if compresses:
            connection.execute(
                sa.text(f"ALTER TABLE {table} SET (timescaledb.compress, timescaledb.compress_segmentby = 'symbol')")
            )
            connection.execute(
                sa.text(f"SELECT add_compression_policy('{table}', INTERVAL '2 years', if_not_exists => true)")
            )


def lock_writers(connection: sa.Connection, name: str) -> None:
    """Let one transaction at a time write what `name` stands for; a write to SQLite is alone anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"signals:{name}"))))


def insert(connection: sa.Connection, table: sa.Table) -> Any:
    """An INSERT of the connection's dialect, which knows ON CONFLICT."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        return insert_sqlite(table)
    from sqlalchemy.dialects.postgresql import insert as insert_postgresql

    return insert_postgresql(table)


@contextmanager
def staged(connection: sa.Connection, like: sa.Table, frame: pd.DataFrame) -> Iterator[sa.Table]:
    """The rows of `frame` in a temporary table with the columns of `like` that the frame has.

    COPY on PostgreSQL, one prepared INSERT on SQLite. Missing values become NULL.
    """
    names = [column.name for column in like.columns if column.name in frame.columns]
    staging = sa.Table(
        f"staging_{like.name}",
        sa.MetaData(),
        *(sa.Column(name, like.c[name].type) for name in names),
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DROP",
    )
    staging.create(connection, checkfirst=False)
    rows = frame[names]
    if connection.dialect.name == "postgresql":
        _copy(connection, staging, rows)
        connection.execute(sa.text(f"ANALYZE {staging.name}"))
    else:
        marks = ", ".join("?" * len(names))
        connection.exec_driver_sql(f"INSERT INTO {staging.name} VALUES ({marks})", _sqlite_rows(rows, staging))
    yield staging
    staging.drop(connection, checkfirst=False)


def _copy(connection: sa.Connection, staging: sa.Table, rows: pd.DataFrame) -> None:
    import pyarrow as pa
    import pyarrow.csv

    columns = {column.name: _arrow(rows[column.name], column.type) for column in staging.columns}
    buffer = io.BytesIO()
    # Text is quoted and NULL is not, which is how COPY tells an empty text from none.
    pa.csv.write_csv(pa.table(columns), buffer, pa.csv.WriteOptions(include_header=False))
    buffer.seek(0)
    cursor: Any = connection.connection.cursor()
    try:
        cursor.copy_expert(f"COPY {staging.name} FROM STDIN WITH (FORMAT csv)", buffer)
    finally:
        cursor.close()


def _arrow(values: pd.Series, kind: Any) -> Any:
    import pyarrow as pa

    if isinstance(kind, sa.Date):
        return pa.array(values, type=pa.timestamp("us"), from_pandas=True).cast(pa.date32())
    if isinstance(kind, sa.DateTime):
        return pa.array(values, type=pa.timestamp("us"), from_pandas=True)
    if isinstance(kind, sa.Double):
        return pa.array(values, type=pa.float64(), from_pandas=True)
    if isinstance(kind, sa.Integer):
        return pa.array(values, type=pa.int64(), from_pandas=True)
    return pa.array(values, type=pa.string(), from_pandas=True)


def _sqlite_rows(rows: pd.DataFrame, staging: sa.Table) -> list[tuple[Any, ...]]:
    columns = [_sqlite_values(rows[column.name], column.type) for column in staging.columns]
    return list(zip(*columns, strict=True))


def _sqlite_values(values: pd.Series, kind: Any) -> list[Any]:
    """Python values as SQLAlchemy's SQLite types store them: dates are ISO texts."""
    if isinstance(kind, sa.Date | sa.DateTime):
        codes, found = pd.factorize(values)  # few distinct dates, many rows
        pattern = "%Y-%m-%d" if isinstance(kind, sa.Date) else "%Y-%m-%d %H:%M:%S.%f"
        texts = np.array([*pd.DatetimeIndex(found).strftime(pattern), None], dtype=object)
        return list(texts[codes])
    plain = values.astype(object)
    return list(plain.where(values.notna(), None))


def _write_ahead(connection: Any) -> None:
    """Put a file into WAL mode, which it then keeps; SQLite does not wait for others while it changes the mode."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _configure_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy issues BEGIN itself, below
        for pragma in (f"busy_timeout={_PATIENCE_SECONDS * 1000}", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        _write_ahead(connection)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A deferred transaction that turns into a writer fails at once when another process writes.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
