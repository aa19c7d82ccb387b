"""Validation windows on disk: one Parquet file a window, its figures in the file's metadata."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from signals_core.calendar import DATE_UNIT
from signals_core.errors import DataError
from signals_core.files import write_atomic
from signals_core.ml.validation import WindowResult
from signals_core.settings import Scope

_METADATA_KEY = b"signals"


class WindowStore:
    """Results under `<folder>/scope=<scope>/window=<test start>.parquet`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, scope: Scope, result: WindowResult, inputs: str) -> None:
        """Store a window's figures and out-of-fold predictions, with the digest of its inputs."""
        content = json.dumps({"inputs": inputs, "figures": result.figures()}, sort_keys=True).encode()
        table = pa.Table.from_pandas(result.out_of_fold.reset_index(), preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _METADATA_KEY: content})
        write_atomic(self._path(scope, result.start), lambda path: pq.write_table(table, path))

    def inputs(self, scope: Scope, key: str) -> str | None:
        """What a stored window was made from, or None if it is not stored or its file is damaged."""
        path = self._path(scope, key)
        if not path.exists():
            return None
        try:
            return str(_content(path)["inputs"])
        except DataError:
            return None

    def load(self, scope: Scope, key: str) -> WindowResult:
        """A stored window.

        Raises:
            DataError: it is not stored, or its file is damaged.
        """
        path = self._path(scope, key)
        figures = _content(path)["figures"]
        frame = pq.read_table(path, partitioning=None).to_pandas()
        for name in ("date", "label_end"):
            frame[name] = frame[name].astype(f"datetime64[{DATE_UNIT}]")
        return WindowResult(**figures, out_of_fold=frame.set_index(["symbol", "date"]))

    def keys(self, scope: Scope, before: date | None = None) -> list[str]:
        """Test starts of the stored windows of a scope in order; those whose test ended by `before`, if given."""
        found = sorted(
            path.stem.removeprefix("window=") for path in (self._folder / f"scope={scope}").glob("window=*.parquet")
        )
        if before is None:
            return found
        return [k for k in found if date.fromisoformat(_content(self._path(scope, k))["figures"]["end"]) <= before]

    def _path(self, scope: Scope, key: str) -> Path:
        return self._folder / f"scope={scope}" / f"window={key}.parquet"


def _content(path: Path) -> dict[str, Any]:
    try:
        return json.loads((pq.read_schema(path).metadata or {})[_METADATA_KEY])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"validation window {path} is absent or damaged ({error}): materialise it (again)") from error
