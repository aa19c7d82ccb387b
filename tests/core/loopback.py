"""An HTTP server on 127.0.0.1 that answers as scripted and remembers what it was asked."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Reply:
    """One answer. `missing_bytes` are promised by Content-Length and never sent."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    gzipped: bool = False
    missing_bytes: int = 0


@dataclass(frozen=True)
class Asked:
    """One request; `query` holds lists, header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


def json_reply(content: Any, **how: Any) -> Reply:
    """`content` as JSON."""
    return Reply(body=json.dumps(content).encode(), **how)


class Loopback:
    """Replies by path: each request consumes one, the last one stays. Unscripted paths are 404."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self._replies: dict[str, list[Reply]] = {}
        self._lock = threading.Lock()

    def script(self, path: str, *replies: Reply) -> None:
        """What `path` (without query) answers, in this order."""
        self._replies[path] = list(replies)

    def paths(self) -> list[str]:
        """Of the requests so far."""
        return [request.path for request in self.asked]

    def answer(self, request: Asked) -> Reply:
        """Record the request and take its reply."""
        with self._lock:
            self.asked.append(request)
            replies = self._replies.get(request.path, [Reply(404)])
            return replies.pop(0) if len(replies) > 1 else replies[0]


@contextmanager
def listening(answer: Callable[[Asked], Reply | None]) -> Iterator[str]:
    """The address of a server on a free port of 127.0.0.1 while the block runs; None hangs up without an answer."""

    class Handler(BaseHTTPRequestHandler):
        # Else a client waits for the Nagle and delayed-acknowledgement timers at each request.
        disable_nagle_algorithm = True
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = answer(Asked(self.command, parts.path, parse_qs(parts.query), headers, body))
            if reply is None:
                self.close_connection = True
                return
            content = gzip.compress(reply.body) if reply.gzipped else reply.body
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.gzipped:
                self.send_header("Content-Encoding", "gzip")
            if reply.status != 204:
                self.send_header("Content-Length", str(len(content) + reply.missing_bytes))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = self.close_connection or reply.missing_bytes > 0

        do_GET = do_POST = do_DELETE = _reply

        def log_message(self, format: str, *args: object) -> None: ...

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that gave up waiting is what some tests are about."""

    server = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving() -> Iterator[Loopback]:
    """A server that answers as scripted."""
    loopback = Loopback("")
    # Looked up at each request: a test may put its own in the way.
    with listening(lambda asked: loopback.answer(asked)) as loopback.url:
        yield loopback
