"""MarketStore: bars, corporate actions and point-in-time facts, every version with when it became knowable.

SQLite (default), PostgreSQL or TimescaleDB; one SQL text for all. Nothing is overwritten: a fact that changes
gets a new version from that moment on, and `as_of` reads the store as it was knowable then.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import sqlalchemy as sa

from signals_core.calendar import DATE_UNIT, exchange_calendar
from signals_core.errors import DataError, ServiceDown
from signals_core.market_data.availability import close_of_date
from signals_core.market_data.database import Database, insert, lock_writers
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
    rejected_table,
    runs_table,
    symbols_table,
)
from signals_core.market_data.versions import Saved, latest_versions, save_versions, typed, utc, withdraw

_MOST_WITHDRAWN = 0.02
_FEW_WITHDRAWN = 5
_DAY = r"\d{4}-\d{2}-\d{2}$"


@dataclass(frozen=True)
class Coverage:
    """The first and last stored session of a symbol, and how many there are."""

    first: date
    last: date
    sessions: int


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
            return save_versions(connection, VERSIONED[dataset], facts, utc(now), run)

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
                saved += _withdraw_bars(connection, symbol, bars["date"], refused, utc(now), run)
                saved += _withdraw_actions(connection, symbol, bars["date"], actions, utc(now), run)
            saved += save_versions(connection, BARS, bars, utc(now), run)
            saved += save_versions(connection, CORPORATE_ACTIONS, actions, utc(now), run)
            _replace_rejected(connection, "bars", symbol, screened.rejected, bars["date"])
        return saved

    def save_many_bars(self, bars: pd.DataFrame, now: datetime, run: int | None = None) -> Saved:
        """Store bars of many symbols in one transaction: columns symbol, date, open, high, low, close, volume.

        For screened bars in bulk, without corporate actions and withdrawals.
        """
        available = close_of_date(bars["date"], self._calendar)
        self._writes += 1
        with self.database.write() as connection:
            return save_versions(connection, BARS, bars.assign(**{AVAILABLE_AT: np.asarray(available)}), utc(now), run)

    def save_facts(
        self, dataset: str, symbol: str, facts: pd.DataFrame, now: datetime, run: int | None = None,
        rejected: pd.DataFrame | None = None,
    ) -> Saved:  # fmt: skip
        """Store one symbol's screened facts (a key of `FACTS`) and its rejected rows, all or nothing."""
        self._writes += 1
        with self.database.write() as connection:
            saved = save_versions(connection, FACTS[dataset], facts.assign(symbol=symbol), utc(now), run)
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
            query = query.where(columns[AVAILABLE_AT] <= utc(as_of))
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
            query = query.where(columns[AVAILABLE_AT] <= utc(as_of))
        query = query.order_by(columns[AVAILABLE_AT], *(columns[name] for name in item.identity))
        with self.database.read() as connection:
            frame = pd.DataFrame(connection.execute(query).all(), columns=list(item.columns))
        return typed(frame, item).drop(columns="symbol")

    def latest_bars(self, symbols: Iterable[str] | None = None) -> pd.DataFrame:
        """The last bar of each symbol (of all, if None), as traded: index symbol, columns date, open, … volume."""
        bars, known = BARS.table, symbols_table
        # Walking down the index, for each symbol, to its first bar; DISTINCT ON reads every bar.
        last = latest_versions(BARS).with_only_columns(bars.c.date).order_by(bars.c.date.desc()).limit(1)
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
        return typed(frame, BARS).set_index("symbol")

    def coverage(self, symbols: Iterable[str] | None = None) -> dict[str, Coverage]:
        """What is stored of each symbol (of all, if None); symbols without bars are absent."""
        latest = latest_versions(BARS).subquery()
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

    def late_moments(self) -> np.ndarray:
        """The distinct moments (n,), sorted UTC, at which a bar, action or membership of an earlier day became known.

        Between two of them the store says the same of a session ever after its close. Facts are not among them:
        features read each version of a fact from its own moment on.
        """
        found: set[np.datetime64] = set()
        for item in (BARS, CORPORATE_ACTIONS, UNIVERSE_MEMBERSHIP):
            about, known = item.table.c[item.date], item.table.c[AVAILABLE_AT]
            with self.database.read() as connection:
                rows = connection.execute(sa.select(about, known).distinct()).all()
            if not rows:
                continue
            days, moments = (np.array(column, dtype=f"datetime64[{DATE_UNIT}]") for column in zip(*rows, strict=True))
            sessions = exchange_calendar(self._calendar).sessions.to_numpy()  # intervals may begin before them
            timely = close_of_date(np.clip(days, sessions[0], sessions[-1]), self._calendar)
            found |= set(moments[moments > timely.to_numpy()])
        return np.array(sorted(found), dtype=f"datetime64[{DATE_UNIT}]")

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
        query = latest_versions(UNIVERSE_MEMBERSHIP, as_of)
        with self.database.read() as connection:
            rows = connection.execute(query.where(query.selected_columns.universe == universe)).all()
        frame = typed(pd.DataFrame(rows, columns=list(UNIVERSE_MEMBERSHIP.columns)), UNIVERSE_MEMBERSHIP)
        return frame[["symbol", "valid_from", "valid_to"]].sort_values(["symbol", "valid_from"], ignore_index=True)


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
    known = latest_versions(BARS).where(
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
    return withdraw(connection, BARS, gone, now, run)


def _withdraw_actions(
    connection: sa.Connection, symbol: str, dates: pd.Series, actions: pd.DataFrame, now: datetime, run: int | None
) -> Saved:
    columns = CORPORATE_ACTIONS.table.c
    # Of the first day the source may not say what happened before it, such as a change of an adjusted close.
    known = latest_versions(CORPORATE_ACTIONS).where(
        columns.symbol == symbol,
        columns.value.is_not(None),
        columns.ex_date > dates.min().date(),
        columns.ex_date <= dates.max().date(),
    )
    given = {(row.ex_date.date(), row.kind) for row in actions.itertuples(index=False)}
    stored = connection.execute(known).mappings().all()
    gone = [row for row in stored if (row["ex_date"], row["kind"]) not in given]
    return withdraw(connection, CORPORATE_ACTIONS, gone, now, run)


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
    query = (
        latest_versions(CORPORATE_ACTIONS, as_of)
        .where(columns.symbol == symbol)
        .order_by(columns.ex_date, columns.kind)
    )
    rows = pd.DataFrame(connection.execute(query).all(), columns=list(CORPORATE_ACTIONS.columns))
    return typed(rows, CORPORATE_ACTIONS).dropna(subset="value")[["ex_date", "kind", "value"]].reset_index(drop=True)
