"""MarketStore: bars, corporate actions and point-in-time facts, every version with when it became knowable.

SQLite (default), PostgreSQL or TimescaleDB; one SQL text for all. Nothing is overwritten: a fact that changes
gets a new version from that moment on, and `as_of` reads the store as it was knowable then.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from signals_core.calendar import DATE_UNIT, to_sessions
from signals_core.errors import DataError, ServiceDown
from signals_core.market_data.availability import close_of_date
from signals_core.market_data.database import Database, insert, lock_writers, staged
from signals_core.market_data.migrations import migrate
from signals_core.market_data.prices import Adjustment, adjust
from signals_core.market_data.schemas import BAR_COLUMNS
from signals_core.market_data.screening import ScreenedBars
from signals_core.market_data.tables import (
    AVAILABLE_AT,
    BARS,
    CORPORATE_ACTIONS,
    FACTS,
    RUN,
    UNIVERSE_MEMBERSHIP,
    VERSIONED,
    VersionedTable,
    rejected_table,
    runs_table,
    symbols_table,
)

_MOST_WITHDRAWN = 0.02
_FEW_WITHDRAWN = 5
_DAY = r"\d{4}-\d{2}-\d{2}$"


@dataclass(frozen=True)
class Coverage:
    """The first and last stored session of a symbol, and how many there are."""

    first: date
    last: date
    sessions: int


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


class MarketStore:
    """Reads and writes market data; safe for several processes at once."""

    def __init__(self, url: str, calendar: str = "XNYS") -> None:
        """Open the store, and bring its schema up to this version.

        Raises:
            ServiceDown: the server does not answer.
            DataError: the schema is from a later version of this program.
        """
        self.database = Database(url)
        self._calendar = calendar
        self._writes = 0
        try:
            self.tier = migrate(self.database, calendar)
        except (ServiceDown, DataError):
            self.database.close()
            raise

    @classmethod
    def embedded(cls, path: Path, calendar: str = "XNYS") -> "MarketStore":
        """The SQLite store in the file `path`, in WAL mode."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{path}", calendar)

    @property
    def backend(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.database.backend

    def close(self) -> None:
        """Release the connections."""
        self.database.close()

    def version(self) -> str:
        """The database's own version, for `signals doctor`."""
        return self.database.version()

    def state(self) -> tuple[int, int]:
        """Changes when something may have been stored: by an ingestion of any process, or by this store."""
        query = sa.select(sa.func.coalesce(sa.func.max(runs_table.c[RUN]), 0))
        with self.database.read() as connection:
            return int(connection.execute(query).scalar_one()), self._writes

    # -- writing -------------------------------------------------------------------------------------------

    def save(self, dataset: str, facts: pd.DataFrame, now: datetime, run: int | None = None) -> Saved:
        """Add the versions in `facts` that are not stored yet, all or nothing.

        A row about something unknown is stored as it is. One that differs from the latest stored version
        becomes a new version, available from `now`: it was not knowable before. An equal one changes nothing.

        Args:
            dataset: a key of `VERSIONED`.
            facts: its columns (symbol included); `available_at` tz-naive UTC.
            now: of this load.
            run: of `IngestionLog`.
        """
        self._writes += 1
        with self.database.write() as connection:
            return _save(connection, VERSIONED[dataset], facts, _utc(now), run)

    def save_bars(self, symbol: str, screened: ScreenedBars, now: datetime, run: int | None = None) -> Saved:
        """Store one symbol's bars, as traded, its corporate actions and its rejected rows, all or nothing.

        A bar is available from its session's close. Between the first and the last of the good dates the
        store then knows exactly these bars and actions: others were withdrawn, from `now` on. A stored bar
        whose new row is refused stays as it is.

        Raises:
            DataError: the source lacks so many bars it gave before that it seems to have lost them.
        """
        bars, actions = _versions_of(symbol, screened, self._calendar)
        saved, refused = Saved(), {str(item) for item in screened.rejected["item"]}
        self._writes += 1
        with self.database.write() as connection:
            lock_writers(connection, BARS.name)
            if len(bars):
                saved += _withdraw_bars(connection, symbol, bars["date"], refused, _utc(now), run)
                saved += _withdraw_actions(connection, symbol, bars["date"], actions, _utc(now), run)
            saved += _save(connection, BARS, bars, _utc(now), run)
            saved += _save(connection, CORPORATE_ACTIONS, actions, _utc(now), run)
            _replace_rejected(connection, "bars", symbol, screened.rejected, bars["date"])
        return saved

    def save_many_bars(self, bars: pd.DataFrame, now: datetime, run: int | None = None) -> Saved:
        """Store bars of many symbols in one transaction: columns symbol, date, open, high, low, close, volume.

        For screened bars in bulk, without corporate actions and withdrawals.
        """
        available = close_of_date(bars["date"], self._calendar)
        self._writes += 1
        with self.database.write() as connection:
            return _save(connection, BARS, bars.assign(**{AVAILABLE_AT: np.asarray(available)}), _utc(now), run)

    def save_facts(
        self, dataset: str, symbol: str, facts: pd.DataFrame, now: datetime, run: int | None = None,
        rejected: pd.DataFrame | None = None,
    ) -> Saved:  # fmt: skip
        """Store one symbol's screened facts (a key of `FACTS`) and its rejected rows, all or nothing."""
        self._writes += 1
        with self.database.write() as connection:
            saved = _save(connection, FACTS[dataset], facts.assign(symbol=symbol), _utc(now), run)
            if rejected is not None:
                _replace_rejected(connection, dataset, symbol, rejected, facts[FACTS[dataset].date])
        return saved

    # -- reading -------------------------------------------------------------------------------------------

    def load_bars(
        self, symbol: str, start: date | None = None, end: date | None = None, *,
        as_of: datetime | None = None, adjustment: Adjustment = "backward",
    ) -> pd.DataFrame:  # fmt: skip
        """Bars with start <= date < end as knowable at `as_of` (all, if None), adjusted as of the same moment.

        Index `date`, columns open, high, low, close, volume, adjustment, split_adjustment (float64); an
        unknown symbol gives an empty frame.
        """
        columns = BARS.table.c
        # Dates are left as the driver gives them: NumPy reads both texts and dates, many times faster.
        query = sa.select(sa.type_coerce(columns.date, sa.String), *(columns[name] for name in BAR_COLUMNS))
        query = query.where(columns.symbol == symbol).order_by(columns.date, columns[AVAILABLE_AT])
        if start is not None:
            query = query.where(columns.date >= start)
        if end is not None:
            query = query.where(columns.date < end)
        if as_of is not None:
            query = query.where(columns[AVAILABLE_AT] <= _utc(as_of))
        with self.database.read() as connection:
            rows = connection.execute(query).all()
            actions = _actions(connection, symbol, as_of)
        dates = np.array([row[0] for row in rows], dtype="datetime64[D]").astype(f"datetime64[{DATE_UNIT}]")
        values = np.array([tuple(row)[1:] for row in rows], dtype="float64").reshape(len(rows), len(BAR_COLUMNS))
        latest = np.append(dates[1:] != dates[:-1], True)[: len(dates)]
        known = latest & ~np.isnan(values).any(axis=1)  # a withdrawn bar has no values
        frame = pd.DataFrame(
            values[known], index=pd.DatetimeIndex(dates[known], name="date"), columns=list(BAR_COLUMNS)
        )
        return adjust(frame, actions, adjustment)

    def load_actions(self, symbol: str, as_of: datetime | None = None) -> pd.DataFrame:
        """Corporate actions as knowable at `as_of`: columns ex_date, kind, value."""
        with self.database.read() as connection:
            return _actions(connection, symbol, as_of)

    def load_facts(self, dataset: str, symbol: str, as_of: datetime | None = None) -> pd.DataFrame:
        """Every version of every fact of `symbol` knowable at `as_of` (all, if None), in order of availability.

        `available_at` comes back as tz-naive UTC, dates as midnights; values are float64. Facts of equal
        availability are ordered by what they are about, so the order is always the same.
        """
        item = FACTS[dataset]
        columns = item.table.c
        query = sa.select(*(columns[name] for name in item.columns)).where(columns.symbol == symbol)
        if as_of is not None:
            query = query.where(columns[AVAILABLE_AT] <= _utc(as_of))
        query = query.order_by(columns[AVAILABLE_AT], *(columns[name] for name in item.identity))
        with self.database.read() as connection:
            frame = pd.DataFrame(connection.execute(query).all(), columns=list(item.columns))
        return _typed(frame, item).drop(columns="symbol")

    def latest_bars(self, symbols: Iterable[str] | None = None) -> pd.DataFrame:
        """The last bar of each symbol (of all, if None), as traded: index symbol, columns date, open, … volume."""
        bars, known = BARS.table, symbols_table
        # Walking down the index, for each symbol, to its first bar; DISTINCT ON reads every bar.
        last = _latest(BARS).with_only_columns(bars.c.date).order_by(bars.c.date.desc()).limit(1)
        last = last.where(bars.c.symbol == known.c.symbol, bars.c.close.is_not(None))
        ends = sa.select(known.c.symbol, last.correlate(known).scalar_subquery().label("date"))
        if symbols is not None:
            ends = ends.where(known.c.symbol.in_(list(symbols)))
        found = ends.subquery()
        names = ["symbol", "date", *BAR_COLUMNS]
        query = (
            sa.select(*(bars.c[name] for name in names))
            .join(found, sa.and_(bars.c.symbol == found.c.symbol, bars.c.date == found.c.date))
            .order_by(found.c.symbol, bars.c[AVAILABLE_AT])  # not bars.c.symbol: SQLite would begin with all bars
        )
        with self.database.read() as connection:
            frame = pd.DataFrame(connection.execute(query).all(), columns=names)
        frame = frame.drop_duplicates("symbol", keep="last").dropna(subset="close")
        return _typed(frame, BARS).set_index("symbol")

    def coverage(self, symbols: Iterable[str] | None = None) -> dict[str, Coverage]:
        """What is stored of each symbol (of all, if None); symbols without bars are absent."""
        latest = _latest(BARS).subquery()
        query = sa.select(
            latest.c.symbol, sa.func.min(latest.c.date), sa.func.max(latest.c.date), sa.func.count()
        ).where(latest.c.close.is_not(None))
        if symbols is not None:
            query = query.where(latest.c.symbol.in_(list(symbols)))
        with self.database.read() as connection:
            rows = connection.execute(query.group_by(latest.c.symbol)).all()
        return {row[0]: Coverage(row[1], row[2], row[3]) for row in rows}

    def restated(self, dataset: str) -> dict[str, int]:
        """How many versions of a dataset's facts each symbol has beyond the first of each."""
        table, item = VERSIONED[dataset].table, VERSIONED[dataset]
        versions = sa.select(table.c.symbol, (sa.func.count() - 1).label("later"))
        each = versions.group_by(*(table.c[name] for name in item.identity)).subquery()
        query = sa.select(each.c.symbol, sa.func.sum(each.c.later)).group_by(each.c.symbol)
        with self.database.read() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(query) if row[1]}

    def rejected(self, dataset: str, symbol: str | None = None) -> pd.DataFrame:
        """Rows of a dataset's source that were refused: columns symbol, row, item, reason."""
        columns = rejected_table.c
        query = sa.select(columns.symbol, columns.row, columns.item, columns.reason).where(columns.dataset == dataset)
        if symbol is not None:
            query = query.where(columns.symbol == symbol)
        with self.database.read() as connection:
            found = connection.execute(query.order_by(columns.symbol, columns.row, columns.item)).all()
        return pd.DataFrame(found, columns=["symbol", "row", "item", "reason"])

    def members(self, universe: str, day: date, as_of: datetime | None = None) -> frozenset[str]:
        """Who was a member of `universe` on `day`, as knowable at `as_of`."""
        intervals = self.memberships(universe, as_of)
        at = pd.Timestamp(day)
        inside = (intervals["valid_from"] <= at) & ~(intervals["valid_to"] <= at)
        return frozenset(intervals.loc[inside, "symbol"])

    def memberships(self, universe: str, as_of: datetime | None = None) -> pd.DataFrame:
        """Intervals of membership: columns symbol, valid_from, valid_to (missing: a member still)."""
        query = _latest(UNIVERSE_MEMBERSHIP, as_of)
        with self.database.read() as connection:
            rows = connection.execute(query.where(query.selected_columns.universe == universe)).all()
        frame = _typed(pd.DataFrame(rows, columns=list(UNIVERSE_MEMBERSHIP.columns)), UNIVERSE_MEMBERSHIP)
        return frame[["symbol", "valid_from", "valid_to"]].sort_values(["symbol", "valid_from"], ignore_index=True)


