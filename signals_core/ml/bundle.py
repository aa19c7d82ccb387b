"""Model bundles: one folder a version, read in two phases: verify everything, then build. No pickle.

`booster.ubj` (XGBoost's UBJSON), `calibrator.json`, `out_of_fold.parquet` (the pooled predictions the
calibrator and the gate rest on), `reference.parquet` (the training rows that drift is measured against) and
`manifest.json` (features in order, settings, digests of inputs and files, and a check of itself).
"""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from signals_core.errors import BundleError
from signals_core.files import new_directory
from signals_core.ml.calibration import Calibrator, read_calibrator
from signals_core.ml.pipeline import MLPipeline
from signals_core.provenance import digest, file_digest
from signals_core.settings import MLSettings

FORMAT = 2
"""Format 1 had no check of the manifest itself; it is still read."""
_SERVING = ("booster.ubj", "calibrator.json")
"""What predictions come from."""
_FILES = (*_SERVING, "out_of_fold.parquet", "reference.parquet")
_MANIFEST, _CHECK = "manifest.json", "check"
_REQUIRED = (
    *("version_id", "scope", "cause", "created_at", "as_of", "inputs", "digest"),
    *("features", "prior", "class_weighting", "files"),
)


@dataclass(frozen=True)
class Model:
    """A model ready to serve."""

    manifest: dict[str, Any]
    pipeline: MLPipeline
    calibrator: Calibrator

    @property
    def version_id(self) -> str:
        """Its name in the registry."""
        return str(self.manifest["version_id"])

    @property
    def features(self) -> list[str]:
        """Input columns in order."""
        return self.pipeline.features

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        """Calibrated probabilities (n, 3) of DOWN, FLAT, UP.

        Raises:
            DataError: a column the model was trained on is absent.
        """
        return self.calibrator.predict_proba(self.pipeline.predict(features))


def content_digest(pipeline: MLPipeline, calibrator: Calibrator) -> str:
    """The digest of what a model computes: equal digests mean equal predictions."""
    return _content_digest(_booster_bytes(pipeline), pipeline, calibrator)


def _content_digest(booster: bytes, pipeline: MLPipeline, calibrator: Calibrator) -> str:
    return digest(
        np.frombuffer(booster, dtype="uint8"),
        pipeline.features,
        pipeline.prior,
        pipeline.settings.class_weighting,
        calibrator.to_dict(),
    )


def _booster_bytes(pipeline: MLPipeline) -> bytes:
    assert pipeline.booster is not None
    return bytes(pipeline.booster.save_raw("ubj"))


def write_bundle(
    folder: Path,
    pipeline: MLPipeline,
    calibrator: Calibrator,
    out_of_fold: pd.DataFrame,
    reference: pd.DataFrame,
    manifest: dict[str, Any],
) -> None:
    """Write a whole bundle to the new folder, or nothing.

    Raises:
        FileExistsError: the folder exists; a version is never overwritten.
    """
    with new_directory(folder) as temporary:
        (temporary / "booster.ubj").write_bytes(_booster_bytes(pipeline))
        (temporary / "calibrator.json").write_text(json.dumps(calibrator.to_dict(), indent=1))
        out_of_fold.reset_index().to_parquet(temporary / "out_of_fold.parquet", index=False)
        reference.reset_index().to_parquet(temporary / "reference.parquet", index=False)
        content = {
            "format": FORMAT,
            **manifest,
            "version_id": folder.name,
            "features": pipeline.features,
            "prior": pipeline.prior.tolist(),
            "class_weighting": pipeline.settings.class_weighting,
            "files": {name: file_digest(temporary / name) for name in _FILES},
        }
        (temporary / _MANIFEST).write_text(manifest_text(content))


