"""`signals ui` serves on loopback, and leaves nothing behind when it is asked to end."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_the_ui_answers_and_ends_with_its_children(project: Path):
    port = free_port()
    workspace = Path(__file__).parents[1] / "workspace.yaml"
    (project / "workspace.yaml").write_text(workspace.read_text())
    command = [sys.executable, "-m", "signals_core.cli", "ui", "--port", str(port)]
    env = {**os.environ, "SIGNALS_HOME": str(project)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while not answers(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert not listens(port)
