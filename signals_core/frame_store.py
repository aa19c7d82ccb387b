"""Frames by symbol and month in one Parquet file a symbol and year, each month with the digest of its inputs.

Layout: `<folder>/symbol=<S>/year=<Y>.parquet`, readable by any Parquet reader. A file is replaced by an
atomic rename under a lock, so that partitions of any grain (day, month, year) map onto it. What it holds can
be made again, so a file is not flushed to disk at once: after a power failure it may be damaged, which its
checksums show, and it is then set aside.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from signals_core.calendar import DATE_UNIT
from signals_core.checked_parquet import read_description, read_parquet, write_parquet
from signals_core.errors import DamagedFile, DataError
from signals_core.files import locked, write_atomic

Month = str
"""A calendar month as `2004-03`."""

_FORMAT = 3
EVER = (date(1900, 1, 1), date(2200, 1, 1))

_log = logging.getLogger(__name__)


def months_of(index: pd.DatetimeIndex) -> np.ndarray:
    """The month of each date as `2004-03` (n,)."""
    months, inverse = np.unique(index.to_numpy().astype("datetime64[M]"), return_inverse=True)
    return months.astype(str).astype(object)[inverse]


def overlaps(month: Month, start: date, end: date) -> bool:
    """Whether a month has a day of start <= day < end."""
    first = date(int(month[:4]), int(month[5:]), 1)
    return first < end and (first + timedelta(days=31)).replace(day=1) > start


@dataclass(frozen=True)
class Current:
    """What `FrameStore.bring_up_to_date` leaves behind."""

    frame: pd.DataFrame
    """The rows of the wanted months, as stored."""
    computed: tuple[Month, ...]
    """Months that were missing, stale or damaged."""


class FrameStore:
    """Frames with index `date` under one folder."""

    def __init__(self, folder: Path, description: Mapping[str, str] | None = None) -> None:
        """`description`: written into every file, for whoever opens it."""
        self.folder = folder
        self._description = dict(description or {})

    def bring_up_to_date(
        self,
        symbol: str,
        wanted: Mapping[Month, str],
        columns: Sequence[str],
        compute: Callable[[Sequence[Month]], pd.DataFrame],
    ) -> Current:
        """Compute and store the wanted months whose digest is another, or whose file is damaged.

        Args:
            wanted: the digest that each month must have been made from.
            compute: given the months to make, a frame with their rows (it may have others).
        """
        try:
            return self._bring_up_to_date(symbol, wanted, columns, compute)
        except DamagedFile as damaged:  # it is set aside: its months are missing now
            _log.warning("%s; making it again", damaged)
            return self._bring_up_to_date(symbol, wanted, columns, compute)

    def _bring_up_to_date(
        self,
        symbol: str,
        wanted: Mapping[Month, str],
        columns: Sequence[str],
        compute: Callable[[Sequence[Month]], pd.DataFrame],
    ) -> Current:
        stored = self.digests(symbol, _years(wanted))
        stale = {month: value for month, value in wanted.items() if stored.get(month) != value}
        if stale:
            made = compute(list(stale))
            self.save(symbol, made, stale)
            if len(stale) == len(wanted):
                return Current(_of_months(_compact(made), wanted), tuple(stale))
        return Current(self.rows(symbol, wanted, columns), tuple(stale))

    def save(self, symbol: str, frame: pd.DataFrame, digests: Mapping[Month, str]) -> None:
        """Replace the months named in `digests` by their rows of `frame`; other months stay.

        Args:
            frame: index `date` (sorted, unique). float64 is stored as float32.
            digests: for each month, what its rows were made from.
        """
        compact = _compact(frame)
        for year in _years(digests):
            path = self._path(symbol, year)
            wanted = {month: value for month, value in digests.items() if int(month[:4]) == year}
            rows = _of_months(compact, wanted)
            with locked(path.with_name(f".{path.name}.lock")):
                kept, kept_digests = self._others(path, wanted, list(compact.columns))
                merged = rows if kept is None else pd.concat([kept, rows]).sort_index()
                content = {**kept_digests, **wanted}
                write_atomic(path, lambda file, m=merged, c=content: self._write(file, m, c), durable=False)  # type: ignore[misc]

    def load(self, symbol: str, start: date, end: date, columns: Sequence[str] | None = None) -> pd.DataFrame | None:
        """Rows with start <= date < end, or None if the symbol has no file in that span.

        Raises:
            DamagedFile: a file does not match its checksums; it is set aside. The text names it.
        """
        tables = [
            self._read(path, columns)
            for path in self._paths(symbol)
            if start.year <= _year_of(path) <= (end - timedelta(days=1)).year
        ]
        if not tables:
            return None
        frame = _as_frame(tables)
        first, last = frame.index.searchsorted([pd.Timestamp(start), pd.Timestamp(end)])
        return frame.iloc[first:last]

    def rows(self, symbol: str, months: Mapping[Month, str], columns: Sequence[str]) -> pd.DataFrame:
        """The stored rows of some months; what is not stored is absent.

        Raises:
            DamagedFile: as in `load`.
        """
        years = _years(months)
        frame = self.load(symbol, date(years[0], 1, 1), date(years[-1] + 1, 1, 1), columns) if years else None
        if frame is None:
            index = pd.DatetimeIndex([], dtype=f"datetime64[{DATE_UNIT}]", name="date")
            return pd.DataFrame(columns=list(columns), index=index, dtype="float32")
        return _of_months(frame, months)

    def digests(self, symbol: str, years: Iterable[int] | None = None) -> dict[Month, str]:
        """The input digest of every stored month of `symbol` (of some years); a damaged file counts as absent."""
        chosen = None if years is None else set(years)
        found: dict[Month, str] = {}
        for path in self._paths(symbol):
            if chosen is not None and _year_of(path) not in chosen:
                continue
            try:
                found.update(read_description(path)["months"])
            except DataError:
                continue  # its months are missing, so they are computed again and the file is replaced
        return found

    def _path(self, symbol: str, year: int) -> Path:
        return self.folder / f"symbol={symbol}" / f"year={year}.parquet"

    def _paths(self, symbol: str) -> list[Path]:
        return sorted((self.folder / f"symbol={symbol}").glob("year=*.parquet"))

    def _others(
        self, path: Path, replaced: Iterable[Month], columns: list[str]
    ) -> tuple[pd.DataFrame | None, dict[Month, str]]:
        """Rows and digests of the months of a file that are not `replaced`, if it has these columns."""
        if not path.exists():
            return None, {}
        try:
            digests = {m: d for m, d in read_description(path)["months"].items() if m not in set(replaced)}
            if not digests:
                return None, {}
            frame = _as_frame([read_parquet(path, None)])
        except DataError:
            _set_aside(path)
            return None, {}
        if list(frame.columns) != columns:  # written by another catalogue: its months count as missing
            return None, {}
        return _of_months(frame, digests), digests

    def _read(self, path: Path, columns: Sequence[str] | None) -> pa.Table:
        try:
            return read_parquet(path, columns)
        except DataError:
            with locked(path.with_name(f".{path.name}.lock")):
                try:
                    return read_parquet(path, columns)  # a writer may have replaced it meanwhile
                except DataError as error:
                    aside = _set_aside(path)
                    raise DamagedFile(
                        f"{error}; it is set aside as {aside.name}: materialise what it held again"
                    ) from error

    def _write(self, path: Path, frame: pd.DataFrame, digests: Mapping[Month, str]) -> None:
        content = {"format": _FORMAT, **self._description, "months": dict(sorted(digests.items()))}
        write_parquet(path, frame, content)


def _compact(frame: pd.DataFrame) -> pd.DataFrame:
    doubles = frame.dtypes.to_numpy() == np.dtype("float64")
    if doubles.all():
        return frame.astype("float32")
    return frame.astype(dict.fromkeys(frame.columns[doubles], "float32")) if doubles.any() else frame


def _of_months(frame: pd.DataFrame, months: Iterable[Month]) -> pd.DataFrame:
    wanted = np.array(list(months), dtype="datetime64[M]").astype(int)
    own = frame.index.to_numpy().astype("datetime64[M]").astype(int)
    return frame[np.isin(own, wanted)]


def _years(months: Iterable[Month]) -> list[int]:
    return sorted({int(month[:4]) for month in months})


def _year_of(path: Path) -> int:
    return int(path.stem.removeprefix("year="))


def _set_aside(path: Path) -> Path:
    return path.rename(path.with_name(f".{path.name}.damaged"))  # hidden: readers open the whole folder


def _as_frame(tables: Sequence[pa.Table]) -> pd.DataFrame:
    joined = pa.concat_tables(tables, promote_options="default") if len(tables) > 1 else tables[0]
    frame = joined.to_pandas(use_threads=False).set_index("date")
    frame.index = pd.DatetimeIndex(frame.index).as_unit(DATE_UNIT)
    return frame
