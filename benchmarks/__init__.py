"""Measurements with ratios against named alternatives; run with `make bench`."""

import os

# One thread per numerical library, set before any of them is imported: what is compared is work, not cores.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
