"""The strategy engine: what a strategy is shown, what its signals become, and who decides when."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from signals_core.errors import DataError, SettingsError
from signals_core.execution.costs import CostModel
from signals_core.market_data.prices import adjust
from signals_core.strategy.base import OHLCV, BaseStrategy, Signal, SignalDirection, to_frame, to_ohlcv
from signals_core.strategy.engine import StrategyEngine
from signals_core.strategy.history import MarketHistory
from signals_core.strategy.portfolio import Rules, simulate
from tests.core.strategy.markets import random_bars, sessions

LONG, SHORT = SignalDirection.LONG, SignalDirection.SHORT


def full_bars(symbols: int, count: int, seed: int) -> dict[str, pd.DataFrame]:
    """With high, low and volume."""
    return {
        symbol: bars.assign(high=bars.max(axis=1), low=bars.min(axis=1), volume=1000.0)[
            ["open", "high", "low", "close", "volume"]
        ]
        for symbol, bars in random_bars(symbols, count, seed).items()
    }


class Momentum(BaseStrategy):
    """The example of the documentation."""

    def __init__(self, days: int = 5, name: str = "momentum", **options) -> None:
        super().__init__(name, lookback_days=days + 1, **options)

    def generate_signals(self, data):
        today = max(bars[-1].timestamp for bars in data.values())
        signals = []
        for symbol, bars in data.items():
            if len(bars) == self.lookback_days and bars[-1].timestamp == today:
                change = bars[-1].close / bars[0].close - 1
                way = LONG if change > 0 else SHORT
                signals.append(Signal(symbol, today, way, min(abs(change), 1.0), self.name))
        return signals


class Scripted(BaseStrategy):
    """Says at each session what the script has for its number."""

    def __init__(self, script, name="scripted", **options) -> None:
        super().__init__(name, **options)
        self._script = script

    def generate_signals(self, data):
        bars = max(data.values(), key=lambda own: own[-1].timestamp)
        today, number = bars[-1].timestamp, len(bars) - 1
        return [
            Signal(symbol, today + timedelta(days=shift), way, 0.6, self.name, meta)
            for symbol, way, meta, shift in self._script.get(number, [])
        ]


class Recorder(BaseStrategy):
    """Says nothing and keeps what it was given."""

    def __init__(self, **options) -> None:
        super().__init__("recorder", **options)
        self.seen = []

    def generate_signals(self, data):
        self.seen.append(data)
        return []


def test_bars_go_to_lists_and_back_unchanged():
    bars = full_bars(1, 30, 0)["S00"]
    listed = to_ohlcv(bars)
    assert listed[0] == OHLCV(bars.index[0].to_pydatetime(), *bars.iloc[0])
    pd.testing.assert_frame_equal(to_frame(listed), bars, check_freq=False)


def test_a_strategy_sees_the_bars_up_to_the_session_and_no_others():
    bars = full_bars(3, 20, 1)
    bars["S01"] = bars["S01"].iloc[5:12]
    recorder = Recorder()
    StrategyEngine().run_backtest(recorder, bars, start=sessions(20)[2].date(), end=sessions(20)[15].date())
    assert len(recorder.seen) == 13
    for number, data in enumerate(recorder.seen, start=2):
        for symbol, own in bars.items():
            pd.testing.assert_frame_equal(
                to_frame(data.get(symbol, [])), own[own.index <= sessions(20)[number]], check_freq=False
            )


def test_it_sees_no_more_than_it_asks_for_and_cannot_spoil_what_others_see():
    class Vandal(Recorder):
        def generate_signals(self, data):
            self.seen.append({symbol: list(bars) for symbol, bars in data.items()})
            for bars in data.values():
                bars.clear()
            return []

    vandal = Vandal(lookback_days=4)
    StrategyEngine().run_backtest(vandal, full_bars(2, 12, 1))
    assert [len(data["S00"]) for data in vandal.seen] == [1, 2, 3] + [4] * 9


def test_it_sees_prices_adjusted_forward_while_the_account_trades_them_as_they_were():
    bars = full_bars(1, 20, 2)
    day = sessions(20)[10]
    bars["S00"].loc[day:, ["open", "high", "low", "close"]] /= 4
    actions = {"S00": pd.DataFrame({"ex_date": [day], "kind": ["split"], "value": [4.0]})}
    recorder = Recorder()
    history = MarketHistory(bars, actions)
    StrategyEngine().run_backtest(recorder, history)
    expected = adjust(bars["S00"], actions["S00"], "forward")
    seen = to_frame(recorder.seen[-1]["S00"])
    assert seen["close"].to_numpy() == pytest.approx(expected["close"].to_numpy())
    for number, data in enumerate(recorder.seen):  # what it saw before is not rewritten
        assert data["S00"] == recorder.seen[-1]["S00"][: number + 1]
    always = Scripted({n: [("S00", LONG, {}, 0)] for n in range(20)})
    held = StrategyEngine(weight=1.0).run_backtest(always, history)
    assert held.backtest.positions["S00"].iloc[-1] == pytest.approx(4 * held.backtest.positions["S00"].iloc[1])


def test_the_example_is_what_it_says_step_by_step():
    bars = full_bars(4, 60, 3)
    run = StrategyEngine(Rules(CostModel(1, 4))).run_backtest(Momentum(5), bars)
    closes = pd.DataFrame({s: b["close"] for s, b in bars.items()})
    signs = np.sign(closes / closes.shift(5) - 1)
    changed = signs != signs.shift()
    weights = (signs / 4).where(changed).where(signs.notna(), 0.0)
    expected = simulate(MarketHistory(bars).panel, weights, Rules(CostModel(1, 4)))
    assert np.array_equal(run.backtest.equity_values, expected.equity_values)
    assert len(run.signals) == signs.notna().sum().sum()
    assert (run.in_force == "momentum").all()


def test_a_signal_that_goes_on_leaves_the_shares_and_its_end_closes_them():
    script = {n: [("S00", LONG, {}, 0)] for n in range(3, 8)}
    held = StrategyEngine(weight=0.5).run_backtest(Scripted(script), full_bars(2, 12, 4)).backtest.positions["S00"]
    assert (held > 0).tolist() == [False] * 4 + [True] * 5 + [False] * 3
    assert held[held > 0].nunique() == 1


def test_a_symbol_that_comes_back_to_the_universe_is_bought_again_while_its_signal_goes_on():
    bars = full_bars(2, 12, 4)
    members = pd.DataFrame({"S00": [True, False, True]}, sessions(12)[[0, 5, 8]])
    always = Scripted({n: [("S00", LONG, {}, 0)] for n in range(12)})
    held = StrategyEngine().run_backtest(always, MarketHistory(bars, members=members)).backtest.positions["S00"]
    assert (held > 0).tolist() == [False] + [True] * 5 + [False] * 3 + [True] * 3


def test_a_position_is_kept_for_the_minimum_hold_of_its_strategy():
    script = {3: [("S00", LONG, {}, 0)]}
    for days in (1, 3):
        strategy = Scripted(script, min_hold_days=days)
        held = StrategyEngine().run_backtest(strategy, full_bars(2, 12, 4)).backtest.positions["S00"]
        assert int((held > 0).sum()) == days


def test_with_holding_days_each_signal_is_a_tranche_of_its_own():
    script = {3: [("S00", LONG, {"weight": 0.8}, 0)], 4: [("S00", SHORT, {"weight": 0.4}, 0)]}
    run = StrategyEngine().run_backtest(Scripted(script, holding_days=4), full_bars(2, 12, 4))
    weights = np.zeros((12, 2))
    weights[3, 0], weights[4, 0] = 0.8, -0.4
    expected = simulate(run.backtest.panel, weights, Rules(), tranches=4)
    assert np.array_equal(run.backtest.equity_values, expected.equity_values)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([("S00", LONG, {}, 1)], "only bars up to"),
        ([("XXX", LONG, {}, 0)], "XXX"),
        ([("S00", LONG, {}, 0), ("S00", SHORT, {}, 0)], "two signals of S00"),
        ([("S00", LONG, {"weight": -0.1}, 0)], "weight -0.1"),
        ([("S00", LONG, {"weight": float("nan")}, 0)], "weight nan"),
    ],
)
def test_a_signal_that_cannot_be_is_refused_by_name(said, words):
    with pytest.raises(DataError, match=words):
        StrategyEngine().run_backtest(Scripted({3: said}), full_bars(2, 8, 4))


def test_signals_of_earlier_sessions_are_not_acted_upon_again():
    script = {4: [("S00", LONG, {}, -7), ("S00", LONG, {}, -7)]}
    run = StrategyEngine().run_backtest(Scripted(script), full_bars(2, 12, 4))
    assert len(run.signals) == 0
    assert not run.backtest.shares.any()


def test_a_strategy_needs_days_that_make_sense():
    for options in (
        {"min_hold_days": 0},
        {"holding_days": 0},
        {"lookback_days": 0},
        {"min_hold_days": 5, "holding_days": 3},
    ):
        with pytest.raises(SettingsError, match="strategy x"):
            Scripted({}, name="x", **options)
    assert Momentum(7).parameters == {"min_hold_days": 1, "holding_days": None, "lookback_days": 8}


def test_names_are_unique_and_unknown_ones_are_refused():
    engine = StrategyEngine()
    with pytest.raises(SettingsError, match="no strategy is registered"):
        engine.rank(full_bars(1, 8, 0))
    engine.register(Momentum())
    with pytest.raises(SettingsError, match="momentum is registered already"):
        engine.register(Momentum())
    with pytest.raises(SettingsError, match="registered: momentum"):
        engine.run_backtest("mean_reversion", full_bars(1, 8, 0))


class Clairvoyant(BaseStrategy):
    """Knows every close, for the good or the bad."""

    def __init__(self, bars, name, sign=1) -> None:
        super().__init__(name)
        self._ahead = {
            s: dict(zip(b.index, b["close"].shift(-2) - b["open"].shift(-1), strict=True)) for s, b in bars.items()
        }
        self._sign = sign

    def generate_signals(self, data):
        today = max(bars[-1].timestamp for bars in data.values())
        return [
            Signal(s, today, LONG if ahead[pd.Timestamp(today)] * self._sign > 0 else SHORT, 1.0, self.name)
            for s, ahead in self._ahead.items()
        ]


def test_ranking_puts_the_one_who_knows_first_and_counts_every_trial():
    bars = full_bars(3, 120, 5)
    engine = StrategyEngine()
    engine.register(Clairvoyant(bars, "wrong", -1))
    engine.register(Momentum(5))
    engine.register(Clairvoyant(bars, "right"))
    ranked = engine.rank(bars)
    assert ranked.index.tolist()[0] == "right"
    assert ranked.index.tolist()[-1] == "wrong"
    assert (ranked["trials"] == 3).all()
    more = engine.rank(bars, trials=1000)
    assert more.loc["momentum", "deflated_sharpe"] < ranked.loc["momentum", "deflated_sharpe"]


# -- walk-forward ----------------------------------------------------------------------------------------------


def test_at_each_retrain_date_another_strategy_decides_and_only_the_past_is_known_to_its_maker():
    bars = full_bars(2, 60, 6)
    dates = sessions(60)
    asked = []

    def factory(day, history):
        asked.append(day)
        last = max(frame.index[-1] for frame in history.frames.values())
        assert last < pd.Timestamp(day)
        assert last >= pd.Timestamp(day) - timedelta(days=5)
        return Momentum(5, name=f"made {day}")

    sundays = [date(2019, 1, 20), date(2019, 2, 3), date(2019, 3, 3), date(2030, 1, 6)]
    run = StrategyEngine().run_walk_forward(factory, sundays, bars)
    assert asked == sundays[:3]  # the account never lives to see the last
    assert run.backtest.dates[0] == pd.Timestamp("2019-01-22")  # Monday was a holiday
    expected = [max(d for d in sundays if pd.Timestamp(d) <= day) for day in run.backtest.dates]
    assert run.in_force.tolist() == [f"made {day}" for day in expected]
    one = StrategyEngine().run_backtest(Momentum(5), bars, start=sundays[0])
    assert np.array_equal(one.backtest.equity_values, run.backtest.equity_values)
    assert dates[-1] == run.backtest.dates[-1]


def test_positions_are_carried_over_and_none_is_held_where_no_strategy_is_in_force():
    bars = full_bars(1, 40, 6)
    always = {n: [("S00", LONG, {}, 0)] for n in range(40)}
    days = [sessions(40)[n].date() for n in (10, 20, 30)]
    made = dict(zip(days, [Scripted(always, "a"), Scripted(always, "b"), None], strict=True))
    run = StrategyEngine().run_walk_forward(lambda day, _: made[day], days, bars, start=sessions(40)[5].date())
    held = run.backtest.positions["S00"]
    assert (held > 0).tolist() == [False] * 6 + [True] * 20 + [False] * 9
    assert held[held > 0].nunique() == 1
    assert run.in_force.tolist() == [""] * 5 + ["a"] * 10 + ["b"] * 10 + [""] * 10


def test_a_walk_forward_run_needs_dates_and_one_way_of_holding():
    bars = full_bars(1, 40, 6)
    with pytest.raises(DataError, match="retrain dates"):
        StrategyEngine().run_walk_forward(lambda *_: Momentum(), [], bars)
    days = [sessions(40)[n].date() for n in (10, 20)]
    made = dict(zip(days, [Momentum(), Momentum(holding_days=5)], strict=True))
    with pytest.raises(SettingsError, match="different numbers of days"):
        StrategyEngine().run_walk_forward(lambda day, _: made[day], days, bars)
    with pytest.raises(DataError, match="no session"):
        StrategyEngine().run_backtest(Momentum(), bars, start=date(2031, 1, 1))


# -- skill -----------------------------------------------------------------------------------------------------


def test_shuffled_labels_have_no_sharpe_ratio_and_the_true_ones_do():
    """Signals are the signs of what follows; shuffled over rows they know nothing. Costs are off."""
    found, errors, true = [], [], []
    for seed in range(40):
        history = MarketHistory(random_bars(5, 260, seed))
        panel = history.panel
        ahead = np.zeros(panel.close.shape)
        ahead[:-6] = np.sign(panel.open[6:] - panel.open[1:-5])
        random = np.random.default_rng(1000 + seed)
        shuffled = random.permutation(ahead[:-6].ravel()).reshape(-1, 5)
        labels = np.vstack([shuffled, np.zeros((6, 5))])
        for table, into in ((labels, found), (ahead, true)):
            run = simulate(panel, table / 5, tranches=5)
            returns = run.returns.iloc[1:]
            into.append(float(returns.mean() / returns.std() * np.sqrt(252)))
        errors.append(np.sqrt(252 / 260))
    assert abs(np.mean(found)) < 3 * np.mean(errors) / np.sqrt(len(found))
    assert 0.6 < np.std(found) / np.mean(errors) < 1.5  # the error of one ratio is what it says
    assert min(true) > 5
