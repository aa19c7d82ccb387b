"""The registry: which model is in service, loading it, and promoting another, against MLflow's registry on SQLite.

Run with `make bench`. Ours runs on the embedded Redis, every write flushed to disk. The bundles are of the size of a
universe of 100 symbols. Where the environment variable SIGNALS_BENCH_MLFLOW names a Python that has MLflow and XGBoost,
the same boosters are promoted and loaded there too: an alias is moved to the other version, and the model it names is
loaded. Ours verifies every digest before it promotes, and those of what predicts before it loads; MLflow does not.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost as xgb

from benchmarks.measuring import Measured, clocked, headings, line
from signals_core.calendar import sessions_between
from signals_core.embedded_redis import EmbeddedRedis
from signals_core.ml.bundle import content_digest, write_bundle
from signals_core.ml.calibration import ConfidenceCalibrator
from signals_core.ml.pipeline import MLPipeline
from signals_core.ml.registry import ModelRegistry
from signals_core.settings import MLSettings

SYMBOLS, FEATURES, ROUNDS, DEPTH = 100, 55, 100, 3
REPEATS, WIDTH = 31, 60
MLFLOW = "SIGNALS_BENCH_MLFLOW"
LOAD_MILLISECONDS = 10.0
NAMES = ("first", "second")


def panel(seed: int) -> tuple[pd.DataFrame, pd.Series]:
    """Two years of random rows and labels."""
    random = np.random.default_rng(seed)
    dates = sessions_between("XNYS", date(2020, 1, 1), date(2022, 1, 1)).rename("date")
    index = pd.MultiIndex.from_product([[f"S{n:03d}" for n in range(SYMBOLS)], dates], names=["symbol", "date"])
    values = random.normal(size=(len(index), FEATURES)).astype("float32")
    frame = pd.DataFrame(values, index=index, columns=[f"f{n:02d}" for n in range(FEATURES)])
    return frame, pd.Series(random.integers(0, 3, len(index)), index=index)


def write(folder: Path, name: str, seed: int) -> MLPipeline:
    """A bundle of the two years."""
    features, labels = panel(seed)
    pipeline = MLPipeline(MLSettings(), seed)
    pipeline.train(features, labels, {"max_depth": DEPTH}, ROUNDS)
    calibrator = ConfidenceCalibrator(np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.0, -0.1]), 500)
    manifest = {
        "scope": "UNIVERSE",
        "cause": "benchmark",
        "created_at": "2022-01-02T07:00:00+00:00",
        "as_of": "2022-01-02",
        "inputs": name,
        "digest": content_digest(pipeline, calibrator),
    }
    out_of_fold = features.iloc[:, :12].astype("float64").assign(label=labels)
    write_bundle(folder / name, pipeline, calibrator, out_of_fold, features, manifest)
    return pipeline


def repeated(work: Callable[[int], object]) -> list[float]:
    """Seconds of each of the repetitions, the first one left out."""
    return [clocked(lambda r=repeat: work(r)) for repeat in range(REPEATS + 1)][1:]  # type: ignore[misc]


def mlflow(python: str, boosters: list[xgb.Booster], rows: np.ndarray) -> dict[str, list[float]]:
    """What MLflow took; its predictions are checked against the booster's own."""
    with tempfile.TemporaryDirectory() as folder:
        for name, booster in zip(NAMES, boosters, strict=True):
            booster.save_model(Path(folder) / f"{name}.ubj")
        np.save(Path(folder) / "rows.npy", rows)
        script = Path(__file__).with_name("mlflow_registry.py")
        done = subprocess.run(
            [python, script, folder, str(REPEATS)], check=True, capture_output=True, text=True, cwd=folder
        )
        predicted = np.load(Path(folder) / "predicted.npy")
    last = boosters[REPEATS % 2]
    expected = last.predict(xgb.DMatrix(rows, feature_names=last.feature_names, nthread=1))
    np.testing.assert_array_equal(predicted, expected)
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Print the table; 1 if the active model takes longer than required."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "models"
        boosters = [write(folder, name, seed).booster for seed, name in enumerate(NAMES)]
        size = sum(path.stat().st_size for path in (folder / "first").iterdir()) / 2**20
        server = EmbeddedRedis(Path(temporary) / "redis")
        registry = ModelRegistry(folder, server.connect())
        try:
            for name in NAMES:
                registry.register(name, folder / name, {"log_loss": 1.05})
            promote = Measured("promote", repeated(lambda r: registry.promote(NAMES[r % 2], "benchmark")))
            active = Measured("active", repeated(lambda _: registry.get_active()))
            load = Measured("load", repeated(lambda _: (registry.get_active(), registry.load_active())))
            both = Measured(
                "both",
                repeated(lambda r: (registry.promote(NAMES[r % 2], "benchmark"), registry.load_active())),
            )
        finally:
            server.close()
    rival: dict[str, list[float]] = {}
    python = os.environ.get(MLFLOW)
    if python is None:
        print(f"MLflow is left out: {MLFLOW} names no Python that has it")
    else:
        rows = panel(0)[0].to_numpy()[:500]
        rival = mlflow(python, [booster for booster in boosters if booster is not None], rows)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, xgboost {xgb.__version__}, "
        f"MLflow {rival.get('version', 'absent')}; wall time; {ROUNDS} rounds of depth {DEPTH}, "
        f"a bundle of {size:.1f} MiB"
    )
    print(headings(WIDTH))
    print(line("get_active", WIDTH, active))
    others = {what: Measured("mlflow", rival[what]) if rival else None for what in ("load", "promote")}
    both_other = (
        Measured("mlflow", [a + b for a, b in zip(rival["promote"], rival["load"], strict=True)]) if rival else None
    )
    print(line("get_active and load the model | load by alias", WIDTH, load, others["load"]))
    print(line("promote | set the alias", WIDTH, promote, others["promote"]))
    print(line("promote and load | set the alias and load", WIDTH, both, both_other))
    if load.median * 1e3 > LOAD_MILLISECONDS:
        print(f"missed: get_active and load take {load.median * 1e3:.1f} ms, required {LOAD_MILLISECONDS:.0f} ms")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
