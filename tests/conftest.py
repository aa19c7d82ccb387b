"""Fixtures: a small project in a temporary folder, and its workspace.

The project of the tests has two tickers with synthetic bars in CSV files, so that nothing but this checkout
is needed. Dagster's definitions are built from these settings too: SIGNALS_HOME is set before any import.
"""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
PROJECT = Path(__file__).parent / "project"
for variable in [name for name in os.environ if name.startswith("SA_")]:
    del os.environ[variable]
os.environ["SIGNALS_HOME"] = str(PROJECT)
os.environ.pop("SIGNALS_CONFIG", None)

import pytest  # noqa: E402

from signals_core.settings_loading import LoadedSettings, load_settings  # noqa: E402
from signals_core.workspace import Workspace  # noqa: E402
from tests.project.bars import write_bars  # noqa: E402


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the tests' project: config and one CSV file of bars a symbol."""
    import shutil

    shutil.copytree(PROJECT / "config", tmp_path / "config")
    write_bars(tmp_path / "data" / "bars")
    return tmp_path


@pytest.fixture
def loaded(project: Path) -> LoadedSettings:
    return load_settings(project)


@pytest.fixture
def workspace(loaded: LoadedSettings) -> Iterator[Workspace]:
    with Workspace(loaded) as opened:
        yield opened
