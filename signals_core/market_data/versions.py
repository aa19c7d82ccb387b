"""Versions of facts: how one begins, which is the latest, and how one is withdrawn; within a caller's transaction.

Nothing is overwritten: a fact that changes gets a new version from that moment on.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from signals_core.calendar import DATE_UNIT, to_sessions
from signals_core.errors import DataError
from signals_core.market_data.database import insert, lock_writers, staged
from signals_core.market_data.tables import AVAILABLE_AT, BARS, RUN, VersionedTable, symbols_table


@dataclass(frozen=True)
class Saved:
    """What a save changed: facts never seen before, those that differ now, and those the source withdrew."""

    new: int = 0
    restated: int = 0
    withdrawn: int = 0

    @property
    def changed(self) -> int:
        """All of them."""
        return self.new + self.restated + self.withdrawn

    def __add__(self, other: "Saved") -> "Saved":
        return Saved(self.new + other.new, self.restated + other.restated, self.withdrawn + other.withdrawn)


def save_versions(
    connection: sa.Connection, item: VersionedTable, facts: pd.DataFrame, now: datetime, run: int | None
) -> Saved:
    """Add the versions in `facts` that are not stored yet; see `MarketStore.save`.

    Raises:
        DataError: a column is missing, or a value is no number.
    """
    if facts.empty:
        return Saved()
    missing = [name for name in (*item.identity, AVAILABLE_AT) if name not in facts]
    if missing:
        raise DataError(f"{item.name}: the rows lack {', '.join(missing)}")
    values = {name: facts.get(name, pd.Series(np.nan, index=facts.index)) for name in item.columns}
    for name in item.numbers():
        try:
            values[name] = pd.to_numeric(values[name])
        except (ValueError, TypeError) as error:
            raise DataError(f"{item.name}: {name} is no number: {error}; screen the rows first") from None
    frame = pd.DataFrame({**values, RUN: pd.array([run] * len(facts), dtype="Int64")}).reset_index(drop=True)
    lock_writers(connection, item.name)
    # Of several versions told at once, the last is what the source says now, the others are history.
    told_again = frame.sort_values(AVAILABLE_AT, kind="stable").duplicated(list(item.identity), keep="last")
    history = frame[told_again.reindex(frame.index)]
    with staged(connection, item.table, frame.drop(index=history.index)) as staging:
        restated = connection.execute(_insert_restated(connection, item, staging, now)).rowcount
        new = connection.execute(_insert_unknown(connection, item, staging, item.identity)).rowcount
    if len(history):
        with staged(connection, item.table, history) as staging:
            key = (*item.identity, AVAILABLE_AT)
            new += connection.execute(_insert_unknown(connection, item, staging, key)).rowcount
    if item is BARS:
        symbols = [{"symbol": symbol} for symbol in facts["symbol"].unique()]
        connection.execute(insert(connection, symbols_table).on_conflict_do_nothing(), symbols)
    return Saved(new=int(new), restated=int(restated))


def _insert_unknown(connection: sa.Connection, item: VersionedTable, staging: sa.Table, key: tuple[str, ...]) -> Any:
    """The versions whose key the table does not have."""
    same = sa.and_(*(item.table.c[name] == staging.c[name] for name in key))
    names = [*item.columns, RUN]
    rows = sa.select(*(staging.c[name] for name in names)).where(~sa.exists().where(same))
    return insert(connection, item.table).from_select(names, rows)


def _insert_restated(connection: sa.Connection, item: VersionedTable, staging: sa.Table, now: datetime) -> Any:
    """What differs from its latest version, as a version that begins now, or when the source says if that is later."""
    known = latest_versions(item).subquery("known")
    same = sa.and_(*(known.c[name] == staging.c[name] for name in item.identity))
    differs = sa.or_(*(known.c[name].is_distinct_from(staging.c[name]) for name in item.values))
    moment = sa.literal(now, sa.DateTime)
    # With a clock that stands still, what came last at a moment is what is known at it.
    begins = sa.case(
        (staging.c[AVAILABLE_AT] > known.c[AVAILABLE_AT], staging.c[AVAILABLE_AT]),
        (moment > known.c[AVAILABLE_AT], moment),
        else_=known.c[AVAILABLE_AT],
    )
    columns = {**{name: staging.c[name] for name in (*item.identity, *item.values, RUN)}, AVAILABLE_AT: begins}
    rows = sa.select(*(column.label(name) for name, column in columns.items())).join(known, same).where(differs)
    statement = insert(connection, item.table).from_select(list(columns), rows)
    return statement.on_conflict_do_update(
        index_elements=list(item.table.primary_key.columns),
        set_={name: statement.excluded[name] for name in (*item.values, RUN)},
    )


def latest_versions(item: VersionedTable, as_of: datetime | None = None) -> "sa.Select[Any]":
    """The latest version of each fact of a table, of those available at `as_of`."""
    table, later = item.table, item.table.alias("later")
    newer = [later.c[name] == table.c[name] for name in item.identity]
    newer.append(later.c[AVAILABLE_AT] > table.c[AVAILABLE_AT])
    query = sa.select(*(table.c[name] for name in item.columns))
    if as_of is not None:
        newer.append(later.c[AVAILABLE_AT] <= utc(as_of))
        query = query.where(table.c[AVAILABLE_AT] <= utc(as_of))
    return query.where(~sa.exists().where(sa.and_(*newer)))


def withdraw(connection: sa.Connection, item: VersionedTable, gone: list[Any], now: datetime, run: int | None) -> Saved:
    """Add versions without values from now on."""
    if gone:
        rows = [
            {**{name: row[name] for name in item.identity}, AVAILABLE_AT: max(now, row[AVAILABLE_AT]), RUN: run}
            for row in gone
        ]
        statement = insert(connection, item.table)
        nothing = dict.fromkeys(item.values, None)
        keys = list(item.table.primary_key.columns)
        connection.execute(
            statement.on_conflict_do_update(index_elements=keys, set_={**nothing, RUN: run}),
            [{**row, **nothing} for row in rows],
        )
    return Saved(withdrawn=len(gone))


def typed(frame: pd.DataFrame, item: VersionedTable) -> pd.DataFrame:
    """Rows as read, with the project's types: dates as midnights, moments as tz-naive UTC, floats."""
    for name in frame.columns:
        kind = item.table.c[name].type
        if isinstance(kind, sa.Date):
            frame[name] = to_sessions(frame[name])
        elif isinstance(kind, sa.DateTime):
            frame[name] = pd.to_datetime(frame[name]).astype(f"datetime64[{DATE_UNIT}]")
        elif isinstance(kind, sa.Double):
            frame[name] = frame[name].astype("float64")
    return frame


def utc(moment: datetime) -> datetime:
    """A moment as the store keeps it: UTC without offset."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
