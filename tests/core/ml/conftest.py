"""Expensive folders, made once a session and copied: validated, and with a model in service in both scopes."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from signals_core import steps
from signals_core.features.catalog import CATEGORIES
from signals_core.ml.training import train_model
from signals_core.ml.windows import all_windows, compute_windows
from signals_core.settings_loading import load_settings
from signals_core.workspace import Workspace
from tests.conftest import PROJECT
from tests.core.ml.helpers import AS_OF
from tests.project.bars import write_bars

OpenWorkspace = Callable[..., Workspace]


@pytest.fixture(scope="session")
def validated_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' project with features, target and every validation window of both scopes."""
    root = tmp_path_factory.mktemp("validated")
    shutil.copytree(PROJECT / "config", root / "config")
    write_bars(root / "data" / "bars")
    with Workspace(load_settings(root, environ={})) as workspace:
        tickers = workspace.settings.universe.tickers
        steps.ingest(workspace, [*tickers, "SPY", "XLK"])
        start, end = steps.data_span(workspace)
        for category in CATEGORIES:
            steps.build_category(workspace, category, tickers, start, end)
        steps.build_matrix(workspace, tickers, start, end)
        steps.build_target(workspace, tickers, start, end)
        keys = [window.key for window in all_windows(workspace.settings, end)]
        compute_windows(workspace, [(scope, key) for scope in workspace.settings.ml.scopes for key in keys])
    return root


@pytest.fixture(scope="session")
def trained_root(validated_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The validated project with a model of each scope, put into service by a person."""
    root = tmp_path_factory.mktemp("trained") / "project"
    shutil.copytree(validated_root, root)
    with Workspace(load_settings(root, environ={})) as workspace:
        for scope in workspace.settings.ml.scopes:
            trained = train_model(workspace, scope, AS_OF, "person")
            workspace.registry.promote(trained.version.version_id)
    return root


@pytest.fixture
def open_workspace() -> Iterator[OpenWorkspace]:
    """`open_workspace(root, SA_ML__...="...")`: a workspace that is closed after the test."""
    with ExitStack() as stack:
        yield lambda root, **environ: stack.enter_context(Workspace(load_settings(root, environ=environ)))


@pytest.fixture
def validated(validated_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(validated_root, tmp_path / "project"))


@pytest.fixture
def trained(trained_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_root, tmp_path / "project"))
