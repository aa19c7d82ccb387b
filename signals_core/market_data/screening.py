"""Row by row: what can be stored, and what cannot with the reason of each. Nothing is repaired or guessed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd

from signals_core.calendar import to_sessions
from signals_core.errors import DataError
from signals_core.market_data.dates import is_missing, read_dates, read_moments
from signals_core.market_data.schemas import (
    ADJUSTMENT_COLUMN,
    BAR_COLUMNS,
    PRICE_COLUMNS,
    high_too_low,
    low_too_high,
)
from signals_core.market_data.tables import AVAILABLE_AT, FACTS

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*\Z", re.ASCII)
SYMBOL = re.compile(r"\^?[A-Z0-9][A-Z0-9.\-]{0,15}\Z")

_LEAST_ADJUSTMENT = 1e-9
_MOST_LINES = 1_000_000
_FISCAL_PERIODS = ("", "Q1", "Q2", "Q3", "Q4", "FY")


@dataclass(frozen=True)
class ScreenedBars:
    """Bars that can be stored, the corporate actions told with them, and the rows that cannot."""

    good: pd.DataFrame
    """Index `date`, columns open, high, low, close, volume (float64), as traded."""
    rejected: pd.DataFrame
    """Index the source's row; columns item (its date) and reason."""
    actions: pd.DataFrame
    """Columns ex_date, kind (split, dividend or factor) and value."""


@dataclass(frozen=True)
class ScreenedFacts:
    """Facts of one dataset that can be stored, and the rows that cannot."""

    good: pd.DataFrame
    """The dataset's columns without symbol and run; `available_at` tz-naive UTC."""
    rejected: pd.DataFrame
    """Index the source's row; columns item and reason."""


class _Reasons:
    """The first reason that applies to each row."""

    def __init__(self, index: pd.Index) -> None:
        self.text = pd.Series("", index=index, dtype=object)

    def add(self, broken: pd.Series | np.ndarray, reason: str | pd.Series) -> None:
        self.text = self.text.mask(np.asarray(broken, dtype=bool) & (self.text == "").to_numpy(), reason)

    @property
    def sound(self) -> pd.Series:
        return self.text == ""

    def rejected(self, items: pd.Series) -> pd.DataFrame:
        bad = ~self.sound
        return pd.DataFrame({"item": items[bad].astype(str).str[:40], "reason": self.text[bad]})


def _shown(dates: pd.Series, given: pd.Series) -> pd.Series:
    """Dates as ISO texts, and as they were given where they cannot be read."""
    return dates.dt.strftime("%Y-%m-%d").where(dates.notna(), given.astype(str))


def check_symbol(symbol: str) -> str:
    """Return `symbol` if it is one.

    Raises:
        DataError: it is empty, N/A or otherwise no ticker.
    """
    if not SYMBOL.match(symbol):
        raise DataError(f"{symbol!r} is no symbol: capital letters, digits, dots and dashes, as in BRK.B")
    return symbol


def screen_bars(raw: pd.DataFrame, symbol: str, sessions: pd.DatetimeIndex, until: date | None = None) -> ScreenedBars:
    """Split a source's rows into good bars with their corporate actions, and rejected rows.

    Args:
        raw: columns date, open, high, low, close, volume and optionally dividend, split, adjustment and
            symbol (see `BarProvider.fetch_bars`), any order.
        symbol: named in errors.
        sessions: the days on which the exchange was open.
        until: rows of later days are left out, neither good nor rejected: their session has not closed.

    Raises:
        DataError: a column is missing or doubled.
    """
    frame = _with_columns(raw, ("date", *BAR_COLUMNS), f"bars of {symbol}")
    dates, unreadable = read_dates(frame["date"])
    if until is not None:
        known = ~(dates > pd.Timestamp(until))
        frame, dates, unreadable = frame[known], dates[known], unreadable[known]
    optional = [name for name in ("dividend", "split", ADJUSTMENT_COLUMN) if name in frame]
    values = pd.DataFrame({name: _numbers(frame[name]) for name in (*BAR_COLUMNS, *optional)}, index=frame.index)
    prices = values[list(PRICE_COLUMNS)]
    reasons = _Reasons(frame.index)
    reasons.add(unreadable != "", unreadable)
    reasons.add(_other_symbol(frame, symbol), f"row is not of {symbol}")
    reasons.add(dates.notna() & ~dates.isin(sessions), "exchange was closed")
    dated = reasons.sound  # a split counts although the bar of its day is broken
    reasons.add(~np.isfinite(values[list(BAR_COLUMNS)]).all(axis=1), "price or volume is missing or infinite")
    reasons.add((prices <= 0).any(axis=1), "price is not positive")
    reasons.add(values["volume"] < 0, "volume is negative")
    reasons.add(high_too_low(values), "high is below open, low or close")
    reasons.add(low_too_high(values), "low is above open or close")
    for name in optional:
        given = _texts(frame, name) != ""
        bad = given & ~(np.isfinite(values[name]) & (values[name] >= 0))
        if name == ADJUSTMENT_COLUMN:
            bad = bad | ~(values[name] > 0)
        reasons.add(bad, f"{name} is no positive number")
    repeated = dates[reasons.sound].duplicated(keep="last").reindex(frame.index, fill_value=False)
    reasons.add(repeated, "date occurs more than once")

    keep = reasons.sound
    index = to_sessions(dates[keep]).rename("date")
    good = values.loc[keep, list(BAR_COLUMNS)].set_axis(index, axis=0).sort_index()
    actions = _actions(values[dated].set_axis(to_sessions(dates[dated]), axis=0), good.index)
    return ScreenedBars(good, reasons.rejected(_shown(dates, frame["date"])), actions)


