import json
import shutil
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from signals_core import replay_jobs
from signals_core.calendar import sessions_between
from signals_core.errors import DataError, MissingPrerequisite, NoRows
from signals_core.events import STREAM
from signals_core.features.catalog import catalog
from signals_core.ml.drift import Reference
from signals_core.ml.drift_report import drift_report, is_current
from signals_core.ml.monitoring import DriftStore, ModelMonitor
from signals_core.settings import MonitoringSettings
from signals_core.strategy.ml_strategy import session_signals
from tests.core.ml.helpers import FEATURES, LAST_SESSION, constant_calibrator, make_bundle

SYMBOLS = [f"S{number:02d}" for number in range(10)]
DAYS = (date(2022, 6, 29), date(2022, 6, 30), date(2022, 7, 1))


def frame(sessions: int, seed: int = 0, start: str = "2019-01-01") -> pd.DataFrame:
    """Ten symbols of independent draws in three columns."""
    dates = pd.bdate_range(start, periods=sessions, name="date")
    index = pd.MultiIndex.from_product([SYMBOLS, dates], names=["symbol", "date"])
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(len(index), 3)), index=index, columns=["a", "b", "c"])


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return frame(600)


@pytest.fixture
def recent() -> pd.DataFrame:
    return frame(20, seed=1, start="2022-01-03")


def by_name(drifts) -> dict:
    return {drift.feature: drift for drift in drifts}


def test_rows_resampled_from_the_reference_raise_no_alarm(reference):
    monitor = ModelMonitor()
    for seed in range(20):
        rows = reference.sample(200, random_state=seed)
        assert [d.feature for d in monitor.compare(reference, rows, rows) if d.alarm] == []


def test_a_unit_error_of_a_hundred_alarms_and_only_in_its_own_column(reference, recent):
    broken = recent.assign(b=recent["b"] * 100)
    found = by_name(ModelMonitor().compare(reference, broken, broken))
    assert [(found[n].status, found[n].alarm) for n in "abc"] == [
        ("stable", False),
        ("major", True),
        ("stable", False),
    ]
    assert found["b"].psi > 1
    assert found["b"].own_history < 0.2


def test_an_alarm_must_have_held_some_sessions_ago_too(reference, recent):
    broken = recent.assign(b=recent["b"] * 100)
    assert not by_name(ModelMonitor().compare(reference, broken, recent))["b"].alarm
    assert by_name(ModelMonitor().compare(reference, broken, None))["b"].alarm


def test_own_history_is_the_largest_psi_of_blocks_of_twenty_sessions(reference):
    drift = by_name(ModelMonitor().compare(reference, reference.tail(200)))["a"]
    dates = reference.index.get_level_values("date")
    unique = dates.unique()
    bins = Reference.of(reference[["a"]])
    blocks = [bins.psi_of(reference["a"][dates.isin(unique[i : i + 20])].to_numpy(), 0) for i in range(0, 600, 20)]
    assert len(blocks) == 30
    assert drift.own_history == pytest.approx(max(blocks))


def test_a_feature_that_always_wanders_does_not_alarm_at_the_fixed_level():
    reference, recent = frame(600), frame(20, seed=1)
    level = np.repeat(np.random.default_rng(2).normal(0, 2, 30), 20)  # another level every twenty sessions
    reference["a"] += np.tile(level, len(SYMBOLS))
    recent["a"] += 2
    drift = by_name(ModelMonitor().compare(reference, recent, recent))["a"]
    assert drift.status == "major"
    assert not drift.alarm


def test_missing_and_constant_columns_are_named_as_faults_of_the_feed(reference, recent):
    broken = recent.assign(a=np.nan, b=1.5)
    found = by_name(ModelMonitor().compare(reference, broken))
    assert [(found[n].status, found[n].missing_share, found[n].psi) for n in "ab"] == [
        ("missing", 1.0, None),
        ("constant", 0.0, None),
    ]
    assert found["c"].status == "stable"


def test_a_column_that_never_varied_or_only_says_yes_or_no_is_not_a_frozen_feed(reference, recent):
    base = reference.assign(a=1.0, b=(reference["b"] > 0).astype(float))
    now = recent.assign(a=1.0, b=0.0)
    found = by_name(ModelMonitor().compare(base, now))
    assert found["a"].status == "stable"
    assert found["b"].status in ("minor", "major")


