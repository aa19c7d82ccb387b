"""Reproduce a model: train again from what its manifest says, and tell which input differs if the digest does."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from signals_core.errors import MissingPrerequisite
from signals_core.ml.bundle import content_digest, read_frame, verify_bundle
from signals_core.ml.forward_calibration import CALIBRATED_COLUMNS, calibrate_and_choose, fit_calibrator
from signals_core.ml.journal import find_version
from signals_core.ml.pipeline import MLPipeline
from signals_core.ml.training import code_digest, data_digests, library_versions, training_rows
from signals_core.ml.version_diff import ABSENT, Difference, compare
from signals_core.settings import CalibrationSettings, MLSettings, TuningSettings
from signals_core.workspace import Workspace


@dataclass(frozen=True)
class Reproduction:
    """A model trained again, beside the registered one."""

    version_id: str
    registered: str
    """The digest of what the registered model computes."""
    reproduced: str | None
    """The digest of the one trained again; None if its inputs are not there any more."""
    differences: list[Difference]
    """Of the inputs: then (first) and now (second)."""

    @property
    def same(self) -> bool:
        """Whether both compute the same."""
        return self.registered == self.reproduced


def reproduce(workspace: Workspace, version_id: str) -> Reproduction:
    """Train a registered model again with the settings, seed, span and recipe of its manifest. Nothing is stored.

    The trees are grown from the stored features and labels of today; the calibrator is fitted on the out-of-fold
    predictions that the bundle keeps.

    Raises:
        MissingPrerequisite: it is not registered, was retired, or features or target are missing.
        BundleError: its bundle is damaged.
    """
    version = find_version(workspace.models, version_id)
    if version.retired:
        raise MissingPrerequisite(f"{version_id} was retired: its manifest is gone")
    folder = workspace.models / version.model_path
    manifest = verify_bundle(folder)
    chosen = manifest["settings"]
    ml, tuning = MLSettings.model_validate(chosen["ml"]), TuningSettings.model_validate(chosen["tuning"])
    calibration = CalibrationSettings.model_validate(chosen["calibration"])
    panel = training_rows(workspace, version.scope, date.fromisoformat(manifest["as_of"]), ml.train_months)
    columns = list(manifest["features"])
    differences = compare(
        {"code": manifest["code"], "libraries": manifest["libraries"]},
        {"code": code_digest(), "libraries": library_versions()},
    )
    absent = [name for name in columns if name not in panel.features.columns]
    if absent:
        return Reproduction(version_id, version.digest, None, [*differences, Difference("features", absent, ABSENT)])
    differences += _frame_differences(read_frame(folder, "reference"), panel.features[columns])
    if "data" in manifest:  # manifests of before had no digest of the labels
        labels = [manifest["data"]["labels"], data_digests(panel, columns)["labels"]]
        differences += compare({"labels": labels[0]}, {"labels": labels[1]})

    pipeline = MLPipeline(ml, tuning.seed)
    pipeline.train(panel.features[columns], panel.target["label"], manifest["params"], manifest["rounds"])
    pooled = read_frame(folder, "out_of_fold").drop(columns=[*CALIBRATED_COLUMNS, "trade_return"], errors="ignore")
    horizon = ml.prediction_horizon
    out_of_fold, choice = calibrate_and_choose(pooled, calibration.min_rows, horizon, calibration.method)
    calibrator = fit_calibrator(out_of_fold, horizon, choice.method)
    return Reproduction(version_id, version.digest, content_digest(pipeline, calibrator), differences)


def _frame_differences(then: pd.DataFrame, now: pd.DataFrame) -> list[Difference]:
    """Training rows that came or went, and per column the cells that changed, with the first of them."""
    gone, come = then.index.difference(now.index), now.index.difference(then.index)
    found = []
    if len(gone) or len(come):
        found.append(Difference("training rows (only in one)", _rows(gone), _rows(come)))
    common = then.index.intersection(now.index)
    for name in then.columns:
        old, new = then.loc[common, name].to_numpy(), now.loc[common, name].to_numpy()
        changed = ~((old == new) | (np.isnan(old) & np.isnan(new)))
        if changed.any():
            at = int(changed.argmax())
            symbol, day = common[at]
            what = f"feature {name}: {int(changed.sum())} of {len(common)} cells, the first {symbol} {day.date()}"
            found.append(Difference(what, float(old[at]), float(new[at])))
    return found


def _rows(index: pd.MultiIndex) -> str:
    if not len(index):
        return "0 rows"
    symbol, day = index[0]
    return f"{len(index)} rows, the first {symbol} {day.date()}"
