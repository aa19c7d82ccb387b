"""Bars from one CSV or Parquet file a symbol: the worked example of a provider."""

from pathlib import Path

import pandas as pd

from signals_core.errors import SettingsError


class FilesProvider:
    """Reads `<directory>/<symbol>.parquet` or `.csv` with the columns of `BarProvider.fetch_bars`."""

    name = "files"

    def __init__(self, root: Path, directory: str = "data/bars") -> None:
        self._directory = root / directory

    def fetch_bars(self, symbol: str) -> pd.DataFrame | None:
        """The file of `symbol`, column names in any case; None if there is no such file."""
        if not self._directory.is_dir():
            raise SettingsError(
                f"market_data.options.directory: {self._directory} is no folder; put one <SYMBOL>.csv or "
                "<SYMBOL>.parquet a symbol there, or choose another market_data.provider"
            )
        for path, read in (
            (self._directory / f"{symbol}.parquet", pd.read_parquet),
            (self._directory / f"{symbol}.csv", pd.read_csv),
        ):
            if path.is_file():
                return read(path).rename(columns=str.lower)
        return None
