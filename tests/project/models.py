"""A tiny real model, for tests of what happens around models."""

from functools import cache

import numpy as np
import pandas as pd

from signals_core.ml.bundle import content_digest, write_bundle
from signals_core.ml.calibration import ConfidenceCalibrator
from signals_core.ml.pipeline import MLPipeline
from signals_core.ml.registry import ModelRegistry, Version
from signals_core.settings import MLSettings


@cache
def _tiny() -> tuple[MLPipeline, ConfidenceCalibrator, pd.DataFrame]:
    random = np.random.default_rng(3)
    dates = pd.date_range("2022-01-03", periods=120, unit="us")
    index = pd.MultiIndex.from_product([["AAA"], dates], names=["symbol", "date"])
    features = pd.DataFrame(random.normal(size=(120, 2)), index=index, columns=["rsi_14", "roc_5"])
    labels = pd.Series(np.arange(120) % 3, index=index)
    pipeline = MLPipeline(MLSettings(min_training_samples=30))
    pipeline.train(features, labels, {"max_depth": 2}, rounds=2)
    calibrator = ConfidenceCalibrator().fit(pipeline.predict(features), labels.to_numpy())
    return pipeline, calibrator, features


def register_tiny_model(registry: ModelRegistry, scope: str, created_at: str) -> Version:
    pipeline, calibrator, features = _tiny()
    stamp = created_at[:19].translate(str.maketrans("", "", "-:"))
    version_id = f"{stamp}000000Z-{scope}-tiny"
    content = content_digest(pipeline, calibrator)
    manifest = {
        "scope": scope,
        "cause": "a test",
        "created_at": created_at,
        "as_of": created_at[:10],
        "inputs": f"inputs of {version_id}",
        "digest": content,
    }
    folder = registry.folder / version_id
    write_bundle(folder, pipeline, calibrator, features, features, manifest)
    return registry.register(version_id, folder, {"log_loss": 1.0, "prior_log_loss": 1.1})
