"""A registered version against the one in service: what the gate decides from, read from their bundles."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from signals_core.errors import BundleError, DataError
from signals_core.ml import metrics
from signals_core.ml.bundle import Model, load_model, read_frame, read_manifest
from signals_core.ml.forward_calibration import row_losses
from signals_core.ml.gate import CalibrationError, Challenger, Decision, Rival, decide
from signals_core.ml.journal import Event, serves
from signals_core.ml.pipeline import labels_of
from signals_core.ml.registry import Version
from signals_core.ml.target import class_shares
from signals_core.settings import Scope
from signals_core.workspace import Panel, Workspace


def judge(
    workspace: Workspace, version: Version, champion: Version | None, trained_on: Panel | None = None
) -> Decision:
    """The gate's decision about a registered version against the one in service, without acting on it.

    Args:
        workspace: of the project.
        version: the challenger.
        champion: the version in service; None: there is none.
        trained_on: its labelled training rows; None: what the fitted model says of them is not looked at.

    Raises:
        MissingPrerequisite: features or target of the dates to compare on are missing or stale.
        BundleError: the challenger's bundle is damaged.
    """
    gate, horizon = workspace.settings.gate, workspace.settings.ml.prediction_horizon
    folder = workspace.models / version.model_path
    out_of_fold = read_frame(folder, "out_of_fold")
    as_of = date.fromisoformat(read_manifest(folder)["as_of"])
    fitted_gain = None if trained_on is None else _fitted_gain(load_model(folder), trained_on)
    challenger = Challenger(_window_losses(out_of_fold), as_of, _calibration_error(version), fitted_gain)
    if champion is None or champion.version_id == version.version_id:
        return decide(challenger, None, horizon, gate)
    try:
        serving = _rival(workspace, workspace.registry.load_active(version.scope), out_of_fold)
    except (BundleError, DataError) as error:  # damaged, or in need of a feature that is gone
        decision = decide(challenger, None, horizon, gate)
        return replace(decision, reason=f"the model in service cannot serve ({error}); {decision.reason}")
    events = workspace.registry.journal()
    serving = replace(serving, in_service_since=_decided_by_a_person(events, serving.version_id, workspace.now))
    proven_id = proven_version(events, version.scope)
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


def _decided_by_a_person(events: Sequence[Event], version_id: str, now: datetime) -> date | None:
    """The day on which a version was put into service, if not by the gate."""
    last = next((event for event in reversed(events) if serves(event) and event.version_id == version_id), None)
    if last is None or "basis" in last.evidence:
        return None
    return datetime.fromisoformat(last.at).astimezone(now.tzinfo).date()


def _fitted_gain(model: Model, rows: Panel) -> float:
    """Mean log-loss gain over the class shares of labelled rows on themselves, before calibration.

    Calibrated on out-of-fold rows of many years, a model without skill may well be worse here.
    """
    labels = labels_of(rows.target["label"])
    said = model.pipeline.predict(rows.features)
    prior = np.broadcast_to(class_shares(labels), said.shape)
    return float((metrics.log_loss_rows(prior, labels) - metrics.log_loss_rows(said, labels)).mean())


def _calibration_error(version: Version) -> CalibrationError | None:
    found = [version.metrics.get(name) for name in ("classwise_ece", "classwise_ece_chance_high")]
    return None if None in found else CalibrationError(*found)  # type: ignore[arg-type]


def _window_losses(out_of_fold: pd.DataFrame) -> pd.DataFrame:
    losses = row_losses(out_of_fold)
    return losses[["model", "prior"]].assign(window=out_of_fold.loc[losses.index, "window"])


def _rival(workspace: Workspace, model: Model, challenger: pd.DataFrame) -> Rival:
    """The losses of a model on each date of the challenger's that it did not train on.

    Up to its training date those are its own out-of-fold predictions, if their table is sound: predicting does not need
    it. After that date, what the model itself says.
    """
    as_of = date.fromisoformat(model.manifest["as_of"])
    losses = pd.DataFrame({"model": [], "window": []}, index=challenger.index[:0])
    with suppress(BundleError):
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
