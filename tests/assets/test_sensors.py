"""Sensors on a real instance, called as the daemon calls them, by a process that remembers nothing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from signals_core.ml.monitoring import DriftReport, DriftStore
from signals_core.settings_loading import load_settings
from signals_core.workspace import Workspace
from signals_dagster.assets.market_data import data_quality
from signals_dagster.assets.model import CAUSE_TAG, SCOPE_TAG
from signals_dagster.jobs import daily_signals_job, weekly_retrain_job
from signals_dagster.resources import WorkspaceResource
from signals_dagster.sensors import (
    alert_sensor,
    drift_sensor,
    failed_run_sensor,
    failure_sensor,
    performance_sensor,
    recovered_run_sensor,
    staleness_sensor,
)
from tests.core.alerts.services import SECRETS, SLACK_OK, TOKEN, WEBHOOK_PATH, slack_refusal, telegram_refusal, texts
from tests.core.loopback import Loopback, serving
from tests.project.models import register_tiny_model

NEW_YORK = ZoneInfo("America/New_York")
START = datetime(2022, 6, 29, 18, 45, tzinfo=NEW_YORK)
RETRAIN_SENSORS = (drift_sensor, performance_sensor, staleness_sensor, failure_sensor)


@pytest.fixture
def served(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with one model in service for its only scope, trained on 2022-06-26; it is the evening of the 29th."""
    monkeypatch.setenv("SA_ML__SCOPES", '["UNIVERSE"]')
    set_clock(monkeypatch, START)
    with Workspace(load_settings(project)) as workspace:
        version = register_tiny_model(workspace.registry, scope="UNIVERSE", created_at="2022-06-26T06:00:00+00:00")
        workspace.registry.promote(version.version_id, "for this test")
        yield project  # it holds Redis, which would else be started at every tick


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving() as loopback:
        loopback.script(WEBHOOK_PATH, SLACK_OK)
        yield loopback


