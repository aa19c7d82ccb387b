"""What would this have done? The calendar walked week by week as production would have, nothing known early.

Each Sunday at the hour of the weekly retrain the clock is set to that moment: the market store gives only the
versions available by then, features are brought up to date, windows that have ended are validated, a model is
trained, judged, and promoted or not. After the close of each session of the week that follows, the model in service
predicts and the monitor reports. Models, features and predictions of a replay lie in a folder of their own; bars and
facts are read from the project's store, and nothing of the project is written.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from signals_core import steps
from signals_core.calendar import session_closes, sessions_between
from signals_core.errors import MissingPrerequisite, SettingsError
from signals_core.files import locked, write_bytes_atomic
from signals_core.market_data.versions import utc
from signals_core.progress import track
from signals_core.provenance import digest
from signals_core.settings import ClockSettings, PathSettings, Scope, Settings, StoreSettings
from signals_core.settings_loading import LoadedSettings
from signals_core.workspace import Workspace

if TYPE_CHECKING:
    from signals_core.strategy.backtest_report import BacktestReport

RETRAIN_HOUR = 2
"""Of the Sunday, in the exchange's time zone."""
_AFTER_CLOSE = timedelta(hours=1)
"""When the daily job of a session runs."""


@dataclass(frozen=True)
class Retrain:
    """What the Sunday did for a scope."""

    scope: Scope
    version_id: str | None
    """The version trained, or found unchanged; None if it could not be trained."""
    promoted: bool
    decision: str
    """The gate's reason, or why nothing could be trained."""
    active: str | None
    """The version in service during the week that follows."""


@dataclass(frozen=True)
class SessionOutcome:
    """What one session's daily job did for a scope."""

    scope: Scope
    day: str
    predicted: int
    long: int
    short: int
    retrain_asked: bool
    verdict: str


@dataclass(frozen=True)
class Week:
    """One week of a replay."""

    sunday: str
    retrains: list[Retrain]
    sessions: list[SessionOutcome]
    seconds: float

    def __str__(self) -> str:
        return self.sunday


class Replay:
    """A span of weeks, replayed under `<data>/replays/<name>`; what is done is kept, so it can go on after a kill."""

    def __init__(self, loaded: LoadedSettings, start: date, end: date, name: str = "default") -> None:
        """Nothing is computed yet.

        Args:
            start: the first Sunday is the one on or after it.
            end: the last session is before it, and before the present moment.

        Raises:
            SettingsError: the span has no Sunday, or a name is no folder's.
        """
        if not name.replace("-", "").replace("_", "").isalnum():
            raise SettingsError(f"replay {name!r}: a name is letters, digits, - and _")
        self._loaded = loaded
        self._settings = loaded.settings
        self._zone = ZoneInfo(loaded.settings.exchange.timezone)
        self._end = end
        first = start + timedelta(days=(6 - start.weekday()) % 7)
        self.sundays = [day.date() for day in pd.date_range(first, end - timedelta(days=1), freq="7D")]
        if not self.sundays:
            raise SettingsError(f"no Sunday in {start}..{end}: choose a longer span")
        self._late = np.array([], dtype="datetime64[us]")
        self.folder = loaded.root / loaded.settings.paths.data / "replays" / name

    def run(self) -> Iterator[Week]:
        """Every week in order; those that are stored are only read.

        Raises:
            SettingsError: the folder holds a replay of other settings.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".lock"):
            self._claim()
            # It keeps the embedded Redis of the replay's registry running between the weeks.
            with Workspace(self._at(self._sunday_moment(self.sundays[0]))) as base:
                self._late = base.market.late_moments()
                base.registry.list_versions()
                for sunday in track("replay", self.sundays, len(self.sundays)):
                    yield self.stored(sunday) or self._replayed(sunday)

    def weeks(self) -> list[Week]:
        """The weeks that are done."""
        return [week for sunday in self.sundays if (week := self.stored(sunday)) is not None]

    def stored(self, sunday: date) -> Week | None:
        """A week that is done, or None."""
        path = self._path(sunday)
        if not path.exists():
            return None
        content = json.loads(path.read_text())
        retrains = [Retrain(**item) for item in content.pop("retrains")]
        sessions = [SessionOutcome(**item) for item in content.pop("sessions")]
        return Week(**content, retrains=retrains, sessions=sessions)

    def workspace(self) -> Workspace:
        """The replay's own stores, at its end: models, features, predictions and drift reports."""
        return Workspace(self._at(self._sunday_moment(self._end)))

    def reports(self) -> "list[tuple[BacktestReport, Path]]":
        """What an account that followed each scope's signals did, and the page written about it.

        A scope without a prediction, as no model was ever in service, has none.
        """
        from signals_core.strategy.backtest_report import report_of
        from signals_core.strategy.signal_store import SignalStore
        from signals_core.strategy.walk_forward import follow

        found = []
        with self.workspace() as workspace:
            for scope in workspace.settings.ml.scopes:
                frame = SignalStore(workspace.data / "signals").load_all(scope)
                if frame.empty:
                    continue
                frame = frame[frame["date"] < pd.Timestamp(self._end)]
                versions = workspace.registry.list_versions(scope)
                trials = max(int(version.metrics.get("trials", 1)) for version in versions)
                first, last = frame["date"].min().date(), frame["date"].max().date()
                about = (
                    f"What production would have done from {first} to {last}: models retrained on Sundays and promoted "
                    "or not by the gate, features and prices as known at each moment, signals of each close traded at "
                    f"the next open. {frame['model_version'].nunique()} models served."
                )
                report = report_of(workspace, f"Replay, {scope}", about, follow(workspace, frame, trials))
                path = self.folder / "reports" / f"{scope}.html"
                report.write(path)
                found.append((report, path))
        return found

    def _replayed(self, sunday: date) -> Week:
        began = time.monotonic()
        with Workspace(self._at(self._sunday_moment(sunday))) as workspace:
            retrains = _retrain(workspace)
        outcomes: list[SessionOutcome] = []
        for moment, days in self._daily_moments(sunday):
            with Workspace(self._at(moment)) as workspace:
                outcomes += _after_the_close(workspace, days)
        week = Week(sunday.isoformat(), retrains, outcomes, time.monotonic() - began)
        content = json.dumps(asdict(week), indent=1).encode()
        write_bytes_atomic(self._path(sunday), content)
        return week

    def _daily_moments(self, sunday: date) -> list[tuple[datetime, list[date]]]:
        """When the week's daily jobs run, and of which sessions.

        Features of a session do not depend on later bars, so the week's last moment serves all its sessions, unless
        a fact or bar of an earlier session was restated in between: then each session has its own.
        """
        last = min(sunday + timedelta(days=7), self._end)
        sessions = sessions_between(self._settings.exchange.calendar, sunday, last)
        closes = session_closes(self._settings.exchange.calendar, sessions).tz_localize("UTC")
        moments = [(close + _AFTER_CLOSE).to_pydatetime() for close in closes]
        days = [session.date() for session in sessions]
        if not days:
            return []
        between = (self._late > np.datetime64(utc(moments[0]))) & (self._late <= np.datetime64(utc(moments[-1])))
        if not between.any():
            return [(moments[-1], days)]
        return [(moment, [day]) for moment, day in zip(moments, days, strict=True)]

    def _sunday_moment(self, sunday: date) -> datetime:
        return datetime(sunday.year, sunday.month, sunday.day, RETRAIN_HOUR, tzinfo=self._zone)

    def _at(self, moment: datetime) -> LoadedSettings:
        """The settings with the clock at `moment` and every store of its own, but for the market's."""
        market = self._settings.stores.market_url
        if market is None:
            market = f"sqlite:///{self._loaded.root / self._settings.paths.data / 'market.sqlite'}"
        changes: dict[str, Any] = {
            "clock": ClockSettings(as_of=moment),
            "paths": PathSettings(data=self.folder / "data", models=self.folder / "models"),
            "stores": StoreSettings(market_url=market),
        }
        return replace(self._loaded, settings=self._settings.model_copy(update=changes))

    def _claim(self) -> None:
        """Remember the settings that the folder's weeks are made with.

        Raises:
            SettingsError: its weeks were made with others.
        """
        path, own = self.folder / "replay.json", {"settings": _what_matters(self._settings)}
        if not path.exists():
            write_bytes_atomic(path, json.dumps(own).encode())
        elif json.loads(path.read_text()) != own:
            raise SettingsError(
                f"{self.folder} holds a replay of other settings: choose another --name, or delete the folder"
            )

    def _path(self, sunday: date) -> Path:
        return self.folder / "weeks" / f"{sunday}.json"


