"""`signals doctor`: is this installation able to work? One line a check, with a remedy."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from signals_core.errors import SignalsError
from signals_core.workspace import Workspace

_PACKAGES = ("dagster", "pandas", "numpy", "pyarrow", "xgboost", "scikit-learn", "optuna", "TA-Lib", "redis")
_MINIMUM_FREE_GIGABYTES = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def examine(workspace: Workspace) -> list[Finding]:
    """Look at Python, packages, stores and disk."""
    findings = [
        Finding("Python", sys.version_info[:2] == (3, 11), sys.version.split()[0], "use Python 3.11"),
        *(_package(name) for name in _PACKAGES),
        _store("market store", lambda: workspace.market.version(), "start it, or set stores.market_url (null: SQLite)"),
        _store(
            "Redis",
            lambda: "Redis " + str(workspace.redis.info("server")["redis_version"]),
            "start it, or set stores.redis_url (null: the embedded one)",
        ),
        _store(
            "registry",
            lambda: f"{len(workspace.registry.list_versions())} versions",
            "see the models folder; `signals models rebuild` writes Redis anew from the journal",
        ),
    ]
    free = shutil.disk_usage(workspace.root).free / 1e9
    enough = free >= _MINIMUM_FREE_GIGABYTES
    return [
        *findings,
        Finding("disk", enough, f"{free:.1f} GB free", f"free {_MINIMUM_FREE_GIGABYTES:.0f} GB"),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, "not installed", "make .venv/.installed")


def _store(name: str, look: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(name, True, look())
    except SignalsError as error:
        return Finding(name, False, str(error), remedy)
