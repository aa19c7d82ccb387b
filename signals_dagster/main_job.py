"""The main job: every layer of assets brought up to date in order, each in one run of its partitions.

What is missing or stale is decided here from the stored digests and from what the Dagster instance has
recorded; so the job can be killed at any moment and run again, and a second run finds its work done.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

import dagster as dg

from signals_core import steps
from signals_core.errors import GateError, MissingPrerequisite
from signals_core.files import sweep_temporaries
from signals_core.ml import drift_report, training
from signals_core.ml.windows import all_windows, stale_windows
from signals_core.settings_loading import LoadedSettings
from signals_core.strategy import ml_strategy
from signals_core.workspace import Workspace
from signals_dagster.assets.model import CAUSE_TAG
from signals_dagster.instance import open_instance
from signals_dagster.partitions import PARTITIONS, range_tags

_MAIN_JOB_TAG = "signals/main_job"


@dataclass(frozen=True)
class LayerRun:
    """What a layer did: nothing, or one Dagster run."""

    name: str
    title: str
    partitions: int
    seconds: float
    run_id: str | None
    notes: tuple[str, ...] = ()
    """What could not be had, such as an instrument that the provider lacks."""

    @property
    def outcome(self) -> str:
        """In words."""
        done = f"{self.partitions} partitions, run {self.run_id[:8]}" if self.run_id else "up to date"
        return "; ".join([done, *self.notes])


@dataclass(frozen=True)
class _Layer:
    title: str
    job: str
    assets: tuple[str, ...]
    dimension: str
    partitions: dg.MultiPartitionsDefinition
    expected: Callable[[Workspace, date], list[tuple[str, str]]]
    """All (symbol or scope, date key) that should exist by now."""
    stale: Callable[[Workspace, date], Iterable[tuple[str, str]]]
    """Those of them whose artifacts are missing or made from other inputs."""
    prepare: Callable[[Workspace], tuple[str, ...]] | None = None
    """Done first; returns what could not be had."""


def run_layer(
    name: str, workspace: Workspace, instance: dg.DagsterInstance, sunday: date, cause: str, scope: str | None = None
) -> LayerRun:
    """Bring one layer (a key of `LAYERS`) up to date.

    Args:
        name: of the layer.
        workspace: of the project.
        instance: records the run.
        sunday: whose model it is.
        cause: why a model is trained.
        scope: the only one whose windows, model and session are; None: every one.

    Raises:
        SignalsError: a step of the layer could not do its work; the original error.
    """
    layer, started = LAYERS[name], time.monotonic()
    notes = layer.prepare(workspace) if layer.prepare else ()
    expected = layer.expected(workspace, sunday)
    lacking = set(layer.stale(workspace, sunday)) | _unrecorded(instance, layer, expected)
    others = layer.dimension == "scope" and scope is not None
    wanted = [key for key in expected if key in lacking and not (others and key[0] != scope)]
    run_id = None
    if wanted:
        run_id = _run(instance, layer, wanted, cause, steps.known_until(workspace))
    return LayerRun(name, layer.title, len(wanted), time.monotonic() - started, run_id, notes)


def run_demo(loaded: LoadedSettings, cause: str = "a person") -> list[LayerRun]:
    """Every layer in order, on the project's own instance; the entry point of `signals demo`.

    Raises:
        SignalsError: another main job is running here, or a step could not do its work.
    """
    with Workspace(loaded) as workspace, main_job_lock(workspace), open_instance(workspace) as instance:
        tidy_up(workspace, instance)
        sunday = training.as_of_sunday(workspace.now)
        facts = _first_facts(instance, cause)
        return [facts, *(run_layer(name, workspace, instance, sunday, cause) for name in LAYERS)]


_FACTS = ("fundamentals", "insider_transactions", "short_interest", "universe_membership")


def _first_facts(instance: dg.DagsterInstance, cause: str) -> LayerRun:
    """Facts that were never asked for; after that, their schedules ask."""
    started = time.monotonic()
    keys = [dg.AssetKey(name) for name in _FACTS]
    lacking = [key for key in keys if instance.get_latest_materialization_event(key) is None]
    run_id = None
    if lacking:
        run_id = _execute(instance, "facts_job", {_MAIN_JOB_TAG: "true", CAUSE_TAG: cause}, {}, lacking)
    return LayerRun("facts", "facts and membership", len(lacking), time.monotonic() - started, run_id)


@contextmanager
def main_job_lock(workspace: Workspace, patience_seconds: float = 0) -> Iterator[None]:
    """Only one main job at a time works on a project; the lock goes with its process.

    Raises:
        MissingPrerequisite: another one still runs after `patience_seconds`.
    """
    from filelock import FileLock, Timeout

    workspace.data.mkdir(parents=True, exist_ok=True)
    lock = FileLock(workspace.data / "main_job.lock", timeout=patience_seconds)
    try:
        lock.acquire()
    except Timeout:
        raise MissingPrerequisite(f"another main job is running ({lock.lock_file}): wait for it") from None
    try:
        yield
    finally:
        lock.release()


def _run(
    instance: dg.DagsterInstance, layer: _Layer, wanted: Sequence[tuple[str, str]], cause: str, as_of: date
) -> str:
    """One run of the rectangle around the wanted partitions; steps skip what is up to date inside it."""
    order = layer.partitions.get_partitions_def_for_dimension(layer.dimension).get_partition_keys()
    names = sorted({name for name, _ in wanted}, key=order.index)
    dates = sorted({day for _, day in wanted})
    keys = layer.partitions.get_partitions_def_for_dimension("date").get_partition_keys()
    if not {dates[0], dates[-1]} <= set(keys):
        raise MissingPrerequisite(
            f"{layer.title} of {dates[-1]} are asked for, but the partitions end at {keys[-1] if keys else 'nothing'}: "
            "set clock.as_of, or change partitions.start or partitions.end"
        )
    tags = {
        **range_tags(f"{dates[0]}|{names[0]}", f"{dates[-1]}|{names[-1]}"),
        _MAIN_JOB_TAG: "true",
        CAUSE_TAG: cause,
    }
    config: dict[str, object] = {}
    if "calibrated_model" in layer.assets:
        config["ops"] = {"calibrated_model": {"config": {"cause": cause, "as_of": as_of.isoformat()}}}
    try:
        return _execute(instance, layer.job, tags, config)
    except dg.DagsterError as error:  # a blocking check; errors of a step keep their own type
        raise GateError(f"{layer.title}: {error}") from error


def _execute(
    instance: dg.DagsterInstance,
    job: str,
    tags: dict[str, str],
    config: dict[str, object],
    selection: Sequence[dg.AssetKey] | None = None,
) -> str:
    from signals_dagster.definitions import defs

    # The event log keeps what a step logs; an error reaches the caller as itself.
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = defs.resolve_job_def(job).execute_in_process(
        instance=instance, tags=tags, run_config={**quiet, **config}, raise_on_error=True, asset_selection=selection
    )
    return result.run_id


def _unrecorded(
    instance: dg.DagsterInstance, layer: _Layer, expected: Sequence[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Partitions of which Dagster has no materialisation of some asset of the layer."""
    lacking: set[tuple[str, str]] = set()
    for asset in layer.assets:
        recorded = instance.get_materialized_partitions(dg.AssetKey(asset))
        lacking |= {(name, day) for name, day in expected if f"{day}|{name}" not in recorded}
    return lacking


