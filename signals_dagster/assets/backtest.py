"""What an account that followed a model's out-of-fold predictions would have done."""

from datetime import date

import dagster as dg

from signals_core.errors import MissingPrerequisite
from signals_core.provenance import source_digest
from signals_core.strategy.backtest_report import report_of_version, version_of_week
from signals_dagster.assets.model import calibrated_model
from signals_dagster.metadata import OWNERS, numbers_of, of_each_scope, picture
from signals_dagster.partitions import PARTITIONS, keys_of
from signals_dagster.resources import WorkspaceResource

_PLOTTED = ("sharpe", "sharpe_error", "deflated_sharpe", "total_return", "max_drawdown", "information_coefficient")


@dg.asset(
    deps=[calibrated_model],
    partitions_def=PARTITIONS.scope_week,
    group_name="strategy",
    owners=OWNERS,
    kinds={"numpy", "html"},
    code_version=source_digest("signals_core.strategy"),
    description="An account that followed the out-of-fold predictions of the newest version as of the Sunday: signals "
    "of each close filled at the next open, sized by a share of Kelly's weight under caps, with costs; a page for each "
    "version in data/reports/backtest.",
)
def strategy_backtest(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Equity, exposure and skill of each scope's newest version as of the Sunday, in service or not."""

    def describe(scope: str, sunday: date) -> dict[str, object]:
        opened = workspace.open()
        try:
            version = version_of_week(opened, scope, sunday)
            report, path = report_of_version(opened, version)
        except MissingPrerequisite as error:  # a short history has a model, and too little to size positions with
            context.log.warning(str(error))
            return {"refused": str(error)}
        figures = report.to_dict()
        return {
            "version": version.version_id,
            "verdict": report.verdict,
            "about": report.about,
            "page": dg.MetadataValue.path(str(path)),
            "signals": figures["signals"],
            "trades": figures["trades"],
            **numbers_of(scope, {name: figures[name] for name in _PLOTTED if figures[name] == figures[name]}),
            **{name.lower().replace(" ", "_"): picture(png, name) for name, png in report.pictures().items()},
        }

    return of_each_scope(context, keys_of(context), describe)
