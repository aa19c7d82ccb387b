"""Fundamental, alternative and sector features the slow way: one session and one fact at a time, in plain Python."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

Row = Mapping[str, Any]
Level = Callable[[pd.Timestamp], float]
"""How many shares one share of the first bar had become at a moment."""
NAN = math.nan
DAY = pd.Timedelta(1, "D")
MULTIPLES = ("pe_ratio", "pb_ratio", "ps_ratio", "ev_to_ebitda")
YIELDS = ("earnings_yield", "book_to_price", "sales_to_price", "ebitda_to_ev")


def rows_of(facts: pd.DataFrame) -> list[Row]:
    return facts.to_dict("records")  # type: ignore[return-value]


def divided(numerator: float, denominator: float) -> float:
    """Missing where it is not finite."""
    if math.isnan(numerator) or math.isnan(denominator) or denominator == 0:
        return NAN
    return numerator / denominator


def positive(value: float) -> float:
    return value if value > 0 else NAN


def versions(facts: Sequence[Row], period: str, close: pd.Timestamp) -> dict[pd.Timestamp, Row]:
    """The last version of each period that was known at `close`; of two at one moment the later row."""
    found: dict[pd.Timestamp, Row] = {}
    for fact in facts:
        if fact["available_at"] <= close:
            old = found.get(fact[period])
            if old is None or fact["available_at"] >= old["available_at"]:
                found[fact[period]] = fact
    return found


def too_old(facts: Sequence[Row], close: pd.Timestamp, max_age: pd.Timedelta | None) -> bool:
    known = [fact["available_at"] for fact in facts if fact["available_at"] <= close]
    return not known or (max_age is not None and close - max(known) > max_age)


def no_level(_: pd.Timestamp) -> float:
    return 1.0


def fundamental(
    facts: Sequence[Row],
    close: pd.Timestamp,
    price: float,
    max_age: pd.Timedelta | None = None,
    level: Level = no_level,
) -> dict[str, float]:
    """`price` is that of a share of the first bar."""
    filed = [fact["available_at"] for fact in facts if fact["available_at"] <= close]
    if not filed:
        return {}
    found = {"days_since_filing": (close - max(filed)) / DAY}
    if too_old(facts, close, max_age):
        return found
    quarters = versions(facts, "period_end", close)
    ends = sorted(quarters, reverse=True)
    latest = quarters[ends[0]]
    year = [quarters[end] for end in ends[:4]]
    complete = len(year) == 4 and ends[0] - ends[3] <= 300 * DAY

    def ttm(name: str) -> float:
        return sum(quarter[name] for quarter in year) if complete else NAN

    def growth(name: str) -> float:
        for end in ends:  # the latest that fits
            if 350 * DAY <= ends[0] - end <= 380 * DAY:
                return divided(latest[name] - quarters[end][name], abs(quarters[end][name]))
        return NAN

    dividends = (
        sum(quarter["dividends_per_share"] * level(quarter["available_at"]) for quarter in year) if complete else NAN
    )
    value = price * latest["shares_outstanding"] / level(latest["available_at"])
    enterprise = value + latest["total_debt"] - latest["cash"]
    equity = positive(latest["total_equity"])
    return found | {
        "pe_ratio": divided(value, positive(ttm("net_income"))),
        "pb_ratio": divided(value, equity),
        "ps_ratio": divided(value, positive(ttm("revenue"))),
        "ev_to_ebitda": divided(enterprise, positive(ttm("ebitda"))),
        "earnings_yield": divided(ttm("net_income"), value),
        "book_to_price": divided(latest["total_equity"], value),
        "sales_to_price": divided(ttm("revenue"), value),
        "ebitda_to_ev": divided(ttm("ebitda"), positive(enterprise)),
        "roe": divided(ttm("net_income"), equity),
        "current_ratio": divided(latest["current_assets"], latest["current_liabilities"]),
        "debt_to_equity": divided(latest["total_debt"], equity),
        "revenue_growth_yoy": growth("revenue"),
        "earnings_growth_yoy": growth("net_income"),
        "dividend_yield": divided(dividends, price),
    }


def outstanding(
    facts: Sequence[Row], close: pd.Timestamp, max_age: pd.Timedelta | None, level: Level = no_level
) -> float:
    """In shares of the first bar."""
    quarters = versions(facts, "period_end", close)
    if not quarters or too_old(facts, close, max_age):
        return NAN
    latest = quarters[max(quarters)]
    return latest["shares_outstanding"] / level(latest["available_at"])


TRANSACTION = ("document", "insider", "transaction_date", "code", "shares", "line")


def insider(
    facts: Sequence[Row], close: pd.Timestamp, shares_outstanding: float, price: float, level: Level = no_level
) -> dict[str, float]:
    """Open-market trades filed in the 90 days up to `close`, in the version known then."""
    known = [fact for fact in facts if fact["available_at"] <= close]
    if not known:
        return {}
    first: dict[tuple[Any, ...], Row] = {}
    last: dict[tuple[Any, ...], Row] = {}
    for fact in sorted(known, key=lambda row: row["available_at"]):
        key = tuple(fact[name] for name in TRANSACTION)
        first.setdefault(key, fact)
        last[key] = fact
    value = shares = buys = 0.0
    for key, fact in last.items():
        filed = first[key]["available_at"]
        if fact["code"] in ("P", "S") and close < filed + 90 * DAY:
            value += 0.0 if math.isnan(fact["price"]) else fact["shares"] * fact["price"]
            shares += fact["shares"] / level(filed)
            buys += fact["code"] == "P"
    return {
        "insider_value_90d": value,
        "insider_buy_count_90d": buys,
        "insider_shares_90d_to_so": divided(shares, shares_outstanding),
        "insider_net_value_90d_to_mcap": divided(value, shares_outstanding * price),
    }


def short_interest(
    facts: Sequence[Row], close: pd.Timestamp, max_age: pd.Timedelta | None = None, level: Level = no_level
) -> dict[str, float]:
    if too_old(facts, close, max_age):
        return {}
    reports = versions(facts, "settlement_date", close)
    settled = sorted(reports, reverse=True)
    now = reports[settled[0]]
    found = {
        "short_interest_to_float": divided(now["shares_short"], now["shares_float"]),
        "days_to_cover": divided(now["shares_short"], now["avg_daily_volume"]),
    }
    if len(settled) > 1:
        before = reports[settled[1]]["shares_short"] / level(settled[1])
        found["short_interest_change"] = divided(now["shares_short"] / level(settled[0]), before) - 1
    return found


def compared(own: Mapping[str, float], peers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """`own` ratios against the medians of those of the sector's members, the symbol among them."""
    found = {}
    for name in (*MULTIPLES, *YIELDS):
        values = [peer[name] for peer in peers if not math.isnan(peer.get(name, NAN))]
        if len(values) < 3:
            continue
        median = statistics.median(values)
        if name in MULTIPLES:
            found[f"{name}_to_sector"] = divided(own.get(name, NAN), median)
        else:
            found[f"{name}_minus_sector"] = own.get(name, NAN) - median
    return found
