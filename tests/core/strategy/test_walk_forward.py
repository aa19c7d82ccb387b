"""Accounts that follow predictions made out of sample."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signals_core import steps
from signals_core.errors import DataError, MissingPrerequisite
from signals_core.settings_loading import load_settings
from signals_core.strategy.base import BaseStrategy
from signals_core.strategy.engine import StrategyEngine
from signals_core.strategy.portfolio import Rules
from signals_core.strategy.signal_store import signals_of
from signals_core.strategy.walk_forward import decide_windows, follow, market_history
from signals_core.workspace import Workspace
from tests.core.strategy.markets import sessions
from tests.core.strategy.test_targets import rows
from tests.project.bars import make_bars

HORIZON = 5
DAYS = sessions(60, date(2022, 4, 1))
"""Of April to June 2022."""


def stored(weights: dict[str, np.ndarray]) -> pd.DataFrame:
    """Rows at `DAYS` of symbols with a weight (60,) each; NaN: no row."""
    frames = [
        rows(day.date(), {symbol: own[number] for symbol, own in weights.items() if not np.isnan(own[number])})
        for number, day in enumerate(DAYS)
    ]
    return pd.concat(frames, ignore_index=True)


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


class Repeated(BaseStrategy):
    """Says at each session what is stored of it."""

    def __init__(self, frame: pd.DataFrame, min_hold_days: int) -> None:
        super().__init__("ml_signal", min_hold_days, lookback_days=1)
        self._signals = signals_of(frame)

    def generate_signals(self, data):
        today = max(bars[-1].timestamp for bars in data.values())
        return [signal for signal in self._signals if signal.timestamp == today]


def test_complete_rows_are_followed_as_the_engine_follows_a_strategy_that_says_them(ingested: Workspace) -> None:
    random = np.random.default_rng(0)
    weights = {s: random.choice([-0.1, -0.03, 0.0, 0.0, 0.05, 0.1], len(DAYS)) for s in ("AAA", "BBB")}
    frame, settings = stored(weights), ingested.settings
    assert settings.strategy.min_hold_days == 3
    history = market_history(ingested, ["AAA", "BBB"], DAYS[0].date(), DAYS[-1].date() + pd.Timedelta(days=1))
    engine = StrategyEngine(Rules.from_settings(settings.trading, settings.sizing))
    expected = engine.run_backtest(Repeated(frame, settings.strategy.min_hold_days), history)
    run = follow(ingested, frame, 1).run
    assert np.count_nonzero(run.backtest.traded) > 30
    for name in ("equity_values", "cash_values", "shares", "traded", "ordered"):
        assert np.array_equal(getattr(run.backtest, name), getattr(expected.backtest, name)), name
    assert run.name == expected.name
    pd.testing.assert_frame_equal(run.signals, expected.signals)
    pd.testing.assert_series_equal(run.in_force, expected.in_force)


def test_a_symbol_that_dies_is_held_to_its_settlement_though_its_labels_end_earlier(
    workspace: Workspace, project: Path
) -> None:
    path, last = project / "data" / "bars" / "BBB.csv", 30
    bars = pd.read_csv(path, parse_dates=["date"])
    bars[bars["date"] <= DAYS[last]].to_csv(path, index=False)
    steps.ingest(workspace, workspace.all_symbols())
    labelled = np.arange(len(DAYS)) <= last - HORIZON
    frame = stored({"AAA": np.full(len(DAYS), 0.05), "BBB": np.where(labelled, 0.1, np.nan)})
    backtest = follow(workspace, frame, 1).run.backtest
    held = backtest.shares[:, 1]
    assert held[last - HORIZON] > 0
    assert (held[last - HORIZON : last + 20] == held[last - HORIZON]).all()
    assert (backtest.traded[last - HORIZON + 1 :, 1] == 0).all(), "no order knows that the end is near"
    assert backtest.settled[last + 20, 1] == held[last]
    assert held[-1] == 0


@pytest.mark.parametrize("skipped", [1, HORIZON])
def test_sessions_without_rows_change_nothing_up_to_the_horizon(ingested: Workspace, skipped: int) -> None:
    gap = (np.arange(len(DAYS)) > 20) & (np.arange(len(DAYS)) <= 20 + skipped)
    frame = stored({"AAA": np.where(gap, np.nan, 0.1), "BBB": np.where(gap, np.nan, -0.07)})
    backtest = follow(ingested, frame, 1).run.backtest
    assert (backtest.shares[20] != 0).all()
    # The last row before the gap is executed at 21; what the gap leaves as it was is ordered anew after its end.
    assert (backtest.shares[21 : 22 + skipped] == backtest.shares[21]).all()
    assert (backtest.traded[22 : 22 + skipped] == 0).all()


def test_rows_lapse_once_when_there_are_none_for_longer_than_the_horizon(ingested: Workspace) -> None:
    gap = (np.arange(len(DAYS)) > 20) & (np.arange(len(DAYS)) <= 30)
    frame = stored({"AAA": np.where(gap, np.nan, 0.1), "BBB": np.full(len(DAYS), -0.07)})
    backtest = follow(ingested, frame, 1).run.backtest
    held = backtest.shares[:, 0]
    # Six sessions without a row are over at the close of 26: closed at the next open, and back after the row of 31.
    assert (held[21:27] == held[21]).all()
    assert held[21] > 0
    assert (held[27:32] == 0).all()
    assert held[32] > 0
    assert (backtest.shares[1:, 1] < 0).all()


@pytest.mark.parametrize("stale", [False, True])
def test_a_refused_row_says_nothing_and_does_not_close(ingested: Workspace, stale: bool) -> None:
    frame = stored({"AAA": np.full(len(DAYS), 0.1), "BBB": np.full(len(DAYS), -0.07)})
    gone = frame["date"].isin(DAYS[21:24]) & (frame["symbol"] == "AAA")
    said = frame.copy()
    # A bar that is late has no probabilities; a model that nobody judges any more keeps them, and has no strength.
    columns = ["strength"] if stale else ["p_down", "p_flat", "p_up", "strength"]
    said.loc[gone, columns] = np.nan
    said.loc[gone, "weight"] = 0.0
    said.loc[gone, "direction"] = ""
    held = follow(ingested, said, 1).run.backtest
    absent = follow(ingested, frame[~gone], 1).run.backtest
    assert held.shares[21, 0] > 0
    np.testing.assert_array_equal(held.shares, absent.shares)


def test_the_account_goes_on_after_the_last_row_as_far_as_there_are_bars(ingested: Workspace) -> None:
    frame = stored({"AAA": np.full(len(DAYS), 0.1)})
    frame = frame[frame["date"] <= DAYS[40]]
    ends = [follow(ingested, frame, 1, after).run.backtest.dates[-1] for after in (0, 5, 500)]
    assert ends == [DAYS[40], DAYS[45], pd.Timestamp("2022-07-01")]


def test_a_row_without_a_signal_closes(ingested: Workspace) -> None:
    weights = np.where(np.arange(len(DAYS)) <= 20, 0.1, 0.0)
    held = follow(ingested, stored({"AAA": weights}), 1).run.backtest.shares[:, 0]
    assert held[21] > 0
    assert (held[22:] == 0).all()


def test_stored_rows_that_cannot_be_followed_are_refused(ingested: Workspace) -> None:
    one, signal = stored({"AAA": np.full(len(DAYS), 0.1)}), rows(date(2022, 6, 1), {"AAA": 0.1})
    with pytest.raises(DataError, match="two rows of AAA at 2022-06-01"):
        follow(ingested, pd.concat([one, signal]), 1)
    with pytest.raises(DataError, match="a signal of ZZZ, which has no bars at 2022-06-01"):
        follow(ingested, pd.concat([one, signal.assign(symbol="ZZZ")]), 1)
    with pytest.raises(DataError, match="a signal of BBB without a weight at 2022-06-01"):
        follow(ingested, pd.concat([one, signal.assign(symbol="BBB", weight=np.nan)]), 1)
    silent = signal.assign(symbol="ZZZ", direction="", weight=0.0)
    assert follow(ingested, pd.concat([one, silent]), 1).run.backtest.panel.symbols == ("AAA",)


def out_of_fold(*windows: str, days: int = 260) -> pd.DataFrame:
    """Rows of AAA and BBB from the first window's start on, labels at random; each belongs to the latest window."""
    random = np.random.default_rng(0)
    dates = pd.bdate_range(windows[0], periods=days).astype("datetime64[us]")
    index = pd.MultiIndex.from_product([["AAA", "BBB"], dates], names=["symbol", "date"])
    own = index.get_level_values("date")
    frame = pd.DataFrame(index=index).assign(
        label=random.integers(0, 3, len(index)),
        label_end=own + pd.offsets.BusinessDay(HORIZON),
        window=np.array(windows)[pd.DatetimeIndex(windows).searchsorted(own, side="right") - 1],
        calibrated_down=0.3, calibrated_flat=0.3, calibrated_up=0.4,
    )  # fmt: skip
    frame["forward_return"] = (frame["label"] - 1) * 0.03 + random.normal(0, 0.01, len(frame))
    return frame


