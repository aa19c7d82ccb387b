"""EDGAR: what a filing made known, and when; no request leaves this machine."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from signals_core.calendar import session_closes
from signals_core.errors import ProviderError, SettingsError
from signals_core.market_data.providers.base import open_provider
from signals_core.market_data.providers.sec_companyfacts import quarterly_fundamentals
from signals_core.market_data.providers.sec_edgar import SecEdgarProvider
from signals_core.market_data.providers.sec_form4 import read_form4
from signals_core.market_data.providers.sec_submissions import acceptance_moments, read_page
from signals_core.market_data.schemas import FUNDAMENTAL_BALANCES, FUNDAMENTAL_VALUES
from signals_core.market_data.screening import screen_facts
from tests.core.loopback import Loopback, Reply, json_reply, serving

CIK = 320193
CONTACT = "Jane Doe jane@example.org"
REAL_DATA = Path(os.environ.get("SIGNALS_REAL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


# Documents in the SEC's formats.


class Facts:
    """A companyfacts document, built filing by filing."""

    def __init__(self) -> None:
        self._facts: dict[str, dict[str, dict[str, Any]]] = {"us-gaap": {}, "dei": {}}
        self._filings = 0

    def file(self, form: str, filed: str, **values: Any) -> str:
        """Add a filing: tag = {"start/end" or "end": value}. Returns its accession number."""
        self._filings += 1
        accession = f"0000320193-00-{self._filings:06d}"
        for tag, spans in values.items():
            taxonomy = "dei" if tag.startswith("Entity") else "us-gaap"
            unit = "USD/shares" if "PerShare" in tag else "shares" if "Shares" in tag else "USD"
            facts = self._facts[taxonomy].setdefault(tag, {"units": {}})["units"].setdefault(unit, [])
            for span, value in spans.items():
                start, _, end = span.rpartition("/")
                # fy and fp are the filing's and must not matter.
                fact = {"end": end, "val": value, "accn": accession, "fy": 1, "fp": "Q9", "form": form, "filed": filed}
                facts.append({"start": start, **fact} if start else fact)
        return accession

    def frame(self, **accepted: pd.Timestamp) -> pd.DataFrame:
        return quarterly_fundamentals(self.document, accepted)

    @property
    def document(self) -> dict[str, Any]:
        return {"cik": CIK, "entityName": "Test", "facts": self._facts}


Q1, H1, M9, FY = (f"2021-01-01/2021-{end}" for end in ("03-31", "06-30", "09-30", "12-31"))
Q2, Q3, Q4 = "2021-04-01/2021-06-30", "2021-07-01/2021-09-30", "2021-10-01/2021-12-31"


def a_year(facts: Facts, tag: str = "Revenues", values: tuple[float, ...] = (10, 30, 60, 100)) -> Facts:
    """Year-to-date figures, as in a cash flow statement."""
    first, half, nine, year = values
    facts.file("10-Q", "2021-05-03", **{tag: {Q1: first}})
    facts.file("10-Q", "2021-08-03", **{tag: {H1: half}})
    facts.file("10-Q", "2021-11-03", **{tag: {M9: nine}})
    facts.file("10-K", "2022-02-15", **{tag: {FY: year}})
    return facts


def values_of(frame: pd.DataFrame, column: str) -> dict[tuple[str, str], float]:
    """The latest version by period_end and fiscal_period."""
    return {
        (str(row.period_end.date()), row.fiscal_period): getattr(row, column) for row in frame.itertuples(index=False)
    }


def submissions(filings: list[tuple[str, str, str, str, str]], older: tuple[str, ...] = ()) -> dict[str, Any]:
    """Rows accession, form, filing date, acceptance, document."""
    return {"cik": str(CIK), "filings": {"recent": page(filings), "files": [{"name": name} for name in older]}}


def page(filings: list[tuple[str, str, str, str, str]], report_date: str = "2021-05-04") -> dict[str, list[str]]:
    names = ("accessionNumber", "form", "filingDate", "acceptanceDateTime", "primaryDocument")
    columns = zip(*filings, strict=True) if filings else ((),) * len(names)
    return {**dict(zip(names, map(list, columns), strict=True)), "reportDate": [report_date] * len(filings)}


def form4(rows: str, owner: str = "DOE JANE", issuer: int = CIK, before: str = "") -> bytes:
    return f"""<?xml version="1.0"?>{before}
<ownershipDocument>
    <schemaVersion>X0306</schemaVersion>
    <documentType>4</documentType>
    <periodOfReport>2021-05-04</periodOfReport>
    <issuer>
        <issuerCik>{issuer:010d}</issuerCik>
        <issuerName>Apple Inc.</issuerName>
        <issuerTradingSymbol>AAPL</issuerTradingSymbol>
    </issuer>
    <reportingOwner>
        <reportingOwnerId><rptOwnerCik>0001214156</rptOwnerCik><rptOwnerName>{owner}</rptOwnerName></reportingOwnerId>
        <reportingOwnerRelationship><isDirector>0</isDirector><isOfficer>1</isOfficer></reportingOwnerRelationship>
    </reportingOwner>
    <nonDerivativeTable>{rows}
        <nonDerivativeHolding><securityTitle><value>Common Stock</value></securityTitle></nonDerivativeHolding>
    </nonDerivativeTable>
    <derivativeTable>
        <derivativeTransaction><transactionDate><value>2021-05-04</value></transactionDate></derivativeTransaction>
    </derivativeTable>
    <footnotes><footnote id="F1">Weighted average.</footnote></footnotes>
