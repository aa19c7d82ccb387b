"""The portfolio engine against bt on the same weights: CPU time, one thread, long and short, rebalanced daily.

Run with `make bench`. bt is no dependency of the project: where it is not installed, the comparison is left out and
says so (pip install bt, in another environment, and put its site-packages at the end of PYTHONPATH).

bt trades at the price of the bar on which the weights stand; we at the next open. So the market's opens are here the
closes before, and both fill the same shares at the same price: equity and positions are checked equal. Without
costs, since bt takes commission out of the order and we out of cash.
"""

import platform
import sys
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.measuring import alternate, headings, line, worked
from signals_core.calendar import sessions_between
from signals_core.execution.costs import CostModel
from signals_core.strategy.backtest import Backtest
from signals_core.strategy.panel import PricePanel
from signals_core.strategy.performance import performance
from signals_core.strategy.portfolio import Rules, simulate

SYMBOLS, SESSIONS = 20, 2016
MANY, LONG = 500, 2520
REPEATS, WIDTH = 5, 52
REQUIRED, SECONDS = 50.0, 5.0
CAPITAL = 100_000.0


def market(symbols: int, sessions: int) -> tuple[PricePanel, np.ndarray]:
    """Random walks with opens of their own, and random weights of both signs with a gross of 1."""
    random = np.random.default_rng(3)
    dates = sessions_between("XNYS", date(2008, 1, 1), date(2020, 1, 1))[:sessions]
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.015, (sessions, symbols)), axis=0))
    open_ = np.vstack([close[:1], close[:-1]]) * np.exp(random.normal(0, 0.005, (sessions, symbols)))
    names = [f"S{number:03d}" for number in range(symbols)]
    bars = {name: pd.DataFrame({"open": open_[:, at], "close": close[:, at]}, dates) for at, name in enumerate(names)}
    weights = random.normal(0, 1, (sessions, symbols))
    return PricePanel.from_bars(bars), weights / np.abs(weights).sum(axis=1, keepdims=True)


def fresh(panel: PricePanel) -> PricePanel:
    """Without what an earlier run has worked out."""
    return replace(panel)


def everything(panel: PricePanel, weights: np.ndarray, rules: Rules | None = None) -> Backtest:
    """The run with its trades, ledger and figures."""
    found = simulate(fresh(panel), weights, rules)
    assert len(found.trades)
    assert len(found.ledger)
    performance(found)
    return found


def bench_bt(panel: PricePanel, weights: np.ndarray) -> float | None:
    """How many times longer bt takes; None where it is not installed."""
    try:
        import bt
    except ImportError:
        print("bt is left out: it is not installed (pip install bt, in another environment)")
        return None
    panel = replace(panel, open=np.vstack([panel.close[:1], panel.close[:-1]]))
    prices, wanted = panel.frame(panel.close), panel.frame(weights)

    def backtest() -> Any:
        algos = [bt.algos.WeighTarget(wanted), bt.algos.Rebalance()]
        return bt.Backtest(
            bt.Strategy("weights", algos), prices, initial_capital=CAPITAL, integer_positions=False, progress_bar=False
        )

    def alone() -> Any:
        test = backtest()
        test.run()
        return test

    def reported() -> None:
        found = bt.run(backtest(), progress_bar=False)
        assert len(found.get_transactions())

    theirs, ours = alone(), simulate(panel, weights)
    np.testing.assert_allclose(theirs.strategy.values.iloc[1:], ours.equity_values, rtol=1e-9)
    np.testing.assert_allclose(theirs.positions.iloc[1:], ours.ordered, rtol=1e-9, atol=1e-9)
    measured = alternate(
        REPEATS, ours=lambda _: worked(lambda: simulate(fresh(panel), weights)), bt=lambda _: worked(alone)
    )
    print(line("equity and positions", WIDTH, measured["ours"], measured["bt"]))
    whole = alternate(REPEATS, ours=lambda _: worked(lambda: everything(panel, weights)), bt=lambda _: worked(reported))
    print(line("with trades and figures", WIDTH, whole["ours"], whole["bt"]))
    return measured["bt"].median / measured["ours"].median


def main() -> int:
    """Print the table; 1 if a requirement is missed."""
    print(
        f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, pandas {pd.__version__}; "
        "one thread, CPU time"
    )
    panel, weights = market(SYMBOLS, SESSIONS)
    print(f"{SYMBOLS} symbols × {SESSIONS} sessions\n{headings(WIDTH)}")
    ratio = bench_bt(panel, weights)
    rules = Rules(CostModel(1, 4, 50), min_hold_sessions=3, max_weight=0.1)
    alone = alternate(
        REPEATS,
        costs=lambda _: worked(lambda: simulate(fresh(panel), weights, Rules(rules.costs))),
        rules=lambda _: worked(lambda: simulate(fresh(panel), weights, rules)),
        tranches=lambda _: worked(lambda: simulate(fresh(panel), weights, Rules(rules.costs), tranches=5)),
    )
    print(line("with costs", WIDTH, alone["costs"]))
    print(line("with costs, a cap and a minimum hold", WIDTH, alone["rules"]))
    print(line("with costs, five tranches", WIDTH, alone["tranches"]))
    large, many = market(MANY, LONG)
    print(f"{MANY} symbols × {LONG} sessions")
    whole = alternate(
        3,
        alone=lambda _: worked(lambda: simulate(fresh(large), many, rules)),
        everything=lambda _: worked(lambda: everything(large, many, rules)),
    )
    print(line("with costs, a cap and a minimum hold", WIDTH, whole["alone"]))
    print(line("and its trades, ledger and figures", WIDTH, whole["everything"]))
    missed = []
    if ratio is not None and ratio < REQUIRED:
        missed.append(f"bt {ratio:.0f}×, required {REQUIRED:.0f}×")
    if whole["everything"].median > SECONDS:
        missed.append(f"{MANY} symbols in {whole['everything'].median:.1f} s, required {SECONDS:.0f} s")
    if missed:
        print("missed: " + "; ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
