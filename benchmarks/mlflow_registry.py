"""Promote and load by MLflow's model registry on SQLite: run with an interpreter that has it; see `bench_registry`.

    python mlflow_registry.py FOLDER REPEATS

FOLDER holds two boosters, first.ubj and second.ubj, and rows.npy. An alias is moved between their versions in turn,
and the model it names is loaded; the seconds of each are printed as JSON, and its predictions of the last written to
predicted.npy.
"""

import json
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import xgboost as xgb

NAME = "signals"


def main() -> None:
    folder, repeats = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = mlflow.create_experiment("bench", artifact_location=(folder / "artifacts").as_uri())
    rows = np.load(folder / "rows.npy")
    for name in ("first", "second"):
        booster = xgb.Booster()
        booster.load_model(folder / f"{name}.ubj")
        with mlflow.start_run(experiment_id=experiment):
            mlflow.xgboost.log_model(booster, name="model", registered_model_name=NAME, model_format="ubj")
    client = mlflow.MlflowClient()
    promoted, loaded = [], []
    for repeat in range(repeats + 1):
        began = time.perf_counter()
        client.set_registered_model_alias(NAME, "champion", str(1 + repeat % 2))
        middle = time.perf_counter()
        model = mlflow.xgboost.load_model(f"models:/{NAME}@champion")
        promoted.append(middle - began)
        loaded.append(time.perf_counter() - middle)
    columns = model.feature_names
    np.save(folder / "predicted.npy", model.predict(xgb.DMatrix(rows, feature_names=columns, nthread=1)))
    print(json.dumps({"promote": promoted[1:], "load": loaded[1:], "version": mlflow.__version__}))


if __name__ == "__main__":
    main()
