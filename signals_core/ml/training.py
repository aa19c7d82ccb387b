"""Train, calibrate, register and judge the model of one scope as of one Sunday."""

from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version as library_version
from typing import Any

import numpy as np
import pandas as pd

from signals_core import __version__
from signals_core.calendar import sessions_between
from signals_core.errors import MissingPrerequisite
from signals_core.ml import metrics
from signals_core.ml.bundle import (
    content_digest,
    is_sound,
    load_bundle,
    read_frame,
    read_manifest,
    set_aside,
    write_bundle,
)
from signals_core.ml.feature_groups import group_columns
from signals_core.ml.forward_calibration import CALIBRATED_COLUMNS, calibrate_and_choose, fit_calibrator, row_losses
from signals_core.ml.judging import judge
from signals_core.ml.overfitting import pool_searches
from signals_core.ml.pipeline import MLPipeline, labels_of
from signals_core.ml.registry import Version
from signals_core.ml.reliability import BINS, ReliabilityBin, reliability
from signals_core.ml.scores import probability_figures, return_figures
from signals_core.ml.target import CLASSES, NO_LABEL, class_shares
from signals_core.ml.validation import PRIOR_COLUMNS, PROBABILITY_COLUMNS, WindowResult, pool_out_of_fold
from signals_core.ml.version_names import version_name
from signals_core.ml.windows import current_windows, model_settings
from signals_core.progress import task
from signals_core.provenance import digest, modules_behind, source_digest
from signals_core.settings import Scope
from signals_core.workspace import Panel, Workspace

_KEEPERS = ("registry", "journal", "bundle", "window_store", "windows", "version_names", "champion")
CODE = modules_behind("signals_core.ml.training", *(f"signals_core.ml.{name}" for name in _KEEPERS))
"""What a model is trained, calibrated and judged by."""
_LIBRARIES = ("numpy", "pandas", "xgboost", "scikit-learn", "optuna", "pyarrow")


@dataclass(frozen=True)
class TrainedModel:
    """A registered version, and what was decided about it."""

    version: Version
    trained: bool
    """False if a version made from the same inputs was registered already."""
    reliability: list[ReliabilityBin]
    importance: dict[str, float]
    """Total gain of each feature's splits, as a share; the largest first."""


def as_of_sunday(moment: datetime) -> date:
    """The Sunday on or before `moment`, in whose partition a model trained then belongs."""
    return (moment - timedelta(days=(moment.weekday() + 1) % 7)).date()


def train_model(workspace: Workspace, scope: Scope, as_of: date, cause: str, by: str = "library") -> TrainedModel:
    """Bring the model of `scope` as of a date up to date, and promote it if it passes the gate.

    It uses bars of sessions before `as_of` only: the last `ml.train_months` of labelled rows to train on,
    and the validation windows that ended by then to calibrate and to judge. If a version made from exactly
    these inputs exists, it is not trained again.

    Raises:
        MissingPrerequisite: features, target or windows are missing, or there are too few rows.
    """
    panel, keys, inputs = _gather(workspace, scope, as_of)
    version = workspace.registry.find(scope, inputs) or _adopt_orphan(workspace, scope, inputs, by)
    trained = version is None
    if version is None:
        windows = [workspace.windows.load(scope, key) for key in keys]
        version = _train(workspace, scope, as_of, cause, by, panel, windows, inputs)
    if version.decision == "registered":
        version = _judge(workspace, version, by, panel)
    return TrainedModel(version, trained, *_pictures(workspace, version))


def is_current(workspace: Workspace, scope: Scope, as_of: date) -> bool:
    """Whether a version made from the present inputs is registered and judged already."""
    version = workspace.registry.find(scope, _gather(workspace, scope, as_of)[2])
    return version is not None and version.decision != "registered"


