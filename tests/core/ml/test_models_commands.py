"""`signals models …` on a registry of small bundles; what reads the journal alone is run with Redis out of reach."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from signals_core.cli import app
from signals_core.errors import MissingPrerequisite, ServiceDown, SettingsError
from signals_core.settings_loading import load_settings
from signals_core.workspace import Workspace
from tests.core.ml.helpers import make_bundle


@pytest.fixture
def home(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """v1, then v2 in service; v0 was rejected, and so was the newest, v3."""
    monkeypatch.setenv("SIGNALS_HOME", str(project))
    with Workspace(load_settings(project, environ={})) as workspace:
        for seed, name in enumerate(("v0", "v1", "v2", "v3")):
            make_bundle(workspace.models, name, seed=seed, rounds=seed)
            workspace.registry.register(name, workspace.models / name, {"log_loss": 1.0, "prior_log_loss": 1.1})
        workspace.registry.reject("v0", "worse [by far]")
        workspace.registry.promote("v1", "first")
        workspace.registry.promote("v2", "better")
        workspace.registry.reject("v3", "worse")
    return project


def models(*arguments: str, code: int = 0):
    done = CliRunner().invoke(app, ["models", *arguments], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


@pytest.fixture
def no_redis(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SA_STORES__REDIS_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(ServiceDown):
        models("list")


@pytest.mark.usefixtures("no_redis")
def test_the_log_is_read_without_redis():
    events = models("log", "--json")
    assert [(e["action"], e["version_id"]) for e in events][4:] == [
        ("rejected", "v0"),
        ("promoted", "v1"),
        ("promoted", "v2"),
        ("rejected", "v3"),
    ]
    assert models("log", "--scope", "AAA", "--json") == []
    assert "worse [by far]" in models("log")


@pytest.mark.usefixtures("no_redis")
def test_who_served_when_is_read_without_redis(home: Path):
    assert [v["version_id"] for v in models("active", "--json")] == ["v2"]
    assert "v2" in models("active")
    first = next(e for e in models("log", "--json") if e["version_id"] == "v1" and e["action"] == "promoted")
    assert [v["version_id"] for v in models("active", "--at", first["at"], "--json")] == ["v1"]
    assert models("active", "--at", "2020-01-01T12:00", "--json", code=4) == []
    with pytest.raises(SettingsError, match="--at noon"):
        models("active", "--at", "noon")


@pytest.mark.usefixtures("home")
def test_a_moment_without_an_offset_is_in_the_exchange_s_time_zone(home: Path):
    from zoneinfo import ZoneInfo

    from signals_core.cli.models import _moment

    assert _moment("2026-03-02T12:00", "America/New_York").astimezone(ZoneInfo("UTC")).hour == 17
    assert _moment("2026-07-02T12:00", "America/New_York").astimezone(ZoneInfo("UTC")).hour == 16
    assert _moment("2026-03-02T12:00+00:00", "America/New_York").astimezone(ZoneInfo("UTC")).hour == 12


@pytest.mark.usefixtures("no_redis")
def test_two_versions_are_compared_without_redis():
    found = {d["what"]: (d["first"], d["second"]) for d in models("diff", "v1", "v2", "--json")}
    assert found["rounds"] == (1, 2)
    assert "scope" not in found
    assert "rounds" in models("diff", "v1", "v2")
    assert models("diff", "v1", "v1", "--json") == []
    with pytest.raises(MissingPrerequisite, match="no model version v9"):
        models("diff", "v1", "v9")


@pytest.mark.usefixtures("home")
def test_promote_rollback_and_rebuild():
    assert models("promote", "v3", "--reason", "I insist", "--json")["decision"] == "promoted: I insist"
    assert models("rollback", "--json")["version_id"] == "v2"
    assert "v1 is in service" in models("rollback", "v1")
    last = models("log", "--json")[-1]
    assert (last["action"], last["by"]) == ("rolled_back", "command line")
    assert models("rebuild", "--json") == {"events": 11}


def test_prune_uses_the_setting_and_keeps_what_served(home: Path, monkeypatch: pytest.MonkeyPatch):
    assert models("prune", "--json") == []
    monkeypatch.setenv("SA_REGISTRY__KEEP_VERSIONS", "1")
    assert [v["version_id"] for v in models("prune", "--json")] == ["v0"]
    assert [v["version_id"] for v in models("list", "--json") if v["retired"]] == ["v0"]
    assert sorted(p.name for p in (home / "models").iterdir() if p.is_dir()) == ["v1", "v2", "v3"]
