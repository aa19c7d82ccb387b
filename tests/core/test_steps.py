"""Steps of the main job on the tests' project."""

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from signals_core import steps
from signals_core.errors import MissingPrerequisite
from signals_core.features.catalog import feature_names
from signals_core.settings_loading import LoadedSettings, load_settings
from signals_core.workspace import Workspace

FRIDAY = date(2022, 7, 1)
"""The last session that has closed at `clock.as_of`, a Sunday."""


def test_the_symbols_with_bars_are_the_tickers_and_what_they_are_measured_against(workspace: Workspace) -> None:
    assert workspace.all_symbols() == ["AAA", "BBB", "SPY", "XLK", "^VIX"]


def test_the_last_day_is_the_last_session_with_bars(workspace: Workspace) -> None:
    steps.ingest(workspace, ["AAA"])
    assert steps.last_day(workspace) == FRIDAY


def test_the_last_day_lies_before_the_end_of_the_partitions(project: Path) -> None:
    with Workspace(load_settings(project, environ={"SA_PARTITIONS__END": "2022-06-15"})) as workspace:
        steps.ingest(workspace, ["AAA"])
        assert steps.last_day(workspace) == date(2022, 6, 14)


@pytest.mark.parametrize("step", [steps.last_day, steps.build_features_and_target])
def test_without_bars_a_step_says_what_to_run(workspace: Workspace, step) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MissingPrerequisite, match="run `signals ingest`"):
        step(workspace)


def test_features_and_labels_of_every_ticker_with_bars_are_built_once(loaded: LoadedSettings) -> None:
    with Workspace(loaded) as workspace:
        steps.ingest(workspace, ["BBB", "SPY"])
        ((features, target),) = steps.build_features_and_target(workspace)
        sessions = workspace.bars("BBB").index
    assert (features.symbol, target.symbol) == ("BBB", "BBB")
    assert list(features.frame.columns) == feature_names()
    pd.testing.assert_index_equal(features.frame.index, sessions, check_names=False)
    # The last five sessions' returns over `prediction_horizon` lie in the future.
    assert (target.frame["label"] < 0).tolist() == [False] * (len(sessions) - 5) + [True] * 5

    with Workspace(loaded) as workspace:
        ((again, labels),) = steps.build_features_and_target(workspace)
    assert (again.computed, labels.computed) == ((), ())
    assert again.reused == features.computed[-1:] == ("2022-07",)
    pd.testing.assert_frame_equal(again.frame, features.frame.loc["2022-07":])
    pd.testing.assert_frame_equal(labels.frame, target.frame.loc["2022-07":])