def _gather(workspace: Workspace, scope: Scope, as_of: date) -> tuple[Panel, list[str], str]:
    """The training rows, the keys of the windows to calibrate on, and the digest of both and the settings."""
    settings = workspace.settings
    windows = current_windows(workspace, scope, before=as_of)
    panel = training_rows(workspace, scope, as_of, settings.ml.train_months)
    inputs = digest(
        scope,
        panel.features,
        panel.target["label"],
        windows,
        settings.ml.train_months,
        model_settings(settings),
        settings.calibration,
        settings.gate,
        source_digest(*CODE),
    )
    keys = list(windows)
    return panel, keys, inputs


def _known_rows(panel: Panel, as_of: date) -> Panel:
    known = (panel.target["label"] != NO_LABEL) & (panel.target["label_end"] < pd.Timestamp(as_of))
    return Panel(panel.features[known], panel.target[known])


def _train(
    workspace: Workspace,
    scope: Scope,
    as_of: date,
    cause: str,
    by: str,
    panel: Panel,
    windows: list[WindowResult],
    inputs: str,
) -> Version:
    settings, horizon = workspace.settings, workspace.settings.ml.prediction_horizon
    if len(panel.features) < settings.ml.min_training_samples:
        raise MissingPrerequisite(
            f"{scope}: {len(panel.features)} labelled training rows, ml.min_training_samples asks for "
            f"{settings.ml.min_training_samples}"
        )
    # The recipe that the newest window found: a retrain costs one fit, and what is judged is what is served.
    tuned = windows[-1]
    columns = group_columns(panel.features, tuned.feature_group)
    with task(f"train {scope}", 2) as done:
        pipeline = MLPipeline(settings.ml, settings.tuning.seed)
        fitted = pipeline.train(panel.features[columns], panel.target["label"], tuned.params, tuned.rounds)
        done("trained")
        pooled, calibration = pool_out_of_fold(windows), settings.calibration
        out_of_fold, choice = calibrate_and_choose(pooled, calibration.min_rows, horizon, calibration.method)
        calibrator = fit_calibrator(out_of_fold, horizon, choice.method)
        done("calibrated")

    content = content_digest(pipeline, calibrator)
    created = workspace.now.astimezone(UTC)
    # Other inputs can lead to the very same model: both belong to its name.
    mark, known = digest(content, inputs)[:8], workspace.registry.list_versions()
    version_id = version_name(created, scope, mark, known, workspace.models)
    out_of_fold = out_of_fold.assign(trade_return=trade_returns(workspace, out_of_fold.index))
    trials = max(settings.tuning.trials, 1) * len(windows)
    overfitting = pool_searches([window.overfitting for window in windows])
    dates = out_of_fold.index.get_level_values("date")
    sessions = sessions_between(
        settings.exchange.calendar, dates.min().date(), (dates.max() + pd.Timedelta(days=1)).date()
    )
    figures = _figures(out_of_fold, horizon, settings.validation.cost_bps, trials, sessions) | {
        "train_rows": fitted["rows"],
        "windows": len(windows),
        "mean_window_sharpe": float(np.mean([w.sharpe_ratio for w in windows])),
        "overfitting_probability": overfitting.probability,
        "overfitting_probability_of_loss": overfitting.probability_of_loss,
    }
    manifest = {
        "scope": scope,
        "cause": cause,
        "created_at": created.isoformat(),
        "as_of": as_of.isoformat(),
        "train_start": str(panel.features.index.get_level_values("date").min().date()),
        "train_end": str(panel.features.index.get_level_values("date").max().date()),
        "symbols": sorted(panel.features.index.unique("symbol")),
        "features_without_data": [c for c in panel.features.columns if panel.features[c].isna().all()],
        "feature_group": tuned.feature_group,
        "tuned_by_window": tuned.start,
        "class_shares": class_shares(panel.target["label"]).tolist(),
        "class_moments": class_moments(panel.target["label"], panel.target["forward_return"]),
        "params": tuned.params,
        "rounds": tuned.rounds,
        "calibration": choice.to_dict(),
        "overfitting": asdict(overfitting) | {"summary": str(overfitting)},
        "settings": {name: getattr(settings, name).model_dump(mode="json") for name in ("ml", "tuning", "calibration")},
        "inputs": inputs,
        "data": data_digests(panel, pipeline.features),
        "digest": content,
        "code": code_digest(),
        "libraries": library_versions(),
        "metrics": figures,
    }
    folder = workspace.models / version_id
    if folder.exists() and not is_sound(folder):  # the same model, damaged since
        set_aside(folder)
    if not folder.exists():
        write_bundle(folder, pipeline, calibrator, out_of_fold, panel.features[pipeline.features], manifest)
    return workspace.registry.register(version_id, folder, figures, by)