def tidy_up(workspace: Workspace, instance: dg.DagsterInstance) -> None:
    """Cancel the runs and remove the temporaries of a main job that was killed; call it with the lock held."""
    for folder in (workspace.data, workspace.models):
        sweep_temporaries(folder)
    unfinished = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED],
        tags={_MAIN_JOB_TAG: "true"},
    )
    for run in instance.get_runs(unfinished):
        instance.report_run_canceled(run, message="its process was killed; the next main job takes over")


def _date_keys(partitions: dg.MultiPartitionsDefinition, start: date, end: date) -> list[str]:
    """Date keys whose span overlaps start <= date < end."""
    definition = partitions.get_partitions_def_for_dimension("date")
    assert isinstance(definition, dg.TimeWindowPartitionsDefinition)
    keys = definition.get_partition_keys()
    spans = [(key, definition.time_window_for_partition_key(key)) for key in keys]
    return [key for key, span in spans if span.start.date() < end and span.end.date() > start]


def _look_for_bars(workspace: Workspace) -> tuple[str, ...]:
    """Ask the provider for everything, so that new, late and corrected bars are seen before staleness is."""
    loaded = steps.ingest(workspace, workspace.all_symbols())
    rejected = [f"{item.symbol}: {item.rejected} rows refused" for item in loaded if item.rejected and not item.problem]
    return (*(item.problem for item in loaded if item.problem), *rejected)


