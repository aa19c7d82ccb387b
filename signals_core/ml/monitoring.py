"""ModelMonitor: has what the model sees, or how well it does, changed since it was trained?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from signals_core.features.catalog import Feature, catalog
from signals_core.ml import performance
from signals_core.ml.drift import Reference, SessionCounts
from signals_core.ml.drift_store import DriftReport, DriftStore, FeatureDrift, SignalTest, Status
from signals_core.ml.feed_faults import Fault, coverage_fault, feature_faults, named_feeds
from signals_core.settings import MonitoringSettings

__all__ = ["DriftReport", "DriftStore", "DriftVerdict", "FeatureDrift", "ModelMonitor", "SignalTest"]

_NOT_JUDGED = ("insufficient", "missing", "constant")


@dataclass(frozen=True)
class DriftVerdict:
    """What the drift of all features together means."""

    retrain: bool
    feed_faults: list[str]
    text: str


class ModelMonitor:
    """Population stability, feed faults, realised accuracy and the test for a dead signal.

    Args:
        settings: the levels.
        features: what each feature is, for calendar columns and feeds; default: those of this package.
    """

    def __init__(
        self, settings: MonitoringSettings | None = None, features: Mapping[str, Feature] | None = None
    ) -> None:
        self.settings = settings or MonitoringSettings()
        self.features = catalog() if features is None else features

    def reference(self, frame: pd.DataFrame) -> Reference:
        """Training rows, prepared for many comparisons; calendar columns are left out."""
        return Reference.of(frame, self.monitored(frame.columns))

    def monitored(self, features: Iterable[str]) -> list[str]:
        """Those of the features that are compared: all but calendar columns."""
        return [n for n in features if n not in self.features or not self.features[n].calendar]

    def compare(
        self, reference: pd.DataFrame | Reference, recent: pd.DataFrame, earlier: pd.DataFrame | None = None
    ) -> list[FeatureDrift]:
        """Each monitored feature of `recent` against `reference`; calendar columns are left out.

        Args:
            reference: training rows, index (symbol, date).
            recent: rows of the last `window_sessions` sessions, the same columns.
            earlier: rows of the window that ended `confirm_sessions` before; an alarm must hold there too.
        """
        base = reference if isinstance(reference, Reference) else self.reference(reference)
        counts = base.count(recent)
        before = None if earlier is None else base.count(earlier)
        faults = feature_faults(base, recent, counts, self.settings)
        psi, known = self._psi(base, counts)
        own = base.largest_block(self.settings.window_sessions)
        alarm = self._alarms(psi, own)
        if before is not None:
            earlier_psi, earlier_known = self._psi(base, before)
            alarm &= self._alarms(earlier_psi, own) & (earlier_known >= self.settings.min_rows)
        missing = 1 - known / max(len(recent), 1)
        return [
            self._judged(name, base, len(recent), column, psi, own, alarm, known, missing, faults.get(name))
            for column, name in enumerate(base.names)
        ]

    def judge(self, compared: list[FeatureDrift], recent: pd.DataFrame, silent: Sequence[str] = ()) -> DriftVerdict:
        """Whether all features together ask for a retrain, which feeds are broken, and why in words.

        Args:
            compared: by `compare`.
            recent: the rows it compared, index (symbol, date).
            silent: what `silent_feeds` says of them.
        """
        settings, rows = self.settings, len(recent)
        faulty = [f for f in compared if f.fault]
        faults = self._fault_texts(compared, recent, silent)
        judged = [f for f in compared if f.status not in _NOT_JUDGED and not f.fault]
        alarms = [f for f in judged if f.alarm]
        drifts = bool(judged) and len(alarms) >= settings.retrain_share * len(judged)
        found = f"{len(alarms)} of {len(judged)} features drift beyond their own history"
        if not judged and not faulty:
            text = f"insufficient: {rows} rows in {settings.window_sessions} sessions, {settings.min_rows} are needed"
        elif not judged:
            text = "every feature that could be judged comes from a broken feed"
        elif drifts and faults:
            text = f"{found}; no retrain on the data of a broken feed"
        elif drifts:
            text = f"{found}: retrain asked for"
        elif alarms:
            text = f"{found}; no retrain asked for"
        else:
            major = sum(f.status == "major" for f in judged)
            text = f"no feature drifts beyond its own history ({major} of {len(judged)} above the fixed level)"
        text = "; ".join([text, *(["feed faults: " + "; ".join(faults)] if faults else [])])
        return DriftVerdict(drifts and not faults, faults, text)

    def rolling_accuracy(self, predictions: pd.DataFrame, labels: pd.Series) -> tuple[int, float | None]:
        """`performance.rolling_accuracy` over `accuracy_window` predictions."""
        return performance.rolling_accuracy(predictions, labels, self.settings.accuracy_window)

    def signal_test(
        self,
        predictions: pd.DataFrame,
        outcomes: pd.DataFrame,
        yardsticks: Mapping[str, performance.Yardstick],
    ) -> SignalTest | None:
        """`performance.signal_test` with the settings' slack and limit."""
        settings = self.settings
        return performance.signal_test(predictions, outcomes, yardsticks, settings.signal_slack, settings.signal_limit)

    def _psi(self, base: Reference, counts: SessionCounts) -> tuple[np.ndarray, np.ndarray]:
        """PSI (f,) of all sessions together, and the values it rests on (f,)."""
        bins = counts.bins.sum(axis=0)
        return base.psi(bins), bins.sum(axis=0)

    def _alarms(self, psi: np.ndarray, own_history: np.ndarray) -> np.ndarray:
        return (psi >= self.settings.psi_major) & (psi > self.settings.own_history_factor * own_history)

    def _judged(
        self,
        name: str,
        base: Reference,
        rows: int,
        column: int,
        psi: np.ndarray,
        own: np.ndarray,
        alarm: np.ndarray,
        known: np.ndarray,
        missing: np.ndarray,
        fault: Fault | None,
    ) -> FeatureDrift:
        least, share = self.settings.min_rows, float(missing[column]) if rows else 1.0
        words = (fault.kind, fault.text) if fault else (None, "")

        def without_psi(status: Status) -> FeatureDrift:
            return FeatureDrift(name, None, None, share, status, False, *words)

        if rows < least or base.valid[column] < least:
            return without_psi("insufficient")
        if known[column] == 0:
            return without_psi("missing")
        if fault and fault.kind == "constant" and fault.every_value:
            return without_psi("constant")
        if known[column] < least:
            return without_psi("insufficient")
        return FeatureDrift(
            name,
            float(psi[column]),
            float(own[column]),
            share,
            self._level(psi[column]),
            bool(alarm[column]),
            *words,
        )

    def _level(self, psi: float) -> Status:
        if psi >= self.settings.psi_major:
            return "major"
        return "minor" if psi >= self.settings.psi_minor else "stable"

    def _fault_texts(self, compared: list[FeatureDrift], recent: pd.DataFrame, silent: Sequence[str]) -> list[str]:
        faulty = [f for f in compared if f.fault]
        monitored = [f.feature for f in compared if f.status != "insufficient"]
        told = [text for text in (coverage_fault(recent), *silent) if text]
        feeds = named_feeds([f.feature for f in faulty], monitored, self.features)
        known = {text.removeprefix("feed ").partition(":")[0] for text in told}
        told += [f"feed {feed}" for feed in feeds if feed not in known]
        return told + [f"{f.feature} ({f.fault}): {f.fault_text}" for f in faulty]
