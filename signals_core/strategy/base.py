"""Signals as the outside sees them."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class SignalDirection(StrEnum):
    """Which way to hold."""

    LONG = "LONG"
    SHORT = "SHORT"


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
