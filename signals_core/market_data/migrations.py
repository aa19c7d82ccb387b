"""Schema versions of the market store, brought forward in one transaction; nothing is lost."""

import pandas as pd
import sqlalchemy as sa

from signals_core.errors import DataError
from signals_core.market_data import tables
from signals_core.market_data.availability import close_of_date
from signals_core.market_data.database import Database, Tier, make_hypertables, staged, tier_of
from signals_core.market_data.schemas import ADJUSTMENT_COLUMN, BAR_COLUMNS
from signals_core.market_data.screening import ScreenedBars, screen_bars

VERSION = 2
"""1: bars with an adjustment factor, one row a date, facts without documents, no record of its version.
2: bitemporal bars and corporate actions; documents; universe membership; the log of ingestions."""

_LOCK = 7_416_101  # any number, the same in every process


def migrate(database: Database, calendar: str) -> Tier:
    """Create the tables, or bring them to `VERSION`; two processes may do so at once.

    Raises:
        DataError: the schema is from a later version of this program.
    """
    with database.write() as connection:
        if database.backend == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        tier = tier_of(connection)
        found = _version(connection)
        if found > VERSION:
            raise DataError(f"the market store has schema version {found}, this program knows {VERSION}: upgrade it")
        if found == VERSION:
            return tier
        kept = _take_out_version_1(connection, calendar) if found == 1 else {}
        tables.metadata.create_all(connection)
        if tier == "timescaledb":
            make_hypertables(connection, {"bars": "date"})
        for name, frame in kept.items():
            _put_in(connection, name, frame)
        connection.execute(tables.version_table.delete())
        connection.execute(tables.version_table.insert(), {"version": VERSION})
    return tier


def _version(connection: sa.Connection) -> int:
    """The version of the tables; 0 if there are none."""
    inspector = sa.inspect(connection)
    if inspector.has_table(tables.version_table.name):
        return int(connection.execute(sa.select(tables.version_table.c.version)).scalar_one_or_none() or 0)
    return 1 if inspector.has_table("bars") else 0


def _take_out_version_1(connection: sa.Connection, calendar: str) -> dict[str, pd.DataFrame]:
    """The content of version 1's tables as rows of version 2; the tables are dropped."""

    def read(table: str) -> pd.DataFrame:
        return pd.DataFrame(connection.execute(sa.text(f"select * from {table}")).mappings().all())

    kept = _bars_of_version_1(read("bars"), calendar)
    refused = read("rejected_bars")
    if not refused.empty:
        kept["rejected_rows"] = refused.rename(columns={"date": "item"}).assign(dataset="bars")
    for name, item in tables.FACTS.items():
        old = read(name)
        if not old.empty:
            moments = pd.to_datetime(old[tables.AVAILABLE_AT]).astype("datetime64[us]")
            old = old.assign(available_at=moments, document=moments.dt.strftime("%Y-%m-%dT%H:%M:%S.%f"), insider="")
            old[item.date] = pd.to_datetime(old[item.date])
            for text in item.texts():
                old[text] = old[text].fillna("")
            kept[name] = old
    for table in ("bars", "rejected_bars", *tables.FACTS):
        connection.execute(sa.text(f"drop table if exists {table}"))
    return kept


def _bars_of_version_1(old: pd.DataFrame, calendar: str) -> dict[str, pd.DataFrame]:
    if old.empty:
        return {}
    bars, actions = [], []
    for symbol, rows in old.groupby("symbol"):
        dates = pd.DatetimeIndex(pd.to_datetime(rows["date"]))
        screened: ScreenedBars = screen_bars(
            rows[["date", *BAR_COLUMNS, ADJUSTMENT_COLUMN]].assign(date=dates), str(symbol), dates
        )
        bars.append(screened.good.reset_index().assign(symbol=symbol))
        actions.append(screened.actions.assign(symbol=symbol))
    all_bars, all_actions = pd.concat(bars), pd.concat(actions)
    return {
        "symbols": pd.DataFrame({"symbol": old["symbol"].unique()}),
        "bars": all_bars.assign(available_at=close_of_date(all_bars["date"], calendar)),
        "corporate_actions": all_actions.assign(available_at=close_of_date(all_actions["ex_date"], calendar)),
    }


def _put_in(connection: sa.Connection, name: str, frame: pd.DataFrame) -> None:
    table = tables.metadata.tables[name]
    with staged(connection, table, frame.reset_index(drop=True)) as staging:
        names = [column.name for column in staging.columns]
        rows = sa.select(*(staging.c[column] for column in names))
        connection.execute(table.insert().from_select(names, rows))
