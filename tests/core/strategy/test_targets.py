"""What the stored signals ask for is what the backtest would order."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from signals_core import steps
from signals_core.errors import MissingPrerequisite
from signals_core.strategy.signal_store import SessionSignals, SignalStore
from signals_core.strategy.targets import targets_of_session
from signals_core.strategy.walk_forward import follow
from signals_core.workspace import Workspace

DAYS = [date(2022, 6, 28), date(2022, 6, 29), date(2022, 6, 30), date(2022, 7, 1)]


@pytest.fixture
def ingested(workspace: Workspace) -> Workspace:
    steps.ingest(workspace, workspace.all_symbols())
    return workspace


def rows(day: date, weights: dict[str, float]) -> pd.DataFrame:
    frame = pd.DataFrame({"symbol": list(weights), "weight": list(weights.values())})
    direction = np.select([frame["weight"] > 0, frame["weight"] < 0], ["LONG", "SHORT"], "")
    return frame.assign(
        date=pd.Timestamp(day).as_unit("us"), p_down=0.3, p_flat=0.3, p_up=0.4, direction=direction, strength=0.6,
        expected_return=0.01, binding="", reason=np.where(direction == "", "FLAT is the likeliest class", ""),
        model_version="v1",
    )  # fmt: skip


def save(workspace: Workspace, by_day: dict[date, dict[str, float]]) -> None:
    store = SignalStore(workspace.data / "signals")
    for day, weights in by_day.items():
        store.save(SessionSignals("UNIVERSE", day, rows(day, weights), computed=True), "inputs")


def test_targets_are_the_last_signals_and_positions_in_their_minimum_hold(ingested: Workspace) -> None:
    save(
        ingested,
        dict(
            zip(DAYS, [{"AAA": 0.1}, {"AAA": 0.1, "BBB": 0.05}, {"AAA": 0.1, "BBB": 0.0}, {"AAA": -0.08}], strict=True)
        ),
    )
    targets = targets_of_session(ingested, DAYS[-1]).set_index("symbol")
    # AAA was opened on the 29th and may be closed on July 5th, after three sessions: now it is reversed.
    assert targets.loc["AAA", "weight"] == pytest.approx(-0.08, abs=1e-3)
    assert targets.loc["AAA", "reason"] == "SHORT"
    # BBB was opened on the 30th, the day its signal ended: it is kept for its minimum hold.
    assert targets.loc["BBB", "weight"] == pytest.approx(0.05, rel=0.1)
    assert targets.loc["BBB", "reason"] == "no prediction of this session; held at least strategy.min_hold_days"


def test_targets_are_what_the_backtest_orders(ingested: Workspace) -> None:
    save(
        ingested,
        dict(zip(DAYS, [{"AAA": 0.1}, {"BBB": -0.07}, {"AAA": 0.0}, {"AAA": 0.02, "BBB": -0.07}], strict=True)),
    )
    backtest = follow(ingested, SignalStore(ingested.data / "signals").load_all("UNIVERSE"), 1).run.backtest
    targets = targets_of_session(ingested, DAYS[-1]).set_index("symbol")["weight"]
    shares = targets * backtest.equity_values[-1] / backtest.panel.mark[-1]
    np.testing.assert_allclose(shares.loc[list(backtest.panel.symbols)], backtest.ordered[-1], atol=1e-9)


def test_signals_of_an_earlier_session_are_no_targets(ingested: Workspace) -> None:
    with pytest.raises(MissingPrerequisite, match=r"no signals of 2022-07-01: run `signals predict`"):
        targets_of_session(ingested, DAYS[-1])
    save(ingested, {DAYS[2]: {"AAA": 0.1}})
    with pytest.raises(
        MissingPrerequisite, match=r"UNIVERSE: the last signals are of 2022-06-30, not of the last session"
    ):
        targets_of_session(ingested, DAYS[-1])
