"""Frames by symbol and month in one Parquet file a symbol and year, each month with the digest of its inputs.

Layout: `<folder>/symbol=<S>/year=<Y>.parquet`, readable by any Parquet reader. A file is replaced by an
atomic rename under a lock, so that partitions of any grain (day, month, year) map onto it.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from signals_core.calendar import DATE_UNIT
from signals_core.errors import DataError
from signals_core.files import locked, write_atomic

Month = str
"""A calendar month as `2004-03`."""

_METADATA_KEY = b"signals"


def months_of(index: pd.DatetimeIndex) -> np.ndarray:
    """The month of each date as `2004-03` (n,)."""
    return np.asarray(index.strftime("%Y-%m"), dtype=object)


class FrameStore:
    """Frames with index `date` under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, symbol: str, frame: pd.DataFrame, digests: Mapping[Month, str]) -> None:
        """Replace the months named in `digests` by their rows of `frame`; other months stay.

        Args:
            frame: index `date` (sorted, unique). float64 is stored as float32.
            digests: for each month, what its rows were made from.
        """
        months = months_of(pd.DatetimeIndex(frame.index))
        compact = frame.astype({n: "float32" for n in frame.columns if frame[n].dtype == "float64"})
        for year in sorted({month[:4] for month in digests}):
            path = self._path(symbol, year)
            wanted = {month: value for month, value in digests.items() if month[:4] == year}
            rows = compact[np.isin(months, list(wanted))]
            with locked(path.with_name(f".{path.name}.lock")):
                kept, kept_digests = self._others(path, wanted, list(compact.columns))
                merged = rows if kept is None else pd.concat([kept, rows]).sort_index()
                content = {**kept_digests, **wanted}
                write_atomic(path, lambda file, m=merged, c=content: _write(file, m, c))  # type: ignore[misc]

    def load(self, symbol: str, start: date, end: date, columns: list[str] | None = None) -> pd.DataFrame | None:
        """Rows with start <= date < end, or None if the symbol has no file in that span.

        Raises:
            DataError: a file is damaged; the text names it.
        """
        parts = [
            _read(path, columns)
            for path in self._paths(symbol)
            if start.year <= int(path.stem.removeprefix("year=")) <= end.year
        ]
        if not parts:
            return None
        frame = pd.concat(parts)
        inside = (frame.index >= pd.Timestamp(start)) & (frame.index < pd.Timestamp(end))
        return frame[inside]

    def digests(self, symbol: str) -> dict[Month, str]:
        """The input digest of every stored month of `symbol`; a damaged file counts as absent."""
        found: dict[Month, str] = {}
        for path in self._paths(symbol):
            try:
                found.update(_digests(path))
            except DataError:
                continue  # its months are missing, so they are computed again and the file is replaced
        return found

    def _path(self, symbol: str, year: str) -> Path:
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
            digests = {m: d for m, d in _digests(path).items() if m not in set(replaced)}
            if not digests:
                return None, {}
            frame = _read(path, None)
        except DataError:
            path.rename(path.with_name(f".{path.name}.damaged"))  # hidden: readers open the whole folder
            return None, {}
        if list(frame.columns) != columns:  # written by another catalogue: its months count as missing
            return None, {}
        return frame[np.isin(months_of(pd.DatetimeIndex(frame.index)), list(digests))], digests


def _write(path: Path, frame: pd.DataFrame, digests: Mapping[Month, str]) -> None:
    table = pa.Table.from_pandas(frame.rename_axis("date").reset_index(), preserve_index=False)
    content = json.dumps({"months": dict(sorted(digests.items()))}, sort_keys=True).encode()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _METADATA_KEY: content})
    # Dictionary encoding costs several times more than it saves on float32 that hardly repeats.
    pq.write_table(table, path, compression="zstd", use_dictionary=False)


def _read(path: Path, columns: list[str] | None) -> pd.DataFrame:
    try:
        table = pq.read_table(path, columns=None if columns is None else ["date", *columns], partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged ({error}): delete it and materialise it again") from error
    frame = table.to_pandas().set_index("date")
    frame.index = pd.DatetimeIndex(frame.index).as_unit(DATE_UNIT)
    return frame


def _digests(path: Path) -> dict[Month, str]:
    try:
        content = (pq.read_schema(path).metadata or {})[_METADATA_KEY]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{path} is damaged or was not written by this project: {error}") from error
    return json.loads(content)["months"]
