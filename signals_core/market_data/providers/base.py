"""What a source of market data looks like, and how settings name one.

A source is a class constructed as `Source(root=..., **options)`, with a `name` and the fetch methods of
what it has. A method gets a symbol, and `since`: what became knowable earlier is in the store already and
may be left out (it does no harm). It returns a frame, or None if the source has nothing of the symbol.
"""

from collections.abc import Mapping
from datetime import date, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from signals_core.errors import SettingsError


class BarProvider(Protocol):
    """A source of daily bars. Twenty lines of your own suffice; see `FilesProvider` and the README."""

    name: str

    def fetch_bars(self, symbol: str, since: date | None = None) -> pd.DataFrame | None:
        """Daily bars of `symbol` as traded, those before `since` optional.

        Columns: date (the exchange's date), open, high, low, close, volume; and optionally, on the row of
        the ex-date, `dividend` (cash a share, as paid then) and `split` (new shares for each old one, 4.0
        for 4:1; 0 or 1 or missing is none). A source that knows only an adjusted close gives `adjustment`
        instead: the factor that turns a raw price into its adjusted one.
        """
        ...


class FundamentalsProvider(Protocol):
    """A source of quarterly figures as filed."""

    name: str

    def fetch_fundamentals(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        """Every version of every quarter, a restatement being a row of its own.

        Columns: available_at (UTC, or a plain date), period_end, fiscal_period (Q1 … Q4, or FY for a whole
        year), optionally document (identifies the filing), and `FUNDAMENTAL_VALUES`, missing where not filed.
        """
        ...


class InsiderProvider(Protocol):
    """A source of insider transactions as filed."""

    name: str

    def fetch_insider_transactions(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        """One row a transaction.

        Columns: available_at (UTC, or a plain date), transaction_date, code (of SEC Form 4), shares (signed:
        acquired positive), price (missing where none), optionally document, insider, and line (numbers equal
        lots of one filing; without it equal rows are duplicates).
        """
        ...


class ShortInterestProvider(Protocol):
    """A source of short interest as published."""

    name: str

    def fetch_short_interest(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        """One row a settlement date and version.

        Columns: available_at (UTC, or a plain date), settlement_date, shares_short, and optionally
        avg_daily_volume, shares_float.
        """
        ...


_PACKAGE = "signals_core.market_data.providers"
BUILT_IN = {
    "files": f"{_PACKAGE}.files:FilesProvider",
    "demo": f"{_PACKAGE}.demo:DemoProvider",
    "yahoo": f"{_PACKAGE}.yahoo:YahooProvider",
    "alpaca": f"{_PACKAGE}.alpaca:AlpacaProvider",
    "sec_edgar": f"{_PACKAGE}.sec_edgar:SecEdgarProvider",
    "finra": f"{_PACKAGE}.finra:FinraProvider",
    "cboe": f"{_PACKAGE}.cboe:CboeProvider",
    "synthetic": f"{_PACKAGE}.synthetic:SyntheticProvider",
}


def open_provider(name: str, options: Mapping[str, Any], root: Path, method: str = "fetch_bars") -> Any:
    """The provider called `name`, built-in or `package.module:ClassName`, constructed with its options.

    Args:
        name: a key of `BUILT_IN`, or where to find the class.
        options: keyword arguments of the class.
        root: the project's folder, given to the class.
        method: the fetch method it must have.

    Raises:
        SettingsError: there is no such provider, it does not take these options, or it lacks the method.
    """
    target = BUILT_IN.get(name, name)
    module_name, _, class_name = target.partition(":")
    if not class_name:
        raise SettingsError(f"market_data: {name!r} is neither of {', '.join(BUILT_IN)} nor package.module:ClassName")
    try:
        factory = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise SettingsError(f"market_data: cannot load {target}: {error}") from error
    try:
        provider = factory(root=root, **options)
    except TypeError as error:
        raise SettingsError(f"market_data: options do not fit {target}: {error}") from error
    if not callable(getattr(provider, method, None)):
        raise SettingsError(f"market_data: {target} has no method {method}; choose another source for it")
    return provider
