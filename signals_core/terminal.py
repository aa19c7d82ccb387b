"""Progress in a terminal: bars where there is one, a line a task otherwise. Always on stderr."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class TerminalProgress:
    """A `ProgressReporter` that draws; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}

    def __enter__(self) -> "TerminalProgress":
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._bars.stop()

    def start(self, task: str, total: int) -> None:
        """A bar appears, or a line says that the task begins."""
        self._started[task], self._totals[task], self._done[task] = time.monotonic(), total, 0
        if not self._live:
            if total > _WORTH_ANNOUNCING:
                self._console.print(f"{task}: {total} to do", highlight=False)
        else:
            self._tasks[task] = self._bars.add_task(task, total=total, detail="")

    def advance(self, task: str, detail: str) -> None:
        """The bar moves on."""
        if self._live:
            self._bars.update(self._tasks[task], advance=1, detail=detail)
            return
        self._done[task] += 1
        total = self._totals[task]
        if total > _WORTH_ANNOUNCING and self._done[task] % (total // _LINES) == 0 and self._done[task] < total:
            took = time.monotonic() - self._started[task]
            self._console.print(f"{task}: {self._done[task]} of {total} after {took:.1f} s", highlight=False)

    def finish(self, task: str) -> None:
        """The bar stays; without a terminal one line tells what it took."""
        if self._live:
            self._bars.update(self._tasks[task], detail="")
            self._bars.stop_task(self._tasks[task])
        else:
            took = time.monotonic() - self._started[task]
            self._console.print(f"{task}: {self._totals[task]} done in {took:.1f} s", highlight=False)


_WORTH_ANNOUNCING, _LINES = 20, 6
"""Steps from which a task takes long enough to report in between, and about how often."""
