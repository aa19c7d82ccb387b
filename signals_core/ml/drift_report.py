"""The drift report of a scope and session: gathered from the stores, judged, stored, told on the Redis stream."""

import json
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pandas as pd

from signals_core.calendar import DATE_UNIT, session_closes
from signals_core.errors import BundleError
from signals_core.files import write_bytes_atomic
from signals_core.ml.bundle import Model, read_frame, read_manifest
from signals_core.ml.drift_references import prepared_reference
from signals_core.ml.drift_store import DriftReport, DriftStore
from signals_core.ml.feed_silence import silent_feeds
from signals_core.ml.forward_calibration import CALIBRATED_COLUMNS
from signals_core.ml.monitoring import ModelMonitor
from signals_core.ml.performance import Yardstick, yardstick
from signals_core.ml.prediction_log import PredictionLog
from signals_core.ml.validation import PRIOR_COLUMNS
from signals_core.provenance import digest, source_digest
from signals_core.settings import Scope

if TYPE_CHECKING:
    from signals_core.workspace import Workspace

CODE = tuple(
    f"signals_core.ml.{name}"
    for name in (
        *("drift", "drift_report", "drift_store", "feed_faults", "feed_silence"),
        *("monitoring", "performance", "prediction_log"),
    )
)
"""What a report is made by."""
_BULKY = ("features", "inputs", "signal_test")
"""Left out of the event."""


def drift_report(workspace: "Workspace", scope: Scope, day: date) -> tuple[DriftReport, bool]:
    """Bring the drift report of `scope` at a session up to date; True if it was computed now.

    A newly computed report is also an event on the Redis stream `ml:drift:events`.

    Raises:
        MissingPrerequisite: no model is in service, `day` is no closed session, or there are no features before it.
    """
    workspace.require_session(day)
    evidence = _gather(workspace, scope, day)
    store = drift_store(workspace)
    stored = store.load(scope, day.isoformat())
    if stored is not None and stored.inputs == evidence.inputs:
        return stored, False
    report = _judge(workspace, scope, day, evidence, store)
    store.save(report)
    event = {name: value for name, value in asdict(report).items() if name not in _BULKY}
    workspace.events.publish("drift_report", {**event, "alarms": report.alarms})
    return report, True


def is_current(workspace: "Workspace", scope: Scope, day: date) -> bool:
    """Whether the stored report of a scope and day was made from the present inputs."""
    stored = drift_store(workspace).load(scope, day.isoformat())
    return stored is not None and stored.inputs == _gather(workspace, scope, day).inputs


def drift_store(workspace: "Workspace") -> DriftStore:
    """The reports of a workspace."""
    return DriftStore(workspace.data / "drift")


def prediction_log(workspace: "Workspace") -> PredictionLog:
    """The prediction log of a workspace."""
    return PredictionLog(workspace.data / "predictions")


@dataclass(frozen=True)
class _Evidence:
    """All that a report is made from."""

    model: Model
    recent: pd.DataFrame
    earlier: pd.DataFrame
    predictions: pd.DataFrame
    outcomes: pd.DataFrame
    yardsticks: dict[str, Yardstick]
    inputs: str


def _gather(workspace: "Workspace", scope: Scope, day: date) -> _Evidence:
    settings = workspace.settings.monitoring
    model = workspace.registry.load_active(scope)
    sessions = settings.window_sessions + settings.confirm_sessions
    start = day - timedelta(days=sessions * 2 + 10)  # calendar days that surely hold as many sessions
    panel = workspace.panel(scope, start, day + timedelta(days=1))
    features = panel.features[list(model.pipeline.features)]
    dates = features.index.unique("date").sort_values()
    on_date = features.index.get_level_values("date")
    recent = features[on_date.isin(dates[-settings.window_sessions :])]
    earlier = features[on_date.isin(dates[: -settings.confirm_sessions][-settings.window_sessions :])]
    said = prediction_log(workspace).served(scope, until=day)
    outcomes = _known_outcomes(workspace, scope, said, day)
    predictions = said.loc[outcomes.index]
    yardsticks = _yardsticks(workspace, predictions)
    inputs = digest(
        *(model.version_id, model.manifest["digest"], recent, earlier),
        *(predictions.drop(columns="made_at"), outcomes),
        *({name: asdict(found) for name, found in yardsticks.items()}, settings, source_digest(*CODE)),
    )
    return _Evidence(model, recent, earlier, predictions, outcomes, yardsticks, inputs)


