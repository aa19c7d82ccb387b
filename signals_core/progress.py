"""Progress of long work. The library reports; who shows it (a terminal, a log, nobody) is set outside."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


class ProgressReporter(Protocol):
    """Receives the start, each step and the end of a piece of work."""

    def start(self, task: str, total: int) -> None:
        """`task` begins and has `total` steps."""

    def advance(self, task: str, detail: str) -> None:
        """One step of `task` is done."""

    def finish(self, task: str) -> None:
        """`task` has ended."""


class _Silent:
    def start(self, task: str, total: int) -> None: ...

    def advance(self, task: str, detail: str) -> None: ...

    def finish(self, task: str) -> None: ...


_SILENT: ProgressReporter = _Silent()
_reporter: ContextVar[ProgressReporter] = ContextVar("progress_reporter", default=_SILENT)


@contextmanager
def reporting_to(reporter: ProgressReporter) -> Iterator[None]:
    """Report progress of everything inside the block to `reporter`."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


@contextmanager
def task(name: str, total: int) -> Iterator[Callable[[str], None]]:
    """Report the work inside the block as `total` steps; call what is yielded when one is done."""
    reporter = _reporter.get()
    reporter.start(name, total)
    try:
        yield lambda detail: reporter.advance(name, detail)
    finally:
        reporter.finish(name)


def track(name: str, steps: Iterable[T], total: int) -> Iterator[T]:
    """Yield from `steps`, reporting each as done when the next is asked for."""
    with task(name, total) as done:
        for step in steps:
            yield step
            done(str(step))
