"""The replay of history: nothing known early, nothing of the project written, resumable, the same as production."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from signals_core import steps
from signals_core.errors import SettingsError
from signals_core.ml.prediction_log import PredictionLog
from signals_core.replay import Replay, Week, _what_matters
from signals_core.settings_loading import LoadedSettings, load_settings
from signals_core.strategy.signal_store import SessionSignals, SignalStore
from signals_core.workspace import Workspace

START, END = date(2021, 10, 1), date(2021, 10, 20)
"""Three Sundays, the last week cut short."""


@pytest.fixture
def ingested(project: Path) -> LoadedSettings:
    loaded = load_settings(project, environ={"SA_ML__SCOPES": '["UNIVERSE"]', "SA_TUNING__TRIALS": "1"})
    with Workspace(loaded) as workspace:
        steps.ingest(workspace, workspace.all_symbols())
    return loaded


def said(week: Week) -> Week:
    return replace(week, seconds=0.0)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "replays" not in path.parts and not path.name.startswith("market.sqlite")
    }


@pytest.mark.slow
def test_a_replay_is_what_production_would_have_done_and_knows_no_later_bar(
    ingested: LoadedSettings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = files_of(ingested.root)
    weeks = [said(week) for week in Replay(ingested, START, END).run()]
    assert [week.sunday for week in weeks] == ["2021-10-03", "2021-10-10", "2021-10-17"]
    assert [len(week.sessions) for week in weeks] == [5, 5, 2]
    assert weeks[0].retrains[0].promoted
    assert all(outcome.predicted == 2 for week in weeks for outcome in week.sessions)
    assert files_of(ingested.root) == before

    # The same, with a store that ends on the last day: what comes later has changed nothing.
    root = tmp_path_factory.mktemp("cut")
    for path in ingested.root.rglob("*"):
        target = root / path.relative_to(ingested.root)
        if path.suffix == ".yaml":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        if path.suffix == ".csv":
            target.parent.mkdir(parents=True, exist_ok=True)
            bars = pd.read_csv(path, parse_dates=["date"])
            bars[bars["date"] < pd.Timestamp(END)].to_csv(target, index=False)
    cut = load_settings(root, environ={"SA_ML__SCOPES": '["UNIVERSE"]', "SA_TUNING__TRIALS": "1"})
    with Workspace(cut) as workspace:
        steps.ingest(workspace, workspace.all_symbols())
    assert [said(week) for week in Replay(cut, START, END).run()] == weeks


@pytest.mark.slow
def test_a_replay_goes_on_where_it_was_killed(ingested: LoadedSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [said(week) for week in Replay(ingested, START, END, "whole").run()]

    class Killed(BaseException):
        pass

    def killed(*_: object) -> Iterator[None]:
        raise Killed

    parts = Replay(ingested, START, END, "parts")
    running = parts.run()
    assert said(next(running)) == whole[0]
    with monkeypatch.context() as patched:
        patched.setattr("signals_core.replay.after_the_close", killed)
        with pytest.raises(Killed):
            next(running)  # the Sunday is done, its week is not
    assert [said(week) for week in parts.weeks()] == whole[:1]
    assert [said(week) for week in Replay(ingested, START, END, "parts").run()] == whole
    with parts.workspace() as first, Replay(ingested, START, END, "whole").workspace() as second:
        logs = [PredictionLog(workspace.data / "predictions") for workspace in (first, second)]
        found = [log.served("UNIVERSE", END) for log in logs]
    pd.testing.assert_frame_equal(*found)
    assert len(found[0]) == 26, "twelve sessions, and the Friday before the first Sunday, whose job reports it"


def test_other_settings_and_impossible_spans_are_refused(ingested: LoadedSettings) -> None:
    replayed = Replay(ingested, START, END)
    replayed.folder.mkdir(parents=True)
    (replayed.folder / "replay.json").write_text(json.dumps({"settings": "another"}))
    with pytest.raises(SettingsError, match="holds a replay of other settings: choose another --name, or delete"):
        next(replayed.run())
    older = {"settings": _what_matters(ingested.settings)}  # and nothing else, as the first format had it
    (replayed.folder / "replay.json").write_text(json.dumps(older))
    with pytest.raises(SettingsError, match="of an older version of signals: choose another --name, or delete"):
        next(replayed.run())
    with pytest.raises(SettingsError, match=r"no Sunday in 2021-10-04..2021-10-10"):
        Replay(ingested, date(2021, 10, 4), date(2021, 10, 10))
    with pytest.raises(SettingsError, match="letters, digits"):
        Replay(ingested, START, END, "../elsewhere")


def test_what_became_known_late_is_listed(ingested: LoadedSettings) -> None:
    with Workspace(ingested) as workspace:
        assert not len(workspace.market.late_moments())
        bars = workspace.market.load_bars("AAA").iloc[[100]][["open", "high", "low", "close", "volume"]]
        changed = bars.assign(symbol="AAA", volume=bars["volume"] + 1).reset_index()
        now = pd.Timestamp("2021-10-06T15:00:00", tz="UTC").to_pydatetime()
        workspace.market.save_many_bars(changed, now)
        assert list(workspace.market.late_moments()) == [pd.Timestamp("2021-10-06T15:00:00").to_datetime64()]
    replayed = Replay(ingested, START, END)
    with Workspace(ingested) as workspace:
        replayed._late = workspace.market.late_moments()

    def served(since: int, last: int) -> tuple[str, list[int]]:
        moment, days = replayed._next_sessions(date(2021, 10, since), date(2021, 10, last))
        return f"{moment:%d %H:%M}", [day.day for day in days]

    assert served(3, 10) == ("04 17:00", [4]), "a bar of an earlier session comes on the 6th"
    assert served(5, 10) == ("05 17:00", [5])
    assert served(6, 10) == ("08 17:00", [6, 7, 8]), "from the 6th on all is known"
    assert served(10, 17) == ("15 17:00", [11, 12, 13, 14, 15])
    assert replayed._next_sessions(date(2021, 10, 9), date(2021, 10, 10)) is None


def test_the_end_is_the_last_session_that_has_closed_and_has_bars(ingested: LoadedSettings) -> None:
    def end(as_of: str) -> date:
        environ = {"SA_ML__SCOPES": '["UNIVERSE"]', "SA_CLOCK__AS_OF": as_of}
        return Replay(load_settings(ingested.root, environ=environ), START, date(2030, 1, 1))._end

    assert end("2021-10-19T15:59:00-04:00") == date(2021, 10, 19)
    assert end("2021-10-19T16:00:00-04:00") == date(2021, 10, 20)
    assert end("2022-07-03T12:00:00-04:00") == date(2022, 7, 2)
    with Workspace(ingested) as workspace:
        assert str(workspace.market.coverage(["AAA"])["AAA"].last) == "2022-07-01"
    assert end("2022-07-20T12:00:00-04:00") == date(2022, 7, 2), "later sessions have closed, and no bars yet"
    with pytest.raises(SettingsError, match=r"no Sunday in 2022-07-02\.\.2030-01-01 before .* known, 2022-07-02"):
        Replay(ingested, date(2022, 7, 2), date(2030, 1, 1))


def test_an_account_has_no_session_on_the_end_or_later(ingested: LoadedSettings) -> None:
    replayed = Replay(ingested, START, END)
    with replayed.workspace() as workspace:
        frame = pd.DataFrame({"symbol": ["AAA"], "date": [pd.Timestamp(END)]})
        SignalStore(workspace.data / "signals").save(SessionSignals("UNIVERSE", END, frame, computed=True), "inputs")
    assert replayed.reports() == []


@pytest.mark.slow
def test_a_sunday_is_left_out_as_the_schedule_would(ingested: LoadedSettings) -> None:
    environ = {"SA_ML__SCOPES": '["UNIVERSE"]', "SA_TUNING__TRIALS": "1", "SA_ML__RETRAIN_INTERVAL_DAYS": "14"}
    weeks = list(Replay(load_settings(ingested.root, environ=environ), START, END).run())
    assert [[item.cause for item in week.retrains] for week in weeks] == [["schedule"], [], ["schedule"]]
    assert [len(week.sessions) for week in weeks] == [5, 5, 2]


def test_a_retrain_that_fails_has_used_up_its_retries(ingested: LoadedSettings) -> None:
    environ = {"SA_ML__SCOPES": '["UNIVERSE"]', "SA_ML__MIN_TRAINING_SAMPLES": "100000"}
    weeks = list(Replay(load_settings(ingested.root, environ=environ), START, END).run())
    assert [[(item.cause, item.state) for item in week.retrains] for week in weeks] == [[("schedule", "failed")]] * 3
    assert weeks[0].retrains[0].decision == "UNIVERSE: no validation window ended by 2021-10-03; materialise " + (
        "validation_windows first (signals validate)"
    )
    assert [week.sessions for week in weeks] == [[], [], []]
