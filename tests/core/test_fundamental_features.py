"""Filings, insider trades and short interest: worked by hand, and never known before they were."""

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from signals_core.calendar import sessions_between
from signals_core.features.alternative import AlternativeFeatureCalculator
from signals_core.features.catalog import feature_names
from signals_core.features.fundamental import FundamentalFeatureCalculator
from signals_core.features.inputs import FeatureInputs

SESSIONS = sessions_between("XNYS", date(2012, 1, 3), date(2013, 3, 1)).rename("date")
# As traded 100 throughout, adjusted to 50 by a later split: market value is 100 times the shares.
BARS = pd.DataFrame({"close": 50.0, "adjustment": 0.5}, index=SESSIONS)
BALANCE = {
    "total_equity": 400.0, "total_debt": 300.0, "cash": 100.0, "current_assets": 200.0, "current_liabilities": 100.0,
    "shares_outstanding": 10.0, "dividends_per_share": 0.5, "eps": 1.0, "ebitda": 50.0,
}  # fmt: skip


def quarter(period_end: str, available_at: str, net_income: float, revenue: float, **other: float) -> dict[str, Any]:
    values = {**BALANCE, **other, "net_income": net_income, "revenue": revenue}
    return {"available_at": pd.Timestamp(available_at), "period_end": pd.Timestamp(period_end), **values}


YEAR = [
    quarter("2011-06-30", "2011-07-26 20:30", 10, 100),
    quarter("2011-09-30", "2011-10-25 20:30", 20, 100),
    quarter("2011-12-31", "2012-01-24 21:30", 30, 150),
    quarter("2012-03-31", "2012-04-24 20:30", 40, 150),
]


def fundamental(quarters: list[dict[str, Any]]) -> pd.DataFrame:
    inputs = FeatureInputs(BARS, fundamentals=pd.DataFrame(quarters))
    return FundamentalFeatureCalculator().calculate(inputs)


def alternative(**inputs: pd.DataFrame) -> pd.DataFrame:
    return AlternativeFeatureCalculator().calculate(FeatureInputs(BARS, **inputs))


def insider(*trades: tuple[str, str, float, float]) -> pd.DataFrame:
    frame = pd.DataFrame(trades, columns=["available_at", "code", "shares", "price"])
    return frame.assign(available_at=pd.to_datetime(frame["available_at"]), transaction_date=pd.Timestamp("2012-01-03"))


def short_reports(*reports: tuple[str, str, float]) -> pd.DataFrame:
    frame = pd.DataFrame(reports, columns=["settlement_date", "available_at", "shares_short"])
    dates = {name: pd.to_datetime(frame[name]) for name in ("settlement_date", "available_at")}
    return frame.assign(**dates, avg_daily_volume=50.0, shares_float=1000.0)


def test_ratios_of_four_known_quarters() -> None:
    # Four quarters: income 100, revenue 500, ebitda 200, dividends 2. Market value 1000, enterprise value 1200.
    row = fundamental(YEAR).loc["2012-04-25"]
    expected = {
        "pe_ratio": 10, "pb_ratio": 2.5, "ps_ratio": 2, "ev_to_ebitda": 6, "earnings_yield": 0.1, "book_to_price": 0.4,
        "sales_to_price": 0.5, "ebitda_to_ev": 1 / 6, "roe": 0.25, "current_ratio": 2, "debt_to_equity": 0.75,
        "dividend_yield": 0.02,
    }  # fmt: skip
    assert row[list(expected)].to_dict() == pytest.approx(expected)
    assert row[["revenue_growth_yoy", "earnings_growth_yoy"]].isna().all()
    assert row["days_since_filing"] == pytest.approx(1 - 0.5 / 24)


def test_a_filing_after_the_close_is_not_visible_that_day() -> None:
    found = fundamental(YEAR)["pe_ratio"]
    assert np.isnan(found["2012-04-24"])  # three quarters known; the fourth came half an hour after the close
    assert found["2012-04-25"] == pytest.approx(10)


def test_a_filing_with_only_a_date_is_visible_on_it() -> None:
    found = fundamental([*YEAR[:3], quarter("2012-03-31", "2012-04-24", 40, 150)])["pe_ratio"]
    assert np.isnan(found["2012-04-23"])
    assert found["2012-04-24"] == pytest.approx(10)


def test_a_restatement_counts_from_its_own_filing_and_changes_nothing_before() -> None:
    restated = quarter("2011-09-30", "2012-08-01 12:00", 45, 100)
    before, after = fundamental(YEAR), fundamental([*YEAR, restated])
    ratios = before.columns.drop("days_since_filing")
    pd.testing.assert_frame_equal(before.loc[:"2012-07-31", ratios], after.loc[:"2012-07-31", ratios])
    assert before.loc["2012-08-01", "earnings_yield"] == pytest.approx(0.100)
    assert after.loc["2012-08-01", "earnings_yield"] == pytest.approx(0.125)


def test_a_restatement_of_an_old_quarter_leaves_the_latest_balance_sheet() -> None:
    restated = quarter("2011-09-30", "2012-08-01 12:00", 20, 100, total_equity=1.0, shares_outstanding=9.0)
    found = fundamental([*YEAR, restated])
    assert found.loc["2012-08-02", "pb_ratio"] == pytest.approx(2.5)


def test_a_missing_quarter_is_not_bridged_by_an_older_one() -> None:
    older = quarter("2011-03-31", "2011-04-26", 99, 99)
    found = fundamental([older, YEAR[0], *YEAR[2:]])
    assert found.loc["2012-05-01", ["pe_ratio", "ps_ratio", "dividend_yield"]].isna().all()
    assert found.loc["2012-05-01", "pb_ratio"] == pytest.approx(2.5)


