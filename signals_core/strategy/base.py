"""What a strategy is given, what it says, and how both are converted."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import pandas as pd

from signals_core.calendar import DATE_UNIT
from signals_core.errors import SettingsError
from signals_core.market_data.schemas import BAR_COLUMNS


class OHLCV(NamedTuple):
    """The bar of a session. A tuple: a universe of them is made in seconds, and nobody can change one."""

    timestamp: datetime
    """The session, a tz-naive midnight; the bar is known at its close."""
    open: float
    high: float
    low: float
    close: float
    volume: float


class SignalDirection(StrEnum):
    """Which way to hold."""

    LONG = "LONG"
    SHORT = "SHORT"

    @property
    def sign(self) -> int:
        """1 or -1."""
        return 1 if self is SignalDirection.LONG else -1


@dataclass(frozen=True)
class Signal:
    """A view on one symbol, knowable at `timestamp`, the close of a session."""

    symbol: str
    timestamp: datetime
    direction: SignalDirection
    strength: float
    """The calibrated probability of the direction, 0..1."""
    strategy_name: str
    metadata: dict[str, Any] = field(default_factory=dict)
    """`weight` among it is the share of equity to hold, not negative; without one the backtest's rule decides."""


class BaseStrategy(ABC):
    """A rule from bars to signals; subclass it, and give the instance to a `StrategyEngine`.

    Args:
        name: unique in an engine; ends up in the signals.
        min_hold_days: sessions that a position is held at least.
        holding_days: None: a position is held for as long as signals say so, at least `min_hold_days`. A number:
            each signal opens a position of its own for that many sessions, beside those before it (overlapping
            tranches), and holds 1 / holding_days of the signal's weight.
        lookback_days: the longest history of sessions the rule looks at; None: all there is.

    Raises:
        SettingsError: a number of days is below 1, or tranches would be held shorter than `min_hold_days`.
    """

    def __init__(
        self, name: str, min_hold_days: int = 1, holding_days: int | None = None, lookback_days: int | None = None
    ) -> None:
        if min_hold_days < 1 or any(days is not None and days < 1 for days in (holding_days, lookback_days)):
            raise SettingsError(f"strategy {name}: min_hold_days, holding_days and lookback_days are 1 or more")
        if holding_days is not None and holding_days < min_hold_days:
            raise SettingsError(
                f"strategy {name}: holding_days ({holding_days}) is shorter than min_hold_days ({min_hold_days})"
            )
        self.name = name
        self.min_hold_days = min_hold_days
        self.holding_days = holding_days
        self.lookback_days = lookback_days

    @property
    def parameters(self) -> dict[str, Any]:
        """What the strategy was made with, for reports: every public attribute but its name."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_") and key != "name"}

    @abstractmethod
    def generate_signals(self, data: dict[str, list[OHLCV]]) -> list[Signal]:
        """The signals of the latest session.

        Args:
            data: by symbol, its bars up to the latest session, the oldest first; a symbol without a bar in that
                session is among them with its earlier ones. Prices are comparable over time (adjusted forward).

        Returns:
            Signals with that session's timestamp; at most one a symbol. Earlier ones may be among them and are
            ignored: their time has passed. A symbol that is not named has no signal.
        """


def to_ohlcv(bars: pd.DataFrame) -> list[OHLCV]:
    """A frame of bars as the list that strategies take; about 0.8 µs and 260 bytes a bar.

    Args:
        bars: index `date`, columns open, high, low, close, volume; others are dropped.
    """
    columns = (bars[name].tolist() for name in BAR_COLUMNS)
    return list(map(OHLCV, bars.index.to_pydatetime(), *columns))


def to_frame(bars: Sequence[OHLCV]) -> pd.DataFrame:
    """The inverse of `to_ohlcv`: index `date`, float64 columns open, high, low, close, volume."""
    frame = pd.DataFrame(list(bars), columns=list(OHLCV._fields))
    frame["timestamp"] = frame["timestamp"].astype(f"datetime64[{DATE_UNIT}]")
    return frame.set_index("timestamp").rename_axis("date").astype("float64")


def signals_frame(signals: Iterable[Signal]) -> pd.DataFrame:
    """Signals as rows: symbol, date, direction, sign (1, -1), strength, weight (NaN: none given)."""
    rows = [
        (s.symbol, s.timestamp, str(s.direction), s.direction.sign, s.strength, s.metadata.get("weight"))
        for s in signals
    ]
    columns = ["symbol", "date", "direction", "sign", "strength", "weight"]
    types = {"date": f"datetime64[{DATE_UNIT}]", "sign": "int64", "strength": "float64", "weight": "float64"}
    return pd.DataFrame(rows, columns=columns).astype(types)
