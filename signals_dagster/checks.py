"""Asset checks: bars fit their schema, features look at no future, a model in service has passed the gate."""

import dagster as dg
import numpy as np
import pandas as pd

from signals_core.errors import DataError
from signals_core.features.leakage import STORED, find_leaks
from signals_core.market_data.schemas import validate_bars
from signals_core.ml.judging import judge
from signals_core.settings import Scope
from signals_core.steps import data_span
from signals_core.workspace import Workspace
from signals_dagster.assets.features import feature_matrix
from signals_dagster.assets.market_data import bars
from signals_dagster.assets.model import calibrated_model
from signals_dagster.metadata import table
from signals_dagster.resources import WorkspaceResource

_SAMPLED_SYMBOLS, _SAMPLED_DATES, _SEED = 3, 4, 20
_SHOWN_DECISIONS = 10


@dg.asset_check(asset=bars, blocking=True, description="Every stored bar fits the schema of bars.")
def bars_schema(workspace: WorkspaceResource) -> dg.AssetCheckResult:
    """Blocks everything downstream of bars that cannot be trusted."""
    opened, problems, rows = workspace.open(), [], 0
    for ticker in opened.settings.universe.tickers:
        stored = opened.market.load_bars(ticker)
        rows += len(stored)
        try:
            validate_bars(stored, ticker)
        except DataError as error:
            problems.append({"symbol": ticker, "problem": str(error)})
    return dg.AssetCheckResult(passed=not problems, metadata={"bars_checked": rows, "problems": table(problems)})


@dg.asset_check(
    asset=feature_matrix,
    blocking=True,
    description="The matrix has the catalogue's columns, all finite or missing.",
)
def feature_matrix_schema(workspace: WorkspaceResource) -> dg.AssetCheckResult:
    """Blocks training on a matrix that the catalogue does not describe."""
    opened, problems, rows = workspace.open(), [], 0
    start, end = data_span(opened)
    for ticker in opened.market.coverage(opened.settings.universe.tickers):
        matrix = opened.features.load(ticker, start, end)
        if matrix is None:
            problems.append({"symbol": ticker, "problem": f"missing or stale in {start}..{end}"})
            continue
        rows += len(matrix)
        if list(matrix.columns) != opened.features.catalog.names():
            problems.append({"symbol": ticker, "problem": "columns differ from the catalogue"})
        if np.isinf(matrix.to_numpy()).any():
            problems.append({"symbol": ticker, "problem": "infinite values"})
    return dg.AssetCheckResult(passed=not problems, metadata={"rows_checked": rows, "problems": table(problems)})


@dg.asset_check(
    asset=feature_matrix,
    blocking=True,
    description="For a sample of symbols and sessions, features made from data cut at the close equal the stored ones, "
    "in every row up to then.",
)
def no_lookahead(workspace: WorkspaceResource) -> dg.AssetCheckResult:
    """Blocks training on features that know the future."""
    opened = workspace.open()
    start, end = data_span(opened)
    random = np.random.default_rng(_SEED)
    tickers = opened.covered(opened.settings.universe.tickers)
    leaks, compared = [], 0
    for ticker in map(str, random.choice(tickers, min(_SAMPLED_SYMBOLS, len(tickers)), replace=False)):
        stored = opened.features.load(ticker, start, end)
        if stored is None or stored.empty:
            continue

        def compute_at(cut: pd.Timestamp, ticker: str = ticker) -> pd.DataFrame:
            return opened.features.compute(opened.provider.inputs_at(ticker, cut.date()))

        cuts = stored.index[random.choice(len(stored), min(_SAMPLED_DATES, len(stored)), replace=False)]
        leaks += find_leaks(ticker, stored, compute_at, cuts, STORED)
        compared += int(stored.index.searchsorted(cuts, side="right").sum())
    rows = [
        {
            "symbol": x.symbol,
            "feature": x.feature,
            "cut": x.cut.date(),
            "rows": x.rows,
            "last": x.date.date(),
            "stored": x.value,
            "knowable": x.knowable,
        }
        for x in leaks
    ]
    return dg.AssetCheckResult(
        passed=not leaks and compared > 0, metadata={"rows_compared": compared, "leaks": table(rows)}
    )


@dg.asset_check(
    asset=calibrated_model,
    blocking=True,
    description="No model in service is significantly worse than its class prior. A scope that no model has earned "
    "yet is a warning: nothing is served there.",
)
def promotion_gate(workspace: WorkspaceResource) -> dg.AssetCheckResult:
    """Blocks signals from a model that must not serve."""
    opened = workspace.open()
    rows = [_standing(opened, scope) for scope in opened.settings.ml.scopes]
    unfit = [row for row in rows if row["in_service"] and not row["passes_floor"]]
    return dg.AssetCheckResult(
        passed=all(row["passes_floor"] for row in rows),
        severity=dg.AssetCheckSeverity.ERROR if unfit else dg.AssetCheckSeverity.WARN,
        metadata={"scopes": table(rows), "last_decisions": table(_last_decisions(opened))},
    )


def _last_decisions(opened: Workspace) -> list[dict[str, object]]:
    """What the gate decided of the newest versions, and the numbers it rests on; the latest first."""
    judged = [e for e in opened.registry.journal() if e.action in ("promoted", "rejected") and e.evidence]
    rows = []
    for event in reversed(judged[-_SHOWN_DECISIONS:]):
        row: dict[str, object] = {"version": event.version_id, "decision": event.action, "why": event.reason}
        for name in ("gain_over_prior", "gain_over_champion"):
            estimate = event.evidence.get(name) or {}
            low, high = estimate.get("interval_95", (None, None))
            row |= {name: estimate.get("mean"), f"{name}_low": low, f"{name}_high": high}
        rows.append(row | {"champion_age_days": event.evidence.get("champion_age_days")})
    return rows


def _standing(opened: Workspace, scope: Scope) -> dict[str, object]:
    active = opened.registry.get_active(scope)
    if active is not None:
        floor = judge(opened, active, None).passes_floor
        return {
            "scope": scope,
            "in_service": active.version_id,
            "passes_floor": floor,
            "decision": active.decision,
        }
    versions = opened.registry.list_versions(scope)
    decision = versions[-1].decision if versions else "no version was trained"
    return {"scope": scope, "in_service": "", "passes_floor": False, "decision": decision}


CHECKS = [bars_schema, feature_matrix_schema, no_lookahead, promotion_gate]
