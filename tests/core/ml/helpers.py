"""Small panels, models and bundles for the tests of signals_core.ml."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from signals_core.calendar import sessions_between
from signals_core.ml.bundle import content_digest, write_bundle
from signals_core.ml.calibration import ConfidenceCalibrator
from signals_core.ml.pipeline import MLPipeline
from signals_core.ml.target import make_target
from signals_core.settings import MLSettings, TuningSettings, XgbParams
from signals_core.workspace import Panel

AS_OF = date(2022, 7, 3)
LAST_SESSION = date(2022, 7, 1)

QUICK_ML = MLSettings(min_training_samples=30, xgb_params=XgbParams(n_estimators=4, max_depth=2))
QUICK_TUNING = TuningSettings(trials=0)

FEATURES = ("rsi_14", "macd_pct", "roc_10")


def make_panel(
    symbols: Sequence[str] = ("AAA", "BBB"),
    start: date = date(2020, 1, 1),
    end: date = date(2021, 8, 1),
    horizon: int = 5,
    listed: Mapping[str, date] | None = None,
) -> Panel:
    """Random walks with a feature that knows a little of the future; the same for a symbol whatever `end` is."""
    ml = MLSettings(prediction_horizon=horizon)
    features, targets = {}, {}
    whole = sessions_between("XNYS", start, date(2024, 1, 1))
    for symbol in symbols:
        random = np.random.default_rng(sum(symbol.encode()))
        change = random.normal(0, 0.012, len(whole))
        close = 100 * np.exp(np.cumsum(change))
        open_ = close * np.exp(random.normal(0, 0.002, len(whole)))
        forward = np.concatenate([change[1:], [0.0]])
        columns = {
            "hint": forward + random.normal(0, 0.02, len(whole)),
            "noise": random.normal(0, 1, len(whole)),
            "drift": random.normal(0, 1, len(whole)),
        }
        index = whole.rename("date")
        first = pd.Timestamp((listed or {}).get(symbol, start))
        inside = (index >= first) & (index < pd.Timestamp(end))
        bars = pd.DataFrame({"open": open_, "close": close}, index=index)[inside]
        features[symbol] = pd.DataFrame(columns, index=index)[inside]
        targets[symbol] = make_target(bars, ml)
    return Panel(pd.concat(features, names=["symbol", "date"]), pd.concat(targets, names=["symbol", "date"]))


def tiny_pipeline(columns: Sequence[str] = FEATURES, seed: int = 0) -> tuple[MLPipeline, pd.DataFrame]:
    """A model of a few trees on random rows, and those rows with the index (symbol, date)."""
    random = np.random.default_rng(seed)
    dates = sessions_between("XNYS", date(2021, 1, 1), date(2021, 7, 1)).rename("date")
    index = pd.MultiIndex.from_product([["AAA", "BBB"], dates], names=["symbol", "date"])
    frame = pd.DataFrame(random.normal(size=(len(index), len(columns))), index=index, columns=list(columns))
    frame = frame.astype("float32")
    score = frame.iloc[:, 0] + random.normal(size=len(index))
    labels = pd.Series(np.digitize(score, [-0.5, 0.8]), index=index)
    pipeline = MLPipeline(QUICK_ML, seed)
    pipeline.train(frame, labels)
    return pipeline, frame


def constant_calibrator(probabilities: Sequence[float]) -> ConfidenceCalibrator:
    """One that says these probabilities whatever the trees say."""
    wanted = np.asarray(probabilities, dtype="float64")
    return ConfidenceCalibrator(np.zeros(3), np.log(wanted / (1 - wanted)), 500)


def out_of_fold_frame(index: pd.MultiIndex, seed: int = 0) -> pd.DataFrame:
    """What `train_model` stores: labels, raw and calibrated probabilities, priors."""
    random = np.random.default_rng(seed)
    rows = len(index)
    raw, calibrated = random.dirichlet([5, 5, 5], rows), random.dirichlet([8, 8, 8], rows)
    frame = pd.DataFrame({"label": random.integers(0, 3, rows)}, index=index)
    frame["label_end"] = index.get_level_values("date") + pd.Timedelta(days=7)
    frame[["p_down", "p_flat", "p_up"]] = raw
    frame[["calibrated_down", "calibrated_flat", "calibrated_up"]] = calibrated
    frame[["prior_down", "prior_flat", "prior_up"]] = 1 / 3
    return frame


def make_bundle(
    models: Path,
    version_id: str,
    scope: str = "UNIVERSE",
    *,
    seed: int = 0,
    columns: Sequence[str] = FEATURES,
    calibrator: ConfidenceCalibrator | None = None,
    reference: pd.DataFrame | None = None,
    as_of: date = AS_OF,
    **manifest: Any,
) -> Path:
    """A whole bundle `<models>/<version_id>`, not registered."""
    pipeline, frame = tiny_pipeline(columns, seed)
    calibrator = calibrator or ConfidenceCalibrator(np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.0, -0.1]), 500)
    content = {
        "scope": scope,
        "cause": "person",
        "created_at": "2022-07-03T06:00:00+00:00",
        "as_of": as_of.isoformat(),
        "inputs": f"inputs-{version_id}",
        "digest": content_digest(pipeline, calibrator),
        "metrics": {"log_loss": 1.05},
        "class_moments": {"mean": [-0.03, 0.0, 0.03], "deviation": [0.02, 0.005, 0.02]},
        **manifest,
    }
    folder = models / version_id
    write_bundle(
        folder,
        pipeline,
        calibrator,
        out_of_fold_frame(frame.index, seed),
        frame if reference is None else reference,
        content,
    )
    return folder


def flip_byte(path: Path, position: int | None = None) -> None:
    """Change one bit of one byte; in the middle of the file unless said."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 0x01
    path.write_bytes(content)