</ownershipDocument>""".encode()


def sale(
    shares: str = "100", price: str = "<value>127.85</value>", code: str = "S", direction: str = "D",
    day: str = "2021-05-04",
) -> str:  # fmt: skip
    return f"""
        <nonDerivativeTransaction>
            <securityTitle><value>Common Stock</value></securityTitle>
            <transactionDate><value>{day}</value></transactionDate>
            <transactionCoding>
                <transactionFormType>4</transactionFormType>
                <transactionCode>{code}</transactionCode>
                <equitySwapInvolved>0</equitySwapInvolved>
            </transactionCoding>
            <transactionAmounts>
                <transactionShares><value>{shares}</value></transactionShares>
                <transactionPricePerShare>{price}</transactionPricePerShare>
                <transactionAcquiredDisposedCode><value>{direction}</value></transactionAcquiredDisposedCode>
            </transactionAmounts>
            <postTransactionAmounts>
                <sharesOwnedFollowingTransaction><value>5000</value></sharesOwnedFollowingTransaction>
            </postTransactionAmounts>
            <ownershipNature><directOrIndirectOwnership><value>D</value></directOrIndirectOwnership></ownershipNature>
        </nonDerivativeTransaction>"""


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving() as loopback:
        tickers = {
            "0": {"cik_str": CIK, "ticker": "AAPL", "title": "Apple Inc."},
            "1": {"cik_str": 1067983, "ticker": "BRK-B", "title": "BERKSHIRE HATHAWAY INC"},
        }
        loopback.script("/files/company_tickers.json", json_reply(tickers))
        yield loopback


@pytest.fixture
def edgar(server: Loopback, tmp_path: Path) -> SecEdgarProvider:
    options = {"contact": CONTACT, "base_url": server.url, "archives_url": server.url}
    provider: SecEdgarProvider = open_provider("sec_edgar", options, tmp_path, "fetch_fundamentals")
    return provider


def serve(server: Loopback, facts: Facts, filings: list[tuple[str, str, str, str, str]]) -> None:
    server.script(f"/api/xbrl/companyfacts/CIK{CIK:010d}.json", json_reply(facts.document, gzipped=True))
    server.script(f"/submissions/CIK{CIK:010d}.json", json_reply(submissions(filings)))


# Quarters.


def test_year_to_date_figures_become_quarters_and_the_year_a_row_of_its_own() -> None:
    frame = a_year(Facts()).frame()
    assert values_of(frame, "revenue") == {
        ("2021-03-31", "Q1"): 10,
        ("2021-06-30", "Q2"): 20,
        ("2021-09-30", "Q3"): 30,
        ("2021-12-31", "Q4"): 40,
        ("2021-12-31", "FY"): 100,
    }
    assert list(frame.columns) == ["available_at", "period_end", "fiscal_period", "document", *FUNDAMENTAL_VALUES]
    assert (frame["available_at"].dtype, frame["period_end"].dtype) == ("datetime64[us]", "datetime64[us]")
    assert (frame.dtypes[list(FUNDAMENTAL_VALUES)] == "float64").all()
    assert frame.loc[0, "document"] == "0000320193-00-000001"


def test_a_quarter_stated_is_used_before_a_difference() -> None:
    facts = Facts()
    facts.file("10-Q", "2021-05-03", NetIncomeLoss={Q1: 10})
    facts.file("10-Q", "2021-08-03", NetIncomeLoss={H1: 30, Q2: 21})
    assert values_of(facts.frame(), "net_income")["2021-06-30", "Q2"] == 21


def test_a_difference_needs_both_figures_of_one_reporting_cycle() -> None:
    facts = a_year(Facts())
    facts.file("10-K", "2023-02-15", Revenues={FY: 500, "2022-01-01/2022-12-31": 600})
    frame = facts.frame()
    assert values_of(frame, "revenue")["2021-12-31", "Q4"] == 40
    assert values_of(frame, "revenue")["2021-12-31", "FY"] == 500
    late = Facts()
    late.file("10-Q", "2021-11-03", Revenues={M9: 60})
    late.file("10-K", "2022-06-15", Revenues={FY: 100})
    assert ("2021-12-31", "Q4") not in values_of(late.frame(), "revenue")
    assert values_of(late.frame(), "revenue")["2021-12-31", "FY"] == 100


def test_a_split_between_nine_months_and_the_year_is_no_loss_a_share() -> None:
    facts, average = Facts(), "WeightedAverageNumberOfDilutedSharesOutstanding"
    year_before = "2020-01-01/2020-12-31"
    facts.file("10-K", "2021-02-15", EarningsPerShareDiluted={year_before: 8.0}, **{average: {year_before: 1001}})
    facts.file("10-Q", "2021-11-03", EarningsPerShareDiluted={M9: 9.0, Q3: 3.2}, **{average: {M9: 1000}})
    facts.file(
        "10-K", "2022-02-15", EarningsPerShareDiluted={FY: 3.1, year_before: 2.0},
        **{average: {FY: 4010, year_before: 4004}},
    )  # fmt: skip
    frame = facts.frame()
    assert values_of(frame, "eps")["2021-12-31", "Q4"] == pytest.approx(3.1 - 9 / 4)
    # The quarter before is not filed again: its row stays as it was, in shares of its day.
    assert frame.loc[frame["period_end"] == "2021-09-30", "eps"].tolist() == [3.2]
    years = frame[(frame["period_end"] == "2020-12-31") & (frame["fiscal_period"] == "FY")]
    assert years["eps"].tolist() == [8.0, 2.0]


def test_a_restated_quarter_is_in_shares_of_its_filing_throughout() -> None:
    facts, average = Facts(), "WeightedAverageNumberOfSharesOutstandingBasic"
    facts.file(
        "10-Q", "2021-05-03", EarningsPerShareDiluted={Q1: 4.0}, Revenues={Q1: 10},
        EntityCommonStockSharesOutstanding={"2021-04-20": 100}, **{average: {Q1: 99}},
    )  # fmt: skip
    facts.file("10-Q", "2022-05-03", Revenues={Q1: 11, "2022-01-01/2022-03-31": 12}, **{average: {Q1: 396}})
    frame = facts.frame()
    rows = frame[frame["period_end"] == "2021-03-31"]
    assert rows["revenue"].tolist() == [10, 11]
    assert rows["eps"].tolist() == [4.0, 1.0]
    assert rows["shares_outstanding"].tolist() == [100, 400]


def test_a_renamed_tag_goes_on_but_is_not_subtracted_from_another_figure() -> None:
    facts = Facts()
    a_year(facts, "SalesRevenueNet")
    facts.file("10-Q", "2022-05-03", RevenueFromContractWithCustomerExcludingAssessedTax={"2022-01-01/2022-03-31": 15})
    frame = facts.frame()
    assert values_of(frame, "revenue")["2022-03-31", "Q1"] == 15

    changed = Facts()
    changed.file("10-Q", "2021-11-03", SalesRevenueNet={M9: 60, Q3: 30})
    changed.file("10-K", "2022-02-15", Revenues={FY: 100})
    assert ("2021-12-31", "Q4") not in values_of(changed.frame(), "revenue")


@pytest.mark.parametrize(("other", "expected"), [(50, {40}), (51, set())])
def test_a_tag_renamed_within_a_year_is_subtracted_where_both_mean_the_same(other: float, expected: set[float]) -> None:
    facts, before = Facts(), "2020-01-01/2020-12-31"
    facts.file("10-K", "2021-02-15", SalesRevenueNet={before: 50})
    facts.file("10-Q", "2021-11-03", SalesRevenueNet={M9: 60})
    facts.file("10-K", "2022-02-15", Revenues={FY: 100, before: other})
    frame = facts.frame()
    quarter = frame[(frame["period_end"] == "2021-12-31") & (frame["fiscal_period"] == "Q4")]
    assert set(quarter["revenue"]) == expected


def test_a_restatement_is_a_row_of_its_own_and_a_repetition_none() -> None:
    facts = Facts()
    facts.file("10-Q", "2021-05-03", Revenues={Q1: 10}, StockholdersEquity={"2021-03-31": 7})
    facts.file("10-Q/A", "2021-06-01", Revenues={Q1: 9}, StockholdersEquity={"2021-03-31": 7})
    facts.file("10-Q", "2022-05-03", Revenues={Q1: 9, "2022-01-01/2022-03-31": 12})
    frame = facts.frame()
    assert frame[["revenue", "total_equity"]].to_numpy().tolist()[:2] == [[10, 7], [9, 7]]
    assert frame["period_end"].dt.strftime("%Y-%m-%d").tolist() == ["2021-03-31", "2021-03-31", "2022-03-31"]


def test_duplicate_facts_and_other_forms_change_nothing() -> None:
    facts, twice = a_year(Facts()), a_year(Facts())
    for content in twice.document["facts"]["us-gaap"].values():
        for unit in content["units"].values():
            unit.extend([dict(fact) for fact in unit])
    twice.file("8-K", "2022-03-01", Revenues={FY: 1})
    twice.file("S-4", "2022-03-01", Revenues={FY: 2})
    pd.testing.assert_frame_equal(facts.frame(), twice.frame())


def test_missing_values_are_missing_and_a_missing_quarter_is_not_made_up() -> None:
    facts = Facts()
    facts.file("10-Q", "2021-05-03", Revenues={Q1: 10})
    facts.file("10-Q", "2021-11-03", Revenues={M9: 60})
    facts.file("10-K", "2022-02-15", Revenues={FY: 100})
    frame = facts.frame()
    quarters = frame[frame["fiscal_period"] != "FY"]
    assert quarters["revenue"].tolist() == [10, 40]
    assert (
        quarters.drop(columns=["available_at", "period_end", "fiscal_period", "document", "revenue"])
        .isna()
        .all(axis=None)
    )
    assert quarterly_fundamentals({"facts": {"dei": {}}}, {}).empty
    assert quarterly_fundamentals({}, {})["available_at"].dtype == "datetime64[us]"


def test_fiscal_periods_follow_the_companys_own_year_of_53_weeks() -> None:
    facts = Facts()
    facts.file("10-K", "2016-10-26", Revenues={"2015-09-27/2016-09-24": 215})
    facts.file("10-Q", "2017-02-01", Revenues={"2016-09-25/2016-12-31": 78})  # 14 weeks
    facts.file("10-Q", "2017-05-03", Revenues={"2016-09-25/2017-04-01": 131})
    facts.file("10-Q", "2017-08-02", Revenues={"2016-09-25/2017-07-01": 176})
    facts.file("10-K", "2017-11-03", Revenues={"2016-09-25/2017-09-30": 229})
    assert values_of(facts.frame(), "revenue") == {
        ("2016-09-24", "FY"): 215,
        ("2016-12-31", "Q1"): 78,
        ("2017-04-01", "Q2"): 53,
        ("2017-07-01", "Q3"): 45,
        ("2017-09-30", "Q4"): 53,
        ("2017-09-30", "FY"): 229,
    }


def test_quarters_of_12_12_12_and_16_weeks() -> None:
    facts, start = Facts(), "2020-12-27"
    facts.file("10-Q", "2021-04-20", Revenues={f"{start}/2021-03-20": 12})
    facts.file("10-Q", "2021-07-13", Revenues={f"{start}/2021-06-12": 24})
    facts.file("10-Q", "2021-10-05", Revenues={f"{start}/2021-09-04": 36})
    facts.file("10-K", "2022-02-10", Revenues={f"{start}/2021-12-25": 52})
    frame = facts.frame()
    assert frame["fiscal_period"].tolist() == ["Q1", "Q2", "Q3", "Q4", "FY"]
    assert frame["revenue"].tolist() == [12, 12, 12, 16, 52]


def test_the_last_twelve_months_in_a_10_q_are_no_fiscal_year() -> None:
    facts = a_year(Facts())
    facts.file("10-Q", "2022-05-03", Revenues={"2022-01-01/2022-03-31": 15, "2021-04-01/2022-03-31": 105})
    assert ("2022-03-31", "FY") not in values_of(facts.frame(), "revenue")
    assert values_of(facts.frame(), "revenue")["2022-03-31", "Q1"] == 15


def test_ebitda_adds_depreciation_and_amortisation_however_they_are_tagged() -> None:
    end = "2021-03-31"
    for parts, expected in [
        ({"DepreciationDepletionAndAmortization": 3}, 13),
        ({"Depreciation": 3, "AmortizationOfIntangibleAssets": 2}, 15),
        ({"Depreciation": 3}, 13),
        ({"DepreciationDepletionAndAmortization": 6, "Depreciation": 3, "AmortizationOfIntangibleAssets": 2}, 16),
        ({"AmortizationOfIntangibleAssets": 2}, np.nan),
    ]:
        facts = Facts()
        flows = {"Revenues": 50, "OperatingIncomeLoss": 10, **parts}
        facts.file("10-Q", "2021-05-03", **{tag: {Q1: value} for tag, value in flows.items()})
        assert values_of(facts.frame(), "ebitda") == {(end, "Q1"): pytest.approx(expected, nan_ok=True)}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"LongTermDebtNoncurrent": 90, "LongTermDebtCurrent": 10, "CommercialPaper": 5}, 105),
        ({"LongTermDebtNoncurrent": 90, "LongTermDebtCurrent": 10, "LongTermDebt": 100, "CommercialPaper": 5}, 105),
        ({"LongTermDebt": 100, "CommercialPaper": 5}, 105),
        ({"LongTermDebtNoncurrent": 90, "LongTermDebtCurrent": 10, "DebtCurrent": 15, "CommercialPaper": 5}, 105),
        ({"LongTermDebt": 100, "LongTermDebtCurrent": 10, "DebtCurrent": 15}, 105),
        ({"LongTermDebtNoncurrent": 90, "LongTermDebt": 100, "CommercialPaper": 5}, 105),
        ({"LongTermDebt": 100, "DebtCurrent": 15}, 100),
        ({"LongTermDebtNoncurrent": 90, "ShortTermBorrowings": 7, "CommercialPaper": 5}, 97),
        ({"LongTermDebtAndCapitalLeaseObligations": 90, "LongTermDebtAndCapitalLeaseObligationsCurrent": 10}, 100),
        ({"LongTermDebtAndCapitalLeaseObligationsIncludingCurrentMaturities": 100}, 100),
        ({"DebtCurrent": 15, "CommercialPaper": 5}, 15),
        ({"CommercialPaper": 5}, 5),
        ({"LongTermDebtNoncurrent": 0}, 0),
        ({}, np.nan),
    ],
)
def test_debt_counts_each_part_once(parts: dict[str, float], expected: float) -> None:
    facts, end = Facts(), "2021-03-31"
    facts.file("10-Q", "2021-05-03", Revenues={Q1: 10}, **{tag: {end: value} for tag, value in parts.items()})
    assert facts.frame()["total_debt"].tolist() == [pytest.approx(expected, nan_ok=True)]


def test_shares_are_those_of_the_cover_then_of_the_balance_sheet_then_the_average() -> None:
    average = {"WeightedAverageNumberOfSharesOutstandingBasic": {Q1: 97}}
    balance = {"CommonStockSharesOutstanding": {"2021-03-31": 98}}
    cover = {"EntityCommonStockSharesOutstanding": {"2021-04-20": 99}}
    for given, expected in [(average, 97), ({**average, **balance}, 98), ({**average, **balance, **cover}, 99)]:
        facts = Facts()
        facts.file("10-Q", "2021-05-03", Revenues={Q1: 10}, **given)
        frame = facts.frame()
        assert frame["shares_outstanding"].tolist() == [expected]
        assert frame["period_end"].tolist() == [pd.Timestamp("2021-03-31")]


def test_dates_that_end_no_fiscal_period_make_no_row() -> None:
    facts = Facts()
    facts.file(
        "10-Q", "2021-05-03", Revenues={Q1: 10, "2021-01-15/2021-02-14": 3},
        StockholdersEquity={"2021-02-14": 5, "2020-12-31": 6},
        CommonStockDividendsPerShareDeclared={"2021-02-01/2021-02-01": 1},
    )  # fmt: skip
    assert facts.frame()["period_end"].tolist() == [pd.Timestamp("2021-03-31")]


def test_filings_of_the_same_moment_are_taken_by_accession_and_later_ones_change_no_earlier_row() -> None:
    facts = Facts()
    facts.file("10-Q", "2021-05-03", Revenues={Q1: 10})
    facts.file("10-Q/A", "2021-05-03", Revenues={Q1: 9})
    frame = facts.frame()
    assert frame["revenue"].tolist() == [10, 9]
    a_year(facts, values=(11, 31, 61, 101))
    pd.testing.assert_frame_equal(facts.frame().head(2), frame)


# When a filing could be read.

# 16:30 in New York in summer and winter, after 17:30, and early in the morning.
MOMENTS = ("2021-07-27T16:30:05", "2021-01-27T16:30:12", "2021-04-28T19:02:00", "2021-10-29T06:01:15")


def filer(convention: Callable[[datetime], datetime], form: str = "8-K") -> dict[str, pd.Timestamp]:
    rows = []
    for number, text in enumerate(MOMENTS):
        moment = pd.Timestamp(text, tz="America/New_York").to_pydatetime()
        filed = moment.date() + timedelta(days=1 if moment.hour >= 19 and form == "8-K" else 0)
        rows.append((str(number), form, filed.isoformat(), f"{convention(moment):%Y-%m-%dT%H:%M:%S}.000Z", "a.htm"))
    return acceptance_moments(read_page(page(rows), "here"))


EXPECTED = {
    str(number): pd.Timestamp(text, tz="America/New_York").tz_convert("UTC").tz_localize(None)
    for number, text in enumerate(MOMENTS)
}


@pytest.mark.parametrize("form", ["8-K", "4"])
def test_a_filer_whose_stamps_are_utc_and_one_whose_stamps_are_new_yorks(form: str) -> None:
    assert filer(lambda moment: moment.astimezone(UTC), form) == EXPECTED
    assert filer(lambda moment: moment, form) == EXPECTED


def test_stamps_that_could_be_either_are_taken_as_the_later_moment() -> None:
    rows = [("a", "8-K", "2021-07-27", "2021-07-27T16:30:00.000Z", "a.htm")]
    assert acceptance_moments(read_page(page(rows), "here")) == {"a": pd.Timestamp("2021-07-27 20:30")}


def test_one_odd_stamp_does_not_outvote_the_others() -> None:
    utc = [(str(n), "8-K", f"2021-07-{n}", f"2021-07-{n}T20:30:00.000Z", "a") for n in (19, 20, 21, 22, 23, 26)]
    odd = [
        ("x", "8-K", "2021-07-28", "2021-07-28T08:00:00.000Z", "a"),
        ("y", "UPLOAD", "2021-07-01", "2021-07-28T03:00:00.000Z", "a"),
    ]
    assert acceptance_moments(read_page(page([*utc, *odd]), "here"))["19"] == pd.Timestamp("2021-07-19 20:30")


def test_filings_without_a_stamp_are_left_to_their_date() -> None:
    assert acceptance_moments(read_page(page([("a", "8-K", "2021-07-27", "", "a.htm")]), "here")) == {}
    assert acceptance_moments([]) == {}


@pytest.mark.parametrize(("clock", "known_that_day"), [("16:05:00", False), ("15:55:00", True)])
@pytest.mark.parametrize("is_utc", [True, False])
def test_a_filing_is_known_at_that_days_close_only_if_accepted_before(
    edgar: SecEdgarProvider, server: Loopback, clock: str, known_that_day: bool, is_utc: bool
) -> None:
    facts = Facts()
    accession = facts.file("10-Q", "2021-05-03", Revenues={Q1: 10})
    # The other filings show the convention: 18:00 with the next day's date, or 22:00 with the same day's.
    moment = pd.Timestamp(f"2021-05-03 {clock}", tz="America/New_York")
    other = pd.Timestamp("2021-04-06 18:00", tz="America/New_York")
    stamps = [f"{(at.tz_convert('UTC') if is_utc else at):%Y-%m-%dT%H:%M:%S}.000Z" for at in (moment, other)]
    serve(server, facts, [
        (accession, "10-Q", "2021-05-03", stamps[0], "a.htm"),
        ("0000320193-21-000009", "8-K", "2021-04-07", stamps[1], "b.htm"),
    ])  # fmt: skip

    frame = edgar.fetch_fundamentals("AAPL")

    assert frame is not None
    (close,) = session_closes("XNYS", pd.DatetimeIndex(["2021-05-03"]))
    (available_at,) = frame["available_at"]
    assert available_at == moment.tz_convert("UTC").tz_localize(None)
    assert (available_at <= close) == known_that_day


@pytest.mark.parametrize(
    ("filed", "lag", "close"),
    [
        ("2021-05-03", 0, "2021-05-03 20:00"),
        ("2021-05-08", 0, "2021-05-10 20:00"),  # a Saturday
        ("2021-11-25", 0, "2021-11-26 18:00"),  # Thanksgiving, and the short session after it
        ("2021-05-03", 1, "2021-05-04 20:00"),
    ],
)
def test_a_filing_missing_in_the_submissions_is_known_at_the_close_of_its_date(
    server: Loopback, tmp_path: Path, filed: str, lag: int, close: str
) -> None:
    facts = Facts()
    facts.file("10-Q", filed, Revenues={Q1: 10})
    serve(server, facts, [])
    edgar = SecEdgarProvider(tmp_path, CONTACT, server.url, server.url, date_only_lag_sessions=lag)
    frame = edgar.fetch_fundamentals("AAPL")
    assert frame is not None
    assert frame["available_at"].tolist() == [pd.Timestamp(close)]


# Over HTTP.


def test_older_pages_of_the_submissions_are_read_and_since_cuts(edgar: SecEdgarProvider, server: Loopback) -> None:
    facts = a_year(Facts())
    serve(server, facts, [])
    numbers = [f"0000320193-00-{number:06d}" for number in (1, 2, 3, 4)]
    days = ("2021-05-03", "2021-08-03", "2021-11-03", "2022-02-15")
    rows = [(n, "10-Q", day, f"{day}T14:00:00.000Z", "a") for n, day in zip(numbers, days, strict=True)]
    older = "CIK0000320193-submissions-001.json"
    server.script(f"/submissions/CIK{CIK:010d}.json", json_reply(submissions(rows[2:], (older,))))
    server.script(f"/submissions/{older}", json_reply(page(rows[:2])))

    frame = edgar.fetch_fundamentals("aapl")

    assert frame is not None
    assert frame["available_at"].dt.hour.tolist() == [18, 18, 18, 19, 19]  # 14:00 in New York
    assert {request.headers["user-agent"] for request in server.asked} == {CONTACT}
    recent = edgar.fetch_fundamentals("AAPL", datetime(2021, 11, 3, 18, tzinfo=UTC))
    assert recent is not None
    assert recent["fiscal_period"].tolist() == ["Q3", "Q4", "FY"]
    assert server.paths().count("/files/company_tickers.json") == 1
    screened = screen_facts("fundamentals", frame, "AAPL", "XNYS", 0)
    assert (len(screened.good), len(screened.rejected)) == (5, 0)

    server.script(f"/submissions/{older}", Reply(404))
    with pytest.raises(ProviderError, match=r"submissions-001\.json is named by the filer's submissions but not there"):
        edgar.fetch_fundamentals("AAPL")


def test_ciks_by_the_list_by_option_and_unknown(server: Loopback, tmp_path: Path) -> None:
    options = {"contact": CONTACT, "base_url": server.url, "archives_url": server.url, "ciks": {"TWTR": "0001418091"}}
    edgar = open_provider("sec_edgar", options, tmp_path, "fetch_insider_transactions")
    assert edgar.fetch_fundamentals("TWTR") is None
    assert server.paths() == ["/api/xbrl/companyfacts/CIK0001418091.json"]
    assert edgar.fetch_fundamentals("BRK.B") is None
    assert server.paths()[-1] == "/api/xbrl/companyfacts/CIK0001067983.json"
    assert edgar.fetch_fundamentals("^VIX") is None
    assert edgar.fetch_insider_transactions("NONE") is None
    assert len(server.paths()) == 3


@pytest.mark.parametrize("contact", ["", "Jane Doe", "jane@example.org\nX-Other: 1"])
def test_a_contact_is_required(tmp_path: Path, contact: str) -> None:
    with pytest.raises(SettingsError, match=r"options\.contact: SEC wants a name and an e-mail address"):
        SecEdgarProvider(tmp_path, contact)
    with pytest.raises(SettingsError, match=r"options\.ciks: .*a CIK is a number"):
        SecEdgarProvider(tmp_path, CONTACT, ciks={"A": "AAPL"})  # type: ignore[dict-item]


@pytest.mark.parametrize("path", ["companyfacts", "submissions", "tickers"])
def test_another_format_is_an_error_that_names_the_page(edgar: SecEdgarProvider, server: Loopback, path: str) -> None:
    serve(server, a_year(Facts()), [])
    paths = {
        "companyfacts": (f"/api/xbrl/companyfacts/CIK{CIK:010d}.json", {"facts": {"us-gaap": {"Revenues": {}}}}),
        "submissions": (f"/submissions/CIK{CIK:010d}.json", {"filings": {"recent": {"form": ["4"]}, "files": []}}),
        "tickers": ("/files/company_tickers.json", [1]),
    }
    server.script(paths[path][0], json_reply(paths[path][1]))
    with pytest.raises(ProviderError, match=f"{paths[path][0]} is not in the format of"):
        edgar.fetch_fundamentals("AAPL")


# Insiders.


def insiders(server: Loopback, *forms: tuple[str, str, str, bytes]) -> list[str]:
    """Forms 4 as form, filing date, clock of New York and XML; returns their accession numbers."""
    numbers = [f"0000320193-21-{number:06d}" for number in range(1, len(forms) + 1)]
    rows = []
    for number, (form, day, clock, content) in zip(numbers, forms, strict=True):
        rows.append((number, form, day, f"{day}T{clock}.000Z", f"xslF345X03/{number}.xml"))
        path = f"/Archives/edgar/data/{CIK}/{number.replace('-', '')}/{number}.xml"
        server.script(path, Reply(body=content))
    rows += [
        ("p", "4", "2003-01-02", "2003-01-02T10:00:00.000Z", "p.txt"),
        ("q", "3", "2021-01-04", "2021-01-04T10:00:00.000Z", "q.xml"),
    ]
    server.script(f"/submissions/CIK{CIK:010d}.json", json_reply(submissions(rows[::-1])))
    return numbers


def test_transactions_in_shares_are_read_with_sign_price_and_holding(edgar: SecEdgarProvider, server: Loopback) -> None:
    rows = (
        sale()
        + sale("250.5", '<value>127.10</value><footnoteId id="F1"/>', "P", "A", "2021-05-03-05:00")
        + sale("10", '<footnoteId id="F1"/>', "M", "A")
        + sale("10", "", "G")
        + sale("7", "<value>0</value>", "A", "A")
    )
    (accession,) = insiders(server, ("4", "2021-05-06", "18:31:05", form4(rows)))

    frame = edgar.fetch_insider_transactions("AAPL")

    assert frame is not None
    assert frame["shares"].tolist() == [-100, 250.5, 10, -10, 7]
    assert frame["price"].fillna(-1).tolist() == [127.85, 127.10, -1, -1, 0]
    assert frame["code"].tolist() == ["S", "P", "M", "G", "A"]
    assert frame["line"].tolist() == [0, 1, 2, 3, 4]
    assert frame["transaction_date"].dt.strftime("%m-%d").tolist() == ["05-04", "05-03", "05-04", "05-04", "05-04"]
    assert set(frame["insider"]) == {"DOE JANE"}
    assert set(frame["document"]) == {accession}
    assert set(frame["shares_after"]) == {5000}
    assert set(frame["available_at"]) == {pd.Timestamp("2021-05-06 22:31:05")}  # the stamp is New York's
    screened = screen_facts("insider_transactions", frame, "AAPL", "XNYS", 0)
    assert (len(screened.good), len(screened.rejected)) == (5, 0)


def test_what_an_amendment_repeats_is_left_out(edgar: SecEdgarProvider, server: Loopback) -> None:
    original, amended = (
        sale("100") + sale("200", "") + sale("50"),
        sale("100") + sale("200", "") + sale("55") + sale("100"),
    )
    numbers = insiders(
        server,
        ("4", "2021-05-06", "12:00:00", form4(original)),
        ("4", "2021-05-06", "12:05:00", form4(sale("100"), owner="ROE RICHARD")),
        ("4/A", "2021-05-10", "12:00:00", form4(amended)),
        ("4", "2021-05-11", "12:00:00", form4(sale("100"))),
    )
    frame = edgar.fetch_insider_transactions("AAPL")
    assert frame is not None
    assert list(zip(frame["document"].map(numbers.index), frame["line"], frame["shares"], strict=True)) == [
        (0, 0, -100), (0, 1, -200), (0, 2, -50), (1, 0, -100), (2, 2, -55), (2, 3, -100), (3, 0, -100),
    ]  # fmt: skip

    server.asked.clear()
    recent = edgar.fetch_insider_transactions("AAPL", datetime(2021, 5, 10, tzinfo=UTC))
    assert recent is not None
    pd.testing.assert_frame_equal(recent, frame.tail(3).reset_index(drop=True))
    later = edgar.fetch_insider_transactions("AAPL", datetime(2021, 5, 11, tzinfo=UTC))
    assert later is not None
    assert later["document"].tolist() == [numbers[3]]
    assert sum(path.endswith(".xml") for path in server.paths()) == 4 + 1


def test_no_new_form_is_an_empty_frame_and_a_form_on_anothers_shares_is_not_the_issuers(
    edgar: SecEdgarProvider, server: Loopback
) -> None:
    insiders(server, ("4", "2021-05-06", "12:00:00", form4(sale(), issuer=1018724)))
    for since in (None, datetime(2022, 1, 1, tzinfo=UTC)):
        frame = edgar.fetch_insider_transactions("AAPL", since)
        assert frame is not None
        assert frame.empty
        assert screen_facts("insider_transactions", frame, "AAPL", "XNYS", 0).good.empty


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (form4(sale(), before=BOMB), "has a DOCTYPE"),
        (form4(sale(), before='<!DOCTYPE x SYSTEM "file:///etc/passwd">'), "has a DOCTYPE"),
        (form4(sale(), before=BOMB).decode().partition("?>")[2].encode("utf-16"), "has a DOCTYPE"),
        (form4(sale())[:-30], "malformed XML"),
        (b"", "malformed XML"),
        (b'<?xml version="1.0" encoding="nonsense"?><a/>', "malformed XML"),
        (b"<html><body>Request rate exceeded</body></html>", "is a html, not an ownershipDocument"),
        (form4(sale("many")), "cannot be read: could not convert"),
        (form4(sale("nan")), "cannot be read: .*transactionShares/value is nan"),
        (form4(sale("")), "transaction 0 lacks its number of shares"),
        (form4(sale(direction="")), "or whether they were acquired"),
        (form4(sale(day="soon")), "cannot be read: Invalid isoformat"),
    ],
)  # fmt: skip
def test_a_form_that_cannot_be_trusted_is_refused_by_its_accession(content: bytes, problem: str) -> None:
    with pytest.raises(ProviderError, match=f"Form 4 0000320193-21-000001: .*{problem}"):
        read_form4(content, "0000320193-21-000001", pd.Timestamp("2021-05-06"))


def test_a_form_that_is_listed_but_not_there_is_an_error(edgar: SecEdgarProvider, server: Loopback) -> None:
    (accession,) = insiders(server, ("4", "2021-05-06", "12:00:00", b""))
    server.script(f"/Archives/edgar/data/{CIK}/{accession.replace('-', '')}/{accession}.xml", Reply(404))
    with pytest.raises(ProviderError, match=f"Form 4 {accession}: there is no http"):
        edgar.fetch_insider_transactions("AAPL")


# Real documents.


def real(name: str) -> pd.DataFrame:
    path = REAL_DATA / "fundamentals" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there; set SIGNALS_REAL_DATA to the folder of real test data")
    with gzip.open(path) as file:
        return quarterly_fundamentals(json.load(file), {})


@pytest.fixture(scope="module")
def apple() -> pd.DataFrame:
    return real("AAPL_CIK0000320193.json.gz")


@pytest.fixture(scope="module")
def alphabet() -> pd.DataFrame:
    return real("GOOGL_CIK0001652044.json.gz")


def known(frame: pd.DataFrame, period_end: str, fiscal_period: str, on: str = "2100-01-01") -> pd.Series:
    """The latest version known on a day."""
    about = frame[(frame["period_end"] == period_end) & (frame["fiscal_period"] == fiscal_period)]
    return about[about["available_at"] <= on].iloc[-1]


@pytest.mark.real_data
def test_apples_restated_earnings_a_share(apple: pd.DataFrame) -> None:
    assert known(apple, "2018-09-29", "FY", "2018-12-31")["eps"] == 11.91
    assert known(apple, "2018-09-29", "FY", "2019-12-31")["eps"] == 11.91
    assert known(apple, "2018-09-29", "FY", "2020-12-31")["eps"] == 2.98
    # The year of the 4:1 split: 3.28 less nine months of 10.16 in old shares.
    assert known(apple, "2020-09-26", "Q4")["eps"] == 0.73
    quarters = apple[apple["fiscal_period"] != "FY"]
    assert quarters["eps"].min() > 0


@pytest.mark.real_data
def test_apples_fourth_quarter_of_2018(apple: pd.DataFrame) -> None:
    quarter = known(apple, "2018-09-29", "Q4", "2018-12-31")
    assert quarter["revenue"] == (265_595 - 202_695) * 1e6 == 62_900e6
    assert quarter["net_income"] == 14_125e6
    assert quarter["total_debt"] == (93_735 + 8_784 + 11_964) * 1e6
    assert (quarter["cash"], quarter["shares_outstanding"]) == (25_913e6, 4_745_398_000)
    # Depreciation changed its tag between nine months and the year: 10,903 less 8,149.
    assert quarter["ebitda"] == 16_118e6 + (10_903 - 8_149) * 1e6
    assert quarter["dividends_per_share"] == pytest.approx(0.73)


@pytest.mark.real_data
@pytest.mark.parametrize("company", ["apple", "alphabet"])
def test_four_quarters_are_the_year_as_first_filed(company: str, request: pytest.FixtureRequest) -> None:
    frame = request.getfixturevalue(company)
    checked = 0
    for _, year in frame[frame["fiscal_period"] == "FY"].drop_duplicates("period_end").iterrows():
        before = frame[(frame["available_at"] <= year["available_at"]) & (frame["fiscal_period"] != "FY")]
        quarters = before.drop_duplicates("period_end", keep="last").set_index("period_end")
        start = year["period_end"] - pd.Timedelta(days=300)
        quarters = quarters[(quarters.index > start) & (quarters.index <= year["period_end"])]
        for name in ("revenue", "net_income", "ebitda"):
            if len(quarters) == 4 and quarters[name].notna().all():
                # Filed in millions, each figure rounded for itself.
                assert quarters[name].sum() == pytest.approx(year[name], abs=2e6), (year["period_end"], name)
                checked += 1
    assert checked >= (45 if company == "apple" else 20)


@pytest.mark.real_data
@pytest.mark.parametrize("company", ["apple", "alphabet"])
def test_nothing_is_known_before_its_period_ends_and_every_row_can_be_stored(
    company: str, request: pytest.FixtureRequest
) -> None:
    frame = request.getfixturevalue(company)
    assert (frame["available_at"] > frame["period_end"] + pd.Timedelta(days=10)).all()
    assert frame["available_at"].is_monotonic_increasing
    assert not frame.duplicated(["period_end", "fiscal_period", "document"]).any()
    assert frame[list(FUNDAMENTAL_VALUES)].notna().any(axis=1).all()
    assert frame.loc[frame["fiscal_period"] == "FY", list(FUNDAMENTAL_BALANCES)].isna().all(axis=None)
    screened = screen_facts("fundamentals", frame, "X", "XNYS", 0)
    assert screened.rejected.empty
    quarters = np.sort(frame.loc[frame["fiscal_period"] != "FY", "period_end"].unique())[-40:]
    gaps = np.diff(quarters).astype("timedelta64[D]").astype(int)
    assert gaps.min() >= 84
    assert gaps.max() <= 98


@pytest.mark.real_data
def test_rows_known_on_a_day_do_not_depend_on_later_filings() -> None:
    path = REAL_DATA / "fundamentals" / "AAPL_CIK0000320193.json.gz"
    whole = real(path.name)
    with gzip.open(path) as file:
        document = json.load(file)
    for content in (tag for taxonomy in document["facts"].values() for tag in taxonomy.values()):
        for unit, facts in content["units"].items():
            content["units"][unit] = [fact for fact in facts if fact["filed"] <= "2018-12-31"]
    early = quarterly_fundamentals(document, {})
    pd.testing.assert_frame_equal(early, whole[whole["available_at"] < "2019-01-01"])
    assert len(early) > 60


@pytest.mark.real_data
def test_alphabets_figures(alphabet: pd.DataFrame) -> None:
    # Revenue changed its tag between nine months and the year: 182,527 less 125,629.
    quarter = known(alphabet, "2020-12-31", "Q4", "2021-03-31")
    assert (quarter["revenue"], quarter["net_income"], quarter["eps"]) == (56_898e6, 15_227e6, pytest.approx(22.23))
    assert known(alphabet, "2022-12-31", "FY")["revenue"] == 282_836e6
    assert known(alphabet, "2024-12-31", "Q4")["ebitda"] == pytest.approx(35.2e9, rel=0.01)
    # No count on the cover, which has one of each class: the balance sheet's, before and after 20:1.
    assert known(alphabet, "2022-03-31", "Q1", "2022-06-30")["shares_outstanding"] == pytest.approx(659e6, rel=0.01)
    assert known(alphabet, "2022-06-30", "Q2")["shares_outstanding"] == pytest.approx(13_078e6, rel=0.01)
    latest = alphabet[alphabet["fiscal_period"] != "FY"].iloc[-1]
    assert latest[["revenue", "net_income", "ebitda", "total_equity", "total_debt", "cash"]].notna().all()
    quarters = alphabet[(alphabet["fiscal_period"] != "FY") & (alphabet["period_end"] >= "2016-01-01")]
    revenue = quarters.drop_duplicates("period_end", keep="last").set_index("period_end")["revenue"].sort_index()
    assert revenue.between(20e9, 120e9).all()
    assert (revenue / revenue.shift(4) - 1).dropna().between(-0.05, 0.7).all()
