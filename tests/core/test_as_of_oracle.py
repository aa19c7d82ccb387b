"""Fundamental, alternative and sector features agree on every row with plain loops over the facts."""

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals_core.calendar import session_closes
from signals_core.features.alternative import AlternativeFeatureCalculator
from signals_core.features.fundamental import FundamentalFeatureCalculator
from signals_core.features.inputs import FeatureInputs
from signals_core.features.point_in_time import NOT_KNOWN, as_of_positions
from signals_core.features.sectors import SECTORS
from signals_core.market_data.store import MarketStore
from tests.core import as_of_oracle as oracle
from tests.core.whole_market import (
    CLASSIFICATION,
    RATIO,
    SESSIONS,
    SPLIT,
    TICKERS,
    aged,
    bars_of,
    facts_of,
    feature_store,
    membership,
    provider_of,
)

AGES = st.sampled_from([None, 10, 45, 200])


def frame_of(rows: list[dict[str, float]], index: pd.Index, columns: pd.Index) -> pd.DataFrame:
    return pd.DataFrame(rows, index=index).reindex(columns=columns).astype("float64")


def equal(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=str(name))


def closes_of(index: pd.Index) -> pd.DatetimeIndex:
    return session_closes("XNYS", pd.DatetimeIndex(index))


def age_of(days: int | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)


# -- random facts, in any order ----------------------------------------------------------------------------

BARS = bars_of("SPY").iloc[:260]
ENDS = [pd.Timestamp(day) for day in ("2017-09-30", "2017-12-31", "2018-03-31", "2018-06-30", "2018-09-30",
                                      "2018-12-31", "2019-04-06")]  # fmt: skip
AMOUNT = st.one_of(st.just(np.nan), st.sampled_from([0.0, -3.0]), st.floats(0.5, 100))
HOURS = st.sampled_from([0.0, 15.0, 20.0, 20.0 + 1 / 3600, 21.0, 22.5])
MOMENT = st.builds(lambda day, hour: BARS.index[0] + pd.Timedelta(day - 60, "D") + pd.Timedelta(hour, "h"),
                   st.integers(0, 400), HOURS)  # fmt: skip
FIGURES = ("revenue", "net_income", "ebitda", "dividends_per_share", "total_equity", "total_debt", "cash",
           "current_assets", "current_liabilities")  # fmt: skip
QUARTER = st.fixed_dictionaries(
    {
        "available_at": MOMENT,
        "period_end": st.sampled_from(ENDS),
        **dict.fromkeys(FIGURES, AMOUNT),
        "shares_outstanding": st.one_of(st.just(np.nan), st.floats(1, 50)),
    }
)
TRADE = st.fixed_dictionaries(
    {
        "available_at": MOMENT,
        "code": st.sampled_from(["P", "S", "A"]),
        "price": st.one_of(st.just(np.nan), st.floats(1, 90)),
        "transaction_date": st.sampled_from(list(BARS.index[:3])),
        "shares": st.sampled_from([5.0, -2.0]),
        "document": st.sampled_from(["a", "b"]),
        "insider": st.sampled_from(["Ann", "Bob"]),
        "line": st.integers(0, 1),
    }
)
REPORT = st.fixed_dictionaries(
    {
        "available_at": MOMENT,
        "settlement_date": st.sampled_from(list(BARS.index[::15])),
        **{
            name: st.one_of(st.just(np.nan), st.floats(0.5, 9))
            for name in ("shares_short", "avg_daily_volume", "shares_float")
        },
    }
)


def table(rows: list[dict[str, Any]]) -> pd.DataFrame | None:
    frame = pd.DataFrame(rows)
    return frame.assign(available_at=frame["available_at"].astype("datetime64[us]")) if rows else None


@settings(max_examples=25, deadline=None)
@given(quarters=st.lists(QUARTER, max_size=25), days=AGES)
def test_fundamentals_as_plain_loops_find_them(quarters: list[dict[str, Any]], days: int | None) -> None:
    age = age_of(days)
    found = FundamentalFeatureCalculator(max_age=age).calculate(FeatureInputs(BARS, fundamentals=table(quarters)))
    limit = None if age is None else pd.Timedelta(age)
    rows = [
        oracle.fundamental(quarters, close, price, limit)
        for close, price in zip(closes_of(BARS.index), BARS["close"], strict=True)
    ]
    equal(found, frame_of(rows, BARS.index, found.columns))


@settings(max_examples=25, deadline=None)
@given(
    quarters=st.lists(QUARTER, max_size=6),
    trades=st.lists(TRADE, max_size=25, unique_by=lambda row: tuple(v for k, v in row.items() if k != "price")),
    reports=st.lists(REPORT, max_size=20),
    days=AGES,
)
def test_alternative_features_as_plain_loops_find_them(
    quarters: list[dict[str, Any]], trades: list[dict[str, Any]], reports: list[dict[str, Any]], days: int | None
) -> None:
    age = age_of(days)
    inputs = FeatureInputs(
        BARS, fundamentals=table(quarters), insider_transactions=table(trades), short_interest=table(reports)
    )
    found = AlternativeFeatureCalculator(max_age=age, max_filing_age=age).calculate(inputs)
    limit = None if age is None else pd.Timedelta(age)
    rows = []
    for close, price in zip(closes_of(BARS.index), BARS["close"], strict=True):
        shares = oracle.outstanding(quarters, close, limit)
        rows.append(oracle.insider(trades, close, shares, price) | oracle.short_interest(reports, close, limit))
    equal(found, frame_of(rows, BARS.index, found.columns))


# -- the whole market, with its split, its sectors and its members -----------------------------------------