def _save(
    connection: sa.Connection, item: VersionedTable, facts: pd.DataFrame, now: datetime, run: int | None
) -> Saved:
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
    known = _latest(item).subquery("known")
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


def _latest(item: VersionedTable, as_of: datetime | None = None) -> "sa.Select[Any]":
    """The latest version of each fact of a table, of those available at `as_of`."""
    table, later = item.table, item.table.alias("later")
    newer = [later.c[name] == table.c[name] for name in item.identity]
    newer.append(later.c[AVAILABLE_AT] > table.c[AVAILABLE_AT])
    query = sa.select(*(table.c[name] for name in item.columns))
    if as_of is not None:
        newer.append(later.c[AVAILABLE_AT] <= _utc(as_of))
        query = query.where(table.c[AVAILABLE_AT] <= _utc(as_of))
    return query.where(~sa.exists().where(sa.and_(*newer)))


def _versions_of(symbol: str, screened: ScreenedBars, calendar: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    bars = screened.good.reset_index()
    bars[AVAILABLE_AT] = np.asarray(close_of_date(bars["date"], calendar))
    actions = screened.actions
    # Known on the ex-date at the latest, before that day's close.
    known = actions.assign(**{AVAILABLE_AT: np.asarray(close_of_date(actions["ex_date"], calendar))})
    return bars.assign(symbol=symbol), known.assign(symbol=symbol)


def _withdraw_bars(
    connection: sa.Connection, symbol: str, dates: pd.Series, refused: Collection[str], now: datetime, run: int | None
) -> Saved:
    known = _latest(BARS).where(
        BARS.table.c.symbol == symbol,
        BARS.table.c.close.is_not(None),
        BARS.table.c.date.between(dates.min().date(), dates.max().date()),
    )
    given = {day.date() for day in dates}
    stored = connection.execute(known).mappings().all()
    gone = [row for row in stored if row["date"] not in given and row["date"].isoformat() not in refused]
    if len(gone) > max(_FEW_WITHDRAWN, _MOST_WITHDRAWN * len(stored)):
        raise DataError(
            f"bars of {symbol}: the source lacks {len(gone)} of {len(stored)} bars between {dates.min().date()} and "
            f"{dates.max().date()} that it gave before, the first {gone[0]['date']}; nothing is stored. If they were "
            "really withdrawn, load the span in smaller parts"
        )
    return _withdraw(connection, BARS, gone, now, run)


def _withdraw_actions(
    connection: sa.Connection, symbol: str, dates: pd.Series, actions: pd.DataFrame, now: datetime, run: int | None
) -> Saved:
    columns = CORPORATE_ACTIONS.table.c
    # Of the first day the source may not say what happened before it, such as a change of an adjusted close.
    known = _latest(CORPORATE_ACTIONS).where(
        columns.symbol == symbol,
        columns.value.is_not(None),
        columns.ex_date > dates.min().date(),
        columns.ex_date <= dates.max().date(),
    )
    given = {(row.ex_date.date(), row.kind) for row in actions.itertuples(index=False)}
    stored = connection.execute(known).mappings().all()
    gone = [row for row in stored if (row["ex_date"], row["kind"]) not in given]
    return _withdraw(connection, CORPORATE_ACTIONS, gone, now, run)


def _withdraw(
    connection: sa.Connection, item: VersionedTable, gone: list[Any], now: datetime, run: int | None
) -> Saved:
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


def _replace_rejected(
    connection: sa.Connection, dataset: str, symbol: str, rejected: pd.DataFrame, good: pd.Series
) -> None:
    """Keep what this load refused, and of earlier loads what lies outside its dates."""
    columns, items = rejected_table.c, rejected["item"].astype(str)
    days = [*good.dt.strftime("%Y-%m-%d"), *items[items.str.match(_DAY)]]
    if len(good) or len(rejected):
        looked_at = columns.item.between(min(days), max(days)) if days else sa.false()
        unreadable = columns.item.not_like("____-__-__")
        own = sa.and_(columns.dataset == dataset, columns.symbol == symbol)
        connection.execute(rejected_table.delete().where(own, sa.or_(looked_at, unreadable)))
    rows = {
        (int(row), item): {
            "dataset": dataset,
            "symbol": symbol,
            "row": int(row),
            "item": str(item)[:40],
            "reason": str(reason)[:200],
        }
        for row, item, reason in zip(rejected.index, rejected["item"], rejected["reason"], strict=True)
    }
    if rows:
        statement = insert(connection, rejected_table)
        again = {"reason": statement.excluded.reason}
        keys = list(rejected_table.primary_key.columns)
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=again), list(rows.values()))


def _actions(connection: sa.Connection, symbol: str, as_of: datetime | None) -> pd.DataFrame:
    columns = CORPORATE_ACTIONS.table.c
    query = _latest(CORPORATE_ACTIONS, as_of).where(columns.symbol == symbol).order_by(columns.ex_date, columns.kind)
    rows = pd.DataFrame(connection.execute(query).all(), columns=list(CORPORATE_ACTIONS.columns))
    return _typed(rows, CORPORATE_ACTIONS).dropna(subset="value")[["ex_date", "kind", "value"]].reset_index(drop=True)


def _typed(frame: pd.DataFrame, item: VersionedTable) -> pd.DataFrame:
    for name in frame.columns:
        kind = item.table.c[name].type
        if isinstance(kind, sa.Date):
            frame[name] = to_sessions(frame[name])
        elif isinstance(kind, sa.DateTime):
            frame[name] = pd.to_datetime(frame[name]).astype(f"datetime64[{DATE_UNIT}]")
        elif isinstance(kind, sa.Double):
            frame[name] = frame[name].astype("float64")
    return frame


def _utc(moment: datetime) -> datetime:
    """A moment as the store keeps it: UTC without offset."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
