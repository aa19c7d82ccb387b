"""What every feature is: name, category, formula and its source, unit, warm-up, what it needs, when it is missing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, Protocol

from signals_core.errors import SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from signals_core.features.inputs import FeatureInputs

Category = Literal["technical", "fundamental", "cross_asset", "alternative", "temporal"]
CATEGORIES: tuple[Category, ...] = ("technical", "fundamental", "cross_asset", "alternative", "temporal")

Need = Literal[
    "bars",
    "spy_bars",
    "sector_bars",
    "vix_bars",
    "fundamentals",
    "sector_fundamentals",
    "insider_transactions",
    "short_interest",
    "sectors",
]


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
    source: str = ""
    """Where the definition comes from; empty: the formula says it all."""
    missing: str = ""
    """When it is missing beyond its warm-up; empty: never, if what it needs is there."""
    market_wide: bool = False
    """The same for every symbol on a date: such a column can act as a date's identifier."""
    calendar: bool = False
    """Derived from the date alone; its distribution always differs between a month and a year."""


class Calculator(Protocol):
    """Computes some features of one category."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """What it computes, in the order of its columns."""
        ...

    @property
    def needs(self) -> tuple[Need, ...]:
        """The inputs it reads; only they make its months stale."""
        ...

    @property
    def lookback(self) -> int | None:
        """Bars before a row beyond which nothing changes that row by more than float32 shows; None: all of them."""
        ...

    def calculate(self, inputs: "FeatureInputs") -> "pd.DataFrame":
        """One row a bar, one float64 column a feature."""
        ...


class Catalog(Mapping[str, Feature]):
    """Features by name, in the order of the matrix's columns: by category, a user's own last."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features: dict[str, Feature] = {}
        for feature in sorted(features, key=lambda f: CATEGORIES.index(f.category)):  # stable
            if feature.name in self._features:
                raise SettingsError(f"two features are called {feature.name!r}: rename one of them")
            self._features[feature.name] = feature

    def __getitem__(self, name: str) -> Feature:
        return self._features[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)

    def names(self, category: Category | None = None) -> list[str]:
        """Column names of a category, or of the whole matrix."""
        return [f.name for f in self._features.values() if category in (None, f.category)]


@cache
def catalog() -> Catalog:
    """The features that this package defines; `FeatureStore.catalog` has a user's own beside them."""
    from signals_core.features import alternative, cross_asset, fundamental, technical, temporal

    modules = (technical, fundamental, cross_asset, alternative, temporal)
    return Catalog([feature for module in modules for feature in module.FEATURES])


def feature_names(category: Category | None = None) -> list[str]:
    """Column names of this package's features of a category, or of all of them."""
    return catalog().names(category)
