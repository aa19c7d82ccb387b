"""FeatureStore: point-in-time features per symbol, computed, stored as Parquet and never served stale."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.metadata import version as library_version
from pathlib import Path

import numpy as np
import pandas as pd

from signals_core.calendar import session_closes
from signals_core.errors import DamagedFile, DataError, MissingPrerequisite, SettingsError
from signals_core.features.alternative import AlternativeFeatureCalculator
from signals_core.features.catalog import CATEGORIES, Calculator, Catalog, Category
from signals_core.features.cross_asset import CrossAssetFeatureCalculator
from signals_core.features.custom import CustomFeature
from signals_core.features.fundamental import FundamentalFeatureCalculator
from signals_core.features.inputs import DataProvider, FeatureInputs
from signals_core.features.technical import TechnicalFeatureCalculator
from signals_core.features.temporal import TemporalFeatureCalculator
from signals_core.frame_store import EVER, Current, FrameStore, Month, months_of, overlaps
from signals_core.market_data.schemas import validate_bars, validate_facts
from signals_core.provenance import PrefixDigester, digest, outermost_package, source_digest

_log = logging.getLogger(__name__)

_LIBRARIES = ("TA-Lib", "exchange_calendars")
"""Whose another version may say something else of the same bars."""


@dataclass(frozen=True)
class BuiltFeatures:
    """What a build of one symbol did in the span it was asked for."""

    symbol: str
    frame: pd.DataFrame
    """Rows of the span: index `date`, float32 columns, as they are stored."""
    computed: tuple[Month, ...]
    reused: tuple[Month, ...]
    """Months whose stored rows were made from the same inputs, code and settings."""


class FeatureStore:
    """Computes, stores and serves features.

    Files are `<folder>/<category>/symbol=<S>/year=<Y>.parquet`; the category `matrix` holds all columns.
    Every month carries the digest of what it was made from (all inputs up to its end, the settings, and the
    source text of the calculators), so that a changed input or changed code is never served from an old file.

    A year's rows are always computed from the same bars: the year's, and the calculator's `lookback` before
    them. So a new day costs a year at most, and the stored bytes do not depend on which span was asked for.
    """

    def __init__(
        self,
        folder: Path,
        calendar: str = "XNYS",
        custom: Sequence[CustomFeature] = (),
        max_age_days: Mapping[str, int] | None = None,
    ) -> None:
        """Open the store; nothing is read or written yet.

        Args:
            custom: a user's own features, as from `features.custom.load_features`.
            max_age_days: by `fundamentals` or `short_interest`: days after which a fact is not known any more.
        """
        self.folder = folder
        self._calendar = calendar
        ages = {name: timedelta(days=days) for name, days in (max_age_days or {}).items()}
        built_in: dict[Category, Calculator] = {
            "technical": TechnicalFeatureCalculator(),
            "fundamental": FundamentalFeatureCalculator(calendar, ages.get("fundamentals")),
            "cross_asset": CrossAssetFeatureCalculator(),
            "alternative": AlternativeFeatureCalculator(calendar, ages.get("short_interest"), ages.get("fundamentals")),
            "temporal": TemporalFeatureCalculator(calendar),
        }
        self._calculators: dict[Category, list[Calculator]] = {
            category: [calculator, *(own for own in custom if own.definition.category == category)]
            for category, calculator in built_in.items()
        }
        self.catalog = Catalog([f for each in self._calculators.values() for c in each for f in c.features])
        nameless = [own.definition.name for own in custom if own.compute.__module__ == "__main__"]
        if nameless:
            raise SettingsError(
                f"feature {', '.join(nameless)}: put it into a module, so that a change of it is noticed"
            )
        modules = sorted({outermost_package(own.compute.__module__) for own in custom})
        self._settings = digest(calendar, dict(sorted((max_age_days or {}).items())))
        source = source_digest("signals_core.features", "signals_core.calendar", *modules)
        self._code = digest(source, [library_version(name) for name in _LIBRARIES], self._settings)
        description = {
            "catalogue": digest([f"{f.name} = {f.formula}" for f in self.catalog.values()]),
            "settings": self._settings,
            "code": self._code,
        }
        self._categories: dict[Category, FrameStore] = {
            category: FrameStore(folder / category, description) for category in CATEGORIES
        }
        self._matrix = FrameStore(folder / "matrix", description)
        self._prefix_digests = PrefixDigester()

    def compute_features(
        self,
        symbol: str,
        bars: pd.DataFrame,
        spy_bars: pd.DataFrame | None = None,
        vix_bars: pd.DataFrame | None = None,
        sector_bars: pd.DataFrame | None = None,
        fundamentals: pd.DataFrame | None = None,
        sector_fundamentals: pd.DataFrame | None = None,
        insider_transactions: pd.DataFrame | None = None,
        short_interest: pd.DataFrame | None = None,
        sectors: pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """Every feature of the catalogue at every bar, without storing anything.

        Args:
            symbol: named in errors.
            bars: index `date`, columns open, high, low, close, volume; see `market_data.schemas`.
            spy_bars: the others likewise, or None where there is no such data: features that need it are NaN.

        Returns:
            float64, one row a bar (same index), columns in the order of the catalogue. Row t uses only
            what was knowable at the close of t.

        Raises:
            DataError: bars or facts break their schema, or a date is no session of the exchange.
        """
        bars = validate_bars(bars, symbol)
        try:
            session_closes(self._calendar, pd.DatetimeIndex(bars.index))
        except KeyError as error:
            raise DataError(f"bars of {symbol}: {error.args[0]}; leave the row out, or set exchange.calendar") from None
        facts = {
            "fundamentals": fundamentals,
            "insider_transactions": insider_transactions,
            "short_interest": short_interest,
        }
        for dataset, frame in facts.items():
            if frame is not None and not frame.empty:
                validate_facts(dataset, frame, symbol)
        inputs = FeatureInputs(
            bars,
            spy_bars,
            vix_bars,
            sector_bars,
            fundamentals,
            sector_fundamentals,
            insider_transactions,
            short_interest,
            sectors,
        )
        return self.compute(inputs)

    def compute(self, inputs: FeatureInputs, categories: Sequence[Category] = CATEGORIES) -> pd.DataFrame:
        """`compute_features` of inputs that are known to fit their schemas, or some categories of it."""
        return pd.concat([self._calculate(category, inputs) for category in categories], axis=1)

    def _calculate(self, category: Category, inputs: FeatureInputs) -> pd.DataFrame:
        parts = [calculator.calculate(inputs) for calculator in self._calculators[category]]
        return parts[0] if len(parts) == 1 else pd.concat(parts, axis=1)

    def _calculate_years(self, category: Category, inputs: FeatureInputs, years: Sequence[int]) -> pd.DataFrame:
        """Rows of some years, each from its own bars and the calculators' lookback before them."""
        index = pd.DatetimeIndex(inputs.bars.index)
        starts = index.searchsorted([pd.Timestamp(year, 1, 1) for year in years])
        ends = index.searchsorted([pd.Timestamp(year + 1, 1, 1) for year in years])
        parts = []
        for calculator in self._calculators[category]:
            if calculator.lookback is None:
                whole = calculator.calculate(inputs)
                by_year = [whole.iloc[start:end] for start, end in zip(starts, ends, strict=True)]
            else:
                by_year = []
                for start, end in zip(starts, ends, strict=True):
                    first = max(start - calculator.lookback, 0)
                    near = inputs.between(index[first], index[end - 1])
                    by_year.append(calculator.calculate(near).iloc[start - first :])
            parts.append(by_year[0] if len(by_year) == 1 else pd.concat(by_year))
        return parts[0] if len(parts) == 1 else pd.concat(parts, axis=1)

    def get_features(self, symbols: Sequence[str], start: date, end: date, data_provider: DataProvider) -> pd.DataFrame:
        """The feature matrix of several symbols with index (symbol, date), start <= date < end.

        Months that are not stored, or stored from other inputs, are computed and stored first.
        """
        frames = {}
        for symbol in symbols:
            inputs = data_provider.inputs(symbol)
            for category in CATEGORIES:
                self.build_category(category, symbol, inputs, start, end)
            frames[symbol] = self.build_matrix(symbol, start, end).frame
        return pd.concat(frames, names=["symbol", "date"])

    def load(self, symbol: str, start: date, end: date, inputs: FeatureInputs | None = None) -> pd.DataFrame | None:
        """The stored matrix of `symbol` with start <= date < end, or None if any month of it is stale or damaged.

        Stale means made by other code or settings, or from category files that have changed since; with `inputs`,
        also that a month is missing or was made from others.
        """
        wanted = self.matrix_digests(symbol, start, end)
        stored = self._matrix.digests(symbol, _years(start, end))
        if not wanted or any(value is None or stored.get(month) != value for month, value in wanted.items()):
            return None
        if inputs is not None and not self._is_made_from(symbol, inputs, start, end):
            return None
        try:
            return self._matrix.load(symbol, start, end, self.catalog.names())
        except DamagedFile as damaged:
            _log.warning("%s", damaged)
            return None

    def _is_made_from(self, symbol: str, inputs: FeatureInputs, start: date, end: date) -> bool:
        for category, store in self._categories.items():
            stored = store.digests(symbol, _years(start, end))
            wanted = self.category_digests(category, inputs, start, end)
            if any(stored.get(month) != value for month, value in wanted.items()):
                return False
        return True

    def save(self, symbol: str, features: pd.DataFrame) -> None:
        """Store a frame from `compute_features`: each category's columns, then the matrix.

        The months count as made from exactly these values, so a later build from a market store's bars
        computes them again.
        """
        months = months_of(pd.DatetimeIndex(features.index))
        by_month = {m: digest(self._code, features[months == m]) for m in dict.fromkeys(months)}
        for category in CATEGORIES:
            self._categories[category].save(symbol, features[self.catalog.names(category)], by_month)
        joined = {m: d for m, d in self.matrix_digests(symbol, *EVER).items() if m in by_month and d}
        self._matrix.save(symbol, features[self.catalog.names()], joined)

    def build_category(
        self, category: Category, symbol: str, inputs: FeatureInputs, start: date, end: date
    ) -> BuiltFeatures:
        """Bring one category of `symbol` up to date for start <= date < end."""
        wanted = self.category_digests(category, inputs, start, end)
        current = self._categories[category].bring_up_to_date(
            symbol,
            wanted,
            self.catalog.names(category),
            lambda months: self._calculate_years(category, inputs, sorted({int(month[:4]) for month in months})),
        )
        return _built(symbol, current, wanted, start, end)

    def build_matrix(self, symbol: str, start: date, end: date) -> BuiltFeatures:
        """Join the stored categories of `symbol` into the matrix for start <= date < end.

        Raises:
            MissingPrerequisite: a category has no rows for a month that another one has.
        """
        wanted = {}
        for month, value in self.matrix_digests(symbol, start, end).items():
            if value is None:
                lacking = [c for c, store in self._categories.items() if month not in store.digests(symbol)]
                raise MissingPrerequisite(
                    f"{symbol} {month}: no {', '.join(lacking)} features; materialise them first "
                    "(signals features, or the assets of the group `features`)"
                )
            wanted[month] = value
        current = self._matrix.bring_up_to_date(
            symbol, wanted, self.catalog.names(), lambda months: self._joined(symbol, {m: wanted[m] for m in months})
        )
        return _built(symbol, current, wanted, start, end)

    def _joined(self, symbol: str, months: Mapping[Month, str]) -> pd.DataFrame:
        parts = [
            store.rows(symbol, months, self.catalog.names(category)) for category, store in self._categories.items()
        ]
        return pd.concat(parts, axis=1)

    def category_digests(self, category: Category, inputs: FeatureInputs, start: date, end: date) -> dict[Month, str]:
        """The digest that each month with bars in start <= date < end must have been made from.

        It covers every bar of the symbol up to the month's end, and of the other inputs what the category
        needs, cut at the same date: a restated bar makes its own month and all later ones stale.
        """
        index = pd.DatetimeIndex(inputs.bars.index)
        months = months_of(index)
        first_of_month = np.flatnonzero(months != np.append([""], months[:-1]))
        names = [m for m in months[first_of_month] if overlaps(m, start, end)]
        if not names:
            return {}
        # The last microsecond of each month.
        ends = (np.array(names, dtype="datetime64[M]") + 1).astype("datetime64[us]") - np.timedelta64(1, "us")
        needs = {need for calculator in self._calculators[category] for need in calculator.needs}
        by_input = {
            name: self._prefix_digests(frame, _lengths(frame, ends))
            for name, frame in inputs.items()
            if name in needs and frame is not None
        }
        return {
            month: digest(self._code, category, {name: digests[at] for name, digests in by_input.items()})
            for at, month in enumerate(names)
        }

    def stored_months(self, symbol: str) -> dict[Category | str, dict[Month, str]]:
        """The input digest of each stored month, by category and for the matrix."""
        by_category: dict[Category | str, dict[Month, str]] = {"matrix": self._matrix.digests(symbol)}
        for category, store in self._categories.items():
            by_category[category] = store.digests(symbol)
        return by_category

    def matrix_digests(self, symbol: str, start: date, end: date) -> dict[Month, str | None]:
        """What each month with any stored category must have been joined from; None where one lacks."""
        by_category = [store.digests(symbol, _years(start, end)) for store in self._categories.values()]
        months = sorted(month for month in set().union(*by_category) if overlaps(month, start, end))
        return {
            month: digest(self._code, [digests[month] for digests in by_category])
            if all(month in digests for digests in by_category)
            else None
            for month in months
        }


def _built(symbol: str, current: Current, wanted: Mapping[Month, str], start: date, end: date) -> BuiltFeatures:
    reused = tuple(month for month in wanted if month not in set(current.computed))
    return BuiltFeatures(symbol, current.frame.loc[_span(start, end)], current.computed, reused)


def _years(start: date, end: date) -> range:
    return range(start.year, (end - timedelta(days=1)).year + 1)


def _span(start: date, end: date) -> slice:
    """start <= date < end as a slice of labels, which includes its end."""
    return slice(pd.Timestamp(start), pd.Timestamp(end) - pd.Timedelta(days=1))


def _lengths(frame: pd.DataFrame, ends: np.ndarray) -> list[int]:
    """How many leading rows of `frame` lie at or before each end, by date or by availability."""
    moments = frame.get("available_at", frame.index)
    return moments.to_numpy().searchsorted(ends, side="right").tolist()
