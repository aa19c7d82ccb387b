"""Market data from one CSV or Parquet file a symbol: the worked example of a provider."""

from datetime import date, datetime
from pathlib import Path

import pandas as pd

from signals_core.errors import SettingsError

_TEXTS = ("symbol", "code", "fiscal_period", "document", "insider")
"""Text columns, in which NA is a value (a ticker, say) and not a missing one."""


class FilesProvider:
    """Reads `<folder>/<symbol>.parquet` or `.csv`, columns as in `providers.base`, names in any case.

    Args:
        root: the project's folder, to which the others are relative.
        directory: of bars.
        fundamentals_directory: of quarterly figures.
        insider_directory: of insider transactions.
        short_interest_directory: of short interest.
    """

    name = "files"

    def __init__(
        self, root: Path, directory: str = "data/bars", fundamentals_directory: str = "data/fundamentals",
        insider_directory: str = "data/insider_transactions", short_interest_directory: str = "data/short_interest",
    ) -> None:  # fmt: skip
        self._bars = root / directory
        self._fundamentals = root / fundamentals_directory
        self._insiders = root / insider_directory
        self._short_interest = root / short_interest_directory

    def fetch_bars(self, symbol: str, since: date | None = None) -> pd.DataFrame | None:
        """The whole file of `symbol`; None if there is no such file."""
        return _read(self._bars, symbol, "market_data.options.directory")

    def fetch_fundamentals(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        """The whole file of `symbol`; None if there is no such file."""
        return _read(self._fundamentals, symbol, "market_data.fundamentals.options.fundamentals_directory")

    def fetch_insider_transactions(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        """The whole file of `symbol`; None if there is no such file."""
        return _read(self._insiders, symbol, "market_data.insider_transactions.options.insider_directory")

    def fetch_short_interest(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        """The whole file of `symbol`; None if there is no such file."""
        return _read(self._short_interest, symbol, "market_data.short_interest.options.short_interest_directory")


def _read(folder: Path, symbol: str, option: str) -> pd.DataFrame | None:
    if not folder.is_dir():
        raise SettingsError(
            f"{option}: {folder} is no folder; put one <SYMBOL>.csv or <SYMBOL>.parquet a symbol there, "
            "or choose another provider"
        )
    for path, read in ((folder / f"{symbol}.parquet", pd.read_parquet), (folder / f"{symbol}.csv", _read_csv)):
        if path.is_file():
            return read(path).rename(columns=str.lower)
    return None


def _read_csv(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path)
    texts = [name for name in frame.columns if name.lower() in _TEXTS]
    if texts:
        frame[texts] = pd.read_csv(path, usecols=texts, dtype=str, keep_default_na=False)[texts]
    return frame
