"""The log of ingestions: what each did for each symbol, and which one was killed and can be taken up again."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import pandas as pd
import sqlalchemy as sa

from signals_core.market_data.database import Database, insert
from signals_core.market_data.tables import RUN, outcomes_table, runs_table

_TAKEN_UP_WITHIN = timedelta(hours=24)
_LONGEST_SYMBOL = 64
"""What was asked for need not be a symbol."""


@dataclass(frozen=True)
class IngestedSymbol:
    """What one load of a symbol did."""

    symbol: str
    rows: int = 0
    """Good rows that the source gave."""
    new: int = 0
    restated: int = 0
    withdrawn: int = 0
    rejected: int = 0
    problem: str | None = None
    """Why nothing was stored, if so."""

    @property
    def changed(self) -> int:
        """Facts that were new, different or withdrawn."""
        return self.new + self.restated + self.withdrawn


class IngestionLog:
    """Runs and their outcomes in the market store's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, dataset: str, provider: str, resume: bool) -> tuple[int, frozenset[str]]:
        """The id of a run, and the symbols it has done: of one that was killed within a day, if `resume`."""
        now, columns = _now(), runs_table.c
        unfinished = (
            sa.select(sa.func.max(columns[RUN]))
            .where(columns.dataset == dataset, columns.provider == provider, columns.finished_at.is_(None))
            .where(columns.started_at >= now - _TAKEN_UP_WITHIN)
        )
        with self._database.write() as connection:
            found = connection.execute(unfinished).scalar_one() if resume else None
            if found is not None:
                done = sa.select(outcomes_table.c.symbol).where(
                    outcomes_table.c[RUN] == found, outcomes_table.c.problem.is_(None)
                )
                return int(found), frozenset(connection.execute(done).scalars())
            values = {"dataset": dataset, "provider": provider, "started_at": now}
            made = connection.execute(runs_table.insert().values(**values)).inserted_primary_key
            assert made is not None
            return int(made[0]), frozenset()

    def record(self, run: int, outcome: IngestedSymbol) -> None:
        """Keep what the run did for a symbol; a later try replaces an earlier one."""
        symbol = _storable(outcome.symbol)[:_LONGEST_SYMBOL]
        problem = outcome.problem and _storable(outcome.problem)
        values = {**asdict(outcome), "symbol": symbol, "problem": problem, RUN: run, "finished_at": _now()}
        changes = {name: value for name, value in values.items() if name not in (RUN, "symbol")}
        with self._database.write() as connection:
            statement = insert(connection, outcomes_table).values(**values)
            connection.execute(
                statement.on_conflict_do_update(index_elements=list(outcomes_table.primary_key.columns), set_=changes)
            )

    def finish(self, run: int) -> None:
        """The run has asked for every symbol."""
        with self._database.write() as connection:
            connection.execute(runs_table.update().where(runs_table.c[RUN] == run).values(finished_at=_now()))

    def providers(self, dataset: str) -> frozenset[str]:
        """Providers from which facts of a dataset are stored."""
        query = (
            sa.select(runs_table.c.provider)
            .distinct()
            .join(outcomes_table, outcomes_table.c[RUN] == runs_table.c[RUN])
            .where(runs_table.c.dataset == dataset, outcomes_table.c.new > 0)
        )
        with self._database.read() as connection:
            return frozenset(connection.execute(query).scalars())

    def latest(self, dataset: str, symbols: Sequence[str] | None = None) -> pd.DataFrame:
        """The last outcome of each symbol: index symbol, columns finished_at (UTC), rows, …, rejected, problem."""
        names = [column.name for column in outcomes_table.columns]
        query = (
            sa.select(outcomes_table)
            .join(runs_table, runs_table.c[RUN] == outcomes_table.c[RUN])
            .where(runs_table.c.dataset == dataset)
            .order_by(outcomes_table.c.finished_at)
        )
        if symbols is not None:
            query = query.where(outcomes_table.c.symbol.in_(list(symbols)))
        with self._database.read() as connection:
            frame = pd.DataFrame(connection.execute(query).all(), columns=names)
        problem = frame["problem"].astype(object)
        frame["problem"] = problem.where(problem.notna(), None)
        return frame.drop_duplicates("symbol", keep="last").set_index("symbol").sort_index()

    def recent(self, limit: int = 20) -> pd.DataFrame:
        """The last runs, newest first: run_id, dataset, provider, started_at, finished_at, symbols, new, …."""
        totals = {
            name: sa.func.coalesce(sa.func.sum(outcomes_table.c[name]), 0)
            for name in ("rows", "new", "restated", "withdrawn", "rejected")
        }
        query = (
            sa.select(
                runs_table,
                sa.func.count(outcomes_table.c.symbol).label("symbols"),
                *(total.label(name) for name, total in totals.items()),
                sa.func.count(outcomes_table.c.problem).label("problems"),
            )
            .outerjoin(outcomes_table, outcomes_table.c[RUN] == runs_table.c[RUN])
            .group_by(*runs_table.columns)
            .order_by(runs_table.c[RUN].desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            result = connection.execute(query)
            return pd.DataFrame(result.all(), columns=list(result.keys()))


def _storable(text: str) -> str:
    """PostgreSQL keeps no NUL in a text."""
    return text.replace("\0", "\\0")


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
