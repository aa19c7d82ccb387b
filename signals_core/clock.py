"""The one clock. Tests, the demo and replays set it by `clock.as_of`."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from signals_core.settings import Settings


def now(settings: "Settings") -> datetime:
    """The present moment in the exchange's time zone: `clock.as_of` if set, else the wall clock."""
    moment = settings.clock.as_of or datetime.now(UTC)
    return moment.astimezone(ZoneInfo(settings.exchange.timezone))
