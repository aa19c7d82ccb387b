"""A clock that sleeping moves on."""

from datetime import UTC, datetime

START = datetime(2026, 3, 2, 15, 0, tzinfo=UTC).timestamp()


class FakeTime:
    """Gives `sleep` and `clock` to what would wait."""

    def __init__(self, now: float = START) -> None:
        self.now = now
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now