def _actions(values: pd.DataFrame, sessions: pd.Index) -> pd.DataFrame:
    values = values[~values.index.duplicated(keep="last")].sort_index()
    found = []
    if "split" in values:
        split = values["split"]
        found.append(split[(split > 0) & (split != 1) & np.isfinite(split)].rename("split"))
    if "dividend" in values:
        dividend = values["dividend"]
        found.append(dividend[(dividend > 0) & np.isfinite(dividend)].rename("dividend"))
    if ADJUSTMENT_COLUMN in values:
        known = values.loc[values.index.isin(sessions), ADJUSTMENT_COLUMN]
        ratio = known.shift(1) / known
        found.append(ratio[(ratio - 1).abs() > _LEAST_ADJUSTMENT].rename("factor"))
    parts = [pd.DataFrame({"ex_date": s.index, "kind": s.name, "value": s.to_numpy()}) for s in found if len(s)]
    if not parts:
        none = to_sessions([])
        return pd.DataFrame({"ex_date": none, "kind": pd.Series([], dtype=object), "value": pd.Series([], dtype=float)})
    return pd.concat(parts, ignore_index=True)


_REQUIRED = {
    "fundamentals": (AVAILABLE_AT, "period_end"),
    "insider_transactions": (AVAILABLE_AT, "transaction_date", "code", "shares"),
    "short_interest": (AVAILABLE_AT, "settlement_date", "shares_short"),
}
_NOT_NEGATIVE = {
    "fundamentals": ("shares_outstanding", "dividends_per_share", "cash", "current_assets", "current_liabilities"),
    "insider_transactions": ("price", "shares_after"),
    "short_interest": ("shares_short", "avg_daily_volume", "shares_float"),
}


def screen_facts(
    dataset: str, raw: pd.DataFrame, symbol: str, calendar: str, date_only_lag_sessions: int = 0
) -> ScreenedFacts:
    """Split a source's facts into good rows and rejected ones.

    Args:
        dataset: fundamentals, insider_transactions or short_interest.
        raw: the columns of the provider's contract, any order.
        symbol: named in errors.
        calendar: of the exchange; a plain date in `available_at` means the close of that session.
        date_only_lag_sessions: how many sessions later a plain date counts.

    Raises:
        DataError: a required column is missing, or one is doubled.
    """
    item = FACTS[dataset]
    frame = _with_columns(raw, _REQUIRED[dataset], f"{dataset} of {symbol}")
    reasons = _Reasons(frame.index)
    reasons.add(_other_symbol(frame, symbol), f"row is not of {symbol}")
    event, unreadable = read_dates(frame[item.date])
    reasons.add(unreadable != "", item.date + ": " + unreadable)
    available, unreadable = read_moments(frame[AVAILABLE_AT], calendar, date_only_lag_sessions)
    reasons.add(unreadable != "", "available_at: " + unreadable)
    reasons.add(available < event, f"available_at is before {item.date}")

    columns: dict[str, pd.Series] = {item.date: event, AVAILABLE_AT: available}
    for name in item.numbers():
        given = frame.get(name, pd.Series(np.nan, index=frame.index))
        numbers = _numbers(given)
        stated = _texts(frame, name) != ""
        reasons.add(stated & ~np.isfinite(numbers), f"{name} is no finite number")
        if name in _REQUIRED[dataset]:
            reasons.add(numbers.isna(), f"{name} is missing")
        if name in _NOT_NEGATIVE[dataset]:
            reasons.add(numbers < 0, f"{name} is negative")
        columns[name] = numbers
    for name in item.texts():
        if name != "symbol":
            texts = _texts(frame, name)
            limit = item.table.c[name].type.length  # type: ignore[attr-defined]
            reasons.add(texts.str.len() > limit, f"{name} is longer than {limit} characters")
            columns[name] = texts
    if "fiscal_period" in columns:
        named = columns["fiscal_period"].isin(_FISCAL_PERIODS)
        reasons.add(~named, "fiscal_period is none of Q1, Q2, Q3, Q4, FY")
    if "code" in columns:
        reasons.add(~columns["code"].str.fullmatch("[A-Z]{1,2}"), "code is none of Form 4's capital letters")
    good = pd.DataFrame(columns, index=frame.index)
    numbered = "line" in item.table.c and "line" in frame
    if "line" in item.table.c:
        lines = _numbers(frame["line"]) if numbered else pd.Series(0.0, index=frame.index)
        whole = lines.between(0, _MOST_LINES) & (lines % 1 == 0)
        reasons.add(~whole, "line is no whole number")
        good["line"] = lines.where(whole, 0).astype("int64")
    _drop_repeated(good, item.identity, reasons, told_apart=numbered or "line" not in good)
    good = good[reasons.sound]
    if "line" in good and "line" not in frame:
        key = [name for name in (*item.identity, AVAILABLE_AT) if name in good]
        good["line"] = good.groupby(key).cumcount()
    if "document" in good:  # what a source does not name is told apart by its moment
        moment = good[AVAILABLE_AT].dt.strftime("%Y-%m-%dT%H:%M:%S.%f")
        good["document"] = good["document"].where(good["document"] != "", moment)
    named = {name: good[name] for name in item.columns if name in good}
    return ScreenedFacts(pd.DataFrame(named).reset_index(drop=True), reasons.rejected(_shown(event, frame[item.date])))


