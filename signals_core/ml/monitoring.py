"""ModelMonitor: has what the model sees, or how well it does, changed since it was trained?"""

import json
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from signals_core.errors import DataError, MissingPrerequisite
from signals_core.features.catalog import catalog
from signals_core.files import write_bytes_atomic
from signals_core.ml.bundle import read_frame
from signals_core.ml.validation import PROBABILITY_COLUMNS
from signals_core.provenance import digest, source_digest
from signals_core.settings import MonitoringSettings, Scope

if TYPE_CHECKING:
    from signals_core.workspace import Workspace

STREAM = "ml:drift:events"
_BINS = 10
_SMOOTHING = 0.5
"""Added to every bin's count, so that an empty bin does not make PSI infinite."""

Status = Literal["stable", "minor", "major", "insufficient", "missing", "constant"]


@dataclass(frozen=True)
class FeatureDrift:
    """One feature's distribution now against the training reference."""

    feature: str
    psi: float | None
    """Population stability index over ten reference deciles; None if it cannot be computed."""
    own_history: float | None
    """The largest PSI of an equally long block of the reference itself against the whole of it."""
    missing_share: float
    status: Status
    """By the fixed levels; missing and constant name a fault of the feed."""
    alarm: bool
    """PSI above the major level and well above the feature's own history, now and some sessions ago."""


@dataclass(frozen=True)
class DriftReport:
    """Drift of one scope at one session."""

    scope: Scope
    day: str
    model_version: str
    rows: int
    reference_rows: int
    features: list[FeatureDrift]
    retrain: bool
    """Enough features are in alarm to ask for a retrain."""
    episode: str | None
    """The model version and the first session of the unbroken run of reports that ask for a retrain."""
    matured_predictions: int
    rolling_accuracy: float | None
    performance_alarm: bool
    """Realised accuracy of a whole window of matured predictions below the threshold. It does not ask for a
    retrain: honest probabilities of daily returns are below one half most of the time."""
    verdict: str
    inputs: str = field(default="")
    feed_faults: list[str] = field(default_factory=list)
    """Features and feeds named as faulty: drift that comes from a broken feed asks for no retrain."""
    signal_dead: bool = False
    """The realised log-loss gain has fallen behind what the model expects of itself."""

    @property
    def alarms(self) -> list[str]:
        """Names of the features in alarm."""
        return [f.feature for f in self.features if f.alarm]


class ModelMonitor:
    """Population stability and realised accuracy."""

    def __init__(self, settings: MonitoringSettings | None = None) -> None:
        self.settings = settings or MonitoringSettings()

    def compare(
        self, reference: pd.DataFrame, recent: pd.DataFrame, earlier: pd.DataFrame | None = None
    ) -> list[FeatureDrift]:
        """Each monitored feature of `recent` against `reference`; calendar columns are left out.

        Args:
            reference: training rows, index (symbol, date).
            recent: rows of the last `window_sessions` sessions, the same columns.
            earlier: rows of the window that ended `confirm_sessions` before; an alarm must hold there too.
        """
        names = [n for n in reference.columns if n not in catalog() or not catalog()[n].calendar]
        return [self._compare(name, reference[name], recent[name], earlier) for name in names]

    def rolling_accuracy(self, predictions: pd.DataFrame, labels: pd.Series) -> tuple[int, float | None]:
        """How many of the last predictions have matured, and the share that were right (None without any).

        Args:
            predictions: index (symbol, date), columns p_down, p_flat, p_up.
            labels: index (symbol, date), only labels that are known by now.
        """
        common = predictions.index.intersection(labels.index)
        latest = predictions.loc[common].sort_index(level="date").tail(self.settings.accuracy_window)
        if latest.empty:
            return 0, None
        right = latest[PROBABILITY_COLUMNS].to_numpy().argmax(axis=1) == labels.loc[latest.index]
        return len(latest), float(right.mean())

    def _compare(
        self, name: str, reference: pd.Series, recent: pd.Series, earlier: pd.DataFrame | None
    ) -> FeatureDrift:
        missing = float(recent.isna().mean()) if len(recent) else 1.0
        known, base = recent.dropna().to_numpy(), reference.dropna()
        if len(recent) < self.settings.min_rows or len(base) < self.settings.min_rows:
            return FeatureDrift(name, None, None, missing, "insufficient", alarm=False)
        if missing == 1.0:
            return FeatureDrift(name, None, None, missing, "missing", alarm=False)
        if np.ptp(known) == 0 and np.ptp(base.to_numpy()) > 0 and base.nunique() > 2:
            return FeatureDrift(name, None, None, missing, "constant", alarm=False)
        if len(known) < self.settings.min_rows:
            return FeatureDrift(name, None, None, missing, "insufficient", alarm=False)
        bins = DecileBins(base.to_numpy())
        psi = bins.psi(known)
        own = self._own_history(bins, base)
        status: Status = "stable"
        if psi >= self.settings.psi_minor:
            status = "major" if psi >= self.settings.psi_major else "minor"
        alarm = self._alarms(psi, own)
        if alarm and earlier is not None:
            before = earlier[name].dropna().to_numpy()
            alarm = len(before) >= self.settings.min_rows and self._alarms(bins.psi(before), own)
        return FeatureDrift(name, psi, own, missing, status, alarm)

    def _alarms(self, psi: float, own_history: float) -> bool:
        return psi >= self.settings.psi_major and psi > self.settings.own_history_factor * own_history

    def _own_history(self, bins: "DecileBins", reference: pd.Series) -> float:
        dates = reference.index.get_level_values("date")
        number = pd.Series(dates).rank(method="dense").to_numpy(dtype="int64") - 1
        block = number // self.settings.window_sessions
        whole = block < (number.max() + 1) // self.settings.window_sessions
        if not whole.any():
            return 0.0
        return float(bins.psi_by_group(reference.to_numpy()[whole], block[whole]).max())


