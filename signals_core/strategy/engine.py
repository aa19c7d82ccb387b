"""StrategyEngine: backtests, walk-forward runs and a ranking of strategies over one portfolio engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pandas as pd

from signals_core.errors import DataError, SettingsError
from signals_core.strategy.backtest import Backtest
from signals_core.strategy.base import BaseStrategy, Signal, signals_frame
from signals_core.strategy.history import Bars, MarketHistory
from signals_core.strategy.performance import Performance, performance
from signals_core.strategy.portfolio import Rules, simulate

StrategyFactory = Callable[[date, MarketHistory], BaseStrategy | None]
"""Called with a retrain date and the history before it; returns the strategy in force from that date on, the same
as before if the new one is not better, or None to stay out of the market."""


@dataclass(frozen=True, eq=False)
class StrategyRun:
    """What a strategy said and what came of it."""

    name: str
    backtest: Backtest
    signals: pd.DataFrame
    """As `signals_frame`: symbol, date, direction, sign, strength, weight."""
    in_force: pd.Series
    """By session, the name of the strategy that decided at its close; empty where there was none."""

    def performance(self, trials: int = 1) -> Performance:
        """Figures of the account; `trials` strategies were tried to find this one."""
        return performance(self.backtest, trials)


class StrategyEngine:
    """Runs strategies on a history of bars, so that none sees more than was known.

    A strategy of one's own is a subclass of `BaseStrategy`:

        class Momentum(BaseStrategy):
            def __init__(self, days: int = 60) -> None:
                super().__init__("momentum", min_hold_days=3, lookback_days=days + 1)

            def generate_signals(self, data):
                today = max(bars[-1].timestamp for bars in data.values())
                signals = []
                for symbol, bars in data.items():
                    if len(bars) == self.lookback_days and bars[-1].timestamp == today:
                        change = bars[-1].close / bars[0].close - 1
                        way = SignalDirection.LONG if change > 0 else SignalDirection.SHORT
                        signals.append(Signal(symbol, today, way, min(abs(change), 1.0), self.name))
                return signals

        engine = StrategyEngine(Rules(CostModel(commission_bps=1, slippage_bps=4)))
        engine.register(Momentum())
        print(engine.run_backtest("momentum", bars).performance().headline())

    Args:
        rules: of the account; a strategy's own `min_hold_days` replaces that of the rules.
        weight: share of equity of a signal that names no weight of its own; None: 1 / number of symbols.
    """

    def __init__(self, rules: Rules | None = None, weight: float | None = None) -> None:
        if weight is not None and not weight > 0:
            raise SettingsError(f"engine: the weight of a signal is {weight}: it must be positive, or None")
        self.rules = rules or Rules()
        self.weight = weight
        self._strategies: dict[str, BaseStrategy] = {}

    @property
    def strategies(self) -> Mapping[str, BaseStrategy]:
        """Those registered, by name."""
        return dict(self._strategies)

    def register(self, strategy: BaseStrategy) -> None:
        """Take a strategy in, under its name.

        Raises:
            SettingsError: another one has that name.
        """
        if strategy.name in self._strategies:
            raise SettingsError(f"a strategy named {strategy.name} is registered already: give this one another name")
        self._strategies[strategy.name] = strategy

    def run_backtest(
        self,
        strategy: str | BaseStrategy,
        data: Bars | MarketHistory,
        start: date | None = None,
        end: date | None = None,
    ) -> StrategyRun:
        """Let a strategy decide at the close of every session with start <= session < end.

        At each close it is called with the bars up to it; bars before `start` are history to it. Its signals are
        executed at the next open (`signals_core.strategy.portfolio`).

        Args:
            strategy: a registered name, or an instance.
            data: bars by symbol, adjusted; or a `MarketHistory`, which knows splits, dividends and members.
            start: None: the first session there is.
            end: None: past the last.

        Raises:
            SettingsError: no strategy has that name.
            DataError: no session lies between, or the strategy says what cannot be: a signal of the future, of an
                unknown symbol, two of one symbol.
        """
        chosen = self._named(strategy) if isinstance(strategy, str) else strategy
        return self._run(chosen.name, [(date.min, chosen)], _history(data), start, end)

    def run_walk_forward(
        self,
        factory: StrategyFactory,
        retrain_dates: Sequence[date],
        data: Bars | MarketHistory,
        start: date | None = None,
        end: date | None = None,
        name: str = "walk_forward",
    ) -> StrategyRun:
        """One account through a timeline of strategies, each made from what was known before its date.

        On each retrain date d the factory gets d and the history before d. What it returns decides at the closes
        of the sessions from d on, until the next retrain date; positions are carried over. Before the first
        retrain date nothing is held.

        Args:
            factory: see `StrategyFactory`.
            retrain_dates: in any order, each once; those after the last session are not called.
            data: as in `run_backtest`.
            start: None: the first retrain date.
            end: as in `run_backtest`.
            name: of the run.

        Raises:
            DataError: as `run_backtest`, or there is no retrain date.
            SettingsError: strategies hold for different numbers of days: one account cannot do both.
        """
        history = _history(data)
        last = history.panel.dates[-1].date() if end is None else end
        days = sorted(set(retrain_dates))
        if not days or len(days) != len(retrain_dates):
            raise DataError("a walk-forward run needs retrain dates, each once")
        timeline = [(day, factory(day, history.before(day))) for day in days if day <= last]
        return self._run(name, timeline, history, days[0] if start is None else start, end)

    def rank(
        self, data: Bars | MarketHistory, start: date | None = None, end: date | None = None, trials: int | None = None
    ) -> pd.DataFrame:
        """Every registered strategy on the same sessions, the best first.

        The order is that of the deflated Sharpe ratio: the probability that the true one is above 0, the number of
        trials being taken into account. Trials that resemble each other count for less than they do here.

        Args:
            data: as in `run_backtest`.
            start: as in `run_backtest`.
            end: as in `run_backtest`.
            trials: that were made to find these, forgotten ones included; None: the number of strategies.

        Returns:
            Index strategy; the columns of `Performance`.

        Raises:
            SettingsError: no strategy is registered.
        """
        if not self._strategies:
            raise SettingsError("no strategy is registered: call register first")
        history = _history(data)
        counted = max(trials or 0, len(self._strategies))
        rows = {
            name: self.run_backtest(name, history, start, end).performance(counted).as_dict()
            for name in self._strategies
        }
        frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("strategy")
        return frame.sort_values(["deflated_sharpe", "sharpe"], ascending=False, kind="stable")

    def _named(self, name: str) -> BaseStrategy:
        if name not in self._strategies:
            known = ", ".join(sorted(self._strategies)) or "none"
            raise SettingsError(f"no strategy is named {name}; registered: {known}")
        return self._strategies[name]

    def _run(
        self,
        name: str,
        timeline: Sequence[tuple[date, BaseStrategy | None]],
        history: MarketHistory,
        start: date | None,
        end: date | None,
    ) -> StrategyRun:
        panel = history.panel.between(start, end)
        if not len(panel.dates):
            raise DataError(f"no session lies between {start} and {end}: the bars are of other dates")
        min_hold, holding = _holding(timeline)
        first = int(history.panel.dates.searchsorted(panel.dates[0]))
        table, said, in_force = np.zeros(panel.close.shape), [], []
        column = {symbol: at for at, symbol in enumerate(panel.symbols)}
        before = np.zeros(len(panel.symbols))
        for t, session in enumerate(panel.dates):
            strategy = _in_force(timeline, session.date())
            in_force.append(strategy.name if strategy else "")
            signals: list[Signal] = []
            if strategy is not None:
                found = strategy.generate_signals(history.known_at(first + t, strategy.lookback_days))
                signals = _of_session(found, session.date(), column, strategy.name)
            table[t], before = self._weights(signals, column, before, panel.member[t], holding is None)
            said.extend(signals)
        rules = replace(self.rules, min_hold_sessions=min_hold)
        backtest = simulate(panel, table, rules, holding)
        return StrategyRun(name, backtest, signals_frame(said), pd.Series(in_force, panel.dates, name="strategy"))

    def _weights(
        self, signals: list[Signal], column: Mapping[str, int], before: np.ndarray, member: np.ndarray, keep: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights of a session (N,) and its directions (N,).

        With `keep` a signal that says the same as the session before leaves the shares as they are, unless it
        names its weight: no trades only because prices have moved.
        """
        weights, directions = np.zeros(len(column)), np.zeros(len(column))
        for signal in signals:
            at, sign, own = column[signal.symbol], signal.direction.sign, signal.metadata.get("weight")
            directions[at] = sign * member[at]
            if own is not None:
                weights[at] = sign * own
            elif keep and before[at] == sign:
                weights[at] = np.nan
            else:
                weights[at] = sign * (1 / len(column) if self.weight is None else self.weight)
        return weights, directions


