"""The pipeline as Dagster software-defined assets; every computation is in signals_core."""
