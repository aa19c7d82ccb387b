"""How good a backtest was, and how sure one can be: the uncertainty beside every figure."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from signals_core.errors import DataError
from signals_core.ml.metrics import SESSIONS_PER_YEAR
from signals_core.ml.sharpe import SharpeEstimate, deflated_sharpe, sharpe_estimate
from signals_core.strategy.backtest import Backtest

LAGS = 9
"""Of the Sharpe ratio's error: positions of five sessions overlap, so that days share signals."""


@dataclass(frozen=True)
class Performance:
    """Of a backtest from its first to its last session; rates are a year of 252 sessions, shares of equity."""

    start: str
    end: str
    sessions: int
    sharpe: float
    sharpe_error: float
    """Standard error of `sharpe`: skewness, fat tails and serial correlation are in it."""
    sharpe_low: float
    """End of the 95 % interval of `sharpe`."""
    sharpe_high: float
    deflated_sharpe: float
    """Probability that the true Sharpe ratio is above 0, the best of `trials` being taken into account."""
    trials: int
    total_return: float
    cagr: float
    """Compound growth; -1 if equity was used up."""
    volatility: float
    max_drawdown: float
    """0 or negative."""
    drawdown_start: str
    """The close of the highest equity before the deepest drawdown; empty without one."""
    drawdown_end: str
    """The close of the lowest."""
    longest_drawdown: int
    """Sessions in a row below an earlier high."""
    positive_days: float
    """Share of the sessions with a return that had a positive one; NaN without any."""
    turnover: float
    """Bought and sold, times equity a year."""
    gross_exposure: float
    """Mean over sessions."""
    net_exposure: float
    costs: float
    """Commission, slippage and loan fees over the whole time, in money, positive."""
    trades: int

    def as_dict(self) -> dict[str, float | int | str]:
        """For reports and JSON."""
        return asdict(self)

    def headline(self) -> str:
        """The Sharpe ratio in words, its uncertainty first."""
        if not np.isfinite(self.sharpe_error):
            return f"{self.sessions} sessions, too few or too constant for a Sharpe ratio with an error"
        luck = "could be luck" if self.deflated_sharpe < 0.95 else "is unlikely to be luck alone"
        tried = f"the best of {self.trials} tried" if self.trials > 1 else "the only one counted as tried"
        return (
            f"Sharpe ratio between {self.sharpe_low:.2f} and {self.sharpe_high:.2f} (95 %; {self.sharpe:.2f} ± "
            f"{self.sharpe_error:.2f}) on {self.sessions} sessions; as {tried} it {luck} "
            f"(probability of a true ratio above 0: {self.deflated_sharpe:.2f})"
        )


def performance(backtest: Backtest, trials: int = 1, lags: int = LAGS) -> Performance:
    """Figures of a backtest.

    The Sharpe ratio is of returns over nothing, not over a risk-free rate, and its days are those after the first
    session, in which nothing can have been held.

    Args:
        backtest: of two sessions at least.
        trials: how many strategies were tried to find this one, itself included.
        lags: of the Newey-West correction of the Sharpe ratio's error.

    Raises:
        DataError: fewer than two sessions.
    """
    if len(backtest.dates) < 2:
        raise DataError(f"a backtest of {len(backtest.dates)} sessions has no performance: two are needed")
    returns = backtest.returns.iloc[1:]
    sharpe = sharpe_estimate(returns, lags)
    depth = backtest.drawdown
    lowest = int(depth.to_numpy().argmin())
    highest = int(backtest.equity_values[: lowest + 1].argmax())
    moved = returns[returns != 0]
    exposure, ledger = backtest.exposure, backtest.ledger
    return Performance(
        start=str(backtest.dates[0].date()),
        end=str(backtest.dates[-1].date()),
        sessions=len(backtest.dates),
        sharpe=sharpe.annual,
        sharpe_error=sharpe.annual_error,
        sharpe_low=sharpe.annual - 1.96 * sharpe.annual_error,
        sharpe_high=sharpe.annual + 1.96 * sharpe.annual_error,
        deflated_sharpe=deflated_sharpe(sharpe, trials),
        trials=trials,
        total_return=float(backtest.equity_values[-1] / backtest.capital - 1),
        cagr=growth_rate(backtest),
        volatility=float(returns.std() * np.sqrt(SESSIONS_PER_YEAR)),
        max_drawdown=float(depth.min()),
        drawdown_start=str(backtest.dates[highest].date()) if depth.min() < 0 else "",
        drawdown_end=str(backtest.dates[lowest].date()) if depth.min() < 0 else "",
        longest_drawdown=_longest_run(depth.to_numpy() < 0),
        positive_days=float((moved > 0).mean()) if len(moved) else np.nan,
        turnover=backtest.annual_turnover,
        gross_exposure=float(exposure["gross"].mean()),
        net_exposure=float(exposure["net"].mean()),
        costs=-float(ledger[["commission", "slippage", "borrow"]].to_numpy().sum()),
        trades=int((backtest.traded != 0).sum()),
    )


