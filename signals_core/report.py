"""The report of the main job: what a person wants to read when it has ended, read back from the stores."""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from signals_core.ml.bundle import read_frame, read_manifest
from signals_core.ml.comparison import PooledChallenge, compare_challengers, earned_its_place
from signals_core.ml.drift_store import DriftReport, DriftStore
from signals_core.ml.overfitting import PooledOverfitting, pool_searches
from signals_core.ml.registry import Version
from signals_core.ml.reliability import ReliabilityBin
from signals_core.ml.target import CLASSES, class_shares
from signals_core.ml.training import reliability_of
from signals_core.ml.validation import WindowResult
from signals_core.ml.windows import all_windows
from signals_core.settings import Scope
from signals_core.steps import data_span, known_until, last_day
from signals_core.strategy.ml_strategy import SignalStore
from signals_core.terminal import records
from signals_core.workspace import Workspace

DEMO_DISCLAIMER = (
    "This proves that the machinery works. It claims no performance: six large survivors chosen in hindsight, "
    "price features only, and few tuning trials."
)
SYNTHETIC_DISCLAIMER = (
    "This market is invented (provider synthetic): no price, filing or signal here is of a real company, and no figure "
    "says anything about real markets."
)
DISCLAIMER = (
    "Every figure is out of sample, but the universe and the settings were chosen by someone who knew the past. "
    "Nothing here promises a return."
)
_DRIFT_ROWS = 8
_RELIABILITY_BINS = 5


@dataclass(frozen=True)
class ScopeReport:
    """One scope: its windows, its newest version, what serves, how it is calibrated, what it says."""

    scope: Scope
    windows: list[WindowResult]
    newest: Version | None
    active: Version | None
    reliability: list[ReliabilityBin]
    features_without_data: list[str]
    signals: pd.DataFrame | None
    drift: DriftReport | None
    challenges: dict[str, PooledChallenge]
    """XGBoost beside each of its challengers, over all windows."""

    @property
    def overfitting(self) -> PooledOverfitting:
        """Of the searches for parameters, over all windows."""
        return pool_searches([window.overfitting for window in self.windows])


@dataclass(frozen=True)
class MainReport:
    """Everything the main job has made, read back from the stores."""

    symbols: list[dict[str, Any]]
    reference: list[dict[str, Any]]
    session: str
    scopes: list[ScopeReport]
    disclaimer: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "disclaimer": self.disclaimer,
            "session": self.session,
            "symbols": self.symbols,
            "reference": self.reference,
            "scopes": [
                {
                    "scope": s.scope,
                    "windows": [w.figures() for w in s.windows],
                    "newest": asdict(s.newest) if s.newest else None,
                    "active": asdict(s.active) if s.active else None,
                    "reliability": [asdict(b) for b in s.reliability],
                    "features_without_data": s.features_without_data,
                    "signals": None if s.signals is None else records(s.signals),
                    "drift": asdict(s.drift) if s.drift else None,
                    "challengers": {name: asdict(found) for name, found in s.challenges.items()},
                    "xgboost_earned_its_place": earned_its_place(s.challenges),
                    "overfitting": asdict(s.overfitting),
                }
                for s in self.scopes
            ],
        }


def read_report(workspace: Workspace) -> MainReport:
    """Gather the report from what is stored; nothing is computed but summaries.

    Raises:
        MissingPrerequisite: there are no bars yet.
    """
    start, end = data_span(workspace)
    day = last_day(workspace)
    coverage = workspace.market.coverage()
    symbols = []
    for ticker in workspace.settings.universe.tickers:
        if ticker not in coverage:
            continue
        target = workspace.targets.load(ticker, start, end, ["label"])
        shares = class_shares(target["label"]) if target is not None else [0.0] * len(CLASSES)
        symbols.append(
            {
                "symbol": ticker,
                **_covered(coverage[ticker]),
                "rejected": len(workspace.market.rejected("bars", ticker)),
                **{name: float(share) for name, share in zip(CLASSES, shares, strict=True)},
            }
        )
    reference = [
        {"role": role, "symbol": symbol, **(_covered(coverage[symbol]) if symbol in coverage else {})}
        for role, symbol in workspace.reference_roles().items()
    ]
    scopes = [_scope_report(workspace, scope, day) for scope in workspace.settings.ml.scopes]
    disclaimer = {"demo": DEMO_DISCLAIMER, "synthetic": SYNTHETIC_DISCLAIMER}.get(
        workspace.settings.market_data.provider, DISCLAIMER
    )
    return MainReport(symbols, reference, day.isoformat(), scopes, disclaimer)


def _covered(coverage: Any) -> dict[str, Any]:
    return {"sessions": coverage.sessions, "first": str(coverage.first), "last": str(coverage.last)}


def _scope_report(workspace: Workspace, scope: Scope, day: Any) -> ScopeReport:
    versions = workspace.registry.list_versions(scope)
    newest = versions[-1] if versions else None
    active = workspace.registry.get_active(scope)
    bins: list[ReliabilityBin] = []
    absent: list[str] = []
    if newest is not None:
        folder = workspace.models / newest.model_path
        horizon = workspace.settings.ml.prediction_horizon
        bins = reliability_of(read_frame(folder, "out_of_fold"), horizon, _RELIABILITY_BINS)
        absent = read_manifest(folder)["features_without_data"]
    signals = SignalStore(workspace.data / "signals")
    keys = [window.key for window in all_windows(workspace.settings, known_until(workspace))]
    stored = set(workspace.windows.keys(scope))
    windows = [workspace.windows.load(scope, key) for key in keys if key in stored]
    return ScopeReport(
        scope,
        windows,
        newest,
        active,
        bins,
        absent,
        signals.load(scope, day) if signals.inputs(scope, day) else None,
        DriftStore(workspace.data / "drift").load(scope, day.isoformat()),
        compare_challengers(windows, workspace.settings.ml.prediction_horizon),
    )
