"""Bring validation windows up to date: several processes, each window computed once and kept."""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from signals_core.errors import MissingPrerequisite
from signals_core.features.catalog import catalog
from signals_core.ml.champion import Predictor, champion_before, load_champion
from signals_core.ml.registry import read_journal
from signals_core.ml.splits import PanelSplitter, Window, WindowAudit, WindowRows, calendar_windows, window_target
from signals_core.ml.validation import WalkForwardValidator, WindowResult, warm_source
from signals_core.progress import track
from signals_core.provenance import digest, modules_behind, source_digest
from signals_core.settings import Scope, Settings
from signals_core.settings_loading import LoadedSettings
from signals_core.workspace import Panel, Workspace

_KEEPERS = tuple(f"signals_core.ml.{name}" for name in ("registry", "journal", "bundle", "window_store"))
CODE = modules_behind("signals_core.ml.validation", *_KEEPERS)
"""What a window is computed by."""


@dataclass(frozen=True)
class WindowOutcome:
    """A window that is stored now, or the reason why it cannot be computed."""

    scope: Scope
    key: str
    result: WindowResult | None
    computed: bool
    refusal: str | None = None

    def __str__(self) -> str:
        return f"{self.scope} {self.key}"


def all_windows(settings: Settings, end: date) -> list[Window]:
    """Every window since the partitions' start whose test has ended by `end`, in time order."""
    chosen = settings.validation
    return list(
        calendar_windows(settings.partitions.start, end, chosen.train_months, chosen.test_months, chosen.step_months)
    )


