from datetime import UTC, datetime
from pathlib import Path

import pytest

from signals_core.errors import BundleError
from signals_core.ml.journal import Event, append_event, find_version
from signals_core.ml.version_diff import ABSENT, Difference, compare, compare_versions
from tests.core.ml.helpers import flip_byte, make_bundle

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def test_only_what_differs_is_listed_by_its_dotted_name():
    first = {"ml": {"train_months": 24, "horizon": 5}, "features": ["a", "b", "c"], "rounds": 7, "gain": float("nan")}
    second = {"ml": {"train_months": 36, "horizon": 5}, "features": ["a", "d", "c"], "gain": float("nan"), "new": 1}
    assert compare(first, second) == [
        Difference("features (only in one)", ["b"], ["d"]),
        Difference("ml.train_months", 24, 36),
        Difference("new", ABSENT, 1),
        Difference("rounds", 7, ABSENT),
    ]
    assert compare(first, first) == []


def test_the_order_of_features_is_a_difference():
    assert compare({"f": ["a", "b"]}, {"f": ["b", "a"]}) == [Difference("f (order)", ["a", "b"], ["b", "a"])]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version, changes in (("v1", {}), ("v2", {"seed": 1, "rounds": 9, "columns": ("rsi_14", "macd_pct", "new")})):
        make_bundle(tmp_path, version, **changes)
        evidence = {"model_path": version, "created_at": "c", "digest": version, "inputs": "i", "metrics": {"x": 1}}
        append_event(tmp_path, Event("registered", version, "UNIVERSE", NOW.isoformat(), "t", "r", evidence))
    return tmp_path


def test_two_versions_are_compared_by_their_manifests(models):
    versions = [find_version(models, name) for name in ("v1", "v2")]
    found = {d.what: (d.first, d.second) for d in compare_versions(models, *versions)}
    assert found["features (only in one)"] == (["roc_10"], ["new"])
    assert found["rounds"] == (ABSENT, 9)
    assert found["inputs"] == ("inputs-v1", "inputs-v2")
    assert {"digest", "prior"} <= {what.partition(".")[0].split(" ")[0] for what in found}
    assert not {"scope", "as_of", "version_id", "check", "files"} & set(found)
    assert compare_versions(models, versions[0], versions[0]) == []


def test_of_a_retired_version_the_journal_is_compared(models):
    append_event(models, Event("retired", "v1", "UNIVERSE", NOW.isoformat(), "t", "r"))
    versions = [find_version(models, name) for name in ("v1", "v2")]
    assert {d.what for d in compare_versions(models, *versions)} >= {"digest", "retired"}


def test_a_damaged_manifest_is_not_compared(models):
    flip_byte(models / "v2" / "manifest.json")
    with pytest.raises(BundleError, match="v2/manifest"):
        compare_versions(models, *(find_version(models, name) for name in ("v1", "v2")))