def _what_matters(settings: Settings) -> str:
    """The digest of the settings that change what a replay says."""
    without = {"clock", "paths", "stores", "automation", "compute"}
    return digest({name: value for name, value in settings.model_dump(mode="json").items() if name not in without})


def _retrain(workspace: Workspace) -> list[Retrain]:
    """The weekly job at the workspace's moment."""
    from signals_core.ml.training import train_model
    from signals_core.ml.windows import all_windows, compute_windows

    for _ in steps.build_features_and_target(workspace):
        pass
    as_of = steps.known_until(workspace)
    keys = [window.key for window in all_windows(workspace.settings, as_of)]
    scopes = workspace.settings.ml.scopes
    compute_windows(workspace, [(scope, key) for scope in scopes for key in keys])
    found = []
    for scope in scopes:
        try:
            made = train_model(workspace, scope, as_of, cause="schedule", by="replay")
        except MissingPrerequisite as error:
            version_id, promoted, decision = None, False, str(error)
        else:
            version_id, promoted, decision = made.version.version_id, made.version.active, made.version.decision
        active = workspace.registry.get_active(scope)
        found.append(Retrain(scope, version_id, promoted, decision, active.version_id if active else None))
    return found


def _after_the_close(workspace: Workspace, days: list[date]) -> list[SessionOutcome]:
    """The daily jobs of some sessions at the workspace's moment."""
    from signals_core.ml.drift_report import drift_report
    from signals_core.strategy.ml_strategy import session_signals

    scopes = [s for s in workspace.settings.ml.scopes if workspace.registry.get_active(s) is not None]
    if not scopes:
        return []
    for _ in steps.build_features_and_target(workspace):
        pass
    outcomes = []
    for day in days:
        for scope in scopes:
            try:
                rows = session_signals(workspace, scope, day).frame
            except MissingPrerequisite as error:  # no ticker of the scope has a bar of this session
                outcomes.append(SessionOutcome(scope, day.isoformat(), 0, 0, 0, False, str(error)))
                continue
            report, _ = drift_report(workspace, scope, day)
            outcomes.append(
                SessionOutcome(
                    scope,
                    day.isoformat(),
                    int(rows["p_up"].notna().sum()),
                    int((rows["direction"] == "LONG").sum()),
                    int((rows["direction"] == "SHORT").sum()),
                    report.retrain,
                    report.verdict,
                )
            )
    return outcomes
