"""What an account that followed predictions did: figures, their uncertainty first, and a page with pictures."""

from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from signals_core import page
from signals_core.errors import DataError, MissingPrerequisite
from signals_core.files import write_bytes_atomic
from signals_core.ml.bundle import is_sound, read_manifest
from signals_core.ml.metrics import InformationCoefficient
from signals_core.ml.training import as_of_sunday
from signals_core.ml.wording import signed
from signals_core.settings import Scope
from signals_core.strategy import pictures
from signals_core.strategy.backtest import Backtest
from signals_core.strategy.forecasts import (
    forward_returns,
    hit_rate_by_confidence,
    information_coefficient,
    quantile_returns,
)
from signals_core.strategy.performance import Performance, benchmark_equity, by_symbol, by_year
from signals_core.strategy.walk_forward import FollowedSignals, follow_windows

if TYPE_CHECKING:
    from signals_core.ml.registry import Version
    from signals_core.workspace import Workspace

_QUANTILES = 5
_ENOUGH_SIGNALS = 30
"""For a picture of how often they were right."""


@dataclass(frozen=True, eq=False)
class BacktestReport:
    """An account, what it followed, and how good both were."""

    title: str
    about: str
    """What the predictions are and who made them."""
    followed: FollowedSignals
    horizon: int
    benchmark: pd.Series | None
    """Adjusted closes of the market, named."""

    @property
    def backtest(self) -> Backtest:
        """The account."""
        return self.followed.run.backtest

    @cached_property
    def figures(self) -> Performance:
        """Of the account."""
        return self.followed.run.performance(self.followed.trials)

    @cached_property
    def forward_return(self) -> pd.Series:
        """What each view could earn; index (symbol, date)."""
        return forward_returns(self.backtest.panel, self.horizon)

    @cached_property
    def view(self) -> pd.Series:
        """p_up - p_down of every prediction; index (symbol, date)."""
        rows = self.followed.frame.dropna(subset=["p_up"]).set_index(["symbol", "date"])
        return rows["p_up"] - rows["p_down"]

    @cached_property
    def coefficient(self) -> InformationCoefficient:
        """Rank correlation of the views with what followed."""
        return information_coefficient(self.view, self.forward_return.reindex(self.view.index), self.horizon)

    @property
    def signals(self) -> pd.DataFrame:
        """The signals among the predictions."""
        return self.followed.run.signals

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON and for Dagster."""
        estimate = self.coefficient.estimate
        return {
            "title": self.title,
            "about": self.about,
            "verdict": self.verdict,
            **self.figures.as_dict(),
            "predictions": len(self.view),
            "signals": len(self.signals),
            "information_coefficient": estimate.mean,
            "information_coefficient_error": estimate.standard_error,
        }

    @property
    def verdict(self) -> str:
        """One sentence, the uncertainty first."""
        if not self.figures.trades:
            return f"Nothing was traded: none of {len(self.view):,} predictions was a signal worth its costs."
        return f"{self.figures.headline()}."

    def states(self) -> list[tuple[str, str, str]]:
        """What a reader wants first: question, answer, and good, bad or unknown."""
        figures, estimate = self.figures, self.coefficient.estimate
        over = "across symbols" if self.coefficient.across_symbols else "over time"
        skill = f"information coefficient {over} {estimate.mean:+.3f} ± {estimate.standard_error:.3f}"
        lucky = "unknown" if abs(estimate.z) < 2 else "good" if estimate.mean > 0 else "bad"
        gained = "good" if figures.deflated_sharpe >= 0.95 else "unknown"
        between = f" from {figures.drawdown_start} to {figures.drawdown_end}" if figures.max_drawdown < 0 else ""
        lost = f"{figures.max_drawdown:.1%}{between}"
        probability = f"probability of a true Sharpe ratio above 0: {figures.deflated_sharpe:.2f}"
        luck = f"{probability}, {figures.trials:,} trials counted"
        earned = (
            f"{figures.total_return:+.1%} ({figures.cagr:+.1%} a year) after costs of "
            f"{figures.costs / self.backtest.capital:.1%} of the capital; {figures.trades:,} trades"
        )
        risked = (
            f"volatility {figures.volatility:.1%} a year, deepest drawdown {lost}, gross exposure "
            f"{figures.gross_exposure:.0%}"
        )
        return [
            ("Was it luck?", luck, gained),
            ("Do the views say anything?", skill, lucky),
            ("What did it earn?", earned, "unknown"),
            ("What did it risk?", risked, "unknown"),
        ]

    def pictures(self) -> dict[str, bytes]:
        """PNG by title; what there are too few signals for is left out."""
        backtest = self.backtest
        found = {"Equity": pictures.equity_curve(backtest, self.figures, self.title, self._benchmark())}
        if self.figures.trades:
            found["Exposure"] = pictures.exposure_picture(backtest, "Exposure and turnover")
            found["Return by month"] = pictures.monthly_heat_map(backtest, "Return by month")
        if len(self.signals) >= _ENOUGH_SIGNALS:
            hits = hit_rate_by_confidence(self.signals, self.forward_return, self.horizon)
            found["Right directions"] = pictures.confidence_bars(hits, "How often the direction was right")
        try:
            quantiles = quantile_returns(
                self.view, self.forward_return.reindex(self.view.index), self.horizon, _QUANTILES
            )
        except DataError:  # fewer symbols than quantiles on every date
            return found
        found["Quantiles of the view"] = pictures.quantile_bars(quantiles, "Quantiles of p(UP) - p(DOWN)", self.horizon)
        return found

    def _benchmark(self) -> pd.Series | None:
        if self.benchmark is None or self.benchmark.loc[: self.backtest.dates[0]].dropna().empty:
            return None
        return benchmark_equity(self.backtest, self.benchmark).rename(self.benchmark.name)

    def html(self) -> str:
        """A page that needs nothing but itself."""
        shown = [page.image(png, name) for name, png in self.pictures().items()]
        years = by_year(self.backtest)
        symbols = by_symbol(self.backtest)
        yearly = [
            (
                str(year),
                f"{row['return']:+.1%}",
                f"{row['volatility']:.1%}",
                f"{row['sharpe']:+.2f} ± {row['sharpe_error']:.2f}",
                f"{row['max_drawdown']:.1%}",
                f"{row['turnover']:.1f}",
            )
            for year, row in years.iterrows()
        ]
        each = [
            (
                str(symbol),
                signed(row["share"]),
                f"{row['trades']:,.0f}",
                f"{row['sessions_held']:,.0f}",
                f"{row['largest_weight']:.1%}",
            )
            for symbol, row in symbols.iterrows()
        ]
        return page.document(
            self.title,
            self.verdict,
            page.paragraph(self.about),
            page.cards(self.states()),
            *shown,
            page.heading("By year"),
            page.table(("year", "return", "volatility", "Sharpe ratio", "deepest drawdown", "turnover"), yearly),
            page.heading("By symbol"),
            page.table(("symbol", "earned, of the capital", "trades", "sessions held", "largest weight"), each),
            page.paragraph(
                f"Signals of a close are filled at the next open, {self.backtest.costs.slippage_bps:g} bp worse, with "
                f"{self.backtest.costs.commission_bps:g} bp commission; shorts pay "
                f"{self.backtest.costs.borrow_bps_per_year:g} bp a year. Prices are as traded; splits change shares, "
                "dividends are cash. The past of an account says little about its future.",
                small=True,
            ),
        )

    def write(self, path: Path) -> None:
        """Write the page."""
        write_bytes_atomic(path, self.html().encode())


def version_of_week(workspace: "Workspace", scope: Scope, sunday: date) -> "Version":
    """The newest version of a scope as of a Sunday: trained as of a moment of its week, or of an earlier one.

    In service or not, and whenever it was registered. A version whose bundle was retired or is damaged has no
    predictions to follow, and is left out.

    Raises:
        MissingPrerequisite: there is none.
    """
    found = []
    for version in workspace.registry.list_versions(scope):
        folder = workspace.models / version.model_path
        if not version.retired and is_sound(folder):
            as_of = datetime.fromisoformat(read_manifest(folder)["as_of"])
            found.append((as_of, version.sequence, version))
    known = [item for item in found if as_of_sunday(item[0]) <= sunday]
    if not known:
        raise MissingPrerequisite(f"{scope}: no model was trained as of {sunday} or an earlier Sunday: `signals train`")
    return max(known, key=lambda item: item[:2])[2]


def report_of_version(workspace: "Workspace", version: "Version") -> tuple[BacktestReport, Path]:
    """The account that followed a version's out-of-fold predictions, and the page written about it.

    Raises:
        MissingPrerequisite: too little history to size positions with.
    """
    about = (
        f"Predictions of the validation windows of {version.version_id}: each by a model that never saw its date, "
        "calibrated with earlier windows. When which model was promoted is not in it; `signals replay` knows that."
    )
    scope = version.scope
    report = report_of(workspace, f"Backtest, {scope}", about, follow_windows(workspace, scope, version))
    path = workspace.data / "reports" / "backtest" / scope / f"{version.version_id}.html"
    report.write(path)
    return report, path


def report_of(workspace: "Workspace", title: str, about: str, followed: FollowedSignals) -> BacktestReport:
    """The report beside the market's own instrument."""
    symbol = workspace.settings.universe.reference.spy
    bars = workspace.market.load_bars(symbol, as_of=workspace.now, adjustment="backward")
    benchmark = None if bars.empty else bars["close"].rename(symbol)
    return BacktestReport(title, about, followed, workspace.settings.ml.prediction_horizon, benchmark)