def manifest_text(content: dict[str, Any]) -> str:
    """A manifest as it is stored: with the check that makes a changed byte of it known."""
    plain = {key: value for key, value in content.items() if key != _CHECK}
    check = hashlib.sha256(_rendered(plain).encode()).hexdigest()
    return _rendered({**plain, _CHECK: check})


def _rendered(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle, its format and its check compared.

    Raises:
        BundleError: it is absent, unreadable, altered or of a format from the future.
    """
    path = folder / _MANIFEST
    try:
        text = path.read_bytes().decode()
        manifest = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read ({error}): restore the folder or retrain") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if type(found) is not int or not 1 <= found <= FORMAT:
        raise BundleError(f"{path} is of format {found!r}; this version of signals reads {FORMAT}")
    if (found > 1 or _CHECK in manifest) and manifest_text(manifest) != text:
        raise BundleError(f"{path} was altered since it was written: it is not served")
    absent = [key for key in _REQUIRED if key not in manifest]
    if absent:
        raise BundleError(f"{path} lacks {', '.join(absent)}: restore the folder or retrain")
    return manifest


def verify_bundle(folder: Path) -> dict[str, Any]:
    """Check every file of a bundle against its digest before anything is built; returns the manifest.

    Raises:
        BundleError: names the file that is absent or altered.
    """
    manifest = read_manifest(folder)
    for name in _FILES:
        _verified(folder, name, manifest)
    return manifest


def _verified(folder: Path, name: str, manifest: dict[str, Any]) -> bytes:
    """The bytes of a file, which are those whose digest was compared."""
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} is missing: restore the folder or retrain") from error
    if hashlib.sha256(content).hexdigest() != manifest["files"].get(name):
        raise BundleError(f"{path} was altered since it was written: it is not served")
    return content


def load_bundle(folder: Path) -> Model:
    """Verify every file of a bundle, then build the model.

    Raises:
        BundleError: see `verify_bundle`.
    """
    verify_bundle(folder)
    return load_model(folder)


def load_model(folder: Path) -> Model:
    """Verify what predictions come from, then build the model; `read_frame` verifies the tables when they are read.

    Raises:
        BundleError: names the file that is absent or altered, or what does not fit together.
    """
    import xgboost as xgb

    manifest = read_manifest(folder)
    booster, calibrator_text = (_verified(folder, name, manifest) for name in _SERVING)
    pipeline = MLPipeline(MLSettings(class_weighting=manifest["class_weighting"]))
    pipeline.booster = xgb.Booster()
    pipeline.booster.load_model(bytearray(booster))
    pipeline.features = list(manifest["features"])
    pipeline.prior = np.asarray(manifest["prior"], dtype="float64")
    if pipeline.booster.feature_names != pipeline.features:
        raise BundleError(f"{folder / _MANIFEST} lists other features than the booster was trained on")
    calibrator = read_calibrator(json.loads(calibrator_text))
    if _content_digest(booster, pipeline, calibrator) != manifest["digest"]:
        raise BundleError(f"{folder / _MANIFEST} was altered: what it says is not what was trained")
    return Model(manifest, pipeline, calibrator)


def is_sound(folder: Path) -> bool:
    """Whether a bundle could be served."""
    try:
        load_bundle(folder)
    except BundleError:
        return False
    return True


def set_aside(folder: Path) -> None:
    """Rename a damaged bundle to a hidden name beside it, for a person to look at."""
    number = 1
    while (target := folder.with_name(f".{folder.name}.damaged{number}")).exists():
        number += 1
    folder.rename(target)


def read_frame(folder: Path, name: str) -> pd.DataFrame:
    """`out_of_fold` or `reference` of a bundle, index (symbol, date).

    Raises:
        BundleError: the file is absent or was altered.
    """
    path = folder / f"{name}.parquet"
    content = _verified(folder, path.name, read_manifest(folder))
    try:
        return pd.read_parquet(io.BytesIO(content)).set_index(["symbol", "date"])
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{path} cannot be read ({error}): restore the folder or retrain") from error
