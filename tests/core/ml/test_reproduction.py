"""A registered model trained again on the tests' project."""

import json

import numpy as np
import pytest

from signals_core.errors import MissingPrerequisite
from signals_core.ml import reproduction
from signals_core.ml.bundle import manifest_text
from signals_core.ml.reproduction import reproduce
from signals_core.workspace import Panel


def real_manifest(workspace, version) -> dict:
    return json.loads((workspace.models / version.model_path / "manifest.json").read_text())


@pytest.fixture
def version(trained, open_workspace):
    workspace = open_workspace(trained)
    return workspace, workspace.registry.get_active("AAA")


def test_a_model_trained_again_has_the_same_digest_whatever_the_settings_are_now(version, trained, open_workspace):
    workspace, active = version
    before = (workspace.models / "journal.jsonl").read_bytes()
    found = reproduce(workspace, active.version_id)
    assert (found.same, found.registered, found.differences) == (True, active.digest, [])
    other = open_workspace(trained, SA_ML__TRAIN_MONTHS="12", SA_TUNING__SEED="99")
    assert reproduce(other, active.version_id).same
    assert (workspace.models / "journal.jsonl").read_bytes() == before


def test_what_differs_is_named_where_the_digest_does(version, monkeypatch):
    workspace, active = version
    real = reproduction.training_rows

    def altered(*arguments) -> Panel:
        panel = real(*arguments)
        features, target = panel.features.copy(), panel.target.copy()
        column = real_manifest(workspace, active)["features"][0]
        features.iloc[7:9, features.columns.get_loc(column)] += np.float32(100)
        target.iloc[20, target.columns.get_loc("label")] = 2 - target["label"].iloc[20] or 1
        return Panel(features.iloc[1:], target.iloc[1:])

    monkeypatch.setattr(reproduction, "training_rows", altered)
    found = reproduce(workspace, active.version_id)
    assert not found.same
    what = [difference.what for difference in found.differences]
    assert what[0] == "training rows (only in one)"
    assert ": 2 of " in what[1]
    assert "the first AAA" in what[1]
    assert what[2] == "labels"
    assert len(what) == 3


def test_a_feature_that_is_gone_is_named_and_nothing_is_trained(version, monkeypatch):
    workspace, active = version
    real, gone = reproduction.training_rows, None

    def without(*arguments) -> Panel:
        nonlocal gone
        panel = real(*arguments)
        gone = real_manifest(workspace, active)["features"][0]
        return Panel(panel.features.drop(columns=gone), panel.target)

    monkeypatch.setattr(reproduction, "training_rows", without)
    found = reproduce(workspace, active.version_id)
    assert (found.reproduced, found.same) == (None, False)
    assert [(d.what, d.first) for d in found.differences] == [("features", [gone])]


def test_another_library_or_code_is_named(version):
    workspace, active = version
    path = workspace.models / active.model_path / "manifest.json"
    manifest = json.loads(path.read_text())
    libraries = {**manifest["libraries"], "xgboost": "1.0"}
    path.write_text(manifest_text({**manifest, "libraries": libraries, "code": "other"}))
    found = reproduce(workspace, active.version_id)
    assert found.same  # neither changed the numbers here, and both are said
    assert [(d.what, d.first) for d in found.differences] == [("code", "other"), ("libraries.xgboost", "1.0")]


def test_an_unknown_version_is_refused(version):
    with pytest.raises(MissingPrerequisite, match="no model version v9"):
        reproduce(version[0], "v9")