def test_windows_are_sized_with_labels_known_before_they_begin(ingested: Workspace) -> None:
    frame = out_of_fold("2021-01-04", "2021-08-02")
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


@pytest.mark.parametrize("returns_known", [True, False])
def test_a_window_before_which_a_class_has_one_known_row_waits(ingested: Workspace, returns_known: bool) -> None:
    frame = out_of_fold("2021-01-04", "2021-08-02", "2021-10-01")
    early = (frame["window"] == "2021-01-04") & (frame["label"] == 2)
    others = early & (early.cumsum() > 1)
    frame = (
        frame.assign(label=frame["label"].where(~others, 1))
        if returns_known
        else frame.assign(forward_return=frame["forward_return"].where(~others))
    )
    assert decide_windows(ingested, frame, "v1")["date"].min() == pd.Timestamp("2021-10-01")
    with pytest.raises(MissingPrerequisite, match="no window has enough earlier labels"):
        decide_windows(ingested, frame[frame["window"] < "2021-10-01"], "v1")


def volatile(project: Path, **environment: str) -> Workspace:
    """The project with a volatility target of 2 % a year."""
    how = {"SA_SIZING__TARGET_VOLATILITY": "0.02", "SA_STRATEGY__RULE": "expected_return", **environment}
    return Workspace(load_settings(project, environ=how))


