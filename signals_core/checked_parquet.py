"""One frame in one Parquet file that shows every change of its bytes: checksums of columns and description.

Any Parquet reader opens the files; this one also refuses what was not written.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from signals_core.calendar import DATE_UNIT
from signals_core.errors import DataError

_METADATA_KEY, _CHECKSUM_KEY = b"signals", b"signals_checksum"


def write_parquet(path: Path, frame: pd.DataFrame, description: Mapping[str, Any]) -> None:
    """Write a frame with index `date`, with checksums, laid out for floats that hardly repeat.

    Args:
        frame: sorted by date. If all columns are float64 they are stored as float32.
        description: what the file says of itself, beside the checksums of its columns; see `read_description`.
    """
    floats = set(frame.dtypes.to_numpy()) in ({np.dtype("float32")}, {np.dtype("float64")})
    table, checksums = _as_float_table(frame) if floats else _as_table(frame)
    # Parquet's own checksums cover its pages, not what says where they are and what they mean.
    text = json.dumps({**description, "checksums": checksums}, sort_keys=True).encode()
    file = pa.BufferOutputStream()  # one write to the disk, not two a column
    # Statistics and a dictionary of floats that hardly repeat cost several times the rest, and compression shrinks
    # float32 by less than its own headers. Parquet knows dates and floats without Arrow's schema.
    with pq.ParquetWriter(
        file,
        table.schema,
        use_dictionary=False,
        write_statistics=["date"],
        compression="none",
        store_schema=not floats,
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_METADATA_KEY: text, _CHECKSUM_KEY: _checksum(text).encode()})
    path.write_bytes(file.getvalue())


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a file, or `date` and some of its columns.

    Raises:
        DataError: the file has gone, or is not as it was written.
    """
    wanted = None if columns is None else ["date", *columns]
    try:
        # Half the time of pq.read_table, which opens a dataset.
        with pq.ParquetFile(path) as file:
            table = file.read(wanted, use_threads=False)
        expected = _parsed(file.metadata.metadata)["checksums"]
    except FileNotFoundError as error:
        raise DataError(f"{path} has gone while it was read: read again") from error
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error})") from error
    absent = set(wanted or ["date"]) - set(table.column_names)
    if absent:
        raise DataError(f"{path} is damaged (it lacks {', '.join(sorted(absent))})")
    found = _checksums(table)
    if found != {name: expected.get(name) for name in (expected if columns is None else found)}:
        raise DataError(f"{path} is damaged (its values are not those that were written)")
    return table


def read_description(path: Path) -> dict[str, Any]:
    """What a file says of itself.

    Raises:
        DataError: it is damaged, or another program wrote it.
    """
    try:
        return _parsed(pq.read_metadata(path).metadata)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} is damaged or was not written by this project: {error}") from error


def _as_table(frame: pd.DataFrame) -> tuple[pa.Table, dict[str, str]]:
    """The table, and the checksums of its columns as `_checksums` finds them."""
    values = [frame.index.to_numpy(), *(frame[name].to_numpy() for name in frame)]
    table = pa.Table.from_arrays([pa.array(own, from_pandas=True) for own in values], ["date", *frame.columns])
    return table, _checksums(table)


def _as_float_table(frame: pd.DataFrame) -> tuple[pa.Table, dict[str, str]]:
    """`_as_table` of float columns, as float32: one block, no look-up of a column by its name."""
    block = np.array(frame.to_numpy().T, dtype="float32", order="C")
    gaps = np.isnan(block.sum(axis=1))  # infinities may add up to NaN too: those columns only take longer
    if gaps.any():
        block[np.isnan(block)] = np.nan  # of the many NaNs the one that Parquet gives back
    whole, rows, kind = pa.py_buffer(block), block.shape[1], pa.float32()
    columns = [
        pa.array(own, from_pandas=True)
        if gap
        else pa.Array.from_buffers(kind, rows, [None, whole.slice(at * own.nbytes, own.nbytes)], 0)
        for at, (own, gap) in enumerate(zip(block, gaps.tolist(), strict=True))
    ]
    names, dates = frame.columns.tolist(), pa.array(frame.index.to_numpy())
    checksums = {name: f"{kind} {_checksum(own)}" for name, own in zip(names, block, strict=True)}
    table = pa.Table.from_arrays([dates, *columns], ["date", *names])
    return table, {"date": _column_checksum(dates), **checksums}


def _checksums(table: pa.Table) -> dict[str, str]:
    """The type and the checksum of each column."""
    return {name: _column_checksum(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def _column_checksum(column: "pa.Array | pa.ChunkedArray") -> str:
    values = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    kind = str(column.type)
    if values.dtype.kind == "M":
        kind = f"timestamp {column.type.tz}"
        values = values.astype(f"datetime64[{DATE_UNIT}]", copy=False).view("int64")  # Parquet has not every unit
    elif values.dtype.kind == "O":
        values = repr(values.tolist()).encode()
    return f"{kind} {_checksum(values)}"


def _checksum(content: "bytes | np.ndarray") -> str:
    return f"{zlib.crc32(content):08x}"  # type: ignore[arg-type]


def _parsed(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """What a file says of itself.

    Raises:
        KeyError: it says nothing, or in another format.
        ValueError: it was changed.
    """
    text = (metadata or {})[_METADATA_KEY]
    if _checksum(text).encode() != (metadata or {})[_CHECKSUM_KEY]:
        raise ValueError("its description does not match its checksum")
    content: dict[str, Any] = json.loads(text)
    return content