@pytest.mark.parametrize(("rows", "status"), [(99, "insufficient"), (100, "stable")])
def test_fewer_rows_than_the_minimum_are_insufficient(reference, rows, status):
    sample = reference.sample(rows, random_state=0).assign(b=np.nan)
    found = by_name(ModelMonitor(MonitoringSettings(psi_minor=0.5, psi_major=0.6)).compare(reference, sample))
    assert found["a"].status == status
    assert found["b"].status == ("insufficient" if rows < 100 else "missing")


def test_too_few_values_among_enough_rows_are_insufficient(reference, recent):
    sparse = recent.copy()
    sparse.iloc[50:, 0] = np.nan
    drift = by_name(ModelMonitor().compare(reference, sparse))["a"]
    assert (drift.status, drift.missing_share) == ("insufficient", 0.75)


def test_calendar_columns_are_left_out(reference, recent):
    calendar = [name for name, feature in catalog().items() if feature.calendar]
    assert calendar
    base, now = (rows.assign(**dict.fromkeys(calendar, 0.0), rsi_14=rows["a"]) for rows in (reference, recent))
    assert set(by_name(ModelMonitor().compare(base, now))) == {"a", "b", "c", "rsi_14"}


def predictions(dates: int) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([["AAA"], pd.bdate_range("2022-01-03", periods=dates)], names=["symbol", "date"])
    return pd.DataFrame({"p_down": 0.1, "p_flat": 0.2, "p_up": 0.7}, index=index)


def test_rolling_accuracy_counts_the_last_hundred_matured_predictions():
    said = predictions(150)
    labels = pd.Series(np.where(np.arange(140) < 80, 0, 2), index=said.index[:140])
    # The last hundred with a label are 40..139; UP came true in 80..139.
    assert ModelMonitor().rolling_accuracy(said, labels) == (100, 0.6)


def test_before_anything_matured_there_is_no_accuracy():
    assert ModelMonitor().rolling_accuracy(predictions(5), pd.Series(dtype="int8")) == (0, None)


@pytest.fixture
def enough_rows(trained, open_workspace):
    """Two tickers give 40 rows in twenty sessions."""
    return open_workspace(trained, SA_MONITORING__MIN_ROWS="30")


def put_into_service(workspace, version_id: str, *, drifted: bool) -> None:
    """A model of three features whose reference is theirs, or something far away."""
    panel = workspace.panel("UNIVERSE", date(2021, 7, 1), date(2022, 7, 2))
    rows = panel.features[list(FEATURES)]
    if drifted:
        far = np.random.default_rng(0).normal(1e4, 1, rows.shape)
        rows = pd.DataFrame(far, index=rows.index, columns=rows.columns)
    make_bundle(
        *(workspace.models, version_id),
        reference=rows,
        calibrator=constant_calibrator([0.2, 0.2, 0.6]),
        columns=FEATURES,
        as_of=date(2022, 5, 1),
    )
    workspace.registry.register(version_id, workspace.models / version_id, {})
    workspace.registry.promote(version_id)


def events(workspace) -> list[dict]:
    return [{k: json.loads(v) for k, v in fields.items()} for _, fields in workspace.redis.xrange(STREAM)]


def test_a_model_whose_rows_still_look_like_its_reference_is_not_retrained(enough_rows):
    report, computed = drift_report(enough_rows, "UNIVERSE", LAST_SESSION)
    active = enough_rows.registry.get_active()
    assert computed
    assert (report.model_version, report.day, report.rows) == (active.version_id, "2022-07-01", 40)
    assert (report.retrain, report.episode) == (False, None)
    assert report.rolling_accuracy is None
    assert not {f.feature for f in report.features} & {n for n, f in catalog().items() if f.calendar}


def test_a_report_is_an_event_on_the_stream_once(enough_rows):
    first, _ = drift_report(enough_rows, "UNIVERSE", LAST_SESSION)
    again, computed = drift_report(enough_rows, "UNIVERSE", LAST_SESSION)
    assert (again, computed) == (first, False)
    assert is_current(enough_rows, "UNIVERSE", LAST_SESSION)
    assert STREAM == "ml:drift:events"
    (event,) = events(enough_rows)
    assert (event["scope"], event["day"], event["retrain"], event["alarms"]) == ("UNIVERSE", "2022-07-01", False, [])
    assert event["kind"] == "drift_report"
    assert event["model_version"] == first.model_version
    assert event["verdict"] == first.verdict


