"""Accounts that follow predictions made out of sample."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from signals_core import steps
from signals_core.errors import MissingPrerequisite
from signals_core.strategy.walk_forward import decide_windows, follow, market_history
from signals_core.workspace import Workspace
from tests.core.strategy.test_targets import rows


@pytest.fixture
def ingested(workspace: Workspace) -> Workspace:
    steps.ingest(workspace, workspace.all_symbols())
    return workspace


def test_a_split_on_a_day_without_a_bar_still_splits_the_shares(ingested: Workspace) -> None:
    bars = ingested.market.load_bars("AAA", adjustment="none").loc["2022-06-01":"2022-06-30"]
    day = date(2022, 6, 1)
    frame = rows(day, {"AAA": 0.1})
    before = follow(ingested, pd.concat([frame, rows(date(2022, 6, 30), {"AAA": 0.1})]), 1).run.backtest
    # Split two for one on a Saturday; from Monday on it trades at half the price.
    action = pd.DataFrame(
        {"symbol": "AAA", "ex_date": pd.Timestamp("2022-06-11"), "kind": "split", "value": 2.0,
         "available_at": pd.Timestamp("2022-06-10 12:00")}, index=[0],
    )  # fmt: skip
    ingested.market.save("corporate_actions", action, ingested.now)
    halved = bars.loc["2022-06-11":][["open", "high", "low", "close"]] / 2
    changed = halved.assign(volume=bars["volume"], symbol="AAA").reset_index()
    ingested.market.save_many_bars(changed, pd.Timestamp("2022-06-30T20:00:00Z").to_pydatetime())
    assert (
        "2022-06-11"
        in market_history(ingested, ["AAA"], day, date(2022, 7, 1)).actions["AAA"]["ex_date"].astype(str).tolist()
    )
    after = follow(ingested, pd.concat([frame, rows(date(2022, 6, 30), {"AAA": 0.1})]), 1).run.backtest
    np.testing.assert_allclose(after.equity_values, before.equity_values, rtol=1e-9)
    assert after.shares[-1, 0] == pytest.approx(2 * before.shares[-1, 0])


def test_windows_are_sized_with_labels_known_before_they_begin(ingested: Workspace) -> None:
    random = np.random.default_rng(0)
    dates = pd.bdate_range("2021-01-04", periods=260).astype("datetime64[us]")
    index = pd.MultiIndex.from_product([["AAA", "BBB"], dates], names=["symbol", "date"])
    frame = pd.DataFrame(index=index).assign(
        label=random.integers(0, 3, len(index)),
        label_end=index.get_level_values("date") + pd.offsets.BusinessDay(5),
        window=np.where(index.get_level_values("date") < pd.Timestamp("2021-08-02"), "2021-01-04", "2021-08-02"),
        calibrated_down=0.3, calibrated_flat=0.3, calibrated_up=0.4,
    )  # fmt: skip
    frame["forward_return"] = (frame["label"] - 1) * 0.03 + random.normal(0, 0.01, len(frame))
    decided = decide_windows(ingested, frame, "v1")
    assert decided["date"].min() == pd.Timestamp("2021-08-02")
    # What was not known at the window's start changes nothing: neither its own labels, nor those that end in it.
    unknown = frame["label_end"] >= pd.Timestamp("2021-08-02")
    other = frame.assign(
        label=frame["label"].where(~unknown, 2), forward_return=frame["forward_return"].where(~unknown, 9.0)
    )
    pd.testing.assert_frame_equal(decide_windows(ingested, other, "v1"), decided)
    known = frame.assign(forward_return=frame["forward_return"].where(unknown, frame["forward_return"] * 2))
    assert not decide_windows(ingested, known, "v1")["expected_return"].equals(decided["expected_return"])


def test_too_few_labels_to_size_with_are_a_refusal(ingested: Workspace) -> None:
    with pytest.raises(MissingPrerequisite, match="no session has predictions to follow"):
        follow(ingested, pd.DataFrame(), 1)
