"""A model's prepared reference is made once, kept beside the reports, and worth what a fresh one is."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from signals_core.errors import BundleError
from signals_core.ml import drift_references
from signals_core.ml.bundle import load_model
from signals_core.ml.drift import Reference
from signals_core.ml.drift_references import prepared_reference
from signals_core.ml.monitoring import ModelMonitor
from tests.core.ml.helpers import FEATURES, make_bundle

MONITOR = ModelMonitor()


@pytest.fixture
def rows():
    dates = pd.bdate_range("2021-01-04", periods=300, name="date", unit="us")
    index = pd.MultiIndex.from_product([["AAA", "BBB"], dates], names=["symbol", "date"])
    random = np.random.default_rng(0)
    values = random.standard_normal((len(index), len(FEATURES)), dtype="float32")
    values[random.random(values.shape) < 0.02] = np.nan
    return pd.DataFrame(values, index, list(FEATURES))


def bundle_of(tmp_path, rows, version="v1", **manifest):
    bundle = make_bundle(tmp_path / "models", version, reference=rows, columns=FEATURES, **manifest)
    return bundle, load_model(bundle)


def flipped(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


def test_what_is_kept_is_what_was_prepared(tmp_path, rows):
    bundle, model = bundle_of(tmp_path, rows)
    made = prepared_reference(tmp_path / "kept", bundle, model, MONITOR)
    kept = prepared_reference(tmp_path / "kept", bundle, model, MONITOR)
    assert kept is not made
    assert kept.names == made.names == list(FEATURES)
    assert (kept.first, kept.rows) == (made.first, made.rows) == (np.datetime64("2021-01-04"), 600)
    for name in ("edges", "valid", "varied", "low", "high", "used", "shares"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(made, name))
        assert getattr(kept, name).dtype == getattr(made, name).dtype
    for field in fields(made.counts):
        np.testing.assert_array_equal(getattr(kept.counts, field.name), getattr(made.counts, field.name))
    pd.testing.assert_frame_equal(kept.levels, made.levels, check_column_type=False, check_index_type=False)
    recent = rows.iloc[-40:] + 1
    assert MONITOR.compare(kept, recent) == MONITOR.compare(rows, recent)


def test_the_training_rows_are_read_once(tmp_path, rows, monkeypatch):
    bundle, model = bundle_of(tmp_path, rows)
    prepared_reference(tmp_path / "kept", bundle, model, MONITOR)
    monkeypatch.setattr(drift_references, "read_frame", lambda *_: pytest.fail("the rows are read again"))
    prepared_reference(tmp_path / "kept", bundle, model, MONITOR)


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:1000], lambda whole: whole[:-1], flipped])
def test_a_damaged_file_is_made_anew(tmp_path, rows, damage):
    bundle, model = bundle_of(tmp_path, rows)
    made = prepared_reference(tmp_path / "kept", bundle, model, MONITOR)
    (path,) = (tmp_path / "kept").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = prepared_reference(tmp_path / "kept", bundle, model, MONITOR)
    np.testing.assert_array_equal(again.edges, made.edges)
    assert path.read_bytes() == whole


def test_other_rows_or_columns_are_another_reference(tmp_path, rows):
    bundle, model = bundle_of(tmp_path, rows)
    first = prepared_reference(tmp_path / "kept", bundle, model, MONITOR)
    other_bundle, other = bundle_of(tmp_path / "other", rows * 2, inputs="others")
    assert prepared_reference(tmp_path / "kept", other_bundle, other, MONITOR).edges == pytest.approx(first.edges * 2)
    chosen = MONITOR.features[FEATURES[0]]
    without = ModelMonitor(features={**MONITOR.features, FEATURES[0]: replace(chosen, calendar=True)})
    assert prepared_reference(tmp_path / "kept", bundle, model, without).names == list(FEATURES[1:])


def test_a_bundle_without_its_rows_is_refused(tmp_path, rows):
    bundle, model = bundle_of(tmp_path, rows)
    for path in bundle.glob("reference*"):
        path.unlink()
    with pytest.raises(BundleError, match="reference"):
        prepared_reference(tmp_path / "kept", bundle, model, MONITOR)


def test_a_reference_is_of_the_columns_asked_for(rows):
    assert Reference.of(rows, FEATURES[:2]).names == list(FEATURES[:2])
