"""A user's own features: defined with a decorator, stored and watched like the others, refused with a reason."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from signals_core.errors import DataError, SettingsError
from signals_core.feature_store import FeatureStore
from signals_core.features.catalog import CATEGORIES
from signals_core.features.custom import CustomFeature, feature, load_features
from signals_core.features.inputs import FeatureInputs
from signals_core.features.leakage import cut_inputs, find_leaks
from signals_core.market_data.store import MarketStore
from tests.core.whole_market import SESSIONS, bars_of, provider_of
from tests.project.bars import make_bars

SPAN = (date(2019, 1, 1), date(2019, 7, 1))

HONEST = '''
from signals_core.features.custom import feature


@feature("jump_3", category="technical", unit="return", warm_up=3, lookback=3)
def jump_3(inputs):
    """Close over the close three sessions before, less one."""
    return inputs.bars["close"] / inputs.bars["close"].shift(3) - 1
'''
LEAKY = '''

@feature("rank_in_history", category="cross_asset", unit="0..1", needs=["vix_bars"])
def rank_in_history(inputs):
    """The share of all closes that are lower."""
    return inputs.bars["close"].rank(pct=True)
'''


@pytest.fixture
def bars() -> pd.DataFrame:
    return bars_of("SPY").iloc[:300]


def one(compute: Callable[[FeatureInputs], Any], **options: Any) -> CustomFeature:
    """A feature called `own` of a function, with what a definition cannot do without."""
    return feature("own", **{"category": "technical", "unit": "ratio", "formula": "x", **options})(compute)


# -- definition --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Own", "own feature", "1st", "own-feature", "", "own.x"])
def test_a_name_that_is_no_column_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="a name is lower-case letters, digits and underscores"):
        feature(name, category="technical", unit="ratio")


@pytest.mark.parametrize("name", ["date", "symbol", "year"])
def test_a_name_that_the_stored_files_use_themselves_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"feature {name}: "):
        feature(name, category="technical", unit="ratio")


def test_an_unknown_category_or_need_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(SettingsError, match=r"feature own: category 'momentum' is not one of technical, fundamental"):
        one(lambda inputs: inputs.bars["close"], category="momentum")
    with pytest.raises(SettingsError, match=r"feature own: needs news; there are bars, spy_bars, vix_bars"):
        one(lambda inputs: inputs.bars["close"], needs=["news"])


def test_a_feature_without_a_formula_is_refused() -> None:
    with pytest.raises(SettingsError, match="feature own: give it a formula, or the function a docstring"):
        one(lambda inputs: inputs.bars["close"], formula=None)


def test_a_warm_up_longer_than_what_it_reads_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"feature own: .*lookback"):
        one(lambda inputs: inputs.bars["close"], warm_up=20, lookback=5)


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    taken = feature("rsi_14", category="temporal", unit="x", formula="x")(lambda inputs: inputs.bars["close"])
    with pytest.raises(SettingsError, match="two features are called 'rsi_14': rename one of them"):
        FeatureStore(tmp_path, custom=[taken])


# -- computation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compute", "problem"),
    [
        (lambda inputs: inputs.bars["close"].iloc[1:], "its index is not that of inputs.bars; reindex it"),
        (lambda inputs: inputs.bars["close"].iloc[::-1], "its index is not that of inputs.bars; reindex it"),
        (lambda inputs: inputs.bars["close"].reset_index(drop=True), "its index is not that of inputs.bars"),
        (lambda inputs: np.zeros(len(inputs.bars) - 1), r"\(299,\) values for 300 bars; return one a bar"),
        (lambda inputs: inputs.bars[["close", "open"]], r"\(300, 2\) values for 300 bars; return one a bar"),
        (lambda inputs: 1.0, r"\(\) values for 300 bars"),
        (lambda inputs: None, r"\(\) values for 300 bars|no numbers"),
        (lambda inputs: ["high"] * len(inputs.bars), "its values are no numbers"),
        (lambda inputs: inputs.bars.index, "its values are no numbers"),
    ],
)
def test_what_is_not_one_number_a_bar_is_refused_by_name(
    bars: pd.DataFrame, compute: Callable[[FeatureInputs], Any], problem: str
) -> None:
    with pytest.raises(DataError, match=f"feature own: {problem}"):
        one(compute).calculate(FeatureInputs(bars))


def test_infinities_are_missing_and_an_array_or_integers_will_do(bars: pd.DataFrame) -> None:
    found = one(lambda inputs: np.arange(len(inputs.bars))).calculate(FeatureInputs(bars))
    assert found["own"].tolist() == list(range(300))
    assert found["own"].dtype == "float64"
    with np.errstate(divide="ignore"):
        found = one(lambda inputs: 1 / np.arange(len(inputs.bars))).calculate(FeatureInputs(bars))
    assert list(np.flatnonzero(found["own"].isna())) == [0]


def test_the_decorated_function_can_be_called_by_another(bars: pd.DataFrame) -> None:
    double = one(lambda inputs: inputs.bars["close"] * 2)
    square = feature("square", category="technical", unit="x", formula="x")(lambda inputs: double(inputs) ** 2)
    found = square.calculate(FeatureInputs(bars))["square"]
    np.testing.assert_array_equal(found, (bars["close"] * 2) ** 2)


def test_a_feature_is_given_what_it_needs_and_nothing_else(market: MarketStore, tmp_path: Path) -> None:
    given: dict[str, set[str]] = {}

    def own(name: str, *needs: Any) -> CustomFeature:
        def compute(inputs: FeatureInputs) -> pd.Series:
            given[name] = {key for key, frame in inputs.items() if frame is not None}
            return inputs.bars["close"]

        return feature(name, category="temporal", unit="x", formula="x", needs=needs)(compute)

    everything = tuple(name for name in FeatureInputs.names() if name != "bars")
    wanted = [own("none"), own("some", "vix_bars", "short_interest"), own("all_of_them", *everything)]
    FeatureStore(tmp_path, custom=wanted).compute(provider_of(market).inputs("BB"), ["temporal"])
    assert given == {
        "none": {"bars"}, "some": {"bars", "vix_bars", "short_interest"}, "all_of_them": set(FeatureInputs.names()),
    }  # fmt: skip


def test_only_what_it_needs_makes_its_category_stale(market: MarketStore, tmp_path: Path) -> None:
    own = feature("own", category="temporal", unit="x", formula="x", needs=["vix_bars"])(lambda i: i.bars["close"])
    store = FeatureStore(tmp_path, custom=[own])
    inputs = provider_of(market).inputs("BB")
    store.build_category("temporal", "BB", inputs, *SPAN)
    later = provider_of(market, SESSIONS[-1]).inputs("BB")
    assert store.build_category("temporal", "BB", later, *SPAN).computed == ()
    changed = inputs.only(["fundamentals", "vix_bars"])
    assert store.build_category("temporal", "BB", changed, *SPAN).computed == ()
    assert store.build_category("temporal", "BB", inputs.only(["fundamentals"]), *SPAN).computed != ()


def test_a_leak_in_a_users_feature_is_found_and_an_honest_one_is_not(market: MarketStore, tmp_path: Path) -> None:
    leaky = one(lambda inputs: inputs.bars["close"].shift(-1))
    mean = one(lambda inputs: inputs.bars["close"] / inputs.bars["close"].mean())
    honest = one(lambda inputs: inputs.bars["close"].expanding().mean())
    inputs = provider_of(market).inputs("BB")
    for own, expected in ((leaky, 1), (mean, 1), (honest, 0)):
        store = FeatureStore(tmp_path, custom=[own])
        values = store.compute(inputs, ["technical"])

        def at(cut: pd.Timestamp, store: FeatureStore = store) -> pd.DataFrame:
            return store.compute(cut_inputs(inputs, cut, "XNYS"), ["technical"])

        found = find_leaks("BB", values, at, [SESSIONS[200]])
        assert [leak.feature for leak in found] == ["own"] * expected


# -- modules -----------------------------------------------------------------------------------------------


def write_module(folder: Path, name: str, text: str) -> None:
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "cannot import 'own_bad': No module named 'own_bad'"),
        ("import nowhere_at_all", "cannot import 'own_bad': No module named 'nowhere_at_all'"),
        ("def broken(:", "cannot import 'own_bad': .*own_bad.py, line 1"),
        ("x = 1", "own_bad defines no feature: decorate a function with @feature"),
    ],
)
def test_a_module_that_is_no_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, problem: str
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    if text is not None:
        write_module(tmp_path, "own_bad", text)
    monkeypatch.delitem(sys.modules, "own_bad", raising=False)
    with pytest.raises(SettingsError, match=f"features.modules: {problem}"):
        load_features(["own_bad"], tmp_path)
    sys.modules.pop("own_bad", None)


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SIGNALS_HOME": str(home)}
    command = [sys.executable, "-m", "signals_core.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=home)


def computed(home: Path) -> int:
    done = run(home, "features", "--json")
    assert done.returncode == 0, done.stderr
    return sum(row["months_computed"] for row in json.loads(done.stdout))


@pytest.fixture
def with_modules(project: Path) -> Path:
    """A project whose settings name a module of its own, in a package with a helper beside it."""
    universe = project / "config" / "universe.yaml"
    universe.write_text(universe.read_text().replace("[AAA, BBB]", "[AAA]") + "features:\n  modules: [own.momentum]\n")
    write_module(project, "own.__init__", "")
    write_module(project, "own.tools", "SESSIONS = 3\n")
    text = HONEST.replace("\n\n\n@feature", "\nfrom own.tools import SESSIONS\n\n\n@feature", 1)
    write_module(project, "own.momentum", text.replace("shift(3)", "shift(SESSIONS)"))
    assert run(project, "ingest").returncode == 0
    return project


@pytest.mark.slow
def test_a_users_module_from_definition_to_leak(with_modules: Path) -> None:
    """Listed, computed, stored, described; stale with its source and with its helper's; searched for lookahead."""
    home = with_modules
    listed = {row["name"]: row for row in json.loads(run(home, "features", "list", "--json").stdout)}
    assert listed["jump_3"]["formula"] == "Close over the close three sessions before, less one."
    months = computed(home)
    assert months == 31
    assert computed(home) == 0
    shown = json.loads(run(home, "features", "show", "jump_3", "--json").stdout)
    assert (shown["source"], shown["stored"][0]["rows"]) == ("own.momentum", len(make_bars("AAA")))

    write_module(home, "own.tools", "SESSIONS = 2 + 1  # a helper of the feature changed\n")
    assert computed(home) == months

    assert run(home, "check", "leakage", "--feature", "jump_3", "--cuts", "3").returncode == 0
    module = home / "own" / "momentum.py"
    module.write_text(module.read_text() + LEAKY)
    done = run(home, "check", "leakage", "--feature", "jump_3", "--feature", "rank_in_history", "--json")
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert {leak["feature"] for leak in found["leaks"]} == {"rank_in_history"}
    assert found["features"] == ["jump_3", "rank_in_history"]
    unknown = run(home, "check", "leakage", "--feature", "nonsense")
    assert unknown.returncode == 2
    assert "no feature is called nonsense" in unknown.stderr + unknown.stdout


def test_stored_months_of_other_modules_are_not_served(tmp_path: Path, bars: pd.DataFrame) -> None:
    """With a feature more, or one less, the matrix of before is no hit."""
    inputs = FeatureInputs(bars)
    span = (date(2018, 6, 1), date(2019, 1, 1))
    plain = FeatureStore(tmp_path)
    for category in CATEGORIES:
        plain.build_category(category, "SPY", inputs, *span)
    plain.build_matrix("SPY", *span)
    assert plain.load("SPY", *span) is not None
    own = FeatureStore(tmp_path, custom=[one(lambda i: i.bars["close"])])
    assert own.load("SPY", *span) is None


def test_a_feature_of_a_script_or_notebook_cannot_be_stored(tmp_path: Path) -> None:
    def own(inputs: FeatureInputs) -> pd.Series:
        return inputs.bars["close"]

    own.__module__ = "__main__"
    with pytest.raises(SettingsError, match="feature own: put it into a module"):
        FeatureStore(tmp_path, custom=[one(own)])