def _judge(workspace: "Workspace", scope: Scope, day: date, evidence: _Evidence, store: DriftStore) -> DriftReport:
    settings = workspace.settings.monitoring
    monitor = ModelMonitor(settings, workspace.features.catalog)
    model, kept = evidence.model, workspace.data / "drift" / "references"
    reference = prepared_reference(kept, workspace.models / model.version_id, model, monitor)
    compared = monitor.compare(reference, evidence.recent, evidence.earlier)
    silent = _silent_feeds(workspace, evidence.recent, day, pd.Timestamp(reference.first))
    verdict = monitor.judge(compared, evidence.recent, silent)
    matured, realised = monitor.rolling_accuracy(evidence.predictions, evidence.outcomes["label"])
    poor = realised is not None and matured >= settings.accuracy_window and realised < settings.accuracy_threshold
    test = monitor.signal_test(evidence.predictions, evidence.outcomes, evidence.yardsticks)
    dead = test is not None and test.statistic > test.limit
    text = verdict.text
    if poor:
        text += f"; realised accuracy {realised:.3f} is below {settings.accuracy_threshold:g}"
    if dead and test is not None:
        text += f"; the signal is dead: its gain fell behind what it promised ({test.statistic:.1f} > {test.limit:g})"
    previous = store.latest_before(scope, day.isoformat())
    return DriftReport(
        scope=scope,
        day=day.isoformat(),
        model_version=model.version_id,
        rows=len(evidence.recent),
        reference_rows=reference.rows,
        features=compared,
        retrain=verdict.retrain,
        episode=_episode(model.version_id, day, verdict.retrain, previous),
        matured_predictions=matured,
        rolling_accuracy=realised,
        performance_alarm=poor,
        verdict=text,
        inputs=evidence.inputs,
        feed_faults=verdict.feed_faults,
        signal_dead=dead,
        signal_test=test,
    )


def _episode(version_id: str, day: date, retrain: bool, previous: DriftReport | None) -> str | None:
    if not retrain:
        return None
    if previous is not None and previous.episode and previous.model_version == version_id:
        return previous.episode
    return f"{version_id}:{day}"


def _silent_feeds(workspace: "Workspace", recent: pd.DataFrame, day: date, since: pd.Timestamp) -> list[str]:
    session, last = pd.Timestamp(day), recent.index.get_level_values("date").max()
    if last < session:
        return [f"feed bars: no ticker has one of {day}, the last are of {last.date()}"]
    close = session_closes(workspace.settings.exchange.calendar, pd.DatetimeIndex([session]).as_unit(DATE_UNIT))[0]
    symbols = recent.index.unique("symbol")
    known = {str(symbol): workspace.inputs(str(symbol)).until(session, close) for symbol in symbols}
    return silent_feeds(known, session, since)


def _known_outcomes(workspace: "Workspace", scope: Scope, predictions: pd.DataFrame, day: date) -> pd.DataFrame:
    """Label and label_end of the predicted sessions, only of labels known at the close of `day`."""
    if predictions.empty:
        return pd.DataFrame(
            {"label": pd.Series(dtype="int8"), "label_end": pd.Series(dtype="datetime64[us]")}, index=predictions.index
        )
    first = predictions.index.get_level_values("date").min().date()
    target = workspace.panel(scope, first, day + timedelta(days=1)).target
    known = target[(target["label"] >= 0) & (target["label_end"] <= pd.Timestamp(day))]
    known = known.loc[known.index.intersection(predictions.index)]
    return known[["label", "label_end"]]


def _yardsticks(workspace: "Workspace", predictions: pd.DataFrame) -> dict[str, Yardstick]:
    """Of each model that predicted and whose out-of-sample predictions suffice for one."""
    found = {name: _yardstick(workspace, str(name)) for name in sorted(predictions["model_version"].unique())}
    return {name: measure for name, measure in found.items() if measure is not None}


def _yardstick(workspace: "Workspace", version_id: str) -> Yardstick | None:
    """Kept beside the reports: predictions outlive the bundle of the model that made them."""
    path = workspace.data / "drift" / "yardsticks" / f"{version_id}.json"
    if path.exists():
        content = json.loads(path.read_text())
        return Yardstick(**{**content, "prior": tuple(content["prior"])})
    folder = workspace.models / version_id
    try:
        manifest, rows = read_manifest(folder), read_frame(folder, "out_of_fold")
    except BundleError:
        return None
    rows = rows.dropna(subset=CALIBRATED_COLUMNS)
    made = yardstick(
        manifest["prior"],
        rows[CALIBRATED_COLUMNS].to_numpy(),
        rows[PRIOR_COLUMNS].to_numpy(),
        rows["label"],
        rows["label_end"],
    )
    if made is not None:
        write_bytes_atomic(path, json.dumps(asdict(made), indent=1).encode())
    return made
