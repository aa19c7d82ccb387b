"""The prediction log: what was predicted, when, by which model. Append-only; what a model said first stands.

One Parquet part a scope, session and append, `<folder>/scope=<scope>/date=<day>/<number>.parquet`, readable by any
Parquet reader. A part is written whole under a lock and never touched again, so a crash leaves the log as it was.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from signals_core.calendar import DATE_UNIT
from signals_core.errors import DataError
from signals_core.files import locked, write_atomic
from signals_core.ml.validation import PROBABILITY_COLUMNS
from signals_core.settings import Scope

KEY = ["model_version", "symbol", "date"]
COLUMNS = [*KEY, *PROBABILITY_COLUMNS, "made_at"]
_PART = re.compile(r"\d{4}")


@dataclass(frozen=True)
class Appended:
    """What became of the rows of one append."""

    added: int
    repeated: int
    """Logged before with the same probabilities: nothing to do."""
    contradicted: list[str]
    """Symbols that the same model had other probabilities for: the log keeps those."""

    def __str__(self) -> str:
        text = f"{self.added} predictions logged, {self.repeated} were logged already"
        if self.contradicted:
            text += f"; the log keeps what was said first of {', '.join(self.contradicted)}"
        return text


class PredictionLog:
    """Predictions by (model, symbol, date)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, scope: Scope, day: date, predictions: pd.DataFrame, made_at: datetime) -> Appended:
        """Log the predictions of one session; a key that is there already stays as it is.

        Args:
            scope: of the model.
            day: the session predicted from.
            predictions: columns symbol, model_version, p_down, p_flat, p_up; rows without probabilities are left out.
            made_at: the moment, with a time zone.

        Raises:
            ValueError: `made_at` has no time zone, or a key occurs twice.
            DataError: an earlier part of the session is damaged.
        """
        if made_at.tzinfo is None:
            raise ValueError("made_at needs a time zone")
        rows = predictions.dropna(subset=PROBABILITY_COLUMNS).assign(date=pd.Timestamp(day))
        if rows.duplicated(KEY).any():
            raise ValueError(f"{scope} {day}: a model predicts a symbol twice")
        moment = pd.Timestamp(made_at).tz_convert("UTC").tz_localize(None)
        rows = rows.assign(made_at=moment)[COLUMNS]
        rows = rows.astype({"date": f"datetime64[{DATE_UNIT}]", "made_at": f"datetime64[{DATE_UNIT}]"})
        folder = self._of_day(scope, day)
        with locked(self._folder / f".{scope}.lock"):
            parts = self._parts(folder)
            known = self._read(parts).set_index(KEY)[PROBABILITY_COLUMNS]
            keys = pd.MultiIndex.from_frame(rows[KEY])
            is_known = keys.isin(known.index)
            before = known.reindex(keys[is_known]).to_numpy()
            differs = (before != rows.loc[is_known, PROBABILITY_COLUMNS].to_numpy()).any(axis=1)
            new = rows[~is_known]
            if len(new):
                table = pa.Table.from_pandas(new, preserve_index=False)
                number = int(parts[-1].stem) + 1 if parts else 0
                write_atomic(folder / f"{number:04}.parquet", lambda path: pq.write_table(table, path))
        contradicted = rows.loc[is_known, "symbol"].to_numpy()[differs].tolist()
        return Appended(len(new), int(is_known.sum() - differs.sum()), sorted(contradicted))

    def load(self, scope: Scope, until: date | None = None) -> pd.DataFrame:
        """All rows of a scope in the order they were made: `COLUMNS`; sessions up to and with `until`.

        Raises:
            DataError: a part is damaged.
        """
        folders = sorted((self._folder / f"scope={scope}").glob("date=*"))
        wanted = [f for f in folders if until is None or f.name.removeprefix("date=") <= until.isoformat()]
        rows = self._read(part for folder in wanted for part in self._parts(folder))
        return rows.sort_values("made_at", kind="stable").reset_index(drop=True)

    def served(self, scope: Scope, until: date | None = None) -> pd.DataFrame:
        """The last prediction of each symbol and session, by whichever model: what was acted upon at the next open.

        Returns:
            Index (symbol, date), columns p_down, p_flat, p_up, model_version, made_at.
        """
        last = self.load(scope, until).drop_duplicates(["symbol", "date"], keep="last")
        return last.set_index(["symbol", "date"]).sort_index()[[*PROBABILITY_COLUMNS, "model_version", "made_at"]]

    def _of_day(self, scope: Scope, day: date) -> Path:
        return self._folder / f"scope={scope}" / f"date={day}"

    def _parts(self, folder: Path) -> list[Path]:
        return sorted(path for path in folder.glob("*.parquet") if _PART.fullmatch(path.stem))

    def _read(self, parts: Iterable[Path]) -> pd.DataFrame:
        tables = []
        for path in parts:
            try:
                with pq.ParquetFile(path) as part:
                    tables.append(part.read(columns=COLUMNS).select(COLUMNS))
            except (pa.ArrowException, OSError, KeyError) as error:
                raise DataError(
                    f"{path} is damaged ({error}): restore it from a copy; without it these predictions are unknown, "
                    "so move it aside only if there is none"
                ) from error
        if tables:
            return pa.concat_tables(tables, promote_options="permissive").to_pandas()
        moments = np.array([], dtype=f"datetime64[{DATE_UNIT}]")
        empty = {name: np.array([], dtype="float64") for name in PROBABILITY_COLUMNS}
        texts = pd.Series([], dtype="str")
        return pd.DataFrame({"model_version": texts, "symbol": texts, "date": moments, **empty, "made_at": moments})[
            COLUMNS
        ]