def test_too_few_rows_for_any_verdict_are_called_insufficient(trained, open_workspace):
    report, _ = drift_report(open_workspace(trained), "UNIVERSE", LAST_SESSION)
    assert {f.status for f in report.features} == {"insufficient"}
    assert report.verdict.startswith("insufficient: 40 rows in 20 sessions, 100 are needed")
    assert not report.retrain


def test_an_episode_lasts_as_long_as_the_same_model_drifts(enough_rows):
    put_into_service(enough_rows, "drifted", drifted=True)
    reports = [drift_report(enough_rows, "UNIVERSE", day)[0] for day in DAYS]
    assert [r.retrain for r in reports] == [True] * 3
    assert {r.episode for r in reports} == {"drifted:2022-06-29"}
    assert [sorted(r.alarms) for r in reports] == [sorted(FEATURES)] * 3
    assert [e["episode"] for e in events(enough_rows)] == ["drifted:2022-06-29"] * 3


def test_a_new_model_that_drifts_begins_a_new_episode(enough_rows):
    put_into_service(enough_rows, "drifted", drifted=True)
    first, _ = drift_report(enough_rows, "UNIVERSE", DAYS[0])
    put_into_service(enough_rows, "again", drifted=True)
    second, _ = drift_report(enough_rows, "UNIVERSE", DAYS[1])
    assert (first.episode, second.episode) == ("drifted:2022-06-29", "again:2022-06-30")


def test_a_quiet_day_ends_the_episode(enough_rows):
    put_into_service(enough_rows, "sound", drifted=False)
    put_into_service(enough_rows, "drifted", drifted=True)
    first, _ = drift_report(enough_rows, "UNIVERSE", DAYS[0])
    enough_rows.registry.promote("sound")
    quiet, _ = drift_report(enough_rows, "UNIVERSE", DAYS[1])
    enough_rows.registry.promote("drifted")
    third, _ = drift_report(enough_rows, "UNIVERSE", DAYS[2])
    assert (first.episode, quiet.episode, third.episode) == ("drifted:2022-06-29", None, "drifted:2022-07-01")


def test_another_model_in_service_makes_the_report_of_the_day_anew(enough_rows):
    drift_report(enough_rows, "UNIVERSE", LAST_SESSION)
    put_into_service(enough_rows, "drifted", drifted=True)
    assert not is_current(enough_rows, "UNIVERSE", LAST_SESSION)
    report, computed = drift_report(enough_rows, "UNIVERSE", LAST_SESSION)
    assert (computed, report.model_version) == (True, "drifted")


def test_only_predictions_whose_label_was_known_at_the_close_are_counted(trained, open_workspace):
    workspace = open_workspace(trained, SA_ML__SCOPES='["UNIVERSE"]')
    put_into_service(workspace, "sound", drifted=False)  # it always says UP
    made = [date(2022, 6, 13), date(2022, 6, 14), date(2022, 6, 15), date(2022, 6, 16)]
    for day in made:
        session_signals(workspace, "UNIVERSE", day, made_at=datetime(day.year, day.month, day.day, 22, tzinfo=UTC))
    # Five sessions after 15 June is 23 June: the 20th was a holiday.
    report, _ = drift_report(workspace, "UNIVERSE", date(2022, 6, 23))
    target = workspace.panel("UNIVERSE", date(2022, 6, 13), date(2022, 6, 16)).target["label"]
    assert report.matured_predictions == 6
    assert report.rolling_accuracy == pytest.approx((target == 2).mean())


