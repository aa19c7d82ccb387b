"""Quarters from the SEC's companyfacts documents, as each filing made them known.

Filings are walked in order of availability. After each one, a period whose figures are new or changed by
it becomes a row. A row of a quarter holds its flows and the balances at its end; a row FY holds flows only.

Figures a share and numbers of shares are in shares of the day of the row's filing: what an earlier filing
said is converted where this one restates share counts by a split.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import pandas as pd

from signals_core.calendar import DATE_UNIT
from signals_core.market_data.providers.sec_figures import Values, balance_values, flow_values, shares_outstanding
from signals_core.market_data.providers.sec_filings import Fact, Filing, filings_of
from signals_core.market_data.providers.sec_fiscal_periods import FiscalPeriods
from signals_core.market_data.providers.sec_flows import Flows
from signals_core.market_data.providers.sec_share_basis import Version, restated_basis
from signals_core.market_data.providers.sec_tags import BALANCE_TAGS, COVER_SHARES, SHARE_COUNTS
from signals_core.market_data.schemas import FUNDAMENTAL_BALANCES, FUNDAMENTAL_VALUES

_YEAR = "FY"


def quarterly_fundamentals(
    companyfacts: Mapping[str, Any],
    accepted: Mapping[str, pd.Timestamp],
    calendar: str = "XNYS",
    date_only_lag_sessions: int = 0,
) -> pd.DataFrame:
    """Every version of every quarter and year in a companyfacts document.

    Args:
        companyfacts: the parsed JSON. Facts in US dollars of 10-Q, 10-K, 20-F and 40-F are read.
        accepted: tz-naive UTC moment of acceptance by accession number. A filing that is not there counts
            as available at the close of the session of its filing date.
        calendar: of the exchange.
        date_only_lag_sessions: that many sessions later, for filings not in `accepted`.

    Returns:
        n rows in order of availability: available_at and period_end (datetime64[us]), fiscal_period
        (Q1 … Q4, or FY), document (accession number), and `FUNDAMENTAL_VALUES` as float64, NaN where not
        known. Empty, with the columns, if the document has no such filing.
    """
    known = _Known()
    emitted: dict[tuple[int, bool], Values] = {}
    rows: list[tuple[Any, ...]] = []
    for filing in filings_of(companyfacts, accepted, calendar, date_only_lag_sessions):
        for end in known.learn(filing):
            for name, values, content in known.periods(end):
                if emitted.get((end, name == _YEAR), ()) != content:
                    emitted[end, name == _YEAR] = content
                    rows.append((filing.available_at, date.fromordinal(end), name, filing.document, *values))
    return _frame(rows)


def _frame(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = ["available_at", "period_end", "fiscal_period", "document", *FUNDAMENTAL_VALUES]
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("available_at", "period_end"):
        frame[name] = pd.to_datetime(frame[name]).astype(f"datetime64[{DATE_UNIT}]")
    return frame.astype(dict.fromkeys(FUNDAMENTAL_VALUES, "float64"))


class _Known:
    """The latest version of each fact in the filings so far."""

    def __init__(self) -> None:
        self._flows = Flows()
        self._fiscal = FiscalPeriods()
        self._balances: dict[str, dict[int, Version]] = defaultdict(dict)
        self._cover_shares: dict[int, Version] = {}
        self._basis = 1.0

    def learn(self, filing: Filing) -> list[int]:
        """Take up a filing's facts; returns the ends of fiscal periods it says something about."""
        self._basis = self._basis_of(filing)
        self._flows.learn(filing, self._basis)
        self._fiscal.learn(filing)
        for fact in filing.facts:
            if fact.tag in BALANCE_TAGS and fact.start is None:
                self._balances[fact.tag][fact.end] = self._version(fact, filing)
        ends = {fact.end for fact in filing.facts}
        cover = [fact for fact in filing.facts if fact.tag == COVER_SHARES]
        own = self._fiscal.own_end(filing)
        if cover and own is not None:
            latest = max(cover, key=lambda fact: fact.end)
            self._cover_shares[own] = self._version(latest, filing)
            ends.add(own)
        return self._fiscal.among(ends)

    def periods(self, end: int) -> Iterator[tuple[str, Values, Values]]:
        """The quarter that ends then, and the year if one does, unless nothing is known of it.

        Yields the fiscal period and its `FUNDAMENTAL_VALUES`, in shares of the latest filing and as filed:
        a split by itself changes only the former.
        """
        names = (self._fiscal.quarter(end), _YEAR) if self._fiscal.is_year_end(end) else (self._fiscal.quarter(end),)
        for name in names:
            latest, as_filed = self._values(name, end, self._basis), self._values(name, end, None)
            if any(value is not None for value in latest):
                yield name, latest, as_filed

    def _values(self, name: str, end: int, basis: float | None) -> Values:
        if name == _YEAR:
            return flow_values(self._flows.years, end, basis) + (None,) * len(FUNDAMENTAL_BALANCES)
        averages = (self._flows.quarters, self._flows.years)
        shares = shares_outstanding(self._cover_shares, self._balances, averages, end, basis)
        return (*flow_values(self._flows.quarters, end, basis), *balance_values(self._balances, end), shares)

    def _version(self, fact: Fact, filing: Filing) -> Version:
        return Version(fact.value, filing.filed, self._basis)

    def _basis_of(self, filing: Filing) -> float:
        """How many shares one share of the first filing is in this filing, by the counts it restates."""
        restated = []
        for fact in filing.facts:
            if fact.tag in SHARE_COUNTS:
                at_a_date = fact.start is None
                before = self._balances[fact.tag].get(fact.end) if at_a_date else self._flows.latest(fact)
                if before is not None:
                    restated.append((before, fact.value))
        return restated_basis(self._basis, restated)
