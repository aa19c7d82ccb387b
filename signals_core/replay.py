"""What would this have done? The calendar walked week by week as production would have, nothing known early.

Each Sunday at the hour of the weekly retrain the clock is set to that moment: the market store gives only the
versions available by then, features are brought up to date, windows that have ended are validated, a model is
trained, judged, and promoted or not. After the close of each session of the week that follows, the model in service
predicts and the monitor reports; if the rule of `retraining.decide` then asks for a retrain, it happens at that moment,
before the next session is predicted. Models, features and predictions of a replay lie in a folder of their own; bars
and facts are read from the project's store, and nothing of the project is written.

It is assumed that schedules and sensors run, that a sensor asks right after the daily job (in production within five
minutes, for staleness within the hour) and at no other time, and that the retrain it asks for is done before the next
close.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from signals_core import steps
from signals_core.calendar import session_closes, sessions_between
from signals_core.errors import SettingsError
from signals_core.files import locked, write_bytes_atomic
from signals_core.market_data.versions import utc
from signals_core.progress import track
from signals_core.provenance import digest
from signals_core.replay_jobs import after_the_close, asked_for, retrain, runs_of, scheduled
from signals_core.replay_weeks import Retrain, SessionOutcome, Week, WeekStore
from signals_core.settings import ClockSettings, PathSettings, Settings, StoreSettings
from signals_core.settings_loading import LoadedSettings
from signals_core.workspace import Workspace

if TYPE_CHECKING:
    from signals_core.strategy.backtest_report import BacktestReport

__all__ = ["RETRAIN_HOUR", "Replay", "Retrain", "SessionOutcome", "Week"]

RETRAIN_HOUR = 2
"""Of the Sunday, in the exchange's time zone."""
_AFTER_CLOSE = timedelta(hours=1)
"""When the daily job of a session runs."""
_DAY, _WEEK = timedelta(days=1), timedelta(days=7)
_FORMAT = 2
"""Of a replay's folder. In the first, weeks did not say how far they were done, and the journal's moments were those of
the computation."""


