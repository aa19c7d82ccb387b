"""Optuna studies that survive a kill: one journal file, in Optuna's own format, one append a finished trial."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from signals_core.files import truncate_torn_line

if TYPE_CHECKING:
    import optuna


class StudyFile:
    """The finished trials of one search, on disk.

    The search itself runs in memory: Optuna would flush every parameter and intermediate value by itself, and a
    trial that was under way when the process was killed would stay in the file for ever.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Open the file for a search named by the digest of its inputs; trials of another search are discarded."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # A process that was killed inside an append leaves Optuna's lock behind; ours died with it.
        Path(f"{path}.lock").unlink(missing_ok=True)
        truncate_torn_line(path)
        study = _load(path, name)
        if study is None:
            path.unlink()
            study = _create(path, name)
        self._study = study

    def trials(self) -> list["optuna.trial.FrozenTrial"]:
        """The trials that finished, in order."""
        return self._study.trials

    def append(self, trial: "optuna.trial.FrozenTrial") -> None:
        """Keep a finished trial."""
        self._study.add_trial(trial)


def _load(path: Path, name: str) -> "optuna.Study | None":
    """The study of that name; None if the file holds another search, or nothing that can be read."""
    import optuna

    try:
        return optuna.load_study(study_name=name, storage=_storage(path))
    except (KeyError, ValueError):
        return None


def _create(path: Path, name: str) -> "optuna.Study":
    import optuna

    return optuna.create_study(storage=_storage(path), study_name=name)


def _storage(path: Path) -> "optuna.storages.JournalStorage":
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    return JournalStorage(JournalFileBackend(str(path)))


@contextmanager
def open_study(path: Path | None, name: str) -> Iterator[StudyFile | None]:
    """The file at `path`; None without a path, and where another process is at the same search.

    That one then keeps its trials, and this one finds the same without: a search depends on its inputs only.
    """
    if path is None:
        yield None
        return
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.held"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield None
        return
    try:
        yield StudyFile(path, name)
    finally:
        lock.release()
