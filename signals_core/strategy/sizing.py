"""From forecasts to weights: the Kelly criterion for three classes, a share of it, and caps that say when they bind."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from signals_core.errors import DataError, SettingsError
from signals_core.ml.target import CLASSES

if TYPE_CHECKING:
    from signals_core.settings_trading import SizingSettings

_ANNUAL = 252.0
_BINDS = 1 - 1e-12
"""A cap binds where it leaves less than this share of the weight before it."""
CAPS = ("max_weight", "max_sector_weight", "target_volatility", "max_gross")
"""In the order they are applied; each only makes weights smaller, so that all hold at the end."""


@dataclass(frozen=True)
class ClassMoments:
    """Mean and standard deviation of the forward return given each class, DOWN, FLAT, UP: (3,) or (n, 3) each."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def estimate(cls, labels: np.ndarray, forward_returns: np.ndarray) -> "ClassMoments":
        """From the rows of a training window.

        Args:
            labels: (rows,) class numbers; rows without one (-1) are left out.
            forward_returns: (rows,).

        Raises:
            DataError: a class has fewer than two rows.
        """
        mean, deviation = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
        for number, name in enumerate(CLASSES):
            own = np.asarray(forward_returns, dtype="float64")[np.asarray(labels) == number]
            own = own[~np.isnan(own)]
            if len(own) < 2:
                raise DataError(f"class {name} has {len(own)} rows: its moments need two or more")
            mean[number], deviation[number] = own.mean(), own.std(ddof=1)
        return cls(mean, deviation)


def expected_return(probabilities: np.ndarray, moments: ClassMoments) -> np.ndarray:
    """Σ p m over the horizon (n,).

    Args:
        probabilities: (n, 3) of DOWN, FLAT, UP.
    """
    found: np.ndarray = (probabilities * moments.mean).sum(axis=-1)
    return found


def return_variance(probabilities: np.ndarray, moments: ClassMoments) -> np.ndarray:
    """Σ p (s² + m²) - (Σ p m)² over the horizon (n,): of the mixture of the three classes."""
    second = (probabilities * (moments.deviation**2 + moments.mean**2)).sum(axis=-1)
    found: np.ndarray = second - expected_return(probabilities, moments) ** 2
    return found


def expected_return_direction(
    probabilities: np.ndarray, moments: ClassMoments, cost: np.ndarray | float, threshold: float = 0.0
) -> np.ndarray:
    """1 where a long is worth its costs, -1 where a short is, 0 where neither is (n,).

    A direction is worth it when |Σ p m| - cost > threshold.

    Args:
        cost: of the whole trade, in and out, as a share of its value: a number, or (n,).
        threshold: what must be left.
    """
    mean = expected_return(probabilities, moments)
    found: np.ndarray = np.sign(mean) * (np.abs(mean) - cost > threshold)
    return found


def kelly_weights(probabilities: np.ndarray, moments: ClassMoments, cost: np.ndarray | float = 0.0) -> np.ndarray:
    """The weight that maximises the expected growth of wealth to the second order (n,), of either sign.

    f* = (Σ p m - c) / (Σ p (s² + m²) - (Σ p m)²) for a long, mirrored for a short, and 0 where the costs are more
    than the expected return (Kelly 1956; Thorp 2006 for the continuous case).

    Args:
        probabilities: (n, 3) of DOWN, FLAT, UP.
        cost: as in `expected_return_direction`.

    Raises:
        DataError: probabilities that are none, or a return without variance.
    """
    table = np.asarray(probabilities, dtype="float64")
    if table.ndim != 2 or table.shape[1] != len(CLASSES):
        raise DataError(f"probabilities have the shape {table.shape}: they must be (n, {len(CLASSES)})")
    wrong = np.isnan(table).any(axis=1) | (table < 0).any(axis=1) | (np.abs(table.sum(axis=1) - 1) > 1e-6)
    if wrong.any():
        raise DataError(
            f"probabilities of row {int(wrong.argmax())} are {table[wrong.argmax()]}: they must add up to 1"
        )
    mean, variance = expected_return(table, moments), return_variance(table, moments)
    if not (variance > 0).all():
        raise DataError(f"the return of row {int((variance <= 0).argmax())} has no variance: give classes a deviation")
    found: np.ndarray = np.sign(mean) * np.maximum(np.abs(mean) - cost, 0.0) / variance
    return found


@dataclass(frozen=True)
class Sizing:
    """Weights and how they came about.

    `frame` has one row a symbol: raw (the weight asked for), fractional (after the share of Kelly), after_max_weight,
    after_max_sector_weight, after_target_volatility, weight (after max_gross: what to hold, a share of equity), and
    binding (the caps that made it smaller, in order; empty if none).
    """

    frame: pd.DataFrame
    gross: float
    net: float
    volatility: float
    """Annual, expected of the book; NaN without a covariance."""
    binding: tuple[str, ...]
    """Caps that bind for any symbol."""

    @property
    def weights(self) -> pd.Series:
        """By symbol."""
        return self.frame["weight"]

    def __str__(self) -> str:
        if not self.binding:
            return f"gross {self.gross:.2f}, net {self.net:+.2f}; no cap binds"
        counts = [f"{cap} ({self.frame['binding'].str.contains(cap, regex=False).sum()})" for cap in self.binding]
        return f"gross {self.gross:.2f}, net {self.net:+.2f}; caps that bind (symbols): {', '.join(counts)}"