def window_of(settings: Settings, key: str) -> Window:
    """The window whose test starts on the date `key`.

    Raises:
        MissingPrerequisite: there is no such window on the grid of the settings.
    """
    end = date(date.fromisoformat(key).year + 1 + settings.validation.test_months // 12 + 1, 1, 1)
    for window in all_windows(settings, end):
        if window.key == key:
            return window
    raise MissingPrerequisite(f"{key} is not the test start of a window of these settings")


@dataclass(frozen=True)
class _Job:
    """A window to compute in some process."""

    scope: Scope
    key: str
    inputs: str
    """Of the window alone, without the trials it may start from."""
    after: str | None
    """The window whose best trials it starts from."""
    champion: str | None
    """The folder of the model that was in service before its test."""


def compute_windows(workspace: Workspace, wanted: Sequence[tuple[Scope, str]]) -> list[WindowOutcome]:
    """Bring the windows (scope, key) up to date; those whose inputs did not change are only read.

    With `tuning.warm_start` the earlier windows that one starts from are brought up to date before it, whether
    wanted or not: so its result does not depend on which windows were asked for, nor in what order. A window
    that cannot be computed (too few training rows, say) is refused with its reason and does not stop the
    others; what was stored of it goes.
    """
    outcomes: dict[tuple[Scope, str], WindowOutcome] = {}
    jobs: list[_Job] = []
    for scope in dict.fromkeys(scope for scope, _ in wanted):
        keys = [key for name, key in wanted if name == scope]
        try:
            standing = _Standing(workspace, scope)
        except MissingPrerequisite as error:
            outcomes |= {(scope, key): _refused(workspace, scope, key, str(error)) for key in keys}
            continue
        for key in standing.with_sources(keys):
            if not standing.is_current(key):
                jobs.append(standing.job(key))
            elif key in keys:
                outcomes[scope, key] = WindowOutcome(scope, key, workspace.windows.load(scope, key), computed=False)
    for outcome in track("validation windows", _compute(workspace.loaded, jobs), len(jobs)):
        outcomes[outcome.scope, outcome.key] = outcome
    return [outcomes[scope, key] for scope, key in wanted]


def audit_window(workspace: Workspace, scope: Scope, key: str) -> WindowAudit:
    """Dates and rows of a window, and every row that it leaves out, with the reason.

    Raises:
        MissingPrerequisite: there is no such window, or no panel.
    """
    target = _panel(workspace, scope).target
    splitter = PanelSplitter(target, workspace.settings.validation.embargo_sessions)
    return splitter.split(window_of(workspace.settings, key)).audit(target)


def stale_windows(workspace: Workspace, scope: Scope) -> list[str]:
    """Keys of the scope's whole windows that are not stored or were made from other inputs.

    Windows that are refused are always among them: they are cheap, and their reason may have gone.
    """
    standing = _Standing(workspace, scope)
    return [window.key for window in standing.windows if not standing.is_current(window.key)]


def current_windows(workspace: Workspace, scope: Scope, before: date) -> dict[str, str]:
    """The stored windows of the present settings whose test ended by `before`, in order: inputs by key.

    Raises:
        MissingPrerequisite: a stored one was made from other inputs, settings or code; or there is none.
    """
    found = {}
    standing = _Standing(workspace, scope)
    for window in standing.windows:
        stored = workspace.windows.inputs(scope, window.key)
        if window.test_end > before or stored is None:
            continue
        if not standing.is_current(window.key):
            raise MissingPrerequisite(
                f"{scope}: validation window {window.key} was made from other inputs or settings: materialise "
                "validation_windows first (signals validate)"
            )
        found[window.key] = stored
    if not found:
        raise MissingPrerequisite(
            f"{scope}: no validation window ended by {before}; materialise validation_windows first (signals validate)"
        )
    return found


class _Standing:
    """The windows of a scope, and which of them are stored as the present inputs would make them."""

    def __init__(self, workspace: Workspace, scope: Scope) -> None:
        self._workspace, self._scope = workspace, scope
        self._panel = _panel(workspace, scope)
        self._splitter = PanelSplitter(self._panel.target, workspace.settings.validation.embargo_sessions)
        self._journal = read_journal(workspace.models)
        self._jobs: dict[str, _Job] = {}
        self._current: dict[str, bool] = {}
        self.windows = all_windows(workspace.settings, _end(workspace))

    def with_sources(self, keys: Sequence[str]) -> list[str]:
        """The windows and those they start from, directly or not, in time order.

        Raises:
            MissingPrerequisite: a key is not on the grid.
        """
        found: set[str] = set()
        for key in keys:
            chain: str | None = window_of(self._workspace.settings, key).key
            while chain is not None and chain not in found:
                found.add(chain)
                chain = self._source(chain)
        return sorted(found)

    def job(self, key: str) -> _Job:
        """What computing the window takes."""
        if key not in self._jobs:
            settings, window = self._workspace.settings, window_of(self._workspace.settings, key)
            champion = champion_before(self._journal, self._scope, window.test_start, settings.exchange.timezone)
            inputs = window_inputs(settings, self._panel, window, self._splitter.split(window), champion)
            self._jobs[key] = _Job(self._scope, key, inputs, self._source(key), champion)
        return self._jobs[key]

    def is_current(self, key: str) -> bool:
        """Whether the window is stored, and made from the present inputs."""
        if key not in self._current:
            store, source = self._workspace.windows, self._source(key)
            stored = store.inputs(self._scope, key)
            # A source that is not stored was refused, and left its successor to start from nothing.
            settled = source is None or store.inputs(self._scope, source) is None or self.is_current(source)
            self._current[key] = (
                stored is not None
                and settled
                and stored == _all_inputs(self.job(key).inputs, _stored(self._workspace, self._scope, source))
            )
        return self._current[key]

    def _source(self, key: str) -> str | None:
        if not self._workspace.settings.tuning.warm_start:
            return None
        source = warm_source(window_of(self._workspace.settings, key), self.windows)
        return source.key if source else None


def _stored(workspace: Workspace, scope: Scope, key: str | None) -> WindowResult | None:
    if key is None or workspace.windows.inputs(scope, key) is None:
        return None
    return workspace.windows.load(scope, key)


def _all_inputs(inputs: str, warm: WindowResult | None) -> str:
    return digest(inputs, warm.start, warm.suggested) if warm else inputs


def _refused(workspace: Workspace, scope: Scope, key: str, reason: str) -> WindowOutcome:
    workspace.windows.remove(scope, key)
    return WindowOutcome(scope, key, None, computed=False, refusal=reason)


def window_inputs(
    settings: Settings, panel: Panel, window: Window, rows: WindowRows, champion: str | None = None
) -> str:
    """The digest of all that a window's result depends on: its rows, the settings it reads and the code."""
    used = rows.train | rows.test
    return digest(
        panel.features[used],
        window_target(panel.target, rows, settings.ml.prediction_horizon)[used],
        (window.key, window.train_start, window.test_end),
        champion,
        sorted(name for name, feature in catalog().items() if feature.market_wide),
        model_settings(settings),
        settings.validation,
        source_digest(*CODE),
    )


def model_settings(settings: Settings) -> list[object]:
    """What of the settings changes a fitted model; thresholds of use and monitoring do not.

    The labels themselves carry the thresholds of UP and DOWN.
    """
    ml = settings.ml.model_dump(include={"prediction_horizon", "min_training_samples", "class_weighting"})
    params = settings.ml.xgb_params.model_dump() if settings.tuning.trials == 0 else None
    return [ml, params, settings.tuning.model_dump()]


def _end(workspace: Workspace) -> date:
    from signals_core.steps import known_until

    return known_until(workspace)


def _panel(workspace: Workspace, scope: Scope) -> Panel:
    return workspace.panel(scope, workspace.settings.partitions.start, _end(workspace))


def _compute(loaded: LoadedSettings, jobs: Sequence[_Job]) -> Iterator[WindowOutcome]:
    """Outcomes as they come; a job starts when the window it starts from is done."""
    workers = min(loaded.settings.compute.workers, len(jobs))
    if workers <= 1:
        _open_worker(loaded)
        try:
            yield from map(_compute_one, jobs)
        finally:
            _close_worker()
        return
    import multiprocessing
    from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

    # Fork would copy the threads' locks of Arrow and gRPC in an unknown state.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(loaded,))
    waiting, running = list(jobs), dict[Future[WindowOutcome], _Job]()
    try:
        while waiting or running:
            unfinished = {(job.scope, job.key) for job in (*waiting, *running.values())}
            for job in [job for job in waiting if (job.scope, job.after) not in unfinished]:
                waiting.remove(job)
                running[pool.submit(_compute_one, job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_worker: dict[str, Workspace] = {}
_worker_panels: dict[Scope, Panel] = {}


def _start_worker(loaded: LoadedSettings) -> None:
    _open_worker(loaded)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    import multiprocessing
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _open_worker(loaded: LoadedSettings) -> None:
    _worker["workspace"] = Workspace(loaded)


def _close_worker() -> None:
    _worker.pop("workspace").close()
    _worker_panels.clear()


def _compute_one(job: _Job) -> WindowOutcome:
    workspace = _worker["workspace"]
    settings, scope, key = workspace.settings, job.scope, job.key
    warm = _stored(workspace, scope, job.after)
    inputs = _all_inputs(job.inputs, warm)
    if workspace.windows.inputs(scope, key) == inputs:  # the window it starts from was made anew, but is the same
        return WindowOutcome(scope, key, workspace.windows.load(scope, key), computed=False)
    if scope not in _worker_panels:
        _worker_panels[scope] = _panel(workspace, scope)
    panel = _worker_panels[scope]

    def champion(window: Window) -> Predictor | None:
        return load_champion(workspace.models / job.champion, window.test_start) if job.champion else None

    validator = WalkForwardValidator(settings.ml, settings.tuning, settings.validation, champion)
    try:
        result = validator.run_window(
            window_of(settings, key), panel.features, panel.target, warm=warm, study=workspace.windows.study(scope, key)
        )
    except MissingPrerequisite as error:
        return _refused(workspace, scope, key, str(error))
    workspace.windows.save(scope, result, inputs)
    return WindowOutcome(scope, key, result, computed=True)