def _drop_repeated(facts: pd.DataFrame, identity: tuple[str, ...], reasons: _Reasons, told_apart: bool) -> None:
    sound = facts[reasons.sound]
    # A document's number does not make a transaction another one: the same was filed twice.
    content = [name for name in sound.columns if name != "document"]
    again = sound.duplicated(content, keep="first").reindex(facts.index, fill_value=False)
    reasons.add(again, "exact duplicate")
    if told_apart:
        key = [name for name in (*identity, AVAILABLE_AT) if name in facts]
        rest = facts[reasons.sound]
        conflict = rest.duplicated(key, keep="last").reindex(facts.index, fill_value=False)
        reasons.add(conflict, "contradicted by a later row about the same")


def screen_members(raw: pd.DataFrame) -> ScreenedFacts:
    """Membership intervals: columns symbol, start and end (missing: a member still); tickers as text.

    Raises:
        DataError: a column is missing.
    """
    frame = raw.rename(columns={"ticker": "symbol", "start_date": "start", "end_date": "end"})
    frame = _with_columns(frame, ("symbol", "start", "end"), "universe membership")
    reasons = _Reasons(frame.index)
    symbols = _texts(frame, "symbol")
    reasons.add(~symbols.str.match(SYMBOL), "is no symbol")
    start, unreadable = read_dates(frame["start"])
    reasons.add(unreadable != "", "start: " + unreadable)
    open_ended = _texts(frame, "end") == ""
    end, unreadable = read_dates(frame["end"])
    reasons.add(~open_ended & (unreadable != ""), "end: " + unreadable)
    reasons.add(end <= start, "end is not after start")
    members = pd.DataFrame({"symbol": symbols, "valid_from": start, "valid_to": end.where(~open_ended)})
    again = members[reasons.sound].duplicated(["symbol", "valid_from"]).reindex(members.index, fill_value=False)
    reasons.add(again, "exact duplicate")
    rest = members[reasons.sound].sort_values(["symbol", "valid_from"])
    ends = rest["valid_to"].fillna(pd.Timestamp("2262-01-01"))
    latest = ends.groupby(rest["symbol"]).cummax().groupby(rest["symbol"]).shift(1)
    overlaps = latest > rest["valid_from"]
    reasons.add(overlaps.reindex(members.index, fill_value=False), "overlaps an earlier interval of the symbol")
    return ScreenedFacts(members[reasons.sound].reset_index(drop=True), reasons.rejected(symbols))


def _with_columns(raw: pd.DataFrame, needed: tuple[str, ...], what: str) -> pd.DataFrame:
    frame = raw.reset_index(drop=True)
    missing = [name for name in needed if name not in frame.columns]
    found = ", ".join(map(str, frame.columns))
    if missing:
        raise DataError(f"{what} lack the column(s) {', '.join(missing)}; found {found}")
    doubled = frame.columns[frame.columns.duplicated()]
    if len(doubled):
        raise DataError(f"{what} have the column {doubled[0]} more than once; found {found}")
    return frame


def _other_symbol(frame: pd.DataFrame, symbol: str) -> pd.Series:
    if "symbol" not in frame:
        return pd.Series(False, index=frame.index)
    return _texts(frame, "symbol") != symbol


def _numbers(values: pd.Series) -> pd.Series:
    """Numbers as float64; what is none, such as True, a moment or most texts, is missing."""
    kind = values.dtype
    if pd.api.types.is_any_real_numeric_dtype(kind):
        return values.astype("float64")
    return pd.Series([_number(value) for value in values.astype(object)], index=values.index, dtype="float64")


def _number(value: object) -> float:
    if isinstance(value, str):
        return float(value) if _NUMBER.match(value) else np.nan
    if isinstance(value, int | float | np.integer | np.floating | Decimal) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return np.inf
    return np.nan


def _texts(frame: pd.DataFrame, name: str) -> pd.Series:
    if name not in frame:
        return pd.Series("", index=frame.index, dtype=object)
    found = ["" if is_missing(value) else str(value).strip() for value in frame[name].astype(object)]
    return pd.Series(found, index=frame.index, dtype=object)


def summary(rejected: pd.DataFrame) -> Mapping[str, int]:
    """How many rows were rejected for each reason."""
    return {str(reason): int(count) for reason, count in rejected["reason"].value_counts().items()}
