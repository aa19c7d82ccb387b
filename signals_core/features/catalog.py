"""What every feature is: name, category, formula, unit, warm-up and what it needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import pandas as pd

    from signals_core.features.inputs import FeatureInputs

Category = Literal["technical", "fundamental", "cross_asset", "alternative", "temporal"]
CATEGORIES: tuple[Category, ...] = ("technical", "fundamental", "cross_asset", "alternative", "temporal")

Need = Literal["bars", "spy_bars", "sector_bars", "vix_bars", "fundamentals", "insider_transactions", "short_interest"]


@dataclass(frozen=True)
class Feature:
    """One column of the feature matrix."""

    name: str
    category: Category
    formula: str
    unit: str
    warm_up: int = 0
    """Rows at the start of a symbol's history in which the feature is missing."""
    needs: tuple[Need, ...] = ("bars",)
    market_wide: bool = False
    """The same for every symbol on a date: such a column can act as a date's identifier."""
    calendar: bool = False
    """Derived from the date alone; its distribution always differs between a month and a year."""


class Calculator(Protocol):
    """Computes the features of one category."""

    needs: tuple[Need, ...]
    """The inputs it reads; only they make its months stale."""

    def calculate(self, inputs: "FeatureInputs") -> "pd.DataFrame":
        """One row a bar, one column a feature."""
        ...


@cache
def catalog() -> Mapping[str, Feature]:
    """Every feature by name, in the order of the matrix's columns."""
    from signals_core.features import alternative, cross_asset, fundamental, technical, temporal

    modules = (technical, fundamental, cross_asset, alternative, temporal)
    features = [feature for module in modules for feature in module.FEATURES]
    return {feature.name: feature for feature in features}


def feature_names(category: Category | None = None) -> list[str]:
    """Column names of a category, or of the whole matrix."""
    return [f.name for f in catalog().values() if category in (None, f.category)]
