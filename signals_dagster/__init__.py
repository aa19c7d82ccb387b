"""The pipeline as Dagster software-defined assets; every computation is in signals_core."""

import warnings

import dagster as dg

# Partition mappings of two dimensions are marked beta; the lock file pins the release they were tested on.
warnings.filterwarnings("ignore", category=dg.BetaWarning, module=r"(signals_dagster|dagster)\..*")