def growth_rate(backtest: Backtest) -> float:
    """Compound annual growth from the first close on; -1 if nothing is left."""
    ratio = backtest.equity_values[-1] / backtest.capital
    years = (len(backtest.dates) - 1) / SESSIONS_PER_YEAR
    return float(ratio ** (1 / years) - 1) if ratio > 0 else -1.0


def _longest_run(flags: np.ndarray) -> int:
    ends = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return int((ends[1::2] - ends[::2]).max(initial=0))


def by_year(backtest: Backtest) -> pd.DataFrame:
    """One row a calendar year.

    Columns: sessions, return, volatility and Sharpe ratio (annual, with its error), max_drawdown (within the
    year), turnover (times equity, in the year), costs (money).
    """
    returns, years = backtest.returns, backtest.dates.year
    rows = []
    for year in years.unique():
        chosen = np.asarray(years == year)
        own = returns[chosen]
        path = np.concatenate([[1.0], np.cumprod(1 + own.to_numpy())])
        sharpe: SharpeEstimate = sharpe_estimate(own, LAGS)
        rows.append(
            {
                "sessions": len(own),
                "return": path[-1] - 1,
                "volatility": float(own.std() * np.sqrt(SESSIONS_PER_YEAR)),
                "sharpe": sharpe.annual,
                "sharpe_error": sharpe.annual_error,
                "max_drawdown": float((path / np.maximum.accumulate(path) - 1).min()),
                "turnover": float(backtest.turnover[chosen].sum()),
                "costs": -float(backtest.ledger.loc[chosen, ["commission", "slippage", "borrow"]].to_numpy().sum()),
            }
        )
    return pd.DataFrame(rows, index=pd.Index(years.unique(), name="year"))


def by_symbol(backtest: Backtest) -> pd.DataFrame:
    """One row a symbol, the largest earner first.

    Columns: earned (money, costs taken off; with the interest they add up to the change of equity), share (of the
    capital), trades, sessions_held, mean_weight and largest_weight (over the sessions held, of the absolute
    weight at the close), positive_days (share of the sessions it earned or lost something).
    """
    earned, held = backtest.earned, backtest.shares != 0
    weight = np.abs(backtest.position_values / backtest.equity_values[:, None])
    days, moved = held.sum(axis=0), (earned != 0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        frame = pd.DataFrame(
            {
                "earned": earned.sum(axis=0),
                "share": earned.sum(axis=0) / backtest.capital,
                "trades": (backtest.traded != 0).sum(axis=0),
                "sessions_held": days,
                "mean_weight": np.where(held, weight, 0.0).sum(axis=0) / days,
                "largest_weight": weight.max(axis=0),
                "positive_days": (earned > 0).sum(axis=0) / moved,
            },
            index=pd.Index(backtest.panel.symbols, name="symbol"),
        )
    return frame.sort_values("earned", ascending=False, kind="stable")


def by_month(backtest: Backtest) -> pd.DataFrame:
    """Return of each month, years by months 1..12; NaN where there is none."""
    growth = (1 + backtest.returns).groupby([backtest.dates.year, backtest.dates.month]).prod() - 1
    table = growth.unstack().reindex(columns=range(1, 13))
    return table.rename_axis(index="year", columns="month")


def benchmark_equity(backtest: Backtest, closes: pd.Series) -> pd.Series:
    """The capital held in one thing from the first close on, without costs.

    Args:
        closes: adjusted; index dates. Sessions without one keep the last before.

    Raises:
        DataError: there is no close at the first session or before it.
    """
    known = closes.dropna().reindex(closes.dropna().index.union(backtest.dates)).ffill().reindex(backtest.dates)
    if np.isnan(known.iloc[0]):
        raise DataError(f"the benchmark has no close at {backtest.dates[0].date()} or before")
    return (backtest.capital * known / known.iloc[0]).rename("benchmark")
