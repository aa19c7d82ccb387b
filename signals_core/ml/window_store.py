"""Validation windows on disk: one Parquet file a window, its figures in the file's metadata.

A second one beside it holds what every finished trial of the search scored, date by date. It is evidence: no figure
is read from it again, so that its loss makes no window stale.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
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
        """Store a window's figures, out-of-fold predictions and trials, with the digest of its inputs."""
        content = json.dumps({"inputs": inputs, "figures": result.figures()}, sort_keys=True).encode()
        table = pa.Table.from_pandas(result.out_of_fold.reset_index(), preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _METADATA_KEY: content})
        path = self._path(scope, result.start)
        self._save_trials(scope, result, inputs)
        write_atomic(path, lambda file: pq.write_table(table, file, write_page_checksum=True))
        self._forget_study(scope, result.start)

    def inputs(self, scope: Scope, key: str) -> str | None:
        """What a stored window was made from, or None if it is not stored or its file is damaged."""
        try:
            return str(_read(self._path(scope, key))[0]["inputs"])
        except DataError:
            return None

    def load(self, scope: Scope, key: str) -> WindowResult:
        """A stored window.

        Raises:
            DataError: it is not stored, its file is damaged, or another version of the program wrote it.
        """
        content, frame = _read(self._path(scope, key))
        for name in ("date", "label_end"):
            frame[name] = frame[name].astype(f"datetime64[{DATE_UNIT}]")
        try:
            return WindowResult.from_figures(content["figures"], frame.set_index(["symbol", "date"]))
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{self._path(scope, key)} was written by another version of signals ({error}): materialise it again"
            ) from error

    def trial_gains(self, scope: Scope, key: str) -> pd.DataFrame:
        """What the trials of a stored window's search gained over the class prior: see `tuning.Tuned.trial_gains`.

        Raises:
            DataError: they are not stored, were kept by another search than the window's, or are damaged.
        """
        path = self._trials_path(scope, key)
        content, frame = _read(path)
        if content["inputs"] != self.inputs(scope, key):
            raise DataError(f"{path} is not of the search of the stored window: materialise the window again")
        frame = frame.set_index(frame["date"].astype(f"datetime64[{DATE_UNIT}]")).drop(columns="date")
        columns = [(group, int(trial)) for group, trial in (name.split("/") for name in frame.columns)]
        return frame.set_axis(pd.MultiIndex.from_tuples(columns, names=["group", "trial"]), axis=1)

    def _save_trials(self, scope: Scope, result: WindowResult, inputs: str) -> None:
        path, gains = self._trials_path(scope, result.start), result.trial_gains
        if gains is None or gains.empty:
            path.unlink(missing_ok=True)
            return
        flat = gains.astype("float32").set_axis(["/".join(map(str, names)) for names in gains.columns], axis=1)
        table = pa.Table.from_pandas(flat.reset_index(), preserve_index=False)
        content = json.dumps({"inputs": inputs}).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _METADATA_KEY: content})
        # Noise has no repeated values: a dictionary of them would only make the file longer.
        write_atomic(path, lambda file: pq.write_table(table, file, use_dictionary=False, write_page_checksum=True))

    def remove(self, scope: Scope, key: str) -> None:
        """Forget a window that cannot be computed any more."""
        self._path(scope, key).unlink(missing_ok=True)
        self._trials_path(scope, key).unlink(missing_ok=True)
        self._forget_study(scope, key)

    def study(self, scope: Scope, key: str) -> Path:
        """Where the search for a window's parameters keeps its trials until the window is stored."""
        return self._folder / f"scope={scope}" / f"study={key}"

    def _forget_study(self, scope: Scope, key: str) -> None:
        path = self.study(scope, key)
        for leftover in path.parent.glob(f"*{path.name}*"):
            leftover.unlink(missing_ok=True)

    def keys(self, scope: Scope) -> list[str]:
        """Test starts of the stored windows of a scope, in order."""
        paths = (self._folder / f"scope={scope}").glob("window=*.parquet")
        return sorted(path.stem.removeprefix("window=") for path in paths)

    def _path(self, scope: Scope, key: str) -> Path:
        return self._folder / f"scope={scope}" / f"window={key}.parquet"

    def _trials_path(self, scope: Scope, key: str) -> Path:
        return self._folder / f"scope={scope}" / f"trials={key}.parquet"


def _read(path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """The metadata and the rows of a file, both whole."""
    try:
        table = pq.read_table(path, partitioning=None, page_checksum_verification=True)
        return json.loads((table.schema.metadata or {})[_METADATA_KEY]), table.to_pandas()
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"validation window {path} is absent or damaged ({error}): materialise it (again)") from error
