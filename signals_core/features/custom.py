"""A user's own features: one small function with a decorator, then like every other feature.

    # my_features.py, named in the settings as features.modules: [my_features]
    from signals_core.features.custom import feature

    @feature("overnight_share_20", category="technical", unit="ratio", warm_up=20, lookback=21)
    def overnight_share_20(inputs):
        "Sum of 20 overnight log returns / sum of their absolute values."
        step = np.log(inputs.bars["open"] / inputs.bars["close"].shift(1))
        return step.rolling(20).sum() / step.abs().rolling(20).sum()

It is computed, stored, shown, watched for drift and searched for lookahead with the rest of its category.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from signals_core.errors import DataError, SettingsError
from signals_core.features.catalog import CATEGORIES, Category, Feature, Need
from signals_core.features.inputs import FeatureInputs

_RESERVED = ("date", "symbol", "year")
"""Of the stored files: their index, and what the folders are named by."""
Compute = Callable[[FeatureInputs], "pd.Series | np.ndarray"]


@dataclass(frozen=True)
class CustomFeature:
    """A feature of a user: what it is, and the function that computes it; calling it computes it."""

    definition: Feature
    compute: Compute
    lookback: int | None

    @property
    def features(self) -> tuple[Feature, ...]:
        """As a `Calculator`."""
        return (self.definition,)

    @property
    def needs(self) -> tuple[Need, ...]:
        """As a `Calculator`."""
        return self.definition.needs

    def __call__(self, inputs: FeatureInputs) -> "pd.Series | np.ndarray":
        """What the decorated function returns."""
        return self.compute(inputs)

    def calculate(self, inputs: FeatureInputs) -> pd.DataFrame:
        """As a `Calculator`: one row a bar; infinities are missing.

        The function is given the inputs that it says it needs and no other.

        Raises:
            DataError: it does not return one number a bar.
        """
        index = inputs.bars.index
        found = self.compute(inputs.only(self.needs))
        if isinstance(found, pd.Series) and not found.index.equals(index):
            raise DataError(f"feature {self.definition.name}: its index is not that of inputs.bars; reindex it")
        if np.asarray(found).dtype.kind in "mM":  # numpy would count microseconds
            raise DataError(f"feature {self.definition.name}: its values are no numbers but dates or times")
        try:
            values = np.array(found, dtype="float64")
        except (TypeError, ValueError) as error:
            raise DataError(f"feature {self.definition.name}: its values are no numbers: {error}") from error
        if values.shape != (len(index),):
            raise DataError(
                f"feature {self.definition.name}: {values.shape} values for {len(index)} bars; return one a bar"
            )
        values[~np.isfinite(values)] = np.nan
        return pd.DataFrame({self.definition.name: values}, index=index)


def feature(
    name: str,
    *,
    category: Category,
    unit: str,
    formula: str | None = None,
    source: str = "",
    missing: str = "",
    warm_up: int = 0,
    lookback: int | None = None,
    needs: Iterable[Need] = ("bars",),
    market_wide: bool = False,
) -> Callable[[Compute], CustomFeature]:
    """Make a feature of a function from `FeatureInputs` to one number a bar, NaN where it is missing.

    Args:
        formula: default: the first line of the function's docstring.
        lookback: bars before a row that the function reads. None: all; then a new day recomputes all of them.
        needs: the inputs the function reads; the others are None.
        market_wide: the same for every symbol on a date.

    Raises:
        SettingsError: the definition cannot be stored or described.
    """
    if not name.isidentifier() or name != name.lower():
        raise SettingsError(f"feature {name!r}: a name is lower-case letters, digits and underscores")
    if name in _RESERVED:
        raise SettingsError(f"feature {name}: the stored files use {', '.join(_RESERVED)} themselves; rename it")
    if lookback is not None and lookback < warm_up:
        raise SettingsError(f"feature {name}: it cannot need {warm_up} bars before a row and read {lookback}: lookback")
    if category not in CATEGORIES:
        raise SettingsError(f"feature {name}: category {category!r} is not one of {', '.join(CATEGORIES)}")
    wanted: tuple[Need, ...] = tuple(dict.fromkeys(("bars", *needs)))
    unknown = [need for need in wanted if need not in FeatureInputs.names()]
    if unknown:
        raise SettingsError(f"feature {name}: needs {', '.join(unknown)}; there are {', '.join(FeatureInputs.names())}")

    def decorate(compute: Compute) -> CustomFeature:
        text = formula or (inspect.getdoc(compute) or "").partition("\n")[0]
        if not text:
            raise SettingsError(f"feature {name}: give it a formula, or the function a docstring")
        definition = Feature(name, category, text, unit, warm_up, wanted, source, missing, market_wide)
        return CustomFeature(definition, compute, lookback)

    return decorate


def load_features(modules: Iterable[str], root: Path) -> tuple[CustomFeature, ...]:
    """The features that the modules named in `features.modules` define, in order of definition.

    Args:
        root: the project's folder, where modules are looked for first.

    Raises:
        SettingsError: a module cannot be imported, or defines no feature.
    """
    found: list[CustomFeature] = []
    for name in modules:
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
        try:
            module = importlib.import_module(name)
        except (ImportError, SyntaxError) as error:
            raise SettingsError(f"features.modules: cannot import {name!r}: {error}") from error
        # A definition says where it comes from, if its author has not.
        own = [
            replace(item, definition=replace(item.definition, source=item.definition.source or name))
            for item in vars(module).values()
            if isinstance(item, CustomFeature)
        ]
        if not own:
            raise SettingsError(f"features.modules: {name} defines no feature: decorate a function with @feature")
        found += own
    return tuple(found)
