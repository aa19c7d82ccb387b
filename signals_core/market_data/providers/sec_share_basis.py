"""In which shares a figure is stated, and what it is in others: splits seen in the counts that filings restate.

A basis is how many shares one share of the first filing has become.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from signals_core.market_data.providers.sec_tags import COVER_SHARES, PER_SHARE, SHARE_COUNTS

# A split is m new shares for n old ones; restated counts differ from that by rounding only.
_SPLIT_DENOMINATORS, _SPLIT_TOLERANCE, _LEAST_SPLIT = (1, 2, 3), 0.01, 1.2
# A factor of a thousand is a count filed in thousands by mistake.
_LARGEST_SPLIT = 200
# Of a figure a share; filings give two to four.
DECIMALS = 6


@dataclass(frozen=True)
class Version:
    """A value as filed on a day (a proleptic ordinal), in shares of `basis`."""

    value: float
    filed: int
    basis: float


def in_shares(version: Version, tag: str, basis: float | None) -> float:
    """A version's value in shares of `basis`; as filed, if None."""
    if basis is None or version.basis == basis:
        return version.value
    if tag in PER_SHARE:
        return round(version.value * version.basis / basis, DECIMALS)
    if tag in SHARE_COUNTS or tag == COVER_SHARES:
        return float(round(version.value * basis / version.basis))
    return version.value


def restated_basis(basis: float, restated: Sequence[tuple[Version, float]]) -> float:
    """The basis of a filing after one of `basis`, by the counts it restates: each as known before, and now."""
    implied = [before.basis * count / before.value for before, count in restated if before.value > 0 and count > 0]
    return basis * _split(median(implied) / basis) if implied else basis


def _split(ratio: float) -> float:
    """The split that changes share counts by `ratio`; 1 if none does, as with a corrected count."""
    if not np.isfinite(ratio) or ratio <= 0 or 1 / _LEAST_SPLIT < ratio < _LEAST_SPLIT:
        return 1.0
    forward = max(ratio, 1 / ratio)
    if forward > _LARGEST_SPLIT:
        return 1.0
    for denominator in _SPLIT_DENOMINATORS:
        exact = round(forward * denominator) / denominator
        if abs(forward / exact - 1) <= _SPLIT_TOLERANCE:
            return exact if ratio > 1 else 1 / exact
    return 1.0
