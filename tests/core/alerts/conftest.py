from collections.abc import Iterator
from pathlib import Path

import pytest

from signals_core.events import EventStream
from tests.core.alerts.services import FakeTime, Made, manager, settings
from tests.core.loopback import Loopback, serving


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving() as loopback:
        yield loopback


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def made(server: Loopback, time: FakeTime, tmp_path: Path) -> Made:
    """`made("slack", "telegram", max_per_hour=3)`: a manager as a new process would have it."""

    def make(*channels: str, events: EventStream | None = None, **other: object):
        return manager(settings(server, *channels, **other), tmp_path / "alerts", time, events)

    return make
