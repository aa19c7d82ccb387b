"""MarketStore: bars and point-in-time facts in SQLite (default) or PostgreSQL, one SQL text for both.

Facts (fundamentals, insider transactions, short interest) are append-only: a restatement is a new row with
its own `available_at`, and nothing is overwritten.
"""

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from signals_core.calendar import DATE_UNIT, to_sessions
from signals_core.errors import ServiceDown
from signals_core.market_data.schemas import (
    ADJUSTMENT_COLUMN,
    BAR_COLUMNS,
    FUNDAMENTAL_VALUES,
    ScreenedBars,
    adjust,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCHEMA_LOCK = 7_416_101  # any number, the same in every process

metadata = sa.MetaData()

bars_table = sa.Table(
    "bars",
    metadata,
    sa.Column("symbol", sa.String(17), primary_key=True),
    sa.Column("date", sa.Date, primary_key=True),
    *(sa.Column(name, sa.Double, nullable=False) for name in (*BAR_COLUMNS, ADJUSTMENT_COLUMN)),
    sa.Column("source", sa.String(64), nullable=False),
)
rejected_bars_table = sa.Table(
    "rejected_bars",
    metadata,
    sa.Column("symbol", sa.String(17), primary_key=True),
    sa.Column("row", sa.Integer, primary_key=True),
    sa.Column("date", sa.String(40), nullable=False),
    sa.Column("reason", sa.String(200), nullable=False),
)


_LINE = "line"
"""Tells equal lots of one filing apart: 0, 1, … in the order they are given."""


def _facts(name: str, *columns: "sa.Column[Any]") -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("symbol", sa.String(17), primary_key=True),
        sa.Column("available_at", sa.DateTime, primary_key=True),
        *columns,
    )


FACT_TABLES = {
    "fundamentals": _facts(
        "fundamentals",
        sa.Column("period_end", sa.Date, primary_key=True),
        sa.Column("fiscal_period", sa.String(8)),
        *(sa.Column(name, sa.Double) for name in FUNDAMENTAL_VALUES),
    ),
    "insider_transactions": _facts(
        "insider_transactions",
        sa.Column("transaction_date", sa.Date, primary_key=True),
        sa.Column("code", sa.String(2), primary_key=True),
        sa.Column("shares", sa.Double, primary_key=True),
        sa.Column(_LINE, sa.Integer, primary_key=True),
        sa.Column("price", sa.Double),
    ),
    "short_interest": _facts(
        "short_interest",
        sa.Column("settlement_date", sa.Date, primary_key=True),
        sa.Column("shares_short", sa.Double),
        sa.Column("avg_daily_volume", sa.Double),
        sa.Column("shares_float", sa.Double),
    ),
}
"""Point-in-time facts by kind; `available_at` is UTC without offset."""


@dataclass(frozen=True)
class Coverage:
    """The first and last stored session of a symbol, and how many there are."""

    first: date
    last: date
    sessions: int