def code_digest() -> str:
    """Of the code that trains."""
    return source_digest(*CODE)


def library_versions() -> dict[str, str]:
    """Of this package and the libraries that a model's numbers depend on."""
    return {"signals": __version__, **{name: library_version(name) for name in _LIBRARIES}}


def data_digests(panel: Panel, features: list[str]) -> dict[str, str]:
    """Of the training rows of `features` and of their labels."""
    return {"features": digest(panel.features[features]), "labels": digest(panel.target["label"])}


def training_rows(workspace: Workspace, scope: Scope, as_of: date, months: int) -> Panel:
    """The labelled rows of the last `months` before a date, whose labels were known then."""
    start = (pd.Timestamp(as_of) - pd.DateOffset(months=months)).date()
    return _known_rows(workspace.panel(scope, start, as_of), as_of)


def class_moments(labels: pd.Series, forward_returns: pd.Series) -> dict[str, list[float]]:
    """Mean and standard deviation of the forward return given DOWN, FLAT and UP, for the sizing of positions."""
    groups = forward_returns.groupby(labels)
    mean, deviation = (getattr(groups, name)().reindex(range(len(CLASSES))) for name in ("mean", "std"))
    return {"mean": mean.fillna(0.0).tolist(), "deviation": deviation.fillna(0.0).tolist()}


def _figures(
    out_of_fold: pd.DataFrame, horizon: int, cost_bps: float, trials: int, sessions: pd.DatetimeIndex
) -> dict[str, Any]:
    """The pooled figures of the calibrated rows, each date once."""
    losses = row_losses(out_of_fold)
    if losses.empty:
        raise MissingPrerequisite(
            "no window has enough earlier out-of-fold rows to be calibrated: add history, or lower calibration.min_rows"
        )
    rows = out_of_fold.loc[losses.index]
    labels, calibrated = labels_of(rows["label"]), rows[CALIBRATED_COLUMNS]
    gain = metrics.newey_west_mean(losses["prior"] - losses["model"], horizon)
    parts = [
        metrics.split_log_loss_rows(rows[names].to_numpy(), labels) for names in (PRIOR_COLUMNS, CALIBRATED_COLUMNS)
    ]
    whether, which = (
        metrics.newey_west_mean(pd.Series(prior - model, index=rows.index), horizon)
        for prior, model in zip(*parts, strict=True)
    )
    over_raw = metrics.newey_west_mean(losses["raw"] - losses["model"], horizon)
    signal = calibrated.set_axis(PROBABILITY_COLUMNS, axis=1)
    return {
        "rows": len(losses),
        "dates": gain.dates,
        "log_loss": float(losses["model"].mean()),
        "raw_log_loss": float(losses["raw"].mean()),
        "prior_log_loss": float(losses["prior"].mean()),
        "gain": gain.mean,
        "gain_error": gain.standard_error,
        "gain_flat_or_move": whether.mean,
        "gain_flat_or_move_error": whether.standard_error,
        "gain_direction": which.mean,
        "gain_direction_error": which.standard_error,
        "gain_over_raw": over_raw.mean,
        "gain_over_raw_error": over_raw.standard_error,
        **probability_figures(calibrated.to_numpy(), labels, rows.index, horizon),
        **return_figures(signal, rows["forward_return"], rows["trade_return"], horizon, cost_bps, trials, sessions),
    }


