"""The one resource: the workspace of a project, opened per run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from signals_core.settings_loading import load_settings
from signals_core.workspace import Workspace


class WorkspaceResource(dg.ConfigurableResource):
    """Opens the stores of the project at `home` (default: SIGNALS_HOME, else the current folder)."""

    home: str | None = None
    config: str | None = None
    """A settings file laid over the defaults (default: SIGNALS_CONFIG)."""

    _workspace: Workspace | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["WorkspaceResource"]:
        """Close the stores when the run ends."""
        try:
            yield self
        finally:
            self.close()

    def open(self) -> Workspace:
        """The workspace, opened once."""
        if self._workspace is None:
            root = Path(self.home) if self.home else None
            config = Path(self.config) if self.config else None
            self._workspace = Workspace(load_settings(root, config))
        return self._workspace

    def close(self) -> None:
        """Release the stores."""
        if self._workspace is not None:
            self._workspace.close()
            self._workspace = None
