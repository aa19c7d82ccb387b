"""Feeds that have fallen silent or repeat themselves, seen on what they delivered rather than on features.

An instrument's bars enter features beside the symbol's own: frozen, they leave every feature in motion. Facts stay
what they were when their feed stops, and look like quiet.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from signals_core.features.inputs import FeatureInputs
from signals_core.market_data.schemas import BAR_COLUMNS

_INSTRUMENTS = ("spy_bars", "sector_bars", "vix_bars")
_FACTS = ("fundamentals", "insider_transactions", "short_interest")
_FROZEN_RUN = 3
"""Bars that repeat each other exactly."""
_SHARE = 0.5
"""Of the symbols: one alone is a halted share."""
_LONGER = 1.5
"""Times the longest silence of the training period."""
_FEWEST_MOMENTS = 10


def silent_feeds(inputs: Mapping[str, FeatureInputs], day: pd.Timestamp, since: pd.Timestamp) -> list[str]:
    """What to say of each feed that is frozen, behind or silent for longer than it used to be.

    Args:
        inputs: of every symbol, as known at the close of `day`.
        day: the session of the report.
        since: the start of the training period, whose silences are the measure.
    """
    if not inputs:
        return []
    found = []
    words = [_bars_fault(item.bars, day) for item in inputs.values()]
    broken = [text for text in words if text]
    if len(broken) >= _SHARE * len(words):
        found.append(f"feed bars: of {len(broken)} of {len(words)} symbols {broken[0]}")
    for name in _INSTRUMENTS:
        of_each = [bars for item in inputs.values() if (bars := getattr(item, name)) is not None and len(bars)]
        broken = [text for bars in of_each if (text := _bars_fault(bars, day))]
        if of_each and len(broken) >= _SHARE * len(of_each):
            found.append(f"feed {name}: {broken[0]}")
    for name in _FACTS:
        frames = [frame for item in inputs.values() if (frame := getattr(item, name)) is not None and len(frame)]
        text = _silence(frames, day, since)
        if text:
            found.append(f"feed {name}: {text}")
    return found


def _bars_fault(bars: pd.DataFrame, day: pd.Timestamp) -> str | None:
    if bars.empty or bars.index[-1] < day:
        return f"there is no bar since {bars.index[-1].date()}" if len(bars) else "there is no bar"
    last = bars[[name for name in BAR_COLUMNS if name in bars]].tail(_FROZEN_RUN).to_numpy()
    if len(last) == _FROZEN_RUN and (last == last[0]).all():
        return f"the last {_FROZEN_RUN} bars are the same"
    return None


def _silence(frames: list[pd.DataFrame], day: pd.Timestamp, since: pd.Timestamp) -> str | None:
    if not frames:
        return None
    moments = np.unique(np.concatenate([frame["available_at"].to_numpy() for frame in frames]))
    moments = moments[(moments >= since.to_datetime64()) & (moments < (day + pd.Timedelta(days=1)).to_datetime64())]
    if len(moments) < _FEWEST_MOMENTS:
        return None
    longest = pd.Timedelta(np.diff(moments).max())
    quiet = day + pd.Timedelta(days=1) - pd.Timestamp(moments[-1])
    if quiet <= _LONGER * longest:
        return None
    return f"nothing new for {quiet.days} days, {max(longest.days, 1)} at most before"
