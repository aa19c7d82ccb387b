"""From the model in service to the signals of a session: one prediction for all symbols, refusals with reasons."""

import json
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from signals_core.calendar import DATE_UNIT
from signals_core.errors import DataError, MissingPrerequisite
from signals_core.files import write_atomic
from signals_core.ml.target import CLASSES, DOWN, UP
from signals_core.ml.training import newest_age
from signals_core.ml.validation import PROBABILITY_COLUMNS
from signals_core.provenance import digest, source_digest
from signals_core.settings import UNIVERSE, Scope
from signals_core.strategy.base import Signal, SignalDirection

if TYPE_CHECKING:
    from signals_core.ml.bundle import Model
    from signals_core.workspace import Workspace

STRATEGY_NAME = "ml_signal"
_METADATA_KEY = b"signals"
_DIRECTIONS = {DOWN: SignalDirection.SHORT, UP: SignalDirection.LONG}


@dataclass(frozen=True)
class SessionSignals:
    """The predictions of one scope at one session, and the signals among them.

    `frame` has one row a symbol that the scope serves: symbol, date, p_down, p_flat, p_up (NaN if refused),
    direction (LONG, SHORT or empty), strength, model_version, reason (why there is no signal).
    """

    scope: Scope
    day: date
    frame: pd.DataFrame
    computed: bool

    def signals(self) -> list[Signal]:
        """Only the rows that say LONG or SHORT."""
        rows = self.frame[self.frame["direction"] != ""]
        return [
            Signal(
                row["symbol"],
                row["date"].to_pydatetime(),
                SignalDirection(row["direction"]),
                row["strength"],
                STRATEGY_NAME,
                {"model_version": row["model_version"]},
            )
            for _, row in rows.iterrows()
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

    def predictions(self, scope: Scope, before: date) -> pd.DataFrame:
        """All stored predictions of sessions before a date: index (symbol, date), p_down, p_flat, p_up."""
        paths = sorted((self._folder / f"scope={scope}").glob("date=*.parquet"))
        days = [date.fromisoformat(path.stem.removeprefix("date=")) for path in paths]
        frames = [self.load(scope, day) for day in days if day < before]
        if not frames:
            index = pd.MultiIndex.from_arrays([[], pd.DatetimeIndex([])], names=["symbol", "date"])
            return pd.DataFrame(columns=PROBABILITY_COLUMNS, index=index, dtype="float64")
        return pd.concat(frames).dropna(subset=PROBABILITY_COLUMNS).set_index(["symbol", "date"])[PROBABILITY_COLUMNS]

    def _path(self, scope: Scope, day: date) -> Path:
        return self._folder / f"scope={scope}" / f"date={day}.parquet"


def served_tickers(workspace: "Workspace", scope: Scope) -> list[str]:
    """The tickers whose prediction comes from the model of `scope`.

    A ticker with a model of its own in service is served by that one, every other by the pooled one.
    """
    own = {
        ticker
        for ticker in workspace.settings.ml.scopes
        if ticker != UNIVERSE and workspace.registry.get_active(ticker) is not None
    }
    if scope != UNIVERSE:
        return [scope]
    return [ticker for ticker in workspace.settings.universe.tickers if ticker not in own]


def session_signals(workspace: "Workspace", scope: Scope, day: date) -> SessionSignals:
    """Bring the signals of a scope at a session up to date.

    A symbol gets LONG or SHORT when the calibrated probability of UP or DOWN is the largest of the three
    and above `ml.confidence_threshold`; otherwise its row says why not.

    Raises:
        MissingPrerequisite: no model of the scope is in service.
        BundleError: no sound model is.
    """
    model, tickers, rows, inputs = _gather(workspace, scope, day)
    store = SignalStore(workspace.data / "signals")
    if store.inputs(scope, day) == inputs:
        return SessionSignals(scope, day, store.load(scope, day), computed=False)

    settings = workspace.settings
    available = rows.index.get_level_values("symbol")
    frame = pd.DataFrame({"symbol": tickers, "date": pd.Timestamp(day)})
    frame["date"] = frame["date"].astype(f"datetime64[{DATE_UNIT}]")
    known = frame["symbol"].isin(available).to_numpy()
    probabilities = np.full((len(frame), len(CLASSES)), np.nan)
    if known.any() and not _was_trained_on(model, day):
        probabilities[known] = model.predict_proba(rows)
    frame[PROBABILITY_COLUMNS] = probabilities
    unfit = _why_unfit(workspace, scope, model, day)
    directions, strengths, reasons = [], [], []
    for ticker, p, is_known in zip(tickers, probabilities, known, strict=True):
        direction, strength, reason = "", np.nan, _why_absent(workspace, ticker, day)
        if unfit:
            reason = unfit
        elif is_known:
            direction, strength, reason = _rule(p, settings.ml.confidence_threshold)
        directions.append(direction)
        strengths.append(strength)
        reasons.append(reason)
    frame = frame.assign(direction=directions, strength=strengths, model_version=model.version_id, reason=reasons)
    signals = SessionSignals(scope, day, frame, computed=True)
    store.save(signals, inputs)
    return signals


def is_current(workspace: "Workspace", scope: Scope, day: date) -> bool:
    """Whether the stored signals of a scope and day were made from the present inputs."""
    return SignalStore(workspace.data / "signals").inputs(scope, day) == _gather(workspace, scope, day)[3]


def _gather(workspace: "Workspace", scope: Scope, day: date) -> tuple["Model", list[str], pd.DataFrame, str]:
    """The model in service, the tickers it serves, their rows of the session, and the digest of it all."""
    ml = workspace.settings.ml
    model = workspace.registry.load_active(scope)
    tickers = served_tickers(workspace, scope)
    features = workspace.panel(scope, day, day + timedelta(days=1)).features
    keys = [(ticker, pd.Timestamp(day)) for ticker in tickers]
    rows = features.loc[[key for key in keys if key in features.index]]
    rule = (ml.confidence_threshold, _why_unfit(workspace, scope, model, day), source_digest("signals_core.strategy"))
    return model, tickers, rows, digest(rows, tickers, model.version_id, model.manifest["digest"], rule)


def _why_absent(workspace: "Workspace", ticker: str, day: date) -> str:
    member = workspace.membership(ticker, pd.DatetimeIndex([day])).all()
    return "no features of this session" if member else "not a member of the universe on this day"


def _was_trained_on(model: "Model", day: date) -> bool:
    return str(day) <= model.manifest.get("train_end", "")


def _why_unfit(workspace: "Workspace", scope: Scope, model: "Model", day: date) -> str:
    """Why the model must not speak about a session, or nothing.

    Age counts from the last training of the scope that was judged: a champion that no challenger has beaten
    since is not stale, one that nobody has challenged for weeks is.
    """
    if _was_trained_on(model, day):
        return f"the model was trained on this session (rows up to {model.manifest['train_end']})"
    age, limit = newest_age(workspace, scope, day), workspace.settings.ml.model_staleness_days
    return f"the model was last judged {age} days ago, the limit is {limit}" if age is not None and age > limit else ""


def _rule(probabilities: np.ndarray, threshold: float) -> tuple[str, float, str]:
    best = int(probabilities.argmax())
    strength = float(probabilities[best])
    if best not in _DIRECTIONS:
        return "", strength, "FLAT is the likeliest class"
    if strength <= threshold:
        return "", strength, f"{CLASSES[best]} is the likeliest class, below the threshold of {threshold:g}"
    return str(_DIRECTIONS[best]), strength, ""
