"""Bring validation windows up to date: several processes, each window computed once and kept."""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from signals_core.errors import MissingPrerequisite
from signals_core.ml.validation import (
    WalkForwardValidator,
    Window,
    WindowResult,
    calendar_windows,
    window_rows,
    window_target,
)
from signals_core.progress import track
from signals_core.provenance import digest, source_digest
from signals_core.settings import Scope, Settings
from signals_core.settings_loading import LoadedSettings
from signals_core.workspace import Panel, Workspace

_CODE = (
    "signals_core.ml.validation",
    "signals_core.ml.pipeline",
    "signals_core.ml.tuning",
    "signals_core.ml.metrics",
)


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


def compute_windows(workspace: Workspace, wanted: Sequence[tuple[Scope, str]]) -> list[WindowOutcome]:
    """Bring the windows (scope, key) up to date; those whose inputs did not change are only read.

    A window that cannot be computed (too few training rows, say) is refused with its reason and does not
    stop the others; what was stored of it goes.
    """
    outcomes: dict[tuple[Scope, str], WindowOutcome] = {}
    stale: list[tuple[Scope, str, str]] = []
    for scope in dict.fromkeys(scope for scope, _ in wanted):
        keys = [key for name, key in wanted if name == scope]
        try:
            panel = _panel(workspace, scope)
        except MissingPrerequisite as error:
            outcomes |= {(scope, key): _refused(workspace, scope, key, str(error)) for key in keys}
            continue
        for key in keys:
            inputs = window_inputs(workspace.settings, panel, window_of(workspace.settings, key))
            if workspace.windows.inputs(scope, key) == inputs:
                outcomes[scope, key] = WindowOutcome(scope, key, workspace.windows.load(scope, key), computed=False)
            else:
                stale.append((scope, key, inputs))
    for outcome in track("validation windows", _compute(workspace.loaded, stale), len(stale)):
        outcomes[outcome.scope, outcome.key] = outcome
    return [outcomes[scope, key] for scope, key in wanted]


def stale_windows(workspace: Workspace, scope: Scope) -> list[str]:
    """Keys of the scope's whole windows that are not stored or were made from other inputs.

    Windows that are refused are always among them: they are cheap, and their reason may have gone.
    """
    return [key for key, _, current in _standing(workspace, scope, _end(workspace)) if not current]


def current_windows(workspace: Workspace, scope: Scope, before: date) -> dict[str, str]:
    """The stored windows of the present settings whose test ended by `before`, in order: inputs by key.

    Raises:
        MissingPrerequisite: a stored one was made from other inputs, settings or code; or there is none.
    """
    found = {}
    for key, stored, current in _standing(workspace, scope, min(before, _end(workspace))):
        if stored is not None and not current:
            raise MissingPrerequisite(
                f"{scope}: validation window {key} was made from other inputs or settings: materialise "
                "validation_windows first (signals validate)"
            )
        if stored is not None:
            found[key] = stored
    if not found:
        raise MissingPrerequisite(
            f"{scope}: no validation window ended by {before}; materialise validation_windows first (signals validate)"
        )
    return found


def _standing(workspace: Workspace, scope: Scope, end: date) -> list[tuple[str, str | None, bool]]:
    """Of every whole window by `end`: its key, the stored inputs, and whether they are the present ones."""
    panel = _panel(workspace, scope)
    found = []
    for window in all_windows(workspace.settings, end):
        stored = workspace.windows.inputs(scope, window.key)
        found.append((window.key, stored, stored == window_inputs(workspace.settings, panel, window)))
    return found


def _refused(workspace: Workspace, scope: Scope, key: str, reason: str) -> WindowOutcome:
    workspace.windows.remove(scope, key)
    return WindowOutcome(scope, key, None, computed=False, refusal=reason)


def window_inputs(settings: Settings, panel: Panel, window: Window) -> str:
    """The digest of all that a window's result depends on: its rows, the settings it reads and the code."""
    rows = window_rows(window, panel.target, settings.validation.embargo_sessions)
    used = rows.train | rows.test
    return digest(
        panel.features[used],
        window_target(panel.target, rows, settings.ml.prediction_horizon)[used],
        (window.key, window.train_start, window.test_end),
        model_settings(settings),
        settings.validation,
        source_digest(*_CODE),
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


def _compute(loaded: LoadedSettings, stale: Sequence[tuple[Scope, str, str]]) -> Iterator[WindowOutcome]:
    workers = min(loaded.settings.compute.workers, len(stale))
    if workers <= 1:
        _open_worker(loaded)
        try:
            yield from map(_compute_one, stale)
        finally:
            _close_worker()
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    # Fork would copy the threads' locks of Arrow and gRPC in an unknown state.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(loaded,))
    try:
        for future in as_completed([pool.submit(_compute_one, item) for item in stale]):
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


def _compute_one(item: tuple[Scope, str, str]) -> WindowOutcome:
    scope, key, inputs = item
    workspace = _worker["workspace"]
    settings = workspace.settings
    if scope not in _worker_panels:
        _worker_panels[scope] = _panel(workspace, scope)
    panel = _worker_panels[scope]
    validator = WalkForwardValidator(settings.ml, settings.tuning, settings.validation)
    try:
        result = validator.run_window(window_of(settings, key), panel.features, panel.target)
    except MissingPrerequisite as error:
        return _refused(workspace, scope, key, str(error))
    workspace.windows.save(scope, result, inputs)
    return WindowOutcome(scope, key, result, computed=True)