def test_windows_obey_a_volatility_target_and_know_no_later_bar(project: Path, ingested: Workspace) -> None:
    frame = out_of_fold("2021-01-04", "2021-08-02")
    with volatile(project) as workspace:
        decided = decide_windows(workspace, frame, "v1")
    closes = pd.DataFrame({symbol: make_bars(symbol).set_index("date")["close"] for symbol in ("AAA", "BBB")})
    sessions_seen = decided[decided["date"].isin(closes.index)].pivot(index="date", columns="symbol", values="weight")
    for day, weights in sessions_seen.iterrows():
        last = closes.loc[:day].to_numpy()[-61:]
        change = last[1:] / last[:-1] - 1
        assert np.sqrt(252) * (change @ weights.to_numpy()).std(ddof=1) == pytest.approx(0.02)
    assert decided["binding"].str.contains("target_volatility").all()
    with volatile(project, SA_CLOCK__AS_OF="2021-10-01T20:00:00-04:00") as earlier:
        before = decide_windows(earlier, frame[frame.index.get_level_values("date") <= "2021-10-01"], "v1")
    pd.testing.assert_frame_equal(before, decided[decided["date"] <= "2021-10-01"])


def test_too_few_labels_to_size_with_are_a_refusal(ingested: Workspace) -> None:
    with pytest.raises(MissingPrerequisite, match="no session has predictions to follow"):
        follow(ingested, pd.DataFrame(), 1)
