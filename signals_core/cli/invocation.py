"""What one invocation of any command needs: common options, the chosen settings, a workspace, progress on stderr."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from signals_core.settings_loading import LoadedSettings
    from signals_core.workspace import Workspace

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")]
ScopeOption = Annotated[str | None, typer.Option("--scope", help="UNIVERSE or a ticker of ml.scopes; default: all.")]
Reason = Annotated[str, typer.Option(help="Kept in the journal.")]

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
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


def serving_scopes(workspace: "Workspace", scope: str | None) -> list[str]:
    """The scopes of `scopes_of` that have a model in service; of the others it is said on stderr that they have none.

    Raises:
        MissingPrerequisite: none of them has.
    """
    import sys

    from signals_core.errors import MissingPrerequisite

    chosen = scopes_of(workspace, scope)
    serving = [name for name in chosen if workspace.registry.get_active(name) is not None]
    if not serving:
        raise MissingPrerequisite(f"{', '.join(chosen)}: no model is in service: train one (`signals train`)")
    for name in chosen:
        if name not in serving:
            print(f"{name}: no model of its own is in service; UNIVERSE's serves it, if there is one", file=sys.stderr)
    return serving


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


def of_each(items: Iterable[_Item], make: Callable[[_Item], _Made]) -> list[_Made]:
    """What can be made of each item; of the others it is said on stderr what they lack.

    Raises:
        MissingPrerequisite: of none.
    """
    import sys

    from signals_core.errors import MissingPrerequisite

    made, refusals = [], []
    for item in items:
        try:
            made.append(make(item))
        except MissingPrerequisite as error:
            refusals.append(str(error))
    if refusals and not made:
        raise MissingPrerequisite("; ".join(refusals))
    for refusal in refusals:
        print(refusal, file=sys.stderr)
    return made