class Replay:
    """A span of weeks, replayed under `<data>/replays/<name>`; what is done is kept, so it can go on after a kill.

    The same name goes on where its weeks end: a week that the span's end cut short is completed when the span grows.
    """

    def __init__(self, loaded: LoadedSettings, start: date, end: date, name: str = "default") -> None:
        """Nothing is computed yet.

        Args:
            loaded: of the project.
            start: the first Sunday is the one on or after it.
            end: the last session is before it, and is one that has closed and has bars in the store.
            name: of the folder.

        Raises:
            SettingsError: the span has no Sunday, or a name is no folder's.
            MissingPrerequisite: the store has no bars.
        """
        if not name.replace("-", "").replace("_", "").isalnum():
            raise SettingsError(f"replay {name!r}: a name is letters, digits, - and _")
        self._loaded = loaded
        self._settings = loaded.settings
        self._zone = ZoneInfo(loaded.settings.exchange.timezone)
        with Workspace(loaded) as workspace:
            known = steps.data_span(workspace)[1]
        self._end = min(end, known)
        self.sundays = _sundays(start, self._end)
        if not self.sundays:
            raise SettingsError(
                f"no Sunday in {start}..{end} before the end of what is known, {known}: choose a longer span"
            )
        self._late = np.array([], dtype="datetime64[us]")
        self._retrains: list[Retrain] = []
        self.folder = loaded.root / loaded.settings.paths.data / "replays" / name
        self._weeks = WeekStore(self.folder / "weeks")

    def run(self) -> Iterator[Week]:
        """Every week in order; those that are stored are only read.

        Raises:
            SettingsError: the folder holds a replay of other settings, of an older version of this program, or of weeks
                that this span does not continue.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".lock"):
            first = self._claim()
            self._retrains = [item for week in self._weeks_before(first) for item in week.retrains]
            # It keeps the embedded Redis of the replay's registry running between the weeks.
            with Workspace(self._at(self._sunday_moment(self.sundays[0]))) as base:
                self._late = base.market.late_moments()
                base.registry.list_versions()
                for sunday in track("replay", self.sundays, len(self.sundays)):
                    week = self.stored(sunday) or self._replayed(sunday)
                    self._retrains += week.retrains
                    yield week

    def weeks(self) -> list[Week]:
        """The weeks that are done."""
        return [week for sunday in self.sundays if (week := self.stored(sunday)) is not None]

    def stored(self, sunday: date) -> Week | None:
        """A week that is done, as far as it lies in the span; or None."""
        week = self._weeks.load(sunday)
        return week.before(self._end) if week is not None and week.is_done(self._end) else None

    def workspace(self) -> Workspace:
        """The replay's own stores, at its end: models, features, predictions and drift reports."""
        return Workspace(self._at(self._sunday_moment(self._end)))

    def reports(self) -> "list[tuple[BacktestReport, Path]]":
        """What an account that followed each scope's signals did, and the page written about it.

        A scope with predictions of fewer than two sessions, as no model was in service, has none.
        """
        from signals_core.strategy.backtest_report import report_of
        from signals_core.strategy.signal_store import SignalStore
        from signals_core.strategy.walk_forward import follow

        found = []
        with self.workspace() as workspace:
            for scope in workspace.settings.ml.scopes:
                frame = SignalStore(workspace.data / "signals").load_all(scope, before=self._end)
                if frame.empty or frame["date"].nunique() < 2:
                    continue
                versions = workspace.registry.list_versions(scope)
                trials = max(int(version.metrics.get("trials", 1)) for version in versions)
                first, last = frame["date"].min().date(), frame["date"].max().date()
                about = (
                    f"What production would have done from {first} to {last}: models retrained on Sundays and when "
                    "drift, a dead signal or age asked for it, promoted or not by the gate, features and prices as "
                    "known at each moment, signals of each close traded at the next open. "
                    f"{frame['model_version'].nunique()} models served."
                )
                report = report_of(workspace, f"Replay, {scope}", about, follow(workspace, frame, trials))
                path = self.folder / "reports" / f"{scope}.html"
                report.write(path)
                found.append((report, path))
        return found

    def _replayed(self, sunday: date) -> Week:
        """The week, from where it is done up to its end or the span's."""
        began = time.monotonic()
        last = min(sunday + _WEEK, self._end)
        week = self._answered(self._weeks.load(sunday) or self._begun(sunday))
        while (following := self._next_sessions(date.fromisoformat(week.until), last)) is not None:
            week = self._answered(self._served(week, *following))
        week = replace(week, until=last.isoformat(), seconds=week.seconds + time.monotonic() - began)
        self._weeks.save(week)
        return week

    def _begun(self, sunday: date) -> Week:
        """The week with Sunday's retrains in flight."""
        with Workspace(self._at(self._sunday_moment(sunday))) as workspace:
            week = Week(sunday.isoformat(), sunday.isoformat(), scheduled(workspace), [], 0.0)
        self._weeks.save(week)
        return week

    def _served(self, week: Week, moment: datetime, days: list[date]) -> Week:
        """The week after some of its sessions, at a moment that serves them all.

        The first that asks for a retrain, which is then in flight, is the last.
        """
        moments = {day: self._daily_moment(day) for day in days}
        with Workspace(self._at(moment)) as workspace:
            for day, outcomes in after_the_close(workspace, moments):
                asked = asked_for(workspace, moments[day], [*self._retrains, *week.retrains])
                week = replace(
                    week,
                    until=(day + _DAY).isoformat(),
                    retrains=[*week.retrains, *asked],
                    sessions=[*week.sessions, *outcomes],
                )
                # After each session: the rule reads the last report on disk, which must not be of a later one.
                self._weeks.save(week)
                if asked:
                    break
        return week

    def _answered(self, week: Week) -> Week:
        """The week with the retrains that are in flight done, each at the moment it was asked for."""
        for run in runs_of(week.in_flight):
            with Workspace(self._at(run[0].moment)) as workspace:
                done = {item.scope: item for item in retrain(workspace, run)}
            week = replace(week, retrains=[done[item.scope] if item in run else item for item in week.retrains])
            self._weeks.save(week)
        return week

    def _next_sessions(self, since: date, last: date) -> tuple[datetime, list[date]] | None:
        """The next sessions in since <= session < last that one moment serves, and that moment; None without any.

        Features of a session do not depend on later bars, so the last one's moment serves all, unless a fact or bar of
        an earlier session was restated in between: then the first has its own.
        """
        days = [session.date() for session in sessions_between(self._settings.exchange.calendar, since, last)]
        if not days:
            return None
        first, final = self._daily_moment(days[0]), self._daily_moment(days[-1])
        between = (self._late > np.datetime64(utc(first))) & (self._late <= np.datetime64(utc(final)))
        return (first, days[:1]) if between.any() else (final, days)

    def _daily_moment(self, day: date) -> datetime:
        """When the daily job of a session runs, in the exchange's time zone."""
        calendar = self._settings.exchange.calendar
        (close,) = session_closes(calendar, sessions_between(calendar, day, day + _DAY)).tz_localize("UTC")
        return (close + _AFTER_CLOSE).to_pydatetime().astimezone(self._zone)

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

    def _claim(self) -> date:
        """The Sunday that the folder's weeks begin with, remembered with the settings that they are made with.

        Raises:
            SettingsError: they were made with others, in an older format, or begin later than this span.
        """
        path = self.folder / "replay.json"
        own = {
            "format": _FORMAT,
            "settings": _what_matters(self._settings),
            "first": self.sundays[0].isoformat(),
        }
        if not path.exists():
            write_bytes_atomic(path, json.dumps(own).encode())
        known = json.loads(path.read_text())
        way_out = "choose another --name, or delete the folder"
        if known["settings"] != own["settings"]:
            raise SettingsError(f"{self.folder} holds a replay of other settings: {way_out}")
        if known.get("format") != _FORMAT:
            raise SettingsError(f"{self.folder} holds a replay of an older version of signals: {way_out}")
        first = date.fromisoformat(known["first"])
        if self.sundays[0] < first:
            raise SettingsError(
                f"{self.folder} holds a replay that begins on {first}, and {self.sundays[0]} would meet models that "
                f"know its future: {way_out}"
            )
        return first

    def _weeks_before(self, first: date) -> list[Week]:
        """The weeks of the folder before this span.

        Raises:
            SettingsError: one of them is not done.
        """
        found = []
        for sunday in _sundays(first, self.sundays[0]):
            week = self._weeks.load(sunday)
            if week is None or not week.is_done(sunday + _WEEK):
                raise SettingsError(
                    f"{self.folder} holds a replay that begins on {first}, whose week of {sunday} is not done; "
                    f"production would not have left it out: begin between {first} and {sunday}, choose another "
                    "--name, or delete the folder"
                )
            found.append(week)
        return found


def _sundays(start: date, end: date) -> list[date]:
    """Those in start <= Sunday < end."""
    first = start + timedelta(days=(6 - start.weekday()) % 7)
    return [day.date() for day in pd.date_range(first, end - _DAY, freq="7D")]


def _what_matters(settings: Settings) -> str:
    """The digest of the settings that change what a replay says."""
    without = {"clock", "paths", "stores", "automation", "compute"}
    return digest({name: value for name, value in settings.model_dump(mode="json").items() if name not in without})
