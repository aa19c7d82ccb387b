"""The as-of join by Feast's offline store: run with an interpreter that has Feast; see `bench_features`.

    python feast_join.py FOLDER

FOLDER holds bars.parquet (symbol, event_timestamp) and facts.parquet (symbol, available_at, values). The join is
written to joined.parquet, and the CPU seconds it took are printed.
"""

import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64
from feast.value_type import ValueType


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    bars = pd.read_parquet(folder / "bars.parquet")
    names = [name for name in pd.read_parquet(folder / "facts.parquet").columns if name.startswith("v")]
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": "dask"},
            entity_key_serialization_version=3,
        )
    )
    symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
    view = FeatureView(
        name="facts",
        entities=[symbol],
        ttl=timedelta(0),
        schema=[Field(name=name, dtype=Float64) for name in names],
        source=FileSource(path=str(folder / "facts.parquet"), timestamp_field="available_at"),
    )
    store.apply([symbol, view])
    began = time.process_time()
    job = store.get_historical_features(entity_df=bars, features=[f"facts:{name}" for name in names])
    joined = job.to_df()
    print(time.process_time() - began)
    joined.to_parquet(folder / "joined.parquet")


if __name__ == "__main__":
    main()