def _feature_partitions(workspace: Workspace, _: date) -> list[tuple[str, str]]:
    start, end = steps.data_span(workspace)
    dates = _date_keys(PARTITIONS.symbol_date, start, end)
    return [(ticker, day) for ticker in workspace.settings.universe.tickers for day in dates]


def _stale_feature_partitions(workspace: Workspace, _: date) -> list[tuple[str, str]]:
    """From the first stale month of each symbol on."""
    start, end = steps.data_span(workspace)
    found = []
    for ticker in workspace.covered(workspace.settings.universe.tickers):
        month = steps.first_stale_month(workspace, ticker, start, end)
        if month is not None:
            since = date.fromisoformat(f"{month}-01")
            found += [(ticker, day) for day in _date_keys(PARTITIONS.symbol_date, since, end)]
    return found


def _windows(workspace: Workspace, _: date) -> list[tuple[str, str]]:
    keys = [window.key for window in all_windows(workspace.settings, steps.known_until(workspace))]
    return [(scope, key) for scope in workspace.settings.ml.scopes for key in keys]


def _stale_windows(workspace: Workspace, sunday: date) -> list[tuple[str, str]]:
    found = []
    for scope in workspace.settings.ml.scopes:
        try:
            found += [(scope, key) for key in stale_windows(workspace, scope)]
        except MissingPrerequisite:  # the asset says so and goes on with the other scopes
            found += [item for item in _windows(workspace, sunday) if item[0] == scope]
    return found


def _models(workspace: Workspace, sunday: date) -> list[tuple[str, str]]:
    return [(scope, sunday.isoformat()) for scope in workspace.settings.ml.scopes]


def _stale_models(workspace: Workspace, sunday: date) -> list[tuple[str, str]]:
    as_of = steps.known_until(workspace)
    return [
        item
        for item in _models(workspace, sunday)
        if not _current(lambda scope=item[0]: training.is_current(workspace, scope, as_of))  # type: ignore[misc]
    ]


def _current(look: Callable[[], bool]) -> bool:
    """What lacks something is stale: its asset says what, and goes on with the other scopes."""
    try:
        return look()
    except MissingPrerequisite:
        return False


def _session(workspace: Workspace, _: date) -> list[tuple[str, str]]:
    """Scopes with a model in service; one that the gate refused has no signals and no drift to report."""
    day = steps.last_day(workspace).isoformat()
    return [(scope, day) for scope in workspace.settings.ml.scopes if workspace.registry.get_active(scope) is not None]


def _stale_session(workspace: Workspace, sunday: date) -> list[tuple[str, str]]:
    def look(scope: str, day: date) -> bool:
        return drift_report.is_current(workspace, scope, day) and ml_strategy.is_current(workspace, scope, day)

    return [
        (scope, key)
        for scope, key in _session(workspace, sunday)
        if not _current(lambda scope=scope, key=key: look(scope, date.fromisoformat(key)))  # type: ignore[misc]
    ]


LAYERS = {
    "features": _Layer(
        "bars, features and target",
        "features_job",
        (
            "bars",
            "technical_features",
            "fundamental_features",
            "cross_asset_features",
            "alternative_features",
            "temporal_features",
            "feature_matrix",
            "target",
        ),
        "symbol",
        PARTITIONS.symbol_date,
        _feature_partitions,
        _stale_feature_partitions,
        _look_for_bars,
    ),
    "windows": _Layer(
        "validation windows",
        "windows_job",
        ("validation_windows",),
        "scope",
        PARTITIONS.scope_window,
        _windows,
        _stale_windows,
    ),
    "model": _Layer(
        "calibrated models",
        "model_job",
        ("calibrated_model", "strategy_backtest"),
        "scope",
        PARTITIONS.scope_week,
        _models,
        _stale_models,
    ),
    "session": _Layer(
        "drift reports and signals",
        "session_job",
        ("drift_report", "signals"),
        "scope",
        PARTITIONS.scope_day,
        _session,
        _stale_session,
    ),
}