def _history(data: Bars | MarketHistory) -> MarketHistory:
    return data if isinstance(data, MarketHistory) else MarketHistory(data)


def _in_force(timeline: Sequence[tuple[date, BaseStrategy | None]], day: date) -> BaseStrategy | None:
    chosen = None
    for since, strategy in timeline:
        if since > day:
            break
        chosen = strategy
    return chosen


def _holding(timeline: Sequence[tuple[date, BaseStrategy | None]]) -> tuple[int, int | None]:
    """The minimum hold and the holding period of all strategies."""
    found = {(strategy.min_hold_days, strategy.holding_days) for _, strategy in timeline if strategy is not None}
    if len(found) > 1:
        raise SettingsError(
            f"the strategies of one account hold for different numbers of days (min_hold_days, holding_days): {found}"
        )
    return found.pop() if found else (1, None)


def _of_session(found: Sequence[Signal], day: date, known: Mapping[str, int], name: str) -> list[Signal]:
    """The signals of a session; those of earlier ones have had their time."""
    chosen: dict[str, Signal] = {}
    for signal in found:
        at = signal.timestamp.date()
        if at < day:
            continue
        if at > day:
            raise DataError(f"{name}: a signal of {signal.symbol} is of {at}, and only bars up to {day} are known")
        if signal.symbol not in known:
            raise DataError(f"{name}: a signal of {signal.symbol} at {day}, which has no bars")
        if signal.symbol in chosen:
            raise DataError(f"{name}: two signals of {signal.symbol} at {day}")
        weight = signal.metadata.get("weight")
        if weight is not None and not 0 <= weight < np.inf:
            raise DataError(f"{name}: {signal.symbol} at {day} has the weight {weight}; only the direction has a sign")
        chosen[signal.symbol] = signal
    return list(chosen.values())