class MarketStore:
    """Reads and writes market data; safe for several processes at once."""

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        self._engine = sa.create_engine(self.url)
        if self.backend == "sqlite":
            _configure_sqlite(self._engine)
        try:
            with self._write() as connection:
                if self.backend == "postgresql":  # two processes that open a new database at once
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
                metadata.create_all(connection)
        except OperationalError as error:
            self._engine.dispose()
            raise self._down(error) from None

    @classmethod
    def embedded(cls, path: Path) -> "MarketStore":
        """The SQLite store in the file `path`, in WAL mode."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{path}")

    @property
    def backend(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.url.get_backend_name()

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    def save_bars(self, symbol: str, screened: ScreenedBars, source: str) -> int:
        """Insert or replace the good bars of `symbol` and its list of rejected rows, all or nothing.

        Saving the same bars again changes nothing. Between the first and the last of the good dates the store
        then holds exactly these: a bar that the source has withdrawn, or that is refused now, goes.
        Returns the number of bars that were new, different or withdrawn.
        """
        rows = screened.good.reset_index()
        records = [
            {"symbol": symbol, "source": source, **record, "date": record["date"].date()}
            for record in rows.to_dict("records")
        ]
        rejected = [
            {"symbol": symbol, "row": int(row), "date": str(item["date"])[:40], "reason": item["reason"]}
            for row, item in zip(screened.rejected.index, screened.rejected.to_dict("records"), strict=True)
        ]
        values = [column.name for column in bars_table.columns if not column.primary_key]
        with self._write() as connection:
            changed = _upsert(connection, bars_table, records, values)
            changed += _withdraw(connection, symbol, {record["date"] for record in records})
            connection.execute(rejected_bars_table.delete().where(rejected_bars_table.c.symbol == symbol))
            if rejected:
                connection.execute(rejected_bars_table.insert(), rejected)
        return changed

    def load_bars(
        self, symbol: str, start: date | None = None, end: date | None = None, *, raw: bool = False
    ) -> pd.DataFrame:
        """Bars with start <= date < end: index `date`, columns open, high, low, close, volume, adjustment (float64).

        Adjusted for splits and dividends by the factor `adjustment` unless `raw`. An unknown symbol gives
        an empty frame.
        """
        columns = bars_table.c
        query = sa.select(columns.date, *(columns[name] for name in (*BAR_COLUMNS, ADJUSTMENT_COLUMN)))
        query = query.where(columns.symbol == symbol).order_by(columns.date)
        if start is not None:
            query = query.where(columns.date >= start)
        if end is not None:
            query = query.where(columns.date < end)
        with self._read() as connection:
            rows = connection.execute(query).all()
        dates = to_sessions([row[0] for row in rows]).rename("date")
        names = [*BAR_COLUMNS, ADJUSTMENT_COLUMN]
        values = np.array([tuple(row[1:]) for row in rows], dtype="float64").reshape(len(rows), len(names))
        frame = pd.DataFrame(values, index=dates, columns=names)
        return frame if raw else adjust(frame)

    def coverage(self, symbols: Iterable[str] | None = None) -> dict[str, Coverage]:
        """What is stored of each symbol (of all, if None); symbols without bars are absent."""
        columns = bars_table.c
        query = sa.select(
            columns.symbol, sa.func.min(columns.date), sa.func.max(columns.date), sa.func.count()
        ).group_by(columns.symbol)
        if symbols is not None:
            query = query.where(columns.symbol.in_(list(symbols)))
        with self._read() as connection:
            return {row[0]: Coverage(row[1], row[2], row[3]) for row in connection.execute(query)}

    def sources(self) -> set[str]:
        """Names of the providers that the stored bars came from."""
        with self._read() as connection:
            return set(connection.execute(sa.select(bars_table.c.source).distinct()).scalars())

    def rejected_bars(self, symbol: str) -> pd.DataFrame:
        """Rows of the source that were refused at the last load: columns row, date, reason."""
        columns = rejected_bars_table.c
        query = (
            sa.select(columns.row, columns.date, columns.reason).where(columns.symbol == symbol).order_by(columns.row)
        )
        with self._read() as connection:
            return pd.DataFrame(connection.execute(query).all(), columns=["row", "date", "reason"])

    def save_facts(self, kind: str, facts: pd.DataFrame) -> int:
        """Append facts of a kind (`FACT_TABLES`); rows whose key is stored already are left as they are.

        Returns the number of new rows.
        """
        table = FACT_TABLES[kind]
        rows = facts.reindex(columns=[column.name for column in table.columns])
        if _LINE in table.c:
            key = [column.name for column in table.primary_key.columns if column.name != _LINE]
            rows[_LINE] = rows.groupby(key, dropna=False).cumcount()
        records = [
            {name: _python_value(value, table.c[name].type) for name, value in record.items()}
            for record in rows.to_dict("records")
        ]
        if not records:
            return 0
        with self._write() as connection:
            before = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            connection.execute(_insert(connection, table).on_conflict_do_nothing(), records)
            after = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        return int(after - before)

    def load_facts(self, kind: str, symbol: str, as_of: datetime | None = None) -> pd.DataFrame:
        """Every version of every fact of `symbol` knowable at `as_of` (all, if None), oldest first.

        `available_at` comes back as tz-naive UTC, dates as midnights; values are float64.
        """
        table = FACT_TABLES[kind]
        query = sa.select(table).where(table.c.symbol == symbol)
        if as_of is not None:
            query = query.where(table.c.available_at <= as_of.astimezone(UTC).replace(tzinfo=None))
        query = query.order_by(*table.primary_key.columns)
        names = [column.name for column in table.columns]
        with self._read() as connection:
            frame = pd.DataFrame(connection.execute(query).all(), columns=names)
        for column in table.columns:
            if isinstance(column.type, sa.Date | sa.DateTime):
                frame[column.name] = pd.to_datetime(frame[column.name]).astype(f"datetime64[{DATE_UNIT}]")
            elif isinstance(column.type, sa.Double):
                frame[column.name] = frame[column.name].astype("float64")
        return frame.drop(columns=["symbol", _LINE], errors="ignore")

    def version(self) -> str:
        """The database's own version, for `signals doctor`."""
        query = "select sqlite_version()" if self.backend == "sqlite" else "show server_version"
        with self._read() as connection:
            return f"{self.backend} {connection.execute(sa.text(query)).scalar_one()}"

    @contextmanager
    def _write(self) -> "Iterator[sa.Connection]":
        try:
            with self._engine.execution_options(writes=True).begin() as connection:
                yield connection
        except OperationalError as error:
            raise self._down(error) from error

    @contextmanager
    def _read(self) -> "Iterator[sa.Connection]":
        try:
            with self._engine.connect() as connection:
                yield connection
        except OperationalError as error:
            raise self._down(error) from error

    def _down(self, error: OperationalError) -> ServiceDown:
        shown = self.url.render_as_string(hide_password=True)
        return ServiceDown(f"market store {shown}: {str(error.orig).strip()}; start it or set stores.market_url")


def _configure_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy issues BEGIN itself, below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=60000"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A deferred transaction that turns into a writer fails at once when another process writes.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        return insert_sqlite(table)
    from sqlalchemy.dialects.postgresql import insert as insert_postgresql

    return insert_postgresql(table)


def _upsert(connection: sa.Connection, table: sa.Table, records: list[dict[str, Any]], values: list[str]) -> int:
    if not records:
        return 0
    insert = _insert(connection, table)
    incoming = insert.excluded
    different = sa.or_(*(table.c[name] != incoming[name] for name in values))
    statement = insert.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: incoming[name] for name in values},
        where=different,
    )
    return int(connection.execute(statement, records).rowcount)


def _withdraw(connection: sa.Connection, symbol: str, dates: set[date]) -> int:
    """Remove bars of `symbol` between the first and last of `dates` that are not among them."""
    if not dates:
        return 0
    columns = bars_table.c
    span = sa.and_(columns.symbol == symbol, columns.date.between(min(dates), max(dates)))
    gone = set(connection.execute(sa.select(columns.date).where(span)).scalars()) - dates
    for day in sorted(gone):
        connection.execute(bars_table.delete().where(columns.symbol == symbol, columns.date == day))
    return len(gone)


def _python_value(value: Any, kind: Any) -> Any:
    if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(kind, sa.Date):
        return pd.Timestamp(value).date()
    if isinstance(kind, sa.DateTime):
        moment = pd.Timestamp(value)
        return (moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment).to_pydatetime()
    return value
