"""Weeks of a replay in which drift asks for a retrain: at its moment, in pieces and after a kill all the same."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pandas as pd
import pytest

from signals_core import steps
from signals_core.errors import SettingsError
from signals_core.ml import drift_report as drift_module
from signals_core.ml.bundle import read_manifest
from signals_core.ml.champion import champion_before
from signals_core.ml.drift_store import DriftReport, DriftStore
from signals_core.ml.prediction_log import PredictionLog
from signals_core.replay import Replay, Retrain, Week
from signals_core.settings_loading import LoadedSettings, load_settings
from signals_core.strategy.signal_store import SignalStore
from signals_core.workspace import Workspace
from tests.conftest import PROJECT
from tests.project.bars import write_bars

pytestmark = pytest.mark.slow

START, WEDNESDAY, END = date(2021, 10, 15), date(2021, 10, 20), date(2021, 10, 26)
"""Two Sundays, the 17th and the 24th; enough features drift on the Wednesday for the first time."""
DRIFTING = {
    "SA_ML__SCOPES": '["UNIVERSE"]',
    "SA_TUNING__TRIALS": "1",
    "SA_GATE__REFRESH_AFTER_DAYS": "1",
    "SA_MONITORING__MIN_ROWS": "20",
    "SA_MONITORING__OWN_HISTORY_FACTOR": "1",
    "SA_MONITORING__RETRAIN_SHARE": "0.2",
}


def project_until(root: Path, end: date | None = None) -> LoadedSettings:
    """A project whose store ends before a date; None: with the bars."""
    copytree(PROJECT / "config", root / "config")
    write_bars(root / "data" / "bars")
    for path in (root / "data" / "bars").glob("*.csv"):
        bars = pd.read_csv(path, parse_dates=["date"])
        bars[bars["date"] < pd.Timestamp(end or date.max.replace(year=2200))].to_csv(path, index=False)
    loaded = load_settings(root, environ=DRIFTING)
    with Workspace(loaded) as workspace:
        steps.ingest(workspace, workspace.all_symbols())
    return loaded


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> LoadedSettings:
    return project_until(tmp_path_factory.mktemp("drifting"))


@pytest.fixture(scope="module")
def whole(drifting: LoadedSettings) -> list[Week]:
    """The span at once, under the name `whole`."""
    return list(Replay(drifting, START, END, "whole").run())


def said(weeks: list[Week]) -> list[Week]:
    return [replace(week, seconds=0.0) for week in weeks]


def record(loaded: LoadedSettings, name: str) -> dict[str, Any]:
    """All that a replay keeps of what happened, to the byte where it is text."""
    with Replay(loaded, START, END, name).workspace() as workspace:
        reports = DriftStore(workspace.data / "drift")
        return {
            "journal": (workspace.models / "journal.jsonl").read_bytes(),
            "manifests": {path.parent.name: path.read_bytes() for path in workspace.models.glob("*/manifest.json")},
            "predictions": PredictionLog(workspace.data / "predictions").load("UNIVERSE").to_dict("records"),
            "signals": SignalStore(workspace.data / "signals").load_all("UNIVERSE").to_csv(),
            "reports": [reports.load("UNIVERSE", day) for day in reports.days("UNIVERSE")],
        }


def assert_same(loaded: LoadedSettings, name: str, other: str) -> None:
    first, second = record(loaded, name), record(loaded, other)
    assert list(first["predictions"]) == list(second["predictions"])
    assert first == second


def asked_within(week: Week) -> list[Retrain]:
    return [item for item in week.retrains if item.cause != "schedule"]


def test_drift_on_a_wednesday_is_a_retrain_on_wednesday_that_predicts_thursday(
    drifting: LoadedSettings, whole: list[Week]
) -> None:
    (sunday, wednesday), following = whole[0].retrains, whole[1].retrains[0]
    assert (wednesday.at, wednesday.state, wednesday.promoted) == ("2021-10-20T17:00:00-04:00", "succeeded", True)
    assert wednesday.cause.startswith("drift: UNIVERSE since 2021-10-20: 10 of 48 features drift")
    assert [item.retrain_asked for item in whole[0].sessions] == [False, False, True, True, True]
    assert asked_within(whole[1]) == [], "the cool-down"
    with Replay(drifting, START, END, "whole").workspace() as workspace:
        manifest = read_manifest(workspace.models / str(wednesday.version_id))
        served = PredictionLog(workspace.data / "predictions").served("UNIVERSE").xs("AAA")
        remade = SignalStore(workspace.data / "signals").load("UNIVERSE", WEDNESDAY)
    assert (manifest["cause"], manifest["as_of"]) == (wednesday.cause, "2021-10-21")
    assert manifest["created_at"] == "2021-10-20T21:00:00+00:00"
    assert manifest["train_end"] < "2021-10-20", "the label of the last row was known on Wednesday"
    by_day = dict(zip(served.index.day, served["model_version"], strict=True))
    names = {sunday.version_id: "Sunday's", wednesday.version_id: "Wednesday's", following.version_id: "next"}
    # A retrain ends with the signals of the last session: those are what the next open trades on.
    assert {day: names[version] for day, version in by_day.items()} == {
        **dict.fromkeys((15, 18, 19), "Sunday's"),
        **dict.fromkeys((20, 21), "Wednesday's"),
        **dict.fromkeys((22, 25), "next"),
    }
    assert set(remade["model_version"]) == {wednesday.version_id}, "what is traded on Thursday's open"


def test_each_thing_happened_at_its_own_moment(drifting: LoadedSettings, whole: list[Week]) -> None:
    (sunday, wednesday), following = whole[0].retrains, whole[1].retrains[0]
    with Replay(drifting, START, END, "whole").workspace() as workspace:
        journal = workspace.registry.journal()
        served = PredictionLog(workspace.data / "predictions").served("UNIVERSE").xs("AAA")
    days = sorted({datetime.fromisoformat(event.at).date() for event in journal})
    assert days == [date(2021, 10, 17), WEDNESDAY, date(2021, 10, 24)]
    serving = {day: champion_before(journal, "UNIVERSE", date(2021, 10, day), "America/New_York") for day in (17, 20)}
    assert serving == {17: None, 20: sunday.version_id}
    for day, version in ((21, wednesday.version_id), (24, wednesday.version_id), (25, following.version_id)):
        assert champion_before(journal, "UNIVERSE", date(2021, 10, day), "America/New_York") == version
    closes = served["made_at"].dt.tz_localize("UTC").dt.tz_convert("America/New_York")
    assert [f"{moment:%d %H:%M}" for moment in closes] == [
        "17 02:00", "18 17:00", "19 17:00", "20 17:00", "21 17:00", "24 02:00", "25 17:00",
    ]  # fmt: skip


def test_a_retrain_within_the_week_knows_nothing_later(
    tmp_path: Path, drifting: LoadedSettings, whole: list[Week]
) -> None:
    cut = project_until(tmp_path, WEDNESDAY + timedelta(days=1))
    (week,) = Replay(cut, START, END).run()
    assert week.until == "2021-10-21", "no later session has bars"
    assert week.retrains == whole[0].retrains
    assert week.sessions == whole[0].sessions[:3]


def test_one_moment_for_several_sessions_says_the_same_as_one_for_each(
    drifting: LoadedSettings, whole: list[Week], monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = np.arange("2021-10-15", "2021-10-27", dtype="datetime64[h]").astype("datetime64[us]")
    monkeypatch.setattr("signals_core.market_data.store.MarketStore.late_moments", lambda _: hours)
    opened = []

    def counted(workspace: Workspace, moments: dict[date, datetime]) -> Iterator[Any]:
        opened.append(len(moments))
        return after_the_close(workspace, moments)

    from signals_core.replay_jobs import after_the_close

    monkeypatch.setattr("signals_core.replay.after_the_close", counted)
    assert said(list(Replay(drifting, START, END, "each").run())) == said(whole)
    assert opened == [1] * 6
    assert_same(drifting, "each", "whole")


def test_a_week_cut_short_is_completed_when_the_span_grows(drifting: LoadedSettings, whole: list[Week]) -> None:
    tuesday = {**DRIFTING, "SA_CLOCK__AS_OF": "2021-10-19T20:00:00-04:00"}  # the present moment cuts the week
    (first,) = Replay(load_settings(drifting.root, environ=tuesday), START, date(2030, 1, 1), "grown").run()
    assert (first.until, len(first.sessions), asked_within(first)) == ("2021-10-20", 2, [])
    (second,) = Replay(drifting, START, WEDNESDAY + timedelta(days=1), "grown").run()  # and so does --to
    assert (second.until, len(second.sessions), len(asked_within(second))) == ("2021-10-21", 3, 1)
    grown = Replay(drifting, START, END, "grown")
    assert grown.weeks() == []
    assert said(list(grown.run())) == said(whole)
    assert_same(drifting, "grown", "whole")
    (again,) = Replay(drifting, START, WEDNESDAY, "grown").run()
    assert replace(again, seconds=first.seconds) == first, "what is done is not told before it happened"


class Killed(BaseException):
    pass


def killing(real: Callable[..., Any], call: int, after: bool) -> Callable[..., Any]:
    calls = []

    def killed(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) < call:
            return real(*arguments)
        if after:
            real(*arguments)
        raise Killed

    return killed


@pytest.mark.parametrize(
    ("step", "call", "after"),
    [
        pytest.param("retrain", 1, True, id="after Sunday's promotion"),
        pytest.param("asked_for", 3, False, id="after Wednesday's report"),
        pytest.param("retrain", 2, False, id="before Wednesday's retrain"),
        pytest.param("retrain", 2, True, id="after Wednesday's promotion"),
    ],
)
def test_killed_at_any_step_it_goes_on_as_if_it_had_not_been(
    drifting: LoadedSettings, whole: list[Week], monkeypatch: pytest.MonkeyPatch, step: str, call: int, after: bool
) -> None:
    from signals_core import replay as module

    name = f"killed-{step}-{call}-{after}"
    with monkeypatch.context() as patched:
        patched.setattr(module, step, killing(getattr(module, step), call, after))
        with pytest.raises(Killed):
            list(Replay(drifting, START, END, name).run())
    assert Replay(drifting, START, END, name).weeks() == []
    assert said(list(Replay(drifting, START, END, name).run())) == said(whole)
    assert_same(drifting, name, "whole")


def test_a_dead_signal_asks_too(drifting: LoadedSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = drift_module.drift_report

    def dead_on_tuesday(workspace: Workspace, scope: str, day: date) -> tuple[DriftReport, bool]:
        report, computed = real(workspace, scope, day)
        if day == date(2021, 10, 19):
            report = replace(report, signal_dead=True, verdict="the signal is dead")
            DriftStore(workspace.data / "drift").save(report)
        return report, computed

    monkeypatch.setattr(drift_module, "drift_report", dead_on_tuesday)
    (week,) = Replay(drifting, START, WEDNESDAY, "dead").run()
    assert [item.retrain_asked for item in week.sessions] == [False, True]
    (asked,) = asked_within(week)
    assert (asked.at, asked.promoted) == ("2021-10-19T17:00:00-04:00", True)
    assert asked.cause == "performance: UNIVERSE since 2021-10-19: the signal is dead"


@pytest.mark.parametrize(("limit", "value", "days"), [("max_per_month", 0, []), ("cooldown_days", 2, [20, 22])])
def test_the_policy_s_limits_hold(drifting: LoadedSettings, limit: str, value: int, days: list[int]) -> None:
    limited = load_settings(drifting.root, environ={**DRIFTING, f"SA_RETRAINING__{limit.upper()}": str(value)})
    (week,) = Replay(limited, START, date(2021, 10, 23), limit).run()
    assert [item.retrain_asked for item in week.sessions] == [False, False, True, True, True]
    assert [item.moment.day for item in asked_within(week)] == days


def test_a_span_goes_on_without_a_gap_and_never_backwards(drifting: LoadedSettings, whole: list[Week]) -> None:
    with pytest.raises(
        SettingsError, match=r"begins on 2021-10-17, and 2021-10-10 would meet models that know its fut"
    ):
        next(Replay(drifting, date(2021, 10, 8), END, "whole").run())
    with pytest.raises(
        SettingsError, match=r"whose week of 2021-10-24 is not done; .* between 2021-10-17 and 2021-10-24"
    ):
        next(Replay(drifting, date(2021, 10, 31), date(2021, 11, 8), "whole").run())
    assert list(Replay(drifting, date(2021, 10, 18), END, "whole").run()) == whole[1:]


def test_an_account_follows_what_the_replay_said(drifting: LoadedSettings, whole: list[Week]) -> None:
    replayed = Replay(drifting, START, END, "whole")
    ((_, path),) = replayed.reports()
    assert "from 2021-10-15 to 2021-10-25" in path.read_text()
    assert "3 models served" in path.read_text()
    ((_, path),) = Replay(drifting, START, date(2021, 10, 19), "whole").reports()
    assert "from 2021-10-15 to 2021-10-18" in path.read_text()
    assert Replay(drifting, START, date(2021, 10, 18), "whole").reports() == [], "one session earns nothing"