def level_of(ticker: str, moment: pd.Timestamp) -> float:
    """The split of BB; a filing of the evening is of its day in New York, a plain date of that day."""
    day = moment if moment == moment.normalize() else (moment - pd.Timedelta(6, "h")).normalize()
    return RATIO if ticker == "BB" and day >= SPLIT else 1.0


def dated(facts: pd.DataFrame) -> list[oracle.Row]:
    """What has only a date counts from the close of that day, or of the next session."""
    closes = dict(zip(SESSIONS, closes_of(SESSIONS), strict=True))
    moments = [
        m if m != m.normalize() or m > SESSIONS[-1] or m < SESSIONS[0] else closes[SESSIONS[SESSIONS.searchsorted(m)]]
        for m in facts["available_at"]
    ]
    return oracle.rows_of(facts.assign(available_at=moments))


@pytest.mark.parametrize("days", [None, (60, 20)])
def test_every_row_of_the_market_is_what_plain_loops_find(
    market: MarketStore, tmp_path_factory: pytest.TempPathFactory, days: tuple[int, int] | None
) -> None:
    chosen = {} if days is None else {"settings": aged(*days)}
    provider = provider_of(market, **chosen)  # type: ignore[arg-type]
    store = feature_store(tmp_path_factory.mktemp("oracle"), **chosen)  # type: ignore[arg-type]
    old_filing, old_report = (None, None) if days is None else (pd.Timedelta(d, "D") for d in days)
    facts = {ticker: facts_of(ticker) for ticker in TICKERS}
    traded = {ticker: bars_of(ticker)["close"] for ticker in TICKERS}
    filings = {ticker: dated(facts[ticker].fundamentals) for ticker in TICKERS}
    own: dict[str, dict[pd.Timestamp, dict[str, float]]] = {}
    for ticker in TICKERS:
        closes = closes_of(traded[ticker].index)
        own[ticker] = {
            day: oracle.fundamental(
                filings[ticker], close, price * level_of(ticker, day), old_filing, lambda m, t=ticker: level_of(t, m)
            )
            for day, close, price in zip(traded[ticker].index, closes, traded[ticker], strict=True)
        }
    sector = {ticker: sector_of_each_day(ticker) for ticker in TICKERS}
    member = {ticker: dict(zip(SESSIONS, membership(ticker, SESSIONS), strict=True)) for ticker in TICKERS}
    for ticker in TICKERS:
        trades = dated(facts[ticker].insider_transactions)
        trades = [row for row in trades if not row["document"].endswith("-again")]  # filed twice, refused once
        reports = dated(facts[ticker].short_interest)
        rows = []
        for day, close in zip(traded[ticker].index, closes_of(traded[ticker].index), strict=True):
            name = sector[ticker][day]
            peers = [
                own[p][day] for p in TICKERS if day in own[p] and name and sector[p][day] == name and member[p][day]
            ]
            shares = oracle.outstanding(filings[ticker], close, old_filing, lambda m, t=ticker: level_of(t, m))
            price = traded[ticker][day] * level_of(ticker, day)
            rows.append(
                own[ticker][day]
                | oracle.compared(own[ticker][day], peers)
                | {f"sector_{each}": float(each == name) if name else np.nan for each in SECTORS}
                | oracle.insider(trades, close, shares, price, lambda m, t=ticker: level_of(t, m))
                | oracle.short_interest(reports, close, old_report, lambda m, t=ticker: level_of(t, m))
            )
        found = store.compute(provider.inputs(ticker), ["fundamental", "alternative"])
        equal(found, frame_of(rows, traded[ticker].index, found.columns))


def sector_of_each_day(ticker: str) -> dict[pd.Timestamp, str]:
    found = {}
    for day in SESSIONS:
        known = CLASSIFICATION[ticker].loc[:day, "sector"]
        found[day] = known.iloc[-1] if len(known) else ""
    return found


# -- panels ------------------------------------------------------------------------------------------------

OF_ONE = st.tuples(st.lists(st.integers(0, 60), max_size=8, unique=True).map(sorted),
                   st.lists(st.integers(0, 60), max_size=8).map(sorted))  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(symbols=st.lists(OF_ONE, min_size=1, max_size=5), age=st.one_of(st.none(), st.integers(0, 30)))
def test_a_panel_of_symbols_is_joined_as_each_alone(
    symbols: list[tuple[list[int], list[int]]], age: int | None
) -> None:
    origin, hour = np.datetime64("2020-01-02T21:00", "us"), np.timedelta64(1, "h")
    closes = [origin + np.array(bars, dtype="int64") * hour for bars, _ in symbols]
    facts = [origin + np.array(moments, dtype="int64") * hour for _, moments in symbols]
    bar_offsets = np.cumsum([0, *map(len, closes)])
    fact_offsets = np.cumsum([0, *map(len, facts)])
    limit = None if age is None else timedelta(hours=age)
    found = as_of_positions(np.concatenate(closes), np.concatenate(facts), bar_offsets, fact_offsets, limit)
    expected = []
    for own_closes, own_facts, offset in zip(closes, facts, fact_offsets[:-1], strict=True):
        alone = as_of_positions(own_closes, own_facts, max_age=limit)
        expected += [NOT_KNOWN if at == NOT_KNOWN else at + offset for at in alone]
        for close, at in zip(own_closes, alone, strict=True):
            known = [n for n, moment in enumerate(own_facts) if moment <= close]
            fresh = known and (limit is None or close - own_facts[known[-1]] <= np.timedelta64(limit))
            assert at == (known[-1] if fresh else NOT_KNOWN)
    assert found.tolist() == expected
