"""Everything Dagster serves. Importing this loads no model library."""

import dagster as dg

from signals_dagster.assets.backtest import strategy_backtest
from signals_dagster.assets.drift import drift_report_asset
from signals_dagster.assets.features import CATEGORY_ASSETS, feature_matrix
from signals_dagster.assets.market_data import FACT_ASSETS, bars, data_quality, reference_bars, universe_membership
from signals_dagster.assets.model import calibrated_model
from signals_dagster.assets.signals import signals
from signals_dagster.assets.target import target
from signals_dagster.assets.validation import validation_windows
from signals_dagster.checks import CHECKS
from signals_dagster.jobs import (
    altdata_job,
    daily_bars_job,
    daily_signals_job,
    facts_job,
    features_job,
    fundamentals_job,
    model_job,
    session_job,
    weekly_retrain_job,
    windows_job,
)
from signals_dagster.resources import WorkspaceResource
from signals_dagster.schedules import SCHEDULES
from signals_dagster.sensors import SENSORS

defs = dg.Definitions(
    assets=[
        reference_bars,
        bars,
        *FACT_ASSETS,
        universe_membership,
        data_quality,
        *CATEGORY_ASSETS,
        feature_matrix,
        target,
        validation_windows,
        calibrated_model,
        drift_report_asset,
        signals,
        strategy_backtest,
    ],
    asset_checks=CHECKS,
    jobs=[
        daily_bars_job,
        fundamentals_job,
        altdata_job,
        facts_job,
        features_job,
        windows_job,
        model_job,
        session_job,
        weekly_retrain_job,
        daily_signals_job,
    ],
    schedules=SCHEDULES,
    sensors=SENSORS,
    resources={"workspace": WorkspaceResource()},
    # Starting a process per step costs more than most steps; work is spread inside steps instead.
    executor=dg.in_process_executor,
)