def trade_returns(workspace: Workspace, index: pd.MultiIndex) -> pd.Series:
    """What one session's holding earned after each row (symbol, date), by `make_target`; NaN if not known then.

    Args:
        index: rows whose labels are known.
    """
    dates = index.get_level_values("date")
    start, end = dates.min().date(), (dates.max() + pd.Timedelta(days=1)).date()
    found = {}
    for symbol in index.unique("symbol"):
        target = workspace.targets.load(symbol, start, end, ["trade_return"])
        if target is not None:
            found[symbol] = target["trade_return"]
    known = pd.concat(found, names=["symbol", "date"]).reindex(index)
    # A label of one session ends before the trade on it does, which may be after the model's date.
    last = known.groupby(level="symbol").cumcount(ascending=False) < 2 - workspace.settings.ml.prediction_horizon
    return known.mask(last)


def _adopt_orphan(workspace: Workspace, scope: Scope, inputs: str, by: str) -> Version | None:
    """Register a bundle whose writer was killed before it could."""
    registered = {version.version_id for version in workspace.registry.list_versions(scope)}
    for path in sorted(workspace.models.glob(f"[!.]*-{scope}-*/manifest.json")):  # hidden ones are unfinished
        if path.parent.name in registered or not is_sound(path.parent):
            continue
        manifest = read_manifest(path.parent)
        if manifest["scope"] == scope and manifest["inputs"] == inputs:
            return workspace.registry.register(path.parent.name, path.parent, manifest["metrics"], by)
    return None


def _judge(workspace: Workspace, version: Version, by: str, trained_on: Panel) -> Version:
    champion = workspace.registry.get_active(version.scope)
    decision = judge(workspace, version, champion, trained_on)
    if not decision.promote:
        workspace.registry.reject(version.version_id, decision.reason, by, decision.evidence)
        return workspace.registry.get(version.version_id)
    expected = champion.version_id if champion else None
    return workspace.registry.promote(version.version_id, decision.reason, by, decision.evidence, expected)


def _pictures(workspace: Workspace, version: Version) -> tuple[list[ReliabilityBin], dict[str, float]]:
    folder = workspace.models / version.model_path
    bins = reliability_of(read_frame(folder, "out_of_fold"), workspace.settings.ml.prediction_horizon)
    model = load_bundle(folder)
    assert model.pipeline.booster is not None
    gains = model.pipeline.booster.get_score(importance_type="total_gain")
    total = {name: float(np.sum(gain)) for name, gain in gains.items()}
    whole = sum(total.values()) or 1.0
    shares = {name: gain / whole for name, gain in total.items()}
    return bins, dict(sorted(shares.items(), key=lambda item: -item[1]))


def reliability_of(out_of_fold: pd.DataFrame, horizon: int, bins: int = BINS) -> list[ReliabilityBin]:
    """The reliability of the forward-calibrated rows of a bundle's out-of-fold predictions."""
    rows = out_of_fold.dropna(subset=CALIBRATED_COLUMNS)
    labels = labels_of(rows["label"])
    return reliability(rows[CALIBRATED_COLUMNS].to_numpy(), labels, CLASSES, horizon, bins, rows.index)


def newest_age(workspace: Workspace, scope: Scope, day: date) -> int | None:
    """Days from the last training of a scope, promoted or not, to `day`; None if it was never trained."""
    versions = workspace.registry.list_versions(scope)
    if not versions:
        return None
    return (day - max(date.fromisoformat(version.created_at[:10]) for version in versions)).days


def version_record(version: Version) -> dict[str, Any]:
    """A version as plain JSON values."""
    return asdict(version)
