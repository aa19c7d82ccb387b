"""Digests change exactly when what they cover changes."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals_core.provenance import digest, file_digest, modules_behind, prefix_digests, source_digest
from signals_core.settings import MLSettings
from tests.project.bars import make_bars


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return make_bars("AAA").set_index("date").iloc[:40]


def test_equal_values_have_equal_digests(bars: pd.DataFrame) -> None:
    assert digest(bars, {"b": 1, "a": 2}) == digest(bars.copy(), {"a": 2, "b": 1})
    assert digest(MLSettings()) == digest(MLSettings(prediction_horizon=5))


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.assign(close=b["close"].where(b.index != b.index[7], np.nextafter(b["close"].iloc[7], 1e9))),
        lambda b: b.rename(columns={"close": "shut"}),
        lambda b: b[["close", *b.columns.drop("close")]],
        lambda b: b.set_axis(b.index + pd.Timedelta(days=1), axis=0),
        lambda b: b.iloc[:-1],
        lambda b: b.iloc[::-1],
        lambda b: b.astype("float32"),
    ],
    ids=["one bit of one price", "column name", "column order", "dates", "a row less", "row order", "type"],
)
def test_any_change_of_a_frame_changes_its_digest(bars: pd.DataFrame, change) -> None:  # type: ignore[no-untyped-def]
    assert digest(change(bars)) != digest(bars)


def test_where_one_part_ends_matters() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(["a"], "b") != digest("a", ["b"])


def test_a_changed_setting_changes_the_digest() -> None:
    assert digest(MLSettings()) != digest(MLSettings(prediction_horizon=6))


def test_a_prefix_digest_ignores_later_rows_and_sees_earlier_ones(bars: pd.DataFrame) -> None:
    before = prefix_digests(bars, [10, 20, 40])
    later = bars.assign(close=bars["close"].where(np.arange(40) != 15, 1.0))
    after = prefix_digests(later, [10, 20, 40])
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False]
    assert len(set(before)) == 3
    assert prefix_digests(bars, [10], "spy_bars") != prefix_digests(bars, [10], "bars")


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5).map(sorted))
def test_a_prefix_digest_does_not_depend_on_the_other_prefixes(lengths: list[int]) -> None:
    frame = pd.DataFrame({"x": np.arange(40.0), "y": np.arange(40), "code": list("PS") * 20}, index=pd.RangeIndex(40))
    together = prefix_digests(frame, lengths)
    assert together == [prefix_digests(frame, [length])[0] for length in lengths]


def test_changed_source_changes_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "digested_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    source_digest.cache_clear()
    first = source_digest("digested_package")
    assert "digested_package" not in sys.modules

    (package / "part.py").write_text("A = 2\n")
    source_digest.cache_clear()
    assert source_digest("digested_package") != first
    with pytest.raises(ModuleNotFoundError):
        source_digest("no_such_module_at_all")


def test_a_file_digest_is_the_files_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_computes_an_artifact_is_found_by_its_imports(tmp_path, monkeypatch):
    package = tmp_path / "closure_pkg"
    package.mkdir()
    texts = {
        "__init__": "",
        "first": "from closure_pkg import second\nimport json\n",
        "second": "def later():\n    from closure_pkg.third import value\n    return value\n",
        "third": "from closure_pkg.keeper import kept\nvalue = 1\n",
        "keeper": "from closure_pkg.behind_keeper import kept\n",
        "behind_keeper": "kept = 1\n",
        "unrelated": "from closure_pkg import first\n",
    }
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    found = modules_behind("closure_pkg.first", "closure_pkg.keeper")
    assert found == ("closure_pkg.first", "closure_pkg.second", "closure_pkg.third")
    (package / "third.py").write_text("\nfrom . import unrelated\n")
    with pytest.raises(ValueError, match=r"closure_pkg\.third line 2: write the import with the package's full name"):
        modules_behind("closure_pkg.second")


def test_models_and_signals_depend_on_what_computes_them_alone():
    from signals_core.ml import training, windows
    from signals_core.strategy import ml_strategy

    names = {name.rpartition(".")[2] for name in training.CODE}
    assert {"linear_scores", "calibration", "gate", "judging", "tuning", "sharpe"} <= names
    assert not {"monitoring", "retraining", "registry", "wording", "drift"} & names
    assert "signals_core.ml.linear_scores" in windows.CODE
    decided_by = ("ml.pipeline", "ml.calibrator_state", "ml.target", "features.sectors", "strategy.sizing")
    assert {f"signals_core.{name}" for name in decided_by} <= set(ml_strategy.CODE)
    assert "signals_core.strategy.pictures" not in ml_strategy.CODE
