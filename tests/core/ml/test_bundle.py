import json
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signals_core.errors import BundleError, DataError
from signals_core.ml.bundle import load_bundle, load_model, manifest_text, read_frame, verify_bundle
from signals_core.provenance import file_digest
from tests.core.ml.helpers import FEATURES, flip_byte, make_bundle, tiny_pipeline

FILES = ("booster.ubj", "calibrator.json", "out_of_fold.parquet", "reference.parquet")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path, "v1")


def edit_manifest(bundle: Path, **changes) -> None:
    """With a check that fits, so that what lies behind it is tried."""
    path = bundle / "manifest.json"
    path.write_text(manifest_text({**json.loads(path.read_text()), **changes}))


def test_a_loaded_model_predicts_exactly_what_the_written_one_did(bundle):
    pipeline, rows = tiny_pipeline()
    model = load_bundle(bundle)
    calibrated = model.calibrator.predict_proba(pipeline.predict(rows))
    assert np.array_equal(model.predict_proba(rows), calibrated)
    assert (model.version_id, model.features) == ("v1", list(FEATURES))
    assert np.abs(calibrated.sum(axis=1) - 1).max() < 1e-12


def test_stored_frames_come_back_by_symbol_and_date(bundle):
    _, rows = tiny_pipeline()
    pd.testing.assert_frame_equal(read_frame(bundle, "reference"), rows, check_freq=False)
    assert read_frame(bundle, "out_of_fold").index.names == ["symbol", "date"]


@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_refused_by_the_file_s_name(bundle, name, where):
    size = (bundle / name).stat().st_size
    flip_byte(bundle / name, {"first": 0, "middle": size // 2, "last": size - 1}[where])
    with pytest.raises(BundleError, match=rf"v1/{name} was altered"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused_by_its_name(bundle, name):
    path = bundle / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BundleError, match=rf"v1/{name} was altered"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_its_name(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"v1/{name} is missing"):
        load_bundle(bundle)


def test_a_missing_manifest_is_refused_by_its_name(bundle):
    (bundle / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"v1/manifest\.json cannot be read"):
        load_bundle(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00"])
def test_a_manifest_that_is_no_json_object_is_refused(bundle, content):
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"v1/manifest\.json"):
        load_bundle(bundle)


def test_a_format_from_the_future_is_refused_with_both_numbers(bundle):
    edit_manifest(bundle, format=3)
    with pytest.raises(BundleError, match=r"format 3; this version of signals reads 2"):
        load_bundle(bundle)


def test_a_bundle_of_the_first_format_is_still_read(bundle):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["check"]
    path.write_text(json.dumps({**manifest, "format": 1}, indent=1, sort_keys=True))
    assert load_bundle(bundle).version_id == "v1"
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True))
    with pytest.raises(BundleError, match=r"manifest\.json was altered"):
        load_bundle(bundle)
    path.write_text(json.dumps({**manifest, "format": True}))
    with pytest.raises(BundleError, match="format True"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["out_of_fold", "reference"])
def test_a_table_is_verified_when_it_is_read_and_a_model_without_it(bundle, name):
    _, rows = tiny_pipeline()
    before = load_bundle(bundle).predict_proba(rows)
    flip_byte(bundle / f"{name}.parquet")
    assert np.array_equal(load_model(bundle).predict_proba(rows), before)
    with pytest.raises(BundleError, match=rf"v1/{name}\.parquet was altered"):
        read_frame(bundle, name)
    (bundle / f"{name}.parquet").unlink()
    with pytest.raises(BundleError, match=rf"v1/{name}\.parquet is missing"):
        read_frame(bundle, name)


@pytest.mark.parametrize(
    "name", ["manifest.json", *FILES[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in FILES[2:])]
)
def test_every_changed_byte_is_refused_by_the_file_s_name(bundle, name):
    with (bundle / name).open("r+b", buffering=0) as file:
        for position, byte in enumerate(file.read()):
            os.pwrite(file.fileno(), bytes([byte ^ 0x01]), position)
            with pytest.raises(BundleError, match=name):
                verify_bundle(bundle)
            os.pwrite(file.fileno(), bytes([byte]), position)
    load_bundle(bundle)


def test_a_file_that_the_manifest_does_not_know_is_refused(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["files"]["booster.ubj"]
    edit_manifest(bundle, files=manifest["files"])
    with pytest.raises(BundleError, match=r"booster\.ubj was altered"):
        load_bundle(bundle)


@pytest.mark.parametrize("features", [["rsi_14", "macd_pct", "roc_10_sessions"], list(reversed(FEATURES)), []])
def test_renamed_or_reordered_features_are_refused(bundle, features):
    edit_manifest(bundle, features=features)
    with pytest.raises(BundleError, match="lists other features than the booster was trained on"):
        load_bundle(bundle)


def test_rows_without_a_feature_of_the_model_are_refused_by_its_name(bundle):
    _, rows = tiny_pipeline()
    with pytest.raises(DataError, match="macd_pct"):
        load_bundle(bundle).predict_proba(rows.drop(columns="macd_pct"))


@pytest.mark.parametrize("changes", [{"prior": [0.8, 0.1, 0.1]}, {"class_weighting": "none"}])
def test_a_manifest_that_changes_what_the_model_says_is_refused(bundle, changes):
    _, rows = tiny_pipeline()
    before = load_bundle(bundle).predict_proba(rows)
    edit_manifest(bundle, **changes)
    try:
        after = load_bundle(bundle).predict_proba(rows)
    except BundleError:
        return
    assert np.array_equal(after, before)


@pytest.mark.parametrize("key", ["prior", "class_weighting", "features"])
def test_a_manifest_that_lacks_a_key_is_refused_as_a_damaged_bundle(bundle, key):
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest[key]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError):
        load_bundle(bundle)


def test_a_version_is_never_overwritten(tmp_path):
    folder = make_bundle(tmp_path, "v1")
    before = {path.name: file_digest(path) for path in folder.iterdir()}
    with pytest.raises(FileExistsError):
        make_bundle(tmp_path, "v1", seed=1)
    assert {path.name: file_digest(path) for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_the_bomb_of_the_next_test_goes_off_when_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["booster.pkl", "calibrator.pickle", "model.joblib", *FILES, "manifest.json"])
def test_a_pickle_in_the_folder_is_never_executed(bundle, tmp_path, name):
    exploded = tmp_path / "exploded"
    (bundle / name).write_bytes(pickle.dumps(_Bomb(exploded)))
    if name in FILES:  # even one whose digest the manifest was made to agree with
        manifest = json.loads((bundle / "manifest.json").read_text())
        edit_manifest(bundle, files={**manifest["files"], name: file_digest(bundle / name)})
    refused = False
    try:
        load_bundle(bundle)
    except Exception:  # noqa: BLE001 - whatever it says, it must not run
        refused = True
    for frame in ("out_of_fold", "reference"):
        if name == f"{frame}.parquet":
            with pytest.raises(Exception, match=r"(?i)parquet"):
                read_frame(bundle, frame)
    assert not exploded.exists()
    assert refused == (name in ("booster.ubj", "calibrator.json", "manifest.json"))


def test_a_bundle_holds_no_pickle(bundle):
    assert sorted(path.name for path in bundle.iterdir()) == sorted([*FILES, "manifest.json"])
    assert not [path.name for path in bundle.iterdir() if path.read_bytes()[:1] == b"\x80"]


def test_verifying_a_sound_bundle_returns_its_manifest(bundle):
    manifest = verify_bundle(bundle)
    assert (manifest["version_id"], manifest["format"], sorted(manifest["files"])) == ("v1", 2, sorted(FILES))
