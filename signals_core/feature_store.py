"""FeatureStore: point-in-time features per symbol, computed, stored as Parquet and never served stale."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from signals_core.errors import MissingPrerequisite
from signals_core.features.alternative import AlternativeFeatureCalculator
from signals_core.features.catalog import CATEGORIES, Calculator, Category, feature_names
from signals_core.features.cross_asset import CrossAssetFeatureCalculator
from signals_core.features.fundamental import FundamentalFeatureCalculator
from signals_core.features.inputs import DataProvider, FeatureInputs
from signals_core.features.technical import TechnicalFeatureCalculator
from signals_core.features.temporal import TemporalFeatureCalculator
from signals_core.frame_store import FrameStore, Month, months_of
from signals_core.market_data.schemas import validate_bars
from signals_core.provenance import digest, prefix_digests, source_digest

_FOR_EVER = (date(1900, 1, 1), date(2200, 1, 1))


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
    Every month carries the digest of what it was made from (all inputs up to its end, and the source text
    of the calculators), so that a changed input or changed code is never served from an old file.
    """

    def __init__(self, folder: Path, calendar: str = "XNYS") -> None:
        self.folder = folder
        self._calculators: dict[Category, Calculator] = {
            "technical": TechnicalFeatureCalculator(),
            "fundamental": FundamentalFeatureCalculator(calendar),
            "cross_asset": CrossAssetFeatureCalculator(),
            "alternative": AlternativeFeatureCalculator(calendar),
            "temporal": TemporalFeatureCalculator(calendar),
        }
        self._categories: dict[Category, FrameStore] = {
            category: FrameStore(folder / category) for category in CATEGORIES
        }
        self._matrix = FrameStore(folder / "matrix")
        self._code = digest(source_digest("signals_core.features"), calendar)

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
            DataError: bars break their schema.
        """
        inputs = FeatureInputs(
            validate_bars(bars, symbol),
            spy_bars,
            vix_bars,
            sector_bars,
            fundamentals,
            sector_fundamentals,
            insider_transactions,
            short_interest,
        )
        parts = [self._calculators[category].calculate(inputs) for category in CATEGORIES]
        return pd.concat(parts, axis=1)

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

    def load(self, symbol: str, start: date, end: date) -> pd.DataFrame | None:
        """The stored matrix of `symbol` with start <= date < end, or None if any month of it is stale.

        Stale means made by other code, or from category files that have changed since.
        """
        wanted = self.matrix_digests(symbol, start, end)
        stored = self._matrix.digests(symbol)
        if not wanted or any(value is None or stored.get(month) != value for month, value in wanted.items()):
            return None
        return self._matrix.load(symbol, start, end, feature_names())

    def save(self, symbol: str, features: pd.DataFrame) -> None:
        """Store a frame from `compute_features`: each category's columns, then the matrix.

        The months count as made from exactly these values, so a later build from a market store's bars
        computes them again.
        """
        months = months_of(pd.DatetimeIndex(features.index))
        by_month = {m: digest(self._code, features[months == m]) for m in dict.fromkeys(months)}
        for category in CATEGORIES:
            self._categories[category].save(symbol, features[feature_names(category)], by_month)
        joined = {m: d for m, d in self.matrix_digests(symbol, *_FOR_EVER).items() if m in by_month and d}
        self._matrix.save(symbol, features[feature_names()], joined)

    def build_category(
        self, category: Category, symbol: str, inputs: FeatureInputs, start: date, end: date
    ) -> BuiltFeatures:
        """Bring one category of `symbol` up to date for start <= date < end."""
        store = self._categories[category]
        wanted = self.category_digests(category, inputs, start, end)
        stored = store.digests(symbol)
        stale = {month: value for month, value in wanted.items() if stored.get(month) != value}
        if stale:
            # From the first bar on, so that the result does not depend on which partition asked.
            frame = self._calculators[category].calculate(inputs)
            store.save(symbol, frame, stale)
        return BuiltFeatures(
            symbol,
            _rows(store, symbol, wanted, feature_names(category)).loc[_span(start, end)],
            tuple(stale),
            tuple(month for month in wanted if month not in stale),
        )

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
        stored = self._matrix.digests(symbol)
        stale = {month: value for month, value in wanted.items() if stored.get(month) != value}
        if stale:
            parts = [
                _rows(self._categories[category], symbol, stale, feature_names(category)) for category in CATEGORIES
            ]
            self._matrix.save(symbol, pd.concat(parts, axis=1), stale)
        return BuiltFeatures(
            symbol,
            _rows(self._matrix, symbol, wanted, feature_names()).loc[_span(start, end)],
            tuple(stale),
            tuple(month for month in wanted if month not in stale),
        )

    def category_digests(self, category: Category, inputs: FeatureInputs, start: date, end: date) -> dict[Month, str]:
        """The digest that each month with bars in start <= date < end must have been made from.

        It covers every bar of the symbol up to the month's end, and of the other inputs what the category
        needs, cut at the same date: a restated bar makes its own month and all later ones stale.
        """
        index = pd.DatetimeIndex(inputs.bars.index)
        months = months_of(index)
        first_of_month = np.flatnonzero(months != np.append([""], months[:-1]))
        names = [m for m in months[first_of_month] if _overlaps(m, start, end)]
        if not names:
            return {}
        ends = [pd.Period(month).end_time for month in names]
        needs = self._calculators[category].needs
        by_input = [
            prefix_digests(frame, _lengths(frame, ends), name)
            for name, frame in inputs.items()
            if name in needs and frame is not None
        ]
        return {
            month: digest(self._code, category, [digests[i] for digests in by_input]) for i, month in enumerate(names)
        }

    def stored_months(self, symbol: str) -> dict[Category | str, dict[Month, str]]:
        """The input digest of each stored month, by category and for the matrix."""
        by_category: dict[Category | str, dict[Month, str]] = {"matrix": self._matrix.digests(symbol)}
        for category, store in self._categories.items():
            by_category[category] = store.digests(symbol)
        return by_category

    def matrix_digests(self, symbol: str, start: date, end: date) -> dict[Month, str | None]:
        """What each month with any stored category must have been joined from; None where one lacks."""
        by_category = [store.digests(symbol) for store in self._categories.values()]
        months = sorted(month for month in set().union(*by_category) if _overlaps(month, start, end))
        return {
            month: digest(self._code, [digests[month] for digests in by_category])
            if all(month in digests for digests in by_category)
            else None
            for month in months
        }


def _overlaps(month: Month, start: date, end: date) -> bool:
    first = date(int(month[:4]), int(month[5:]), 1)
    following = (first + timedelta(days=31)).replace(day=1)
    return first < end and following > start


def _span(start: date, end: date) -> slice:
    """start <= date < end as a slice of labels, which includes its end."""
    return slice(pd.Timestamp(start), pd.Timestamp(end) - pd.Timedelta(days=1))


def _lengths(frame: pd.DataFrame, ends: list[pd.Timestamp]) -> list[int]:
    """How many leading rows of `frame` lie at or before each end, by date or by availability."""
    moments = frame.get("available_at", frame.index)
    return [int(n) for n in pd.Index(moments).searchsorted(pd.DatetimeIndex(ends), side="right")]


def _rows(store: FrameStore, symbol: str, months: dict[Month, str], columns: list[str]) -> pd.DataFrame:
    frame = store.load(symbol, *_FOR_EVER, columns) if months else None
    if frame is None:
        index = pd.DatetimeIndex([], dtype="datetime64[us]", name="date")
        return pd.DataFrame(columns=columns, index=index, dtype="float32")
    return frame[np.isin(months_of(pd.DatetimeIndex(frame.index)), list(months))]
