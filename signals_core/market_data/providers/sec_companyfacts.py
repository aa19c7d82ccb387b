"""Quarters from the SEC's companyfacts documents, as each filing made them known.

Filings are walked in order of availability. After each one, a period whose figures are new or changed by
it becomes a row. A row of a quarter holds its flows and the balances at its end; a row FY holds flows only.

Flows of a quarter are taken from a fact of about three months, else they are the difference of two facts
with the same start, as nine months from a whole year. A difference is taken once, when the longer fact is
first filed, within one reporting cycle: a restated year less nine months as first filed is no quarter. It
is of one tag; or of two, if the filer changed tags within the year and both last meant the same figure.

Figures a share and numbers of shares are in shares of the day of the row's filing: what an earlier filing
said is converted where this one restates share counts by a split.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from signals_core.calendar import DATE_UNIT
from signals_core.market_data.availability import close_of_date
from signals_core.market_data.schemas import FUNDAMENTAL_BALANCES, FUNDAMENTAL_VALUES

ANNUAL_FORMS = frozenset({"10-K", "10-K/A", "10-KT", "10-KT/A", "20-F", "20-F/A", "40-F", "40-F/A"})
FORMS = ANNUAL_FORMS | {"10-Q", "10-Q/A", "10-QT", "10-QT/A"}

# Days. A quarter has 12 to 17 weeks: some years are cut into 12, 12, 12 and 16 or 17.
_QUARTER, _HALF, _NINE_MONTHS, _YEAR = (80, 119), (160, 215), (240, 300), (350, 380)
_CYCLE_DAYS = 200
_DAYS_A_QUARTER = 365.25 / 4

# Each list in order of preference: a value is that of the first tag that has one.
_REVENUE = (
    "Revenues",
    "RevenueFromContractWithCustomerExcludingAssessedTax",
    "SalesRevenueNet",
    "RevenueFromContractWithCustomerIncludingAssessedTax",
    "RevenuesNetOfInterestExpense",
    "SalesRevenueGoodsNet",
    "SalesRevenueServicesNet",
)
_NET_INCOME = ("NetIncomeLoss", "ProfitLoss", "NetIncomeLossAvailableToCommonStockholdersBasic")
_EPS = ("EarningsPerShareDiluted", "EarningsPerShareBasicAndDiluted", "EarningsPerShareBasic")
_DIVIDENDS = ("CommonStockDividendsPerShareDeclared", "CommonStockDividendsPerShareCashPaid")
_OPERATING_INCOME = ("OperatingIncomeLoss",)
_DEPRECIATION_AND_AMORTISATION = (
    # Of the cash flow statement; the others are also used for property and equipment alone.
    "DepreciationAmortizationAndAccretionNet",
    "DepreciationDepletionAndAmortization",
    "DepreciationAmortizationAndOther",
    "DepreciationAndAmortization",
)
_DEPRECIATION = ("Depreciation", "DepreciationNonproduction")
_AMORTISATION = ("AmortizationOfIntangibleAssets",)

_EQUITY = ("StockholdersEquity", "StockholdersEquityIncludingPortionAttributableToNoncontrollingInterest")
_CASH = (
    "CashAndCashEquivalentsAtCarryingValue",
    "CashCashEquivalentsRestrictedCashAndRestrictedCashEquivalents",
    "CashAndDueFromBanks",
    "Cash",
)
_CURRENT_ASSETS, _CURRENT_LIABILITIES = ("AssetsCurrent",), ("LiabilitiesCurrent",)
_LONG_TERM_DEBT = ("LongTermDebt",)
"""Both parts in one."""
_NONCURRENT_DEBT = ("LongTermDebtNoncurrent",)
_CURRENT_MATURITIES = ("LongTermDebtCurrent",)
_WITH_LEASES = ("LongTermDebtAndCapitalLeaseObligationsIncludingCurrentMaturities",)
_NONCURRENT_WITH_LEASES = ("LongTermDebtAndCapitalLeaseObligations",)
_CURRENT_MATURITIES_WITH_LEASES = ("LongTermDebtAndCapitalLeaseObligationsCurrent",)
_CURRENT_DEBT = ("DebtCurrent",)
"""Current maturities and short-term borrowings in one."""
_SHORT_TERM_DEBT = ("ShortTermBorrowings", "CommercialPaper")
"""Short-term borrowings, of which commercial paper is a part."""

_COVER_SHARES = "EntityCommonStockSharesOutstanding"
_SHARES = ("CommonStockSharesOutstanding",)
_AVERAGE_SHARES = ("WeightedAverageNumberOfSharesOutstandingBasic", "WeightedAverageNumberOfDilutedSharesOutstanding")
_SHARE_COUNTS = frozenset({*_SHARES, *_AVERAGE_SHARES})
_PER_SHARE = frozenset({*_EPS, *_DIVIDENDS})

_FLOW_TAGS = frozenset({
    *_REVENUE, *_NET_INCOME, *_EPS, *_DIVIDENDS, *_OPERATING_INCOME, *_DEPRECIATION_AND_AMORTISATION,
    *_DEPRECIATION, *_AMORTISATION, *_AVERAGE_SHARES,
})  # fmt: skip
_BALANCE_TAGS = frozenset({
    *_EQUITY, *_CASH, *_LONG_TERM_DEBT, *_NONCURRENT_DEBT, *_CURRENT_MATURITIES, *_WITH_LEASES,
    *_NONCURRENT_WITH_LEASES, *_CURRENT_MATURITIES_WITH_LEASES, *_CURRENT_DEBT, *_SHORT_TERM_DEBT, *_SHARES,
    *_CURRENT_ASSETS, *_CURRENT_LIABILITIES,
})  # fmt: skip
_RENAMED = (_REVENUE, _NET_INCOME, _DEPRECIATION_AND_AMORTISATION)
"""Lists whose tags filers change in the middle of a fiscal year."""
_PERIOD_TAGS = frozenset({*_REVENUE, *_NET_INCOME, *_EPS, *_OPERATING_INCOME})
"""Every income statement has one of them: their dates are the fiscal periods."""
_Values = tuple[float | None, ...]
_UNITS = ("USD", "USD/shares", "shares")

# A split is m new shares for n old ones; restated counts differ from that by rounding only.
_SPLIT_DENOMINATORS, _SPLIT_TOLERANCE, _LEAST_SPLIT = (1, 2, 3), 0.01, 1.2
# A factor of a thousand is a count filed in thousands by mistake.
_LARGEST_SPLIT = 200
# Of a figure a share; filings give two to four.
_DECIMALS = 6


@dataclass(frozen=True)
class _Fact:
    tag: str
    start: int | None
    end: int
    """Dates are proleptic ordinals."""
    value: float


@dataclass
class _Filing:
    document: str
    form: str
    filed: int
    available_at: pd.Timestamp
    facts: list[_Fact] = field(default_factory=list)


@dataclass(frozen=True)
class _Version:
    """A value as filed on a day, with how many of today's shares a share of then was called."""

    value: float
    filed: int
    basis: float


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
    emitted: dict[tuple[int, bool], _Values] = {}
    rows: list[tuple[Any, ...]] = []
    for filing in _filings(companyfacts, accepted, calendar, date_only_lag_sessions):
        for end in known.learn(filing):
            for name, values, content in known.periods(end):
                if emitted.get((end, name == "FY"), ()) != content:
                    emitted[end, name == "FY"] = content
                    rows.append((filing.available_at, date.fromordinal(end), name, filing.document, *values))
    return _frame(rows)


