"""What one invocation of any command needs: common options, the chosen settings, a workspace, progress on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from signals_core.settings_loading import LoadedSettings
    from signals_core.workspace import Workspace

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")]
ScopeOption = Annotated[str | None, typer.Option("--scope", help="UNIVERSE or a ticker of ml.scopes; default: all.")]
Reason = Annotated[str, typer.Option(help="Kept in the journal.")]

_chosen: dict[str, Path | None] = {"config": None}


def choose_config(config: Path | None) -> None:
    """Read the settings with `config` laid over them from now on."""
    _chosen["config"] = config


def chosen_config() -> Path | None:
    """The file given by `--config`."""
    return _chosen["config"]


def load() -> "LoadedSettings":
    """The settings of this invocation."""
    from signals_core.settings_loading import load_settings

    return load_settings(config=chosen_config())


@contextmanager
def open_workspace() -> "Iterator[Workspace]":
    """A workspace of those settings, closed after the block."""
    from signals_core.workspace import Workspace

    with Workspace(load()) as workspace:
        yield workspace


@contextmanager
def progress() -> Iterator[None]:
    """Show the progress of the work inside the block on stderr."""
    from rich.console import Console

    from signals_core.progress import reporting_to
    from signals_core.terminal import TerminalProgress

    with TerminalProgress(Console(stderr=True)) as reporter, reporting_to(reporter):
        yield


def scopes_of(workspace: "Workspace", scope: str | None) -> tuple[str, ...]:
    """The scope given by `--scope`, or all.

    Raises:
        SettingsError: it is not one of `ml.scopes`.
    """
    from signals_core.errors import SettingsError

    known = workspace.settings.ml.scopes
    if scope is None:
        return known
    if scope not in known:
        raise SettingsError(f"--scope {scope}: not one of ml.scopes ({', '.join(known)})")
    return (scope,)
