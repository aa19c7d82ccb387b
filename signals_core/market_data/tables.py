"""The tables of the market store.

A versioned table is bitemporal and append-only: a row says what a fact was from `available_at` on, until a
later row about the same thing. Its primary key is the fact's identity and `available_at`; a version whose
values are all missing says that the source has withdrawn the fact.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from signals_core.market_data.schemas import BAR_COLUMNS, FUNDAMENTAL_VALUES

metadata = sa.MetaData()

AVAILABLE_AT = "available_at"
RUN = "run_id"


@dataclass(frozen=True)
class VersionedTable:
    """A table of facts, and which of its columns say what a fact is about."""

    table: sa.Table
    identity: tuple[str, ...]
    values: tuple[str, ...]
    date: str
    """The column of the identity that says when the fact happened."""

    @property
    def name(self) -> str:
        """Of the table and of the dataset."""
        return self.table.name

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns but the run that stored the row."""
        return (*self.identity, AVAILABLE_AT, *self.values)

    def texts(self) -> list[str]:
        """Columns that hold text."""
        return [name for name in self.columns if isinstance(self.table.c[name].type, sa.String)]

    def numbers(self) -> list[str]:
        """Columns that hold floating-point numbers."""
        return [name for name in self.columns if isinstance(self.table.c[name].type, sa.Double)]


def _versioned(name: str, date: str, identity: dict[str, Any], values: dict[str, Any]) -> VersionedTable:
    table = sa.Table(
        name,
        metadata,
        *(sa.Column(column, kind, primary_key=True) for column, kind in identity.items()),
        sa.Column(AVAILABLE_AT, sa.DateTime, primary_key=True),  # UTC without offset
        *(sa.Column(column, kind) for column, kind in values.items()),
        sa.Column(RUN, sa.Integer),
        sqlite_with_rowid=False,
    )
    return VersionedTable(table, tuple(identity), tuple(values), date)


_SYMBOL, _DOCUMENT = sa.String(17), sa.String(64)


def _doubles(*names: str) -> dict[str, Any]:
    return {name: sa.Double() for name in names}


BARS = _versioned("bars", "date", {"symbol": _SYMBOL, "date": sa.Date()}, _doubles(*BAR_COLUMNS))
"""Daily bars as traded."""

CORPORATE_ACTIONS = _versioned(
    "corporate_actions",
    "ex_date",
    {"symbol": _SYMBOL, "ex_date": sa.Date(), "kind": sa.String(8)},
    _doubles("value"),
)
"""Splits (new shares for an old one), dividends (cash a share as paid) and factors (of an adjusted close)."""

FACTS = {
    item.name: item
    for item in (
        _versioned(
            "fundamentals",
            "period_end",
            {"symbol": _SYMBOL, "period_end": sa.Date(), "fiscal_period": sa.String(8), "document": _DOCUMENT},
            _doubles(*FUNDAMENTAL_VALUES),
        ),
        _versioned(
            "insider_transactions",
            "transaction_date",
            {
                "symbol": _SYMBOL,
                "transaction_date": sa.Date(),
                "document": _DOCUMENT,
                "insider": sa.String(200),
                "code": sa.String(2),
                "shares": sa.Double(),
                "line": sa.Integer(),
            },
            _doubles("price", "shares_after"),
        ),
        _versioned(
            "short_interest",
            "settlement_date",
            {"symbol": _SYMBOL, "settlement_date": sa.Date(), "document": _DOCUMENT},
            _doubles("shares_short", "avg_daily_volume", "shares_float"),
        ),
    )
}
"""Point-in-time facts by dataset."""

UNIVERSE_MEMBERSHIP = _versioned(
    "universe_membership",
    "valid_from",
    {"universe": sa.String(32), "symbol": _SYMBOL, "valid_from": sa.Date()},
    {"valid_to": sa.Date()},
)
"""Who was a member when: valid_from <= day < valid_to; no valid_to is a member still."""

VERSIONED = {item.name: item for item in (BARS, CORPORATE_ACTIONS, *FACTS.values(), UNIVERSE_MEMBERSHIP)}

symbols_table = sa.Table("symbols", metadata, sa.Column("symbol", _SYMBOL, primary_key=True))
"""Every symbol with a bar: asking it for each symbol's last bar is a walk down the index."""

runs_table = sa.Table(
    "ingestion_runs",
    metadata,
    sa.Column(RUN, sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("dataset", sa.String(32), nullable=False),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("started_at", sa.DateTime, nullable=False),
    sa.Column("finished_at", sa.DateTime),
)
"""Each ingestion; one without an end was killed and is taken up again by the next."""

outcomes_table = sa.Table(
    "ingestion_outcomes",
    metadata,
    sa.Column(RUN, sa.Integer, primary_key=True),
    sa.Column("symbol", sa.String(64), primary_key=True),
    *(sa.Column(name, sa.Integer, nullable=False) for name in ("rows", "new", "restated", "withdrawn", "rejected")),
    sa.Column("problem", sa.Text),
    sa.Column("finished_at", sa.DateTime, nullable=False),
)
"""What a run did for each symbol."""

rejected_table = sa.Table(
    "rejected_rows",
    metadata,
    sa.Column("dataset", sa.String(32), primary_key=True),
    sa.Column("symbol", _SYMBOL, primary_key=True),
    sa.Column("row", sa.Integer, primary_key=True),
    sa.Column("item", sa.String(40), primary_key=True),
    sa.Column("reason", sa.String(200), nullable=False),
)
"""Rows of a source that were refused, with the reason: of bars the item is the date."""

version_table = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer, primary_key=True))
