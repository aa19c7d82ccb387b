"""What the stored signals ask for is what the backtest would order."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signals_core import steps
from signals_core.errors import MissingPrerequisite
from signals_core.settings_loading import load_settings
from signals_core.strategy.signal_store import SessionSignals, SignalStore
from signals_core.strategy.targets import targets_of_session
from signals_core.strategy.walk_forward import follow
from signals_core.workspace import Workspace
from tests.project.bars import make_bars

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


def save(workspace: Workspace, by_day: dict[date, dict[str, float]], scope: str = "UNIVERSE") -> None:
    for day, weights in by_day.items():
        save_rows(workspace, scope, day, rows(day, weights))


def save_rows(workspace: Workspace, scope: str, day: date, frame: pd.DataFrame) -> None:
    SignalStore(workspace.data / "signals").save(SessionSignals(scope, day, frame, computed=True), "inputs")


def refused(frame: pd.DataFrame, reason: str) -> pd.DataFrame:
    """The rows as they are where nothing was predicted."""
    numbers = dict.fromkeys(("p_down", "p_flat", "p_up", "strength", "expected_return"), np.nan)
    return frame.assign(**numbers, weight=0.0, direction="", reason=reason)


def opened(project: Path, **environment: str) -> Workspace:
    return Workspace(load_settings(project, environ=environment))


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


def test_without_a_row_of_the_session_what_was_asked_for_stays(ingested: Workspace) -> None:
    save(ingested, dict(zip(DAYS, [{"AAA": 0.1, "BBB": 0.05}] * 3 + [{"AAA": 0.1}], strict=True)))
    targets = targets_of_session(ingested, DAYS[-1]).set_index("symbol")
    assert targets.loc["BBB", "weight"] == pytest.approx(0.05, rel=0.1)
    assert targets.loc["BBB", "reason"] == "no prediction of this session: what the last one asked for stays"


CAPS = {
    "max_gross": {"SA_SIZING__MAX_GROSS": "0.15"},
    "max_sector_weight": {"SA_SIZING__MAX_SECTOR_WEIGHT": "0.15"},
    "target_volatility": {"SA_SIZING__TARGET_VOLATILITY": "0.01"},
}


def test_a_refused_row_leaves_what_was_asked_for_and_says_both(ingested: Workspace) -> None:
    save(ingested, {day: {"AAA": 0.1} for day in DAYS[:-1]})
    save_rows(ingested, "UNIVERSE", DAYS[-1], refused(rows(DAYS[-1], {"AAA": 0.0}), "no features of this session"))
    (row,) = targets_of_session(ingested, DAYS[-1]).to_dict("records")
    assert row["weight"] == pytest.approx(0.1, abs=0.01)
    assert row["reason"] == "no features of this session; what the last one asked for stays"


@pytest.mark.parametrize("cap", CAPS)
def test_the_caps_hold_for_the_scopes_together(ingested: Workspace, project: Path, cap: str) -> None:
    save(ingested, {DAYS[-1]: {"BBB": -0.1}})
    save(ingested, {DAYS[-1]: {"AAA": 0.1}}, "AAA")
    assert targets_of_session(ingested, DAYS[-1])["reason"].tolist() == ["LONG", "SHORT"]
    with opened(project, **CAPS[cap]) as workspace:
        targets = targets_of_session(workspace, DAYS[-1]).set_index("symbol")
    weights = targets["weight"]
    if cap == "target_volatility":
        closes = [make_bars(symbol)["close"].to_numpy()[-61:] for symbol in ("AAA", "BBB")]
        change = np.column_stack([own[1:] / own[:-1] - 1 for own in closes]) @ weights.to_numpy()
        assert np.sqrt(252) * change.std(ddof=1) == pytest.approx(0.01)
    else:
        assert weights.abs().sum() == pytest.approx(0.15)
    assert weights["AAA"] == pytest.approx(-weights["BBB"])
    assert targets["reason"].tolist() == [
        f"{way}; made smaller by {cap} of the whole book" for way in ("LONG", "SHORT")
    ]


def test_the_cap_on_a_sector_knows_the_sectors(ingested: Workspace, project: Path) -> None:
    save(ingested, {DAYS[-1]: {"BBB": -0.1}})
    save(ingested, {DAYS[-1]: {"AAA": 0.1}}, "AAA")
    always = pd.DatetimeIndex(["1900-01-01"]).as_unit("us")
    with opened(project, **CAPS["max_sector_weight"]) as workspace:
        workspace.classification |= {
            "AAA": pd.DataFrame({"sector": ["energy"]}, always), "BBB": pd.DataFrame({"sector": ["utilities"]}, always),
        }  # fmt: skip
        assert targets_of_session(workspace, DAYS[-1])["weight"].abs().tolist() == pytest.approx([0.1, 0.1])


ORDERS = ['["UNIVERSE", "AAA"]', '["AAA", "UNIVERSE"]']


@pytest.mark.parametrize("order", ORDERS)
def test_a_ticker_s_own_scope_wins_whatever_the_order_of_the_settings(
    ingested: Workspace, project: Path, order: str
) -> None:
    save(ingested, {DAYS[-1]: {"AAA": -0.1, "BBB": 0.05}})
    save(ingested, {DAYS[-1]: {"AAA": 0.07}}, "AAA")
    with opened(project, SA_ML__SCOPES=order) as workspace:
        targets = targets_of_session(workspace, DAYS[-1]).set_index("symbol")
    assert targets["weight"].to_dict() == pytest.approx({"AAA": 0.07, "BBB": 0.05})


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("silent", ["AAA", "UNIVERSE"])
@pytest.mark.parametrize("stale", [False, True])
def test_a_refused_row_hides_no_prediction_of_the_other_scope(
    ingested: Workspace, project: Path, order: str, silent: str, stale: bool
) -> None:
    for scope, weight in (("UNIVERSE", -0.1), ("AAA", 0.07)):
        frame = rows(DAYS[-1], {"AAA": weight})
        if scope == silent:  # a stale model has predicted, and must not speak
            said = frame[["p_down", "p_flat", "p_up"]]
            frame = refused(frame, "the model was last judged 60 days ago")
            frame = frame.assign(**said) if stale else frame
        save_rows(ingested, scope, DAYS[-1], frame)
    with opened(project, SA_ML__SCOPES=order) as workspace:
        (target,) = targets_of_session(workspace, DAYS[-1]).to_dict("records")
    expected = {"AAA": (-0.1, "SHORT"), "UNIVERSE": (0.07, "LONG")}[silent]
    assert (target["weight"], target["reason"]) == (pytest.approx(expected[0]), expected[1])


def test_where_both_scopes_are_refused_the_ticker_s_own_says_why(ingested: Workspace) -> None:
    save(ingested, {DAYS[-2]: {"AAA": 0.0}})
    for scope in ("UNIVERSE", "AAA"):
        save_rows(ingested, scope, DAYS[-1], refused(rows(DAYS[-1], {"AAA": 0.0}), f"{scope} refuses"))
    assert targets_of_session(ingested, DAYS[-1]).to_dict("records") == [
        {"symbol": "AAA", "weight": 0.0, "reason": "AAA refuses"}
    ]


def test_a_symbol_of_which_nothing_was_ever_said_is_no_target(ingested: Workspace) -> None:
    # 0 would close what the account holds of it.
    save_rows(
        ingested,
        "UNIVERSE",
        DAYS[-1],
        refused(rows(DAYS[-1], {"AAA": 0.0, "BBB": 0.0}), "no bar").assign(p_up=[np.nan, 0.4], strength=[np.nan, 0.6]),
    )
    assert targets_of_session(ingested, DAYS[-1])["symbol"].tolist() == ["BBB"]


@pytest.mark.parametrize("cap", ["MAX_GROSS", "MAX_SECTOR_WEIGHT"])
def test_what_stands_takes_up_the_caps_too(ingested: Workspace, project: Path, cap: str) -> None:
    save(ingested, {day: {"AAA": 0.1} for day in DAYS[:-1]})
    save_rows(
        ingested,
        "UNIVERSE",
        DAYS[-1],
        pd.concat([refused(rows(DAYS[-1], {"AAA": 0.0}), "no bar"), rows(DAYS[-1], {"BBB": -0.1})]),
    )
    with opened(project, **{f"SA_SIZING__{cap}": "0.1"}) as workspace:
        targets = targets_of_session(workspace, DAYS[-1]).set_index("symbol")
    assert targets["weight"].abs().sum() == pytest.approx(0.1)
    assert targets["weight"].to_dict() == pytest.approx({"AAA": 0.05, "BBB": -0.05})
    assert targets.loc["BBB", "reason"] == f"SHORT; made smaller by {cap.lower()} of the whole book"
    assert targets.loc["AAA", "reason"].startswith("no bar; what the last one asked for stays; made smaller by")


def test_targets_of_a_scope_are_its_share_of_those_of_all(ingested: Workspace, project: Path) -> None:
    for day in DAYS:
        save(ingested, {day: {"AAA": 0.02, "BBB": -0.1}})
    save(ingested, {DAYS[-1]: {"AAA": 0.1}}, "AAA")
    with opened(project, **CAPS["max_gross"]) as workspace:
        whole = targets_of_session(workspace, DAYS[-1])
        parts = {scope: targets_of_session(workspace, DAYS[-1], scope) for scope in ("AAA", "UNIVERSE")}
    assert {scope: part["symbol"].tolist() for scope, part in parts.items()} == {"AAA": ["AAA"], "UNIVERSE": ["BBB"]}
    pd.testing.assert_frame_equal(pd.concat(parts.values(), ignore_index=True), whole)
    assert whole["reason"].str.contains("max_gross").all()


def test_a_scope_is_not_stopped_by_another_s_missing_session(ingested: Workspace) -> None:
    save(ingested, {DAYS[2]: {"AAA": 0.1}}, "AAA")
    with pytest.raises(MissingPrerequisite, match="UNIVERSE: no signals of 2022-07-01"):
        targets_of_session(ingested, DAYS[-1], "UNIVERSE")
    save(ingested, {DAYS[-1]: {"BBB": 0.05}})
    assert targets_of_session(ingested, DAYS[-1], "UNIVERSE")["symbol"].tolist() == ["BBB"]
    for scope in ("AAA", None):
        with pytest.raises(MissingPrerequisite, match="AAA: the last signals are of 2022-06-30"):
            targets_of_session(ingested, DAYS[-1], scope)


def test_signals_of_an_earlier_session_are_no_targets(ingested: Workspace) -> None:
    with pytest.raises(MissingPrerequisite, match=r"no signals of 2022-07-01: run `signals predict`"):
        targets_of_session(ingested, DAYS[-1])
    save(ingested, {DAYS[2]: {"AAA": 0.1}})
    with pytest.raises(
        MissingPrerequisite, match=r"UNIVERSE: the last signals are of 2022-06-30, not of the last session"
    ):
        targets_of_session(ingested, DAYS[-1])