@pytest.fixture
def slack(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """Slack is the only channel."""
    monkeypatch.setenv("SA_ALERTS__CHANNELS", '["slack"]')
    monkeypatch.setenv("SA_ALERTS__SLACK_WEBHOOK_URL", f"{server.url}{WEBHOOK_PATH}")
    return server


@dataclass
class Daemon:
    """What Dagster's daemon does with a tick: a run for each request whose key was never used."""

    home: Path
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS

    def evaluate(self, sensor: dg.SensorDefinition):
        resource = WorkspaceResource(home=str(self.home))
        with dg.build_sensor_context(instance=self.instance, resources={"workspace": resource}) as context:
            data = sensor.evaluate_tick(context)
        resource.close()
        return data

    def tick(self, *sensors: dg.SensorDefinition) -> list[dg.DagsterRun]:
        made = []
        for sensor in sensors or RETRAIN_SENSORS:
            for request in self.evaluate(sensor).run_requests or []:
                tags = {**request.tags, "dagster/run_key": request.run_key}
                if not self.instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": request.run_key})):
                    run = self.instance.create_run_for_job(weekly_retrain_job, tags=tags, status=self.status)
                    made.append(run)
        return made


def set_clock(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setenv("SA_CLOCK__AS_OF", now.isoformat())


def report(home: Path, day: str, since: str | None = None, **other: object) -> DriftReport:
    """Store a drift report of the model in service."""
    with Workspace(load_settings(home)) as workspace:
        version = workspace.registry.get_active().version_id
    episode = f"{version}:{since}" if since else None
    made = DriftReport("UNIVERSE", day, version, 120, 3000, [], bool(since), episode, 0, None, False, "a verdict")
    made = replace(made, **other)  # type: ignore[arg-type]
    DriftStore(home / "data" / "drift").save(made)
    return made


def test_a_drift_alarm_becomes_one_run_of_its_scope_with_its_cause(served: Path):
    report(served, "2022-06-29", since="2022-06-29")
    daemon = Daemon(served, status=dg.DagsterRunStatus.STARTED)
    (run,) = daemon.tick()
    assert run.tags[CAUSE_TAG] == "drift: UNIVERSE since 2022-06-29: a verdict"
    assert run.tags[SCOPE_TAG] == "UNIVERSE"
    assert daemon.tick() == []
    assert daemon.evaluate(drift_sensor).skip_message == f"UNIVERSE: a retrain is in flight ({run.tags[CAUSE_TAG]})"


def test_another_sensor_s_alarm_is_not_its_business(served: Path):
    report(served, "2022-06-29", since="2022-06-29")
    for sensor in (performance_sensor, staleness_sensor, failure_sensor):
        assert Daemon(served).tick(sensor) == []


def test_drift_of_a_model_that_serves_no_longer_asks_for_nothing(served: Path):
    report(served, "2022-06-29", since="2022-06-29", model_version="another")
    data = Daemon(served).evaluate(drift_sensor)
    assert data.run_requests == []
    assert "no drift report of the model in service" in data.skip_message


def test_a_model_is_stale_after_fourteen_days_and_not_before(served: Path, monkeypatch: pytest.MonkeyPatch):
    set_clock(monkeypatch, datetime(2022, 7, 10, 12, tzinfo=NEW_YORK))
    daemon = Daemon(served)
    assert daemon.tick() == [], "14 days old"
    set_clock(monkeypatch, datetime(2022, 7, 11, 12, tzinfo=NEW_YORK))
    (run,) = daemon.tick()
    assert run.tags[CAUSE_TAG] == "staleness: UNIVERSE since 2022-07-11: last trained 15 days ago, the limit is 14"
    set_clock(monkeypatch, datetime(2022, 7, 12, 12, tzinfo=NEW_YORK))
    assert daemon.tick() == []


def test_sensors_say_why_they_are_quiet(project: Path):
    for sensor in RETRAIN_SENSORS:
        message = Daemon(project).evaluate(sensor).skip_message
        assert "UNIVERSE: no drift report of the model in service; no model yet; run weekly_retrain_job once" in message
        assert "AAA: " in message


def test_a_failed_scheduled_retrain_is_tried_again_with_a_limit(served: Path, monkeypatch: pytest.MonkeyPatch):
    daemon = Daemon(served, status=dg.DagsterRunStatus.FAILURE)
    scheduled = daemon.instance.create_run_for_job(
        weekly_retrain_job,
        tags={CAUSE_TAG: "schedule", "signals/requested_at": START.isoformat()},
        status=dg.DagsterRunStatus.FAILURE,
    )
    runs = []
    for minutes in range(0, 600, 30):
        set_clock(monkeypatch, START + timedelta(minutes=minutes))
        runs += daemon.tick()
    name = scheduled.run_id[:8]
    assert [run.tags[CAUSE_TAG] for run in runs] == [
        f"failure: UNIVERSE: run {name} (schedule) failed, retry {n}" for n in (1, 2)
    ]


def test_a_run_that_a_killed_process_left_does_not_block_for_ever(served: Path, monkeypatch: pytest.MonkeyPatch):
    report(served, "2022-06-29", since="2022-06-29")
    daemon = Daemon(served, status=dg.DagsterRunStatus.STARTED)
    daemon.instance.create_run_for_job(weekly_retrain_job, status=dg.DagsterRunStatus.STARTED)
    assert daemon.tick() == []
    monkeypatch.setattr("signals_dagster.retrains.time.time", lambda: datetime.now(UTC).timestamp() + 25 * 3600)
    assert len(daemon.tick()) == 1


@pytest.mark.slow
def test_a_thousand_ticks_under_lasting_drift_are_one_retrain_a_cooldown(
    served: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Four sensors every four hours; the instance is on disk and everything else is made anew at each tick."""
    storage = tmp_path / "instance"
    storage.mkdir()
    moments: list[datetime] = []
    now = START
    for tick in range(250):
        now = START + tick * timedelta(hours=4)
        if tick % 50 == 40:
            now -= timedelta(hours=9)  # the clock is set back for a while
        set_clock(monkeypatch, now)
        report(served, str(now.date()), since="2022-06-29")
        with dg.DagsterInstance.local_temp(str(storage)) as instance:
            moments += [now] * len(Daemon(served, instance).tick())
    assert [(moment - START).days for moment in moments] == [0, 7, 14, 21, 30, 37]


def test_people_are_told_once_of_drift_and_of_its_end(served: Path, slack: Loopback):
    daemon = Daemon(served)
    report(served, "2022-06-28", since="2022-06-28")
    for _ in range(3):
        daemon.tick(alert_sensor)
    report(served, "2022-06-29", since="2022-06-28")
    assert "going on: monitor/UNIVERSE/drift/" in daemon.evaluate(alert_sensor).skip_message
    (first,) = texts(slack, WEBHOOK_PATH)
    assert first.splitlines()[:3] == [
        ":warning: *WARNING · UNIVERSE: features drift*",
        "*Since* 2022-06-28",
        "*Why* a verdict",
    ]
    report(served, "2022-06-30")
    assert daemon.evaluate(alert_sensor).skip_message == "going on: nothing"
    assert texts(slack, WEBHOOK_PATH)[1].startswith(":white_check_mark: *OVER · UNIVERSE: features drift*")


def test_the_gate_s_decision_is_recorded_and_sent_only_if_asked_for(
    served: Path, slack: Loopback, monkeypatch: pytest.MonkeyPatch
):
    Daemon(served).tick(alert_sensor)
    with Workspace(load_settings(served)) as workspace:
        (record,) = workspace.alerts.records()
    assert (record.alert.severity, record.alert.reason) == ("info", "for this test (by library)")
    assert record.alert.title.endswith("-UNIVERSE-tiny is in service")
    assert slack.asked == []
    Daemon(served).tick(alert_sensor)
    assert slack.asked == []


def test_a_decision_is_news_for_two_days_of_the_project_s_clock(served: Path, monkeypatch: pytest.MonkeyPatch):
    with Workspace(load_settings(served)) as workspace:
        (promoted,) = [e for e in workspace.registry.journal() if e.action == "promoted"]
        decided = datetime.fromisoformat(promoted.at)
        assert decided - workspace.now == timedelta(microseconds=1), "the registry goes by the project's clock"
    set_clock(monkeypatch, decided + timedelta(days=2))
    Daemon(served).tick(alert_sensor)
    with Workspace(load_settings(served)) as workspace:
        assert workspace.alerts.records() == []
    set_clock(monkeypatch, decided + timedelta(days=1, hours=23))
    Daemon(served).tick(alert_sensor)
    with Workspace(load_settings(served)) as workspace:
        assert [record.alert.title.rpartition(" is ")[2] for record in workspace.alerts.records()] == ["in service"]


def test_redis_down_is_told_and_so_is_its_return(served: Path, slack: Loopback, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SA_STORES__REDIS_URL", "redis://127.0.0.1:9/0")
    Daemon(served).tick(alert_sensor)
    (down,) = texts(slack, WEBHOOK_PATH)
    assert down.startswith(":rotating_light: *ERROR · Redis: a service is down*")
    monkeypatch.delenv("SA_STORES__REDIS_URL")
    Daemon(served).tick(alert_sensor)
    assert texts(slack, WEBHOOK_PATH)[1].startswith(":white_check_mark: *OVER · Redis: a service is down*")
    with Workspace(load_settings(served)) as workspace:
        kinds = [json.loads(fields["kind"]) for _, fields in workspace.redis.xrange("ml:drift:events")]
    assert kinds == ["alert", "alert", "alert_over"], "down, the gate, up: what happened meanwhile has followed"


def run_context(sensor: dg.SensorDefinition, daemon: Daemon, home: Path, job: dg.JobDefinition, fails: bool):
    """Run a job and call a run status sensor as the daemon would."""
    resources = {"workspace": WorkspaceResource(home=str(home))}
    result = job.execute_in_process(
        instance=daemon.instance, tags={CAUSE_TAG: "schedule"}, raise_on_error=False, resources=resources
    )
    assert result.success != fails
    kind = dg.DagsterEventType.RUN_FAILURE if fails else dg.DagsterEventType.RUN_SUCCESS
    (event,) = [e for e in result.all_events if e.event_type == kind]
    built = dg.build_run_status_sensor_context(
        sensor_name=sensor.name, dagster_instance=daemon.instance, dagster_run=result.dagster_run,
        dagster_event=event, resources=resources,
    )  # fmt: skip
    with built.for_run_failure() if fails else built as context:
        sensor(context)


def test_a_retrain_that_fails_is_told_once_with_the_reason_and_what_serves(served: Path, slack: Loopback):
    for file in (served / "data" / "bars").iterdir():
        file.unlink()
    daemon = Daemon(served)
    for _ in range(2):
        run_context(failed_run_sensor, daemon, served, weekly_retrain_job, fails=True)
    (text,) = texts(slack, WEBHOOK_PATH)
    first, _, why, what = text.splitlines()
    assert first == ":rotating_light: *ERROR · weekly_retrain_job: a run failed*"
    assert why.startswith("*Why* bring_features_up_to_date: MissingPrerequisite: ")
    assert why.endswith("(asked for by: schedule)")
    assert "-UNIVERSE-tiny goes on serving UNIVERSE" in what
    with Workspace(load_settings(served)) as workspace:
        assert workspace.registry.get_active() is not None


def test_a_job_that_works_again_is_told(served: Path, slack: Loopback):
    @dg.job(name="daily_signals_job", resource_defs={"workspace": WorkspaceResource(home=str(served))})
    def works() -> None:
        @dg.op
        def nothing() -> None: ...

        nothing()

    daemon = Daemon(served)
    run_context(recovered_run_sensor, daemon, served, works, fails=False)
    assert slack.asked == [], "it did not fail before"
    for file in (served / "data" / "bars").iterdir():
        file.unlink()
    run_context(failed_run_sensor, daemon, served, daily_signals_job, fails=True)
    run_context(recovered_run_sensor, daemon, served, works, fails=False)
    assert texts(slack, WEBHOOK_PATH)[1].startswith(":white_check_mark: *OVER · daily_signals_job: a run failed*")


def test_bad_data_are_told_by_the_quality_report_and_no_secret_reaches_dagster(
    project: Path, server: Loopback, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Both services refuse, and everything that Dagster keeps of the run is searched."""
    monkeypatch.setenv("SA_ALERTS__CHANNELS", '["slack", "telegram"]')
    monkeypatch.setenv("SA_ALERTS__SLACK_WEBHOOK_URL", f"{server.url}{WEBHOOK_PATH}")
    monkeypatch.setenv("SA_ALERTS__TELEGRAM_TOKEN", TOKEN)
    monkeypatch.setenv("SA_ALERTS__TELEGRAM_CHAT_ID", "1")
    monkeypatch.setenv("SA_ALERTS__TELEGRAM_API", server.url)
    server.script(WEBHOOK_PATH, slack_refusal(404, "no_service"))
    server.script(f"/bot{TOKEN}/sendMessage", telegram_refusal(401, "Unauthorized"))
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [data_quality], instance=instance, resources={"workspace": WorkspaceResource(home=str(project))}
        )
        assert result.success, "a channel that fails stops nothing"
        kept = repr(instance.all_logs(result.run_id)) + repr(instance.get_run_by_id(result.run_id))
    assert len(server.asked) == 2
    with Workspace(load_settings(project)) as workspace:
        records = {r.alert.episode: r for r in workspace.alerts.records()}
        kept += repr(records) + repr(workspace.alerts.problems())
    assert records["data/bars of AAA"].beginning["slack"].problem is not None or "channel/slack" in records
    assert "status 401, Unauthorized" in records["channel/telegram"].alert.reason
    out, err = capfd.readouterr()
    assert [secret for secret in SECRETS if secret in kept + out + err] == []


@pytest.mark.slow
def test_a_cause_goes_from_the_sensor_to_the_run_to_the_manifest_of_its_scope_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    """The retrain of UNIVERSE alone; AAA has no model before and none after."""
    monkeypatch.setenv("SIGNALS_HOME", str(project))
    cause = "drift: UNIVERSE since 2022-06-29: 14 of 55 features drift beyond their own history"
    tags = {CAUSE_TAG: cause, SCOPE_TAG: "UNIVERSE"}
    resources = {"workspace": WorkspaceResource(home=str(project))}
    with dg.DagsterInstance.ephemeral() as instance:
        done = weekly_retrain_job.execute_in_process(instance=instance, tags=tags, resources=resources)
        assert done.success
        trained = instance.get_runs(dg.RunsFilter(job_name="model_job"))
        assert [run.tags[CAUSE_TAG] for run in trained] == [cause]
        windows = instance.get_materialized_partitions(dg.AssetKey("validation_windows"))
        assert {key.partition("|")[2] for key in windows} == {"UNIVERSE"}
    with Workspace(load_settings(project)) as workspace:
        (version,) = workspace.registry.list_versions()
        manifest = json.loads((workspace.models / version.model_path / "manifest.json").read_text())
    assert (version.scope, manifest["scope"], manifest["cause"]) == ("UNIVERSE", "UNIVERSE", cause)
