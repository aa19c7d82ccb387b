"""A registered version against the one in service: what the gate decides from, read from their bundles."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import pandas as pd

from signals_core.errors import BundleError, DataError
from signals_core.ml import metrics
from signals_core.ml.bundle import Model, load_model, read_frame, read_manifest
from signals_core.ml.forward_calibration import row_losses
from signals_core.ml.gate import CalibrationError, Challenger, Decision, Rival, decide
from signals_core.ml.journal import Event, serves
from signals_core.ml.pipeline import labels_of
from signals_core.ml.registry import Version
from signals_core.settings import Scope
from signals_core.workspace import Workspace


def judge(workspace: Workspace, version: Version, champion: Version | None) -> Decision:
    """The gate's decision about a registered version against the one in service, without acting on it."""
    settings = workspace.settings
    gate, horizon = settings.gate, settings.ml.prediction_horizon
    folder = workspace.models / version.model_path
    out_of_fold = read_frame(folder, "out_of_fold")
    as_of = date.fromisoformat(read_manifest(folder)["as_of"])
    challenger = Challenger(_window_losses(out_of_fold), as_of, _calibration_error(version))
    if champion is None or champion.version_id == version.version_id:
        return decide(challenger, None, horizon, gate)
    try:
        serving = _rival(workspace, workspace.registry.load_active(version.scope), out_of_fold)
    except (BundleError, DataError) as error:  # damaged, or in need of a feature that is gone
        decision = decide(challenger, None, horizon, gate)
        return replace(decision, reason=f"the model in service cannot serve ({error}); {decision.reason}")
    proven_id = proven_version(workspace.registry.journal(), version.scope)
    if proven_id in (None, serving.version_id, version.version_id):
        return decide(challenger, serving, horizon, gate)
    try:
        proven = _rival(workspace, load_model(workspace.models / proven_id), out_of_fold)
    except (BundleError, DataError) as error:
        decision = decide(challenger, serving, horizon, gate)
        evidence = decision.evidence | {"proven": f"{proven_id} cannot be compared: {error}"}
        return replace(decision, evidence=evidence)
    return decide(challenger, serving, horizon, gate, proven)


def proven_version(events: Sequence[Event], scope: Scope) -> str | None:
    """The last version of a scope that was put into service for another reason than being fresh; None: none was."""
    for event in reversed(events):
        if event.scope == scope and serves(event) and event.evidence.get("basis") != "refresh":
            return event.version_id
    return None


def _calibration_error(version: Version) -> CalibrationError | None:
    found = [version.metrics.get(name) for name in ("classwise_ece", "classwise_ece_chance_high")]
    return None if None in found else CalibrationError(*found)  # type: ignore[arg-type]


def _window_losses(out_of_fold: pd.DataFrame) -> pd.DataFrame:
    losses = row_losses(out_of_fold)
    return losses[["model", "prior"]].assign(window=out_of_fold.loc[losses.index, "window"])


def _rival(workspace: Workspace, model: Model, challenger: pd.DataFrame) -> Rival:
    """The losses of a model on each date of the challenger's that it did not train on.

    Up to its training date those are its own out-of-fold predictions; after it, what the model itself says.
    """
    as_of = date.fromisoformat(model.manifest["as_of"])
    losses = _window_losses(read_frame(workspace.models / model.version_id, "out_of_fold"))[["model", "window"]]
    later = challenger[challenger.index.get_level_values("date") >= pd.Timestamp(as_of)]
    if len(later):
        losses = pd.concat([losses, _live_losses(workspace, model, later)])
    return Rival(model.version_id, losses, as_of)


def _live_losses(workspace: Workspace, model: Model, rows: pd.DataFrame) -> pd.DataFrame:
    dates = rows.index.get_level_values("date")
    panel = workspace.panel(model.manifest["scope"], dates.min().date(), dates.max().date() + timedelta(days=1))
    features = panel.features.loc[rows.index.intersection(panel.features.index)]
    labels = labels_of(rows.loc[features.index, "label"])
    losses = metrics.log_loss_rows(model.predict_proba(features), labels)
    return pd.DataFrame({"model": losses, "window": ""}, index=features.index)
