"""One request an interval, among all threads and processes that ask the same server."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from signals_core.files import locked


class Pace:
    """Lets one request through each interval, among all who share the file (or the object, without one)."""

    def __init__(
        self, interval: float, file: Path | None, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> None:
        self._interval, self._file, self._sleep, self._clock = interval, file, sleep, clock
        self._mutex = threading.Lock()
        self._last = -math.inf

    def wait(self) -> None:
        """Return when the next request may go."""
        with self._exclusive():
            now = self._clock()
            # A clock set back must not make anybody wait longer than one interval.
            pause = min(self._read() + self._interval - now, self._interval)
            if pause > 0:
                self._sleep(pause)
            self._write(max(self._clock(), now + max(pause, 0.0)))

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if self._file is None:
            with self._mutex:
                yield
        else:
            with locked(self._file.with_name(f"{self._file.name}.lock")):
                yield

    def _read(self) -> float:
        if self._file is None:
            return self._last
        try:
            return float(self._file.read_text())
        except FileNotFoundError:
            return -math.inf
        except ValueError:  # its writer was killed: somebody may just have asked
            return self._clock()

    def _write(self, moment: float) -> None:
        if self._file is None:
            self._last = moment
        else:
            self._file.write_text(f"{moment:.6f}")
