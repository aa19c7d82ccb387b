"""Dagster's own instance: under data/ by default, on PostgreSQL by `stores.dagster_url`."""

import os
from pathlib import Path

import dagster as dg
import yaml

from signals_core.files import write_bytes_atomic
from signals_core.settings_loading import LoadedSettings
from signals_core.workspace import Workspace

_GRACE_SECONDS = 10


def prepare_home(workspace: Workspace) -> Path:
    """Write `dagster.yaml` of the instance and point DAGSTER_HOME at its folder."""
    home = workspace.data / "dagster_home"
    content: dict[str, object] = {"telemetry": {"enabled": False}, "nux": {"enabled": False}}
    url = workspace.settings.stores.dagster_url
    if url:
        content["storage"] = {"postgres": {"postgres_url": url}}
    write_bytes_atomic(home / "dagster.yaml", yaml.safe_dump(content).encode())
    (home / "dagster.yaml").chmod(0o600)  # the URL may hold a password
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def open_instance(workspace: Workspace) -> dg.DagsterInstance:
    """The project's persistent instance."""
    return dg.DagsterInstance.from_config(str(prepare_home(workspace)))


def serve(loaded: LoadedSettings, port: int) -> None:
    """Run Dagster's webserver and daemon on 127.0.0.1 until interrupted; the entry point of `signals ui`."""
    import contextlib
    import signal
    import subprocess
    import sys

    with Workspace(loaded) as workspace:
        prepare_home(workspace)
    os.environ["SIGNALS_HOME"] = str(loaded.root)
    command = [
        *(sys.executable, "-m", "dagster", "dev"),
        *("--workspace", str(loaded.root / "workspace.yaml"), "--host", "127.0.0.1", "--port", str(port)),
    ]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # `dagster dev` can outlive its end by minutes, with its children: they get a process group of their own.
    process = subprocess.Popen(command, cwd=loaded.root, start_new_session=True)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