def test_features_in_another_unit_than_the_reference_are_a_broken_feed_and_no_retrain(enough_rows):
    panel = enough_rows.panel("UNIVERSE", date(2021, 7, 1), date(2022, 7, 2))
    rows = panel.features[list(FEATURES)] / 100
    make_bundle(enough_rows.models, "percent", reference=rows, columns=FEATURES)
    enough_rows.registry.register("percent", enough_rows.models / "percent", {})
    enough_rows.registry.promote("percent")
    report, _ = drift_report(enough_rows, "UNIVERSE", LAST_SESSION)
    assert {f.feature: f.fault for f in report.features} == dict.fromkeys(FEATURES, "unit")
    assert report.feed_faults[0] == "feed bars"
    assert "rsi_14 (unit): 100 times the values of the reference" in report.feed_faults
    assert (report.retrain, report.episode) == (False, None)
    assert report.verdict.startswith("every feature that could be judged comes from a broken feed")


def test_what_a_removed_model_promised_is_still_held_against_it(trained, open_workspace):
    workspace = open_workspace(trained, SA_ML__SCOPES='["UNIVERSE"]')
    put_into_service(workspace, "gone", drifted=False)
    days = [session.date() for session in sessions_between("XNYS", date(2022, 5, 2), date(2022, 6, 15))]
    for day in days:
        session_signals(workspace, "UNIVERSE", day, made_at=datetime(day.year, day.month, day.day, 22, tzinfo=UTC))
    drift_report(workspace, "UNIVERSE", date(2022, 5, 20))
    put_into_service(workspace, "next", drifted=False)
    shutil.rmtree(workspace.models / "gone")
    report, _ = drift_report(workspace, "UNIVERSE", LAST_SESSION)
    assert report.model_version == "next"
    assert report.signal_test.periods == len(days) // 5 - (len(days) % 5 == 0)
    assert report.signal_test.path[-1][0] <= report.day


def test_a_day_that_is_no_session_is_refused(enough_rows):
    with pytest.raises(MissingPrerequisite, match="2022-06-20 is no session of XNYS"):
        drift_report(enough_rows, "UNIVERSE", date(2022, 6, 20))


def test_a_session_without_any_bar_is_a_broken_feed_and_no_retrain(enough_rows, open_workspace):
    later = open_workspace(enough_rows.root, SA_CLOCK__AS_OF="2022-07-05T20:00:00-04:00")
    put_into_service(later, "drifted", drifted=True)
    report, _ = drift_report(later, "UNIVERSE", date(2022, 7, 5))
    assert report.feed_faults == ["feed bars: no ticker has one of 2022-07-05, the last are of 2022-07-01"]
    assert not report.retrain


def test_a_scope_without_bars_for_months_does_not_stop_a_replay(enough_rows, open_workspace):
    day = date(2022, 9, 15)
    later = open_workspace(enough_rows.root, SA_CLOCK__AS_OF=f"{day}T20:00:00-04:00")
    with pytest.raises(NoRows, match="UNIVERSE: no ticker has rows"):
        drift_report(later, "UNIVERSE", day)
    outcome = replay_jobs._report(later, "UNIVERSE", day, later.now)
    assert (outcome.predicted, outcome.long, outcome.short, outcome.retrain_asked) == (0, 0, 0, False)
    assert outcome.verdict.startswith("UNIVERSE: no ticker has rows")


def test_without_a_model_there_is_nothing_to_drift_from(validated, open_workspace):
    with pytest.raises(MissingPrerequisite, match="UNIVERSE: no model is in service"):
        drift_report(open_workspace(validated), "UNIVERSE", LAST_SESSION)


def test_a_damaged_report_is_refused_by_its_name(enough_rows):
    report, _ = drift_report(enough_rows, "UNIVERSE", LAST_SESSION)
    store = DriftStore(enough_rows.data / "drift")
    assert store.load("UNIVERSE", "2022-07-01") == report
    assert store.days("UNIVERSE") == ["2022-07-01"]
    path = enough_rows.data / "drift" / "scope=UNIVERSE" / "2022-07-01.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match=r"2022-07-01\.json is damaged"):
        store.load("UNIVERSE", "2022-07-01")


def test_a_damaged_reference_is_refused_by_name(enough_rows):
    from signals_core.errors import BundleError

    active = enough_rows.registry.get_active()
    path = enough_rows.models / active.model_path / "reference.parquet"
    content = bytearray(path.read_bytes())
    content[100:200] = bytes(100)
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=r"reference\.parquet"):
        drift_report(enough_rows, "UNIVERSE", LAST_SESSION)