@dataclass(frozen=True)
class SizingRules:
    """Share of the raw weights, and caps as shares of equity; None is no cap.

    Raises:
        SettingsError: a number is not positive.
    """

    kelly_fraction: float = 0.25
    max_weight: float | None = 0.1
    """Of a name, long or short."""
    max_sector_weight: float | None = 0.3
    """Of a sector, longs and shorts together. Symbols without a sector are one sector."""
    target_volatility: float | None = None
    """Annual, of the book: a ceiling. Kelly already says how much to hold; the target never enlarges it."""
    max_gross: float | None = 1.0

    def __post_init__(self) -> None:
        for name in ("kelly_fraction", *CAPS):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingsError(f"sizing: {name} is {value}: it must be positive, or None")

    @classmethod
    def from_settings(cls, sizing: "SizingSettings") -> "SizingRules":
        """The settings' section `sizing`."""
        return cls(
            sizing.kelly_fraction, sizing.max_weight, sizing.max_sector_weight, sizing.target_volatility,
            sizing.max_gross,
        )  # fmt: skip


def size_positions(
    symbols: Sequence[str],
    raw: np.ndarray,
    rules: SizingRules | None = None,
    sectors: Sequence[str | None] | None = None,
    covariance: np.ndarray | None = None,
) -> Sizing:
    """Weights of the symbols from raw ones, such as `kelly_weights`.

    Args:
        symbols: (n,), each once.
        raw: (n,) of either sign.
        sectors: (n,); None: nothing is known of any, and the sector cap is one on them all.
        covariance: (n, n) of daily returns; needed for a volatility target.

    Raises:
        DataError: a symbol stands twice, a weight is not finite, or shapes differ.
        SettingsError: a volatility target without a covariance.
    """
    rules = rules or SizingRules()
    weights = np.asarray(raw, dtype="float64")
    if weights.shape != (len(symbols),) or len(set(symbols)) != len(symbols):
        raise DataError(f"sizing: {weights.shape} weights of {len(symbols)} symbols, each of which must be named once")
    if not np.isfinite(weights).all():
        raise DataError(f"sizing: the weight of {symbols[int((~np.isfinite(weights)).argmax())]} is not finite")
    if rules.target_volatility is not None and covariance is None:
        raise SettingsError("sizing.target_volatility needs the covariance of the symbols' daily returns")
    group = np.array(["" if s is None else s for s in (sectors if sectors is not None else [None] * len(symbols))])
    if group.shape != weights.shape or (covariance is not None and covariance.shape != (len(symbols),) * 2):
        raise DataError("sizing: sectors and covariance must be given for every symbol")

    fractional = weights * rules.kelly_fraction
    named = fractional
    if rules.max_weight is not None:
        named = np.clip(fractional, -rules.max_weight, rules.max_weight)
    sectored = named * _sector_scale(named, group, rules.max_sector_weight)
    targeted = sectored * _scale(rules.target_volatility, _volatility(sectored, covariance))
    final = targeted * _scale(rules.max_gross, float(np.abs(targeted).sum()))

    stages = (fractional, named, sectored, targeted, final)
    bound = np.array([np.abs(b) < np.abs(a) * _BINDS for a, b in pairwise(stages)])
    binding = [", ".join(cap for cap, binds in zip(CAPS, column, strict=True) if binds) for column in bound.T]
    columns = ("fractional", *(f"after_{cap}" for cap in CAPS[:-1]), "weight")
    frame = pd.DataFrame(dict(zip(columns, stages, strict=True)), index=pd.Index(list(symbols), name="symbol"))
    frame.insert(0, "raw", weights)
    frame["binding"] = pd.Series(binding, index=frame.index, dtype=object)
    return Sizing(
        frame, float(np.abs(final).sum()), float(final.sum()), _volatility(final, covariance),
        tuple(cap for cap, row in zip(CAPS, bound, strict=True) if row.any()),
    )  # fmt: skip


def _scale(cap: float | None, amount: float) -> float:
    return cap / amount if cap is not None and amount > cap else 1.0


def _sector_scale(weights: np.ndarray, group: np.ndarray, cap: float | None) -> np.ndarray:
    scale = np.ones(len(weights))
    if cap is not None and len(weights):
        names, number = np.unique(group, return_inverse=True)
        gross = np.bincount(number, np.abs(weights), minlength=len(names))
        scale = np.minimum(1.0, np.divide(cap, gross, out=np.ones_like(gross), where=gross > cap))[number]
    return scale


def _volatility(weights: np.ndarray, covariance: np.ndarray | None) -> float:
    if covariance is None:
        return np.nan
    return float(np.sqrt(max(weights @ covariance @ weights, 0.0) * _ANNUAL))