def _frame(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = ["available_at", "period_end", "fiscal_period", "document", *FUNDAMENTAL_VALUES]
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("available_at", "period_end"):
        frame[name] = pd.to_datetime(frame[name]).astype(f"datetime64[{DATE_UNIT}]")
    return frame.astype(dict.fromkeys(FUNDAMENTAL_VALUES, "float64"))


def _filings(
    companyfacts: Mapping[str, Any], accepted: Mapping[str, pd.Timestamp], calendar: str, lag_sessions: int
) -> list[_Filing]:
    found: dict[str, _Filing] = {}
    for tag, fact in _facts(companyfacts):
        filing = found.get(fact["accn"])
        if filing is None:
            filed = date.fromisoformat(fact["filed"]).toordinal()
            filing = found[fact["accn"]] = _Filing(fact["accn"], fact["form"], filed, pd.NaT)
        start = date.fromisoformat(fact["start"]).toordinal() if "start" in fact else None
        end = date.fromisoformat(fact["end"]).toordinal()
        # A period that has not ended when it is filed is a slip of the pen.
        if end <= filing.filed:
            filing.facts.append(_Fact(tag, start, end, float(fact["val"])))
    dated = [filing for filing in found.values() if filing.document not in accepted]
    closes = close_of_date([date.fromordinal(filing.filed) for filing in dated], calendar, lag_sessions)
    for filing, close in zip(dated, closes, strict=True):
        filing.available_at = close
    for filing in found.values():
        if filing.document in accepted:
            filing.available_at = accepted[filing.document]
    return sorted(found.values(), key=lambda filing: (filing.available_at, filing.document))


def _facts(companyfacts: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    everything = companyfacts.get("facts", {})
    wanted = {"us-gaap": _FLOW_TAGS | _BALANCE_TAGS, "dei": {_COVER_SHARES}}
    for taxonomy, tags in wanted.items():
        for tag, content in everything.get(taxonomy, {}).items():
            if tag not in tags:
                continue
            for unit in _UNITS:
                for fact in content["units"].get(unit, ()):
                    if fact["form"] in FORMS and fact["val"] is not None:
                        yield tag, fact


_Table = Mapping[str, Mapping[int, _Version]]
"""Versions by tag and end."""


class _Known:
    """The latest version of each fact in the filings so far."""

    def __init__(self) -> None:
        self._spans: dict[str, dict[tuple[int, int], _Version]] = defaultdict(dict)
        self._quarters: dict[str, dict[int, _Version]] = defaultdict(dict)
        self._stated_quarters: set[tuple[str, int]] = set()
        self._years: dict[str, dict[int, _Version]] = defaultdict(dict)
        self._balances: dict[str, dict[int, _Version]] = defaultdict(dict)
        self._cover_shares: dict[int, _Version] = {}
        self._longest: dict[int, int] = {}
        """End of each fiscal period to the longest duration seen, up to a year."""
        self._year_ends: set[int] = set()
        self._basis = 1.0

    def learn(self, filing: _Filing) -> list[int]:
        """Take up a filing's facts; returns the ends of fiscal periods it says something about."""
        self._basis = self._basis_of(filing)
        first_filed = []
        for fact in filing.facts:
            if fact.tag in _FLOW_TAGS and fact.start is not None:
                if (fact.start, fact.end) not in self._spans[fact.tag]:
                    first_filed.append(fact)
                self._learn_flow(fact, filing)
            elif fact.tag in _BALANCE_TAGS and fact.start is None:
                self._balances[fact.tag][fact.end] = self._version(fact, filing)
        for fact in first_filed:
            self._take_difference(fact, filing)
        ends = {fact.end for fact in filing.facts}
        cover = [fact for fact in filing.facts if fact.tag == _COVER_SHARES]
        own = self._own_period(filing)
        if cover and own is not None:
            latest = max(cover, key=lambda fact: fact.end)
            self._cover_shares[own] = self._version(latest, filing)
            ends.add(own)
        return sorted(ends & self._longest.keys())

    def periods(self, end: int) -> Iterator[tuple[str, _Values, _Values]]:
        """The quarter that ends then, and the year if one does, unless nothing is known of it.

        Yields the fiscal period and its `FUNDAMENTAL_VALUES`, in shares of the latest filing and as filed:
        a split by itself changes only the former.
        """
        no_balances = (None,) * len(FUNDAMENTAL_BALANCES)
        quarter, year = self._fiscal_quarter(end), self._year_ends & {end}
        for name, table in ((quarter, self._quarters), *(("FY", self._years) for _ in year)):
            latest, as_filed = (
                self._flows(table, end, basis) + (self._balance_values(end, basis) if name != "FY" else no_balances)
                for basis in (self._basis, None)
            )
            if any(value is not None for value in latest):
                yield name, latest, as_filed

    def _version(self, fact: _Fact, filing: _Filing) -> _Version:
        return _Version(fact.value, filing.filed, self._basis)

    def _learn_flow(self, fact: _Fact, filing: _Filing) -> None:
        assert fact.start is not None
        version = self._version(fact, filing)
        days = fact.end - fact.start + 1
        self._spans[fact.tag][fact.start, fact.end] = version
        if _within(days, _QUARTER):
            self._quarters[fact.tag][fact.end] = version
            self._stated_quarters.add((fact.tag, fact.end))
        # In a 10-Q, a year is one up to that quarter, as utilities report it.
        is_year = _within(days, _YEAR) and filing.form in ANNUAL_FORMS
        if is_year:
            self._years[fact.tag][fact.end] = version
        if fact.tag not in _PERIOD_TAGS:
            return
        if is_year:
            self._year_ends.add(fact.end)
        if is_year or any(_within(days, span) for span in (_QUARTER, _HALF, _NINE_MONTHS)):
            self._longest[fact.end] = max(days, self._longest.get(fact.end, 0))

    def _take_difference(self, fact: _Fact, filing: _Filing) -> None:
        """The last quarter of a span first filed now, less the span to the quarter before."""
        if (fact.tag, fact.end) in self._stated_quarters or fact.tag in _AVERAGE_SHARES:
            return
        assert fact.start is not None
        if fact.end - fact.start + 1 > _YEAR[1]:
            return
        before = self._span_before(fact, fact.tag, filing)
        if before is None:
            before = self._renamed_span_before(fact, filing)
        if before is not None:
            value = fact.value - self._in_shares(before, fact.tag, self._basis)
            value = round(value, _DECIMALS) if fact.tag in _PER_SHARE else value
            self._quarters[fact.tag][fact.end] = _Version(value, filing.filed, self._basis)

    def _span_before(self, fact: _Fact, tag: str, filing: _Filing) -> _Version | None:
        """What `tag` was from the start of `fact` to the quarter before its end, filed in the same cycle."""
        shorter = [
            (end, version)
            for (start, end), version in self._spans[tag].items()
            if start == fact.start and _within(fact.end - end, _QUARTER) and filing.filed - version.filed <= _CYCLE_DAYS
        ]
        return max(shorter, key=lambda candidate: candidate[0])[1] if shorter else None

    def _renamed_span_before(self, fact: _Fact, filing: _Filing) -> _Version | None:
        for tags in _RENAMED:
            if fact.tag in tags and not any(fact.end in self._quarters[tag] for tag in tags):
                for other in tags:
                    before = self._span_before(fact, other, filing)
                    if before is not None and self._mean_the_same(fact.tag, other):
                        return before
        return None

    def _mean_the_same(self, tag: str, other: str) -> bool:
        """Whether two tags have the same value in the last span that both are known of."""
        common = self._spans[tag].keys() & self._spans[other].keys()
        if not common:
            return False
        last = max(common, key=lambda span: (span[1], -span[0]))
        return self._spans[tag][last].value == self._spans[other][last].value

    def _basis_of(self, filing: _Filing) -> float:
        """How many shares one share of the first filing is in this filing, by the counts it restates."""
        implied = []
        for fact in filing.facts:
            if fact.tag not in _SHARE_COUNTS or fact.value <= 0:
                continue
            before = (
                self._balances[fact.tag].get(fact.end)
                if fact.start is None
                else self._spans[fact.tag].get((fact.start, fact.end))
            )
            if before is not None and before.value > 0:
                implied.append(before.basis * fact.value / before.value)
        return self._basis * _split(median(implied) / self._basis) if implied else self._basis

    def _own_period(self, filing: _Filing) -> int | None:
        """The period a filing is about: the last it has flows of, else the last known when it was filed."""
        flows = {fact.end for fact in filing.facts if fact.tag in _PERIOD_TAGS} & self._longest.keys()
        return max(flows or (end for end in self._longest if end <= filing.filed), default=None)

    def _fiscal_quarter(self, end: int) -> str:
        if self._year_ends:
            year_end = min(self._year_ends, key=lambda candidate: (abs(candidate - end), candidate))
            before = round((year_end - end) / _DAYS_A_QUARTER) % 4
            return f"Q{4 - before}"
        return f"Q{min(max(round(self._longest[end] / _DAYS_A_QUARTER), 1), 4)}"

    def _in_shares(self, version: _Version, tag: str, basis: float | None) -> float:
        """A value in shares of which one share of the first filing is `basis`; as filed, if None."""
        if basis is None or version.basis == basis:
            return version.value
        if tag in _PER_SHARE:
            return round(version.value * version.basis / basis, _DECIMALS)
        if tag in _SHARE_COUNTS or tag == _COVER_SHARES:
            return float(round(version.value * basis / version.basis))
        return version.value

    def _first(self, table: _Table, tags: Iterable[str], end: int, basis: float | None = None) -> float | None:
        for tag in tags:
            if tag in table and end in table[tag]:
                return self._in_shares(table[tag][end], tag, basis)
        return None

    def _flows(self, table: _Table, end: int, basis: float | None) -> _Values:
        """In the order of `FUNDAMENTAL_FLOWS`."""
        income = self._first(table, _OPERATING_INCOME, end)
        consumed = self._first(table, _DEPRECIATION_AND_AMORTISATION, end)
        if consumed is None:
            depreciation = self._first(table, _DEPRECIATION, end)
            amortisation = self._first(table, _AMORTISATION, end)
            consumed = None if depreciation is None else depreciation + (amortisation or 0)
        return (
            self._first(table, _REVENUE, end),
            self._first(table, _NET_INCOME, end),
            None if income is None or consumed is None else income + consumed,
            self._first(table, _DIVIDENDS, end, basis),
            self._first(table, _EPS, end, basis),
        )

    def _balance_values(self, end: int, basis: float | None) -> _Values:
        """In the order of `FUNDAMENTAL_BALANCES`."""
        return (
            self._first(self._balances, _EQUITY, end),
            self._debt(end),
            self._first(self._balances, _CASH, end),
            self._first(self._balances, _CURRENT_ASSETS, end),
            self._first(self._balances, _CURRENT_LIABILITIES, end),
            self._shares(end, basis),
        )

    def _debt(self, end: int) -> float | None:
        """Long-term debt and short-term borrowings, each part once."""

        def at(tags: Iterable[str]) -> float | None:
            return self._first(self._balances, tags, end)

        noncurrent, maturities, total = at(_NONCURRENT_DEBT), at(_CURRENT_MATURITIES), at(_LONG_TERM_DEBT)
        if noncurrent is None and total is None:
            noncurrent, total = at(_NONCURRENT_WITH_LEASES), at(_WITH_LEASES)
            with_leases = at(_CURRENT_MATURITIES_WITH_LEASES)
            maturities = maturities if with_leases is None else with_leases
        current, short_term = at(_CURRENT_DEBT), at(_SHORT_TERM_DEBT)
        if noncurrent is None and total is not None and maturities is not None:
            noncurrent = total - maturities
        if noncurrent is not None and current is not None:
            return noncurrent + current
        if noncurrent is not None and (maturities is not None or total is None):
            return noncurrent + (maturities or 0) + (short_term or 0)
        if total is not None:
            return total + (short_term or 0)
        return current if current is not None else _sum(maturities, short_term)

    def _shares(self, end: int, basis: float | None) -> float | None:
        """Of the filing's cover, else of the balance sheet, else the average of the quarter or year."""
        if end in self._cover_shares:
            return self._in_shares(self._cover_shares[end], _COVER_SHARES, basis)
        sources = ((self._balances, _SHARES), (self._quarters, _AVERAGE_SHARES), (self._years, _AVERAGE_SHARES))
        counts = (self._first(table, tags, end, basis) for table, tags in sources)
        return next((count for count in counts if count), None)


def _within(days: int, span: tuple[int, int]) -> bool:
    return span[0] <= days <= span[1]


def _sum(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def _split(ratio: float) -> float:
    """The split that changes share counts by `ratio`; 1 if none does, as with a corrected count."""
    if not np.isfinite(ratio) or ratio <= 0 or 1 / _LEAST_SPLIT < ratio < _LEAST_SPLIT:
        return 1.0
    forward = max(ratio, 1 / ratio)
    if forward > _LARGEST_SPLIT:
        return 1.0
    for denominator in _SPLIT_DENOMINATORS:
        exact = round(forward * denominator) / denominator
        if abs(forward / exact - 1) <= _SPLIT_TOLERANCE:
            return exact if ratio > 1 else 1 / exact
    return 1.0
