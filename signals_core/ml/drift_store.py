"""What a drift report says, and the reports on disk: one JSON file a scope and day."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from signals_core.errors import DataError
from signals_core.files import write_bytes_atomic
from signals_core.settings import Scope

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
    """By the fixed levels; missing and constant where there is nothing to compare."""
    alarm: bool
    """PSI above the major level and well above the feature's own history, now and some sessions ago."""
    fault: str | None = None
    """missing, constant or unit: the feed broke, whatever the market did."""
    fault_text: str = ""


@dataclass(frozen=True)
class SignalTest:
    """The realised log-loss gain of matured predictions against what the models expected of themselves.

    Dates are taken in periods of one horizon (a week). Of each, the mean of realised less expected gain is divided
    by its spread out of sample; the statistic is Page's cumulative sum of how far that falls below zero.
    """

    periods: int
    """Of matured predictions."""
    statistic: float
    limit: float
    """The signal is called dead above it."""
    realised_gain: float
    """Mean over those periods of the log-loss gain over the class prior, in nats."""
    expected_gain: float
    """The same as the probabilities themselves expect it."""
    path: list[tuple[str, float]] = field(default_factory=list)
    """Of the last periods: the session at which the last outcome was known, and the statistic then."""


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
    """Enough features are in alarm to ask for a retrain, and no feed is broken."""
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
    signal_test: SignalTest | None = None

    @property
    def alarms(self) -> list[str]:
        """Names of the features in alarm."""
        return [f.feature for f in self.features if f.alarm]


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
            test = content.pop("signal_test", None)
            if test is not None:
                test = SignalTest(**{**test, "path": [(day, float(value)) for day, value in test["path"]]})
            return DriftReport(**content, features=features, signal_test=test)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error}): delete it and materialise it again") from error

    def latest_before(self, scope: Scope, day: str) -> DriftReport | None:
        """The report of the last day before `day` that has one."""
        days = [d for d in self.days(scope) if d < day]
        return self.load(scope, days[-1]) if days else None

    def days(self, scope: Scope) -> list[str]:
        """Days that have a report, in order."""
        return sorted(path.stem for path in (self._folder / f"scope={scope}").glob("*.json"))

    def weekly(self, scope: Scope, day: str, weeks: int) -> list[DriftReport]:
        """The last report of each of the last `weeks` ISO weeks that have one, up to and with `day`, in order."""
        from datetime import date

        last_of_week = {date.fromisoformat(d).isocalendar()[:2]: d for d in self.days(scope) if d <= day}
        found = [self.load(scope, d) for d in list(last_of_week.values())[-weeks:]]
        return [report for report in found if report is not None]

    def _path(self, scope: Scope, day: str) -> Path:
        return self._folder / f"scope={scope}" / f"{day}.json"
