"""Sectors: which sector a symbol belonged to when, and what was typical of a sector on a day."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from signals_core.calendar import DATE_UNIT, to_sessions
from signals_core.errors import SettingsError
from signals_core.settings import Sector

SECTORS: tuple[str, ...] = get_args(Sector)

_FEWEST_PEERS = 3
"""A median of fewer values says more about the others' accidents than about the sector."""
_FOR_EVER = pd.Timestamp("1900-01-01")


def read_sectors(path: Path) -> dict[str, pd.DataFrame]:
    """The classification in a CSV file of symbol, sector, start (optional): by symbol, index `date`, column `sector`.

    Names are those of GICS in any case and spelling of blanks; a row applies from `start` (without one: always)
    until the symbol's next row.

    Raises:
        SettingsError: the file, a column, a date or a sector is missing or wrong; the text names the row.
    """
    what = "it is a CSV of symbol, sector, start"
    if not path.exists():
        raise SettingsError(f"universe.sectors: {path} does not exist; {what}")
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise SettingsError(f"universe.sectors: {path.name} is empty or no CSV ({error}); {what}") from error
    absent = [name for name in ("symbol", "sector") if name not in rows]
    if absent:
        raise SettingsError(f"universe.sectors: {path.name} has no column {', '.join(absent)}; {what}")
    rows = rows.fillna("")[~(rows.fillna("") == "").all(axis=1)]

    def refuse(wrong: pd.Series, problem: Callable[[pd.Series], str]) -> None:
        if wrong.any():
            row = rows[wrong].iloc[0]
            raise SettingsError(f"universe.sectors: {path.name} row {row.name + 2}: {problem(row)}")

    symbol = rows["symbol"].str.strip()
    refuse(symbol == "", lambda row: "it names no symbol")
    sector = rows["sector"].str.strip().str.lower().str.replace(r"[\s\-]+", "_", regex=True)
    refuse(~sector.isin(SECTORS), lambda row: f"{row['sector']!r} is no GICS sector: " + ", ".join(SECTORS))
    given = rows["start"].str.strip() if "start" in rows else pd.Series("", index=rows.index)
    start = pd.to_datetime(given.where(given != ""), format="%Y-%m-%d", errors="coerce")
    refuse(start.isna() & (given != ""), lambda row: f"{row['start'].strip()!r} is no date YYYY-MM-DD")
    table = pd.DataFrame({"symbol": symbol, "sector": sector, "date": start.fillna(_FOR_EVER)})
    refuse(
        table.duplicated(["symbol", "date"]),
        lambda row: f"{row['symbol'].strip()} stands twice with the same start; give the later one the day it began",
    )
    table["date"] = table["date"].astype(f"datetime64[{DATE_UNIT}]")
    ordered = table.sort_values(["symbol", "date"])
    return {str(symbol): own.set_index("date")[["sector"]] for symbol, own in ordered.groupby("symbol")}


def sector_of(classification: pd.DataFrame, dates: pd.DatetimeIndex) -> np.ndarray:
    """The number in `SECTORS` of a symbol's sector at each date (n,); -1 before its first."""
    numbers = np.array([SECTORS.index(name) for name in classification["sector"]])
    at = classification.index.searchsorted(dates, side="right") - 1
    return np.where(at >= 0, numbers[np.maximum(at, 0)], -1)


def sector_at(classification: pd.DataFrame | None, day: date | pd.Timestamp) -> str | None:
    """A symbol's sector on a day; None before its first, or if nothing is known of the symbol."""
    if classification is None or classification.empty:
        return None
    number = int(sector_of(classification, to_sessions([day]))[0])
    return SECTORS[number] if number >= 0 else None


def sector_medians(
    values: Mapping[str, pd.DataFrame], members: Mapping[str, np.ndarray], columns: Sequence[str]
) -> pd.DataFrame:
    """The median over a sector's symbols at each date, missing where fewer than three have a value.

    Args:
        values: by symbol, index `date`, one column a ratio, as known at each close.
        members: by symbol, which of its rows count (n,) bool: of the sector and the universe on that day.

    Returns:
        Index `date` (every date of any symbol), float64 `columns`.
    """
    dates = pd.DatetimeIndex(np.unique(np.concatenate([frame.index.to_numpy() for frame in values.values()])))
    panel = np.full((len(values), len(dates), len(columns)), np.nan)
    for own, (symbol, frame) in zip(panel, values.items(), strict=True):
        counted = members[symbol]
        own[dates.searchsorted(frame.index)[counted]] = frame[list(columns)].to_numpy()[counted]
    return pd.DataFrame(_median(panel), index=dates.rename("date"), columns=list(columns))


def _median(panel: np.ndarray) -> np.ndarray:
    """The median over the first axis of what is there (numpy's nanmedian is many times slower)."""
    ordered = np.sort(panel, axis=0)  # missing values come last
    count = np.isfinite(panel).sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, np.maximum(count, 1) // 2
    middle = (np.take_along_axis(ordered, low[None], 0)[0] + np.take_along_axis(ordered, high[None], 0)[0]) / 2
    return np.where(count >= _FEWEST_PEERS, middle, np.nan)


def chain_link(parts: Sequence[tuple[pd.Timestamp, pd.DataFrame | None]]) -> pd.DataFrame | None:
    """One series of closes from several instruments, each from its date to the next's, linked by their returns.

    Args:
        parts: (first date, bars) in order of date; None is a time without an instrument. Where a link has no
            return, the series goes on at its level.

    Returns:
        Index `date`, column close; the level of the first bar is its instrument's, so that what comes later
        changes nothing before. The bars themselves, if one instrument is all; None, if there is none.
    """
    ends = [start for start, _ in parts[1:]] + [pd.Timestamp.max]
    links = []
    for (start, bars), end in zip(parts, ends, strict=True):
        if bars is not None:
            inside = (bars.index >= start) & (bars.index < end)
            if inside.any():
                links.append((bars, inside))
    if not links:
        return None
    first, of_first = links[0]
    if len(links) == 1 and of_first.all():
        return first
    returns = pd.concat([(bars["close"] / bars["close"].shift(1))[inside] for bars, inside in links])
    returns.iloc[0] = first["close"][of_first].iloc[0]  # the level
    return returns.fillna(1.0).cumprod().to_frame("close").rename_axis("date")
