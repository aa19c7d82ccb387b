"""The predictions and signals of each scope and session, as Parquet files."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from signals_core.calendar import DATE_UNIT
from signals_core.errors import DataError, MissingPrerequisite
from signals_core.files import write_atomic
from signals_core.ml.prediction_log import Appended
from signals_core.settings import Scope
from signals_core.strategy.base import Signal, SignalDirection

STRATEGY_NAME = "ml_signal"
_METADATA_KEY = b"signals"


@dataclass(frozen=True)
class SessionSignals:
    """The predictions of one scope at one session, and the signals among them.

    `frame` has one row a symbol that the scope serves: symbol, date, p_down, p_flat, p_up (NaN if refused), the
    columns of `rules.decide` (direction LONG, SHORT or empty; strength, expected_return, weight, binding, reason), and
    model_version.
    """

    scope: Scope
    day: date
    frame: pd.DataFrame
    computed: bool
    logged: Appended | None = None
    """What became of the predictions in the prediction log, if they were made now."""

    def signals(self) -> list[Signal]:
        """Only the rows that say LONG or SHORT."""
        return signals_of(self.frame)


def answered(frame: pd.DataFrame) -> pd.Series:
    """Which rows as of `SessionSignals.frame` say something: LONG, SHORT or neither; the others were refused."""
    return frame["p_up"].notna() & frame["strength"].notna()


def signals_of(frame: pd.DataFrame) -> list[Signal]:
    """The signals among rows as of `SessionSignals.frame`; weights are in their metadata."""
    rows = frame[frame["direction"] != ""]
    return [
        Signal(
            row.symbol,
            row.date.to_pydatetime(),
            SignalDirection(row.direction),
            row.strength,
            STRATEGY_NAME,
            {"model_version": row.model_version, "weight": abs(row.weight), "expected_return": row.expected_return},
        )
        for row in rows.itertuples(index=False)
    ]


class SignalStore:
    """Predictions and signals under `<folder>/scope=<scope>/date=<day>.parquet`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, signals: SessionSignals, inputs: str) -> None:
        """Write or replace the signals of their scope and day."""
        table = pa.Table.from_pandas(signals.frame, preserve_index=False)
        content = json.dumps({"inputs": inputs}).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _METADATA_KEY: content})
        write_atomic(self._path(signals.scope, signals.day), lambda path: pq.write_table(table, path))

    def inputs(self, scope: Scope, day: date) -> str | None:
        """What the stored signals were made from; None if there are none or the file is damaged."""
        path = self._path(scope, day)
        if not path.exists():
            return None
        try:
            return str(json.loads((pq.read_schema(path).metadata or {})[_METADATA_KEY])["inputs"])
        except (pa.ArrowException, OSError, KeyError, ValueError):
            return None

    def load(self, scope: Scope, day: date) -> pd.DataFrame:
        """The frame of `SessionSignals`.

        Raises:
            MissingPrerequisite: there is none.
            DataError: its file is damaged.
        """
        path = self._path(scope, day)
        if not path.exists():
            raise MissingPrerequisite(f"{scope}: no signals of {day}: run `signals predict`")
        try:
            frame = pq.read_table(path, partitioning=None).to_pandas()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is damaged ({error}): delete it and materialise it again") from error
        frame["date"] = frame["date"].astype(f"datetime64[{DATE_UNIT}]")
        return frame

    def days(self, scope: Scope) -> list[date]:
        """Sessions that have signals, in order."""
        paths = (self._folder / f"scope={scope}").glob("date=*.parquet")
        return sorted(date.fromisoformat(path.stem.removeprefix("date=")) for path in paths)

    def load_all(self, scope: Scope, before: date | None = None) -> pd.DataFrame:
        """The rows of all sessions (or of those before a date), in order; empty without any."""
        frames = [self.load(scope, day) for day in self.days(scope) if before is None or day < before]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def _path(self, scope: Scope, day: date) -> Path:
        return self._folder / f"scope={scope}" / f"date={day}.parquet"