def test_growth_compares_with_the_same_quarter_a_year_before() -> None:
    found = fundamental([*YEAR, quarter("2012-06-30", "2012-07-24 20:30", -5, 130)])
    assert found.loc["2012-07-24", ["revenue_growth_yoy", "earnings_growth_yoy"]].isna().all()
    assert found.loc["2012-07-25", "revenue_growth_yoy"] == pytest.approx(0.3)
    assert found.loc["2012-07-25", "earnings_growth_yoy"] == pytest.approx(-1.5)


def test_growth_from_a_loss_has_the_sign_of_the_change() -> None:
    loss = [{**YEAR[0], "net_income": -10.0}, *YEAR[1:]]
    found = fundamental([*loss, quarter("2012-06-30", "2012-07-24 20:30", 5, 130)])
    assert found.loc["2012-07-25", "earnings_growth_yoy"] == pytest.approx(1.5)


def test_losses_and_negative_equity_leave_ratios_missing_and_yields_defined() -> None:
    row = fundamental([{**q, "net_income": -5.0, "total_equity": -400.0} for q in YEAR]).loc["2012-05-01"]
    assert row[["pe_ratio", "pb_ratio", "roe", "debt_to_equity"]].isna().all()
    assert row[["earnings_yield", "book_to_price"]].tolist() == pytest.approx([-0.02, -0.4])


def test_without_filings_every_fundamental_feature_is_missing() -> None:
    for facts in (None, pd.DataFrame(YEAR).iloc[:0]):
        found = FundamentalFeatureCalculator().calculate(FeatureInputs(BARS, fundamentals=facts))
        assert list(found.columns) == feature_names("fundamental")
        assert found.isna().all(axis=None)


def test_insider_sums_count_only_open_market_purchases_and_sales() -> None:
    trades = insider(
        ("2012-02-01", "P", 10, 20), ("2012-02-01", "S", -4, 25), ("2012-02-01", "A", 1000, 20),
        ("2012-02-01", "M", 1000, 20), ("2012-02-01", "G", -1000, 20),
    )  # fmt: skip
    row = alternative(insider_transactions=trades, fundamentals=pd.DataFrame(YEAR)).loc["2012-02-01"]
    assert row["insider_value_90d"] == 100
    assert row["insider_buy_count_90d"] == 1
    assert row["insider_shares_90d_to_so"] == pytest.approx(0.6)
    assert row["insider_net_value_90d_to_mcap"] == pytest.approx(0.1)


def test_an_insider_trade_counts_from_its_filing_for_ninety_days() -> None:
    trades = insider(("2012-03-01 12:00", "P", 10, 20))
    found = alternative(insider_transactions=trades)["insider_value_90d"]
    assert np.isnan(found["2012-02-29"])
    assert found["2012-03-01":"2012-05-29"].eq(200).all()
    assert found["2012-05-30":].eq(0).all()


def test_a_form_4_after_the_close_is_not_visible_that_day() -> None:
    found = alternative(insider_transactions=insider(("2012-03-01 21:01", "P", 10, 20)))["insider_buy_count_90d"]
    assert np.isnan(found["2012-03-01"])
    assert found["2012-03-02"] == 1


def test_a_restated_old_quarter_does_not_bring_back_its_share_count() -> None:
    restated = quarter("2011-09-30", "2012-02-10 12:00", 20, 100, shares_outstanding=5.0)
    facts = pd.DataFrame([*YEAR[:3], restated])
    found = alternative(insider_transactions=insider(("2012-02-01", "P", 10, 20)), fundamentals=facts)
    assert found.loc["2012-02-13", "insider_shares_90d_to_so"] == pytest.approx(1.0)


def test_short_interest_is_known_from_publication_and_not_from_settlement() -> None:
    reports = short_reports(("2012-02-15", "2012-02-27 21:30", 100.0), ("2012-02-29", "2012-03-12 12:00", 150.0))
    found = alternative(short_interest=reports)
    assert found.loc[:"2012-02-27"].isna().all(axis=None)
    first, second = found.loc["2012-02-28"], found.loc["2012-03-12"]
    assert first[["short_interest_to_float", "days_to_cover"]].tolist() == [0.1, 2.0]
    assert np.isnan(first["short_interest_change"])
    assert second[["short_interest_to_float", "days_to_cover"]].tolist() == [0.15, 3.0]
    assert second["short_interest_change"] == pytest.approx(0.5)


def test_a_later_correction_of_short_interest_does_not_change_the_past() -> None:
    reports = (("2012-02-15", "2012-02-27 12:00", 100.0), ("2012-02-29", "2012-03-12 12:00", 150.0))
    correction = ("2012-02-15", "2012-04-02 12:00", 120.0)
    before, after = (
        alternative(short_interest=short_reports(*reports)),
        alternative(short_interest=short_reports(*reports, correction)),
    )
    pd.testing.assert_frame_equal(before.loc[:"2012-03-30"], after.loc[:"2012-03-30"])


def test_a_correction_of_an_older_settlement_does_not_replace_the_latest_one() -> None:
    reports = short_reports(
        ("2012-02-15", "2012-02-27 12:00", 100.0), ("2012-02-29", "2012-03-12 12:00", 150.0),
        ("2012-02-15", "2012-04-02 12:00", 120.0),
    )  # fmt: skip
    found = alternative(short_interest=reports)
    assert found.loc["2012-04-03", "short_interest_to_float"] == pytest.approx(0.15)
    assert found.loc["2012-04-03", "short_interest_change"] == pytest.approx(0.25)


def test_without_facts_every_alternative_feature_is_missing() -> None:
    found = alternative()
    assert list(found.columns) == feature_names("alternative")
    assert found.isna().all(axis=None)