class DecileBins:
    """The population stability index against the deciles of a reference.

    PSI = sum over bins of (q - p) * ln(q / p), p the reference's shares and q the sample's, both smoothed.
    """

    def __init__(self, reference: np.ndarray) -> None:
        quantiles = np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1])
        self.edges = np.unique(quantiles)
        self._shares = self._smoothed(self._counts(self._codes(reference), np.zeros(len(reference), int), 1))

    def psi(self, values: np.ndarray) -> float:
        """PSI of a sample (n,) without missing values."""
        return float(self.psi_by_group(values, np.zeros(len(values), dtype="int64"))[0])

    def psi_by_group(self, values: np.ndarray, group: np.ndarray) -> np.ndarray:
        """PSI of each group 0..g-1 of a sample (n,); returns (g,)."""
        counts = self._counts(self._codes(values), group, int(group.max()) + 1)
        shares = self._smoothed(counts)
        return ((shares - self._shares) * np.log(shares / self._shares)).sum(axis=1)

    def _codes(self, values: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.edges, values, side="right")

    def _counts(self, codes: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
        width = len(self.edges) + 1
        return np.bincount(group * width + codes, minlength=groups * width).reshape(groups, width)

    def _smoothed(self, counts: np.ndarray) -> np.ndarray:
        raised = counts + _SMOOTHING
        return raised / raised.sum(axis=1, keepdims=True)


class DriftStore:
    """Reports under `<folder>/scope=<scope>/<day>.json`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, report: DriftReport) -> None:
        """Write or replace the report of its scope and day."""
        content = json.dumps(asdict(report), indent=1, sort_keys=True).encode()
        write_bytes_atomic(self._path(report.scope, report.day), content)

    def load(self, scope: Scope, day: str) -> DriftReport | None:
        """A stored report, or None.

        Raises:
            DataError: its file is damaged.
        """
        path = self._path(scope, day)
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text())
            features = [FeatureDrift(**item) for item in content.pop("features")]
            return DriftReport(**content, features=features)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error}): delete it and materialise it again") from error

    def latest_before(self, scope: Scope, day: str) -> DriftReport | None:
        """The report of the last day before `day` that has one."""
        days = [d for d in self.days(scope) if d < day]
        return self.load(scope, days[-1]) if days else None

    def days(self, scope: Scope) -> list[str]:
        """Days that have a report, in order."""
        return sorted(path.stem for path in (self._folder / f"scope={scope}").glob("*.json"))

    def _path(self, scope: Scope, day: str) -> Path:
        return self._folder / f"scope={scope}" / f"{day}.json"


def drift_report(workspace: "Workspace", scope: Scope, day: date) -> tuple[DriftReport, bool]:
    """Bring the drift report of `scope` at a session up to date; True if it was computed now.

    A newly computed report is also an event on the Redis stream `ml:drift:events`.

    Raises:
        MissingPrerequisite: no model is in service, or there are no features up to `day`.
    """
    evidence = _gather(workspace, scope, day)
    store = DriftStore(workspace.data / "drift")
    stored = store.load(scope, day.isoformat())
    if stored is not None and stored.inputs == evidence.inputs:
        return stored, False
    report = _judge(workspace.settings.monitoring, scope, day, evidence, store)
    store.save(report)
    event = {k: v for k, v in asdict(report).items() if k not in ("features", "inputs")}
    _publish(workspace, {**event, "alarms": report.alarms})
    return report, True


def is_current(workspace: "Workspace", scope: Scope, day: date) -> bool:
    """Whether the stored report of a scope and day was made from the present inputs."""
    stored = DriftStore(workspace.data / "drift").load(scope, day.isoformat())
    return stored is not None and stored.inputs == _gather(workspace, scope, day).inputs


@dataclass(frozen=True)
class _Evidence:
    """All that a report is made from."""

    model_version: str
    reference: pd.DataFrame
    recent: pd.DataFrame
    earlier: pd.DataFrame
    predictions: pd.DataFrame
    labels: pd.Series
    inputs: str


def _gather(workspace: "Workspace", scope: Scope, day: date) -> _Evidence:
    settings = workspace.settings.monitoring
    model = workspace.registry.load_active(scope)
    reference = read_frame(workspace.models / model.version_id, "reference")
    sessions = settings.window_sessions + settings.confirm_sessions
    start = day - timedelta(days=sessions * 2 + 10)  # calendar days that surely hold as many sessions
    panel = workspace.panel(scope, start, day + timedelta(days=1))
    features = panel.features[list(reference.columns)]
    dates = features.index.unique("date").sort_values()
    if dates[-1].date() != day:
        raise MissingPrerequisite(f"{scope}: no features of {day} (the last are of {dates[-1].date()})")
    on_date = features.index.get_level_values("date")
    recent = features[on_date.isin(dates[-settings.window_sessions :])]
    earlier = features[on_date.isin(dates[: -settings.confirm_sessions][-settings.window_sessions :])]
    predictions, labels = _matured(workspace, scope, day)
    code = source_digest("signals_core.ml.monitoring")
    inputs = digest(model.version_id, model.manifest["digest"], recent, earlier, predictions, labels, settings, code)
    return _Evidence(model.version_id, reference, recent, earlier, predictions, labels, inputs)


def _judge(
    settings: MonitoringSettings, scope: Scope, day: date, evidence: _Evidence, store: DriftStore
) -> DriftReport:
    monitor = ModelMonitor(settings)
    compared = monitor.compare(evidence.reference, evidence.recent, evidence.earlier)
    matured, realised = monitor.rolling_accuracy(evidence.predictions, evidence.labels)
    judged = [f for f in compared if f.status not in ("insufficient", "missing", "constant")]
    alarms = [f for f in judged if f.alarm]
    retrain = bool(judged) and len(alarms) >= settings.retrain_share * len(judged)
    poor = realised is not None and matured >= settings.accuracy_window and realised < settings.accuracy_threshold
    verdict = _verdict(compared, judged, alarms, retrain, len(evidence.recent), settings)
    if poor:
        verdict += f"; realised accuracy {realised:.3f} is below {settings.accuracy_threshold:g}"
    previous = store.latest_before(scope, day.isoformat())
    return DriftReport(
        scope=scope,
        day=day.isoformat(),
        model_version=evidence.model_version,
        rows=len(evidence.recent),
        reference_rows=len(evidence.reference),
        features=compared,
        retrain=retrain,
        episode=_episode(evidence.model_version, day, retrain, previous),
        matured_predictions=matured,
        rolling_accuracy=realised,
        performance_alarm=poor,
        verdict=verdict,
        inputs=evidence.inputs,
    )


def _episode(version_id: str, day: date, retrain: bool, previous: DriftReport | None) -> str | None:
    if not retrain:
        return None
    if previous is not None and previous.episode and previous.model_version == version_id:
        return previous.episode
    return f"{version_id}:{day}"


def _verdict(
    compared: list[FeatureDrift],
    judged: list[FeatureDrift],
    alarms: list[FeatureDrift],
    retrain: bool,
    rows: int,
    settings: MonitoringSettings,
) -> str:
    faults = [f"{f.feature} is {f.status}" for f in compared if f.status in ("missing", "constant")]
    if not judged:
        text = f"insufficient: {rows} rows in {settings.window_sessions} sessions, {settings.min_rows} are needed"
    elif retrain:
        text = f"{len(alarms)} of {len(judged)} features drift beyond their own history: retrain asked for"
    elif alarms:
        text = f"{len(alarms)} of {len(judged)} features drift beyond their own history; no retrain asked for"
    else:
        major = sum(f.status == "major" for f in judged)
        text = f"no feature drifts beyond its own history ({major} of {len(judged)} above the fixed level)"
    return "; ".join([text, *(["feed faults: " + ", ".join(faults)] if faults else [])])


def _matured(workspace: "Workspace", scope: Scope, day: date) -> tuple[pd.DataFrame, pd.Series]:
    """Stored predictions of a scope and the labels known at the close of `day`."""
    from signals_core.strategy.ml_strategy import SignalStore

    predictions = SignalStore(workspace.data / "signals").predictions(scope, before=day)
    if predictions.empty:
        return predictions, pd.Series(dtype="int8")
    dates = predictions.index.get_level_values("date")
    target = workspace.panel(scope, dates.min().date(), day + timedelta(days=1)).target
    known = target[(target["label"] >= 0) & (target["label_end"] <= pd.Timestamp(day))]
    return predictions, known["label"]


def _publish(workspace: "Workspace", event: dict[str, Any]) -> None:
    from redis.exceptions import RedisError

    from signals_core.errors import ServiceDown

    fields = {name: json.dumps(value) for name, value in event.items()}
    limit = workspace.settings.monitoring.events_max_length
    try:
        workspace.redis.xadd(STREAM, fields, maxlen=limit, approximate=True)
    except RedisError as error:
        raise ServiceDown(f"Redis does not take events ({error}): start it or check stores.redis_url") from error
