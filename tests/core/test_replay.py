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
from signals_core.replay import Replay, Week
from signals_core.settings_loading import LoadedSettings, load_settings
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
        patched.setattr("signals_core.replay._after_the_close", killed)
        with pytest.raises(Killed):
            next(running)  # the Sunday is done, its week is not
    assert [said(week) for week in parts.weeks()] == whole[:1]
    assert [said(week) for week in Replay(ingested, START, END, "parts").run()] == whole
    with parts.workspace() as first, Replay(ingested, START, END, "whole").workspace() as second:
        logs = [PredictionLog(workspace.data / "predictions") for workspace in (first, second)]
        found = [log.served("UNIVERSE", END).drop(columns="made_at") for log in logs]
    pd.testing.assert_frame_equal(*found)
    assert len(found[0]) == 24


def test_other_settings_and_impossible_spans_are_refused(ingested: LoadedSettings) -> None:
    replayed = Replay(ingested, START, END)
    replayed.folder.mkdir(parents=True)
    (replayed.folder / "replay.json").write_text(json.dumps({"settings": "another"}))
    with pytest.raises(SettingsError, match="holds a replay of other settings: choose another --name, or delete"):
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
    moments = Replay(ingested, START, END)
    with Workspace(ingested) as workspace:
        moments._late = workspace.market.late_moments()
    assert [len(days) for _, days in moments._daily_moments(date(2021, 10, 3))] == [1] * 5
    assert [len(days) for _, days in moments._daily_moments(date(2021, 10, 10))] == [5]
