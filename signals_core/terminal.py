"""What a terminal shows: progress on stderr (bars, or a line a task without a terminal), data on stdout."""

import json
import math
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd


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


_PLAIN_WIDTH = 140
"""Columns of the report where stdout is no terminal, such as in a log."""


def out() -> Console:
    """The console of stdout, wide enough for the report where that is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


def records(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows of a frame as plain JSON values: moments as ISO texts, plain dates without a time, missing as None."""
    import pandas as pd

    shown = {}
    for name in frame.columns:
        values = frame[name]
        if pd.api.types.is_datetime64_any_dtype(values.dtype):
            plain = (values.dropna() == values.dropna().dt.normalize()).all()
            values = values.dt.strftime("%Y-%m-%d" if plain else "%Y-%m-%dT%H:%M:%S")
        shown[name] = values.astype(object)
    table = pd.DataFrame(shown, index=frame.index)
    return table.where(table.notna(), None).to_dict("records")


def print_json(value: Any) -> None:
    """One JSON document."""
    print(json.dumps(_without_nan(value), indent=1, default=str, allow_nan=False))


def _without_nan(value: Any) -> Any:
    """An undefined figure is null in JSON, which knows no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Records as JSON or as a table."""
    if as_json:
        print_json(rows)
    elif rows:
        names = list(dict.fromkeys(name for row in rows for name in row))
        print_table(names, [tuple(_cell(row.get(name, "")) for name in names) for row in rows])


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of texts, which may hold rich markup."""
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    out().print(table)


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
