"""The one way to ask a source over HTTP: paced, retried, and never silently half an answer."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from signals_core.errors import ProviderError
from signals_core.files import locked

if TYPE_CHECKING:
    import requests
    from tenacity import RetryCallState

_NO_CONTENT, _NOT_FOUND, _TOO_MANY = 204, 404, 429
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_FIRST_WAIT_SECONDS = 1.0
_HINTS = {
    400: "the source does not understand the request",
    401: "access refused: check the key or contact in the source's options",
    403: "access refused: check the key or contact in the source's options, or wait if you asked too often",
    429: "asked too often: wait some minutes, or lower the rate",
}


class _Transient(Exception):
    """A fault that another attempt may not meet."""

    def __init__(self, reason: str, hint: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.hint, self.retry_after = reason, hint, retry_after


class HttpClient:
    """GET and POST with retries, at most `requests_per_second`.

    Tried again, up to `attempts` in all, with exponential backoff: 429, 5xx, connection faults, timeouts,
    bodies cut short, and JSON that does not parse. `Retry-After` is obeyed up to `longest_wait_seconds`.
    Redirects are followed on the same host only.

    Args:
        user_agent: who asks; some sources want an address in it.
        requests_per_second: never more, each attempt counted.
        pace_file: processes that share this file share the rate; its lock file is beside it.
        attempts: in all.
        timeout_seconds: to connect, and between two pieces of an answer.
        longest_wait_seconds: between two attempts.
        sleep: waits that many seconds.
        clock: seconds since 1970.
    """

    def __init__(
        self, user_agent: str, requests_per_second: float, pace_file: Path | None = None, attempts: int = 5,
        timeout_seconds: float = 30, longest_wait_seconds: float = 60,
        sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._user_agent = user_agent
        self._pace = _Pace(1 / requests_per_second, pace_file, sleep, clock)
        self._attempts = attempts
        self._timeout = timeout_seconds
        self._longest_wait = longest_wait_seconds
        self._sleep = sleep
        self._clock = clock
        self._opened: requests.Session | None = None

    def get(self, url: str, params: Mapping[str, Any] | None = None) -> bytes | None:
        """The body; None if the source has no such page (404).

        Raises:
            ProviderError: the request is refused, or fails at every attempt.
        """
        answer = self._ask("GET", url, _content, missing_is_none=True, params=params)
        return None if answer is None else answer[0]

    def get_json(self, url: str, params: Mapping[str, Any] | None = None) -> Any:
        """The parsed body; None if the source has no such page (404).

        Raises:
            ProviderError: the request is refused, or fails at every attempt.
        """
        accept = {"Accept": "application/json"}
        answer = self._ask("GET", url, _parsed, missing_is_none=True, params=params, headers=accept)
        return None if answer is None else answer[0]

    def post_json(self, url: str, body: Mapping[str, Any]) -> tuple[Any, Mapping[str, str]]:
        """The parsed answer to a JSON body (None for 204), and its headers by name in any case.

        Raises:
            ProviderError: the request is refused, or fails at every attempt.
        """
        accept = {"Accept": "application/json"}
        answer = self._ask("POST", url, _parsed, missing_is_none=False, json=body, headers=accept)
        assert answer is not None
        return answer

    def _ask(
        self, method: str, url: str, read: Callable[["requests.Response"], Any], *,
        missing_is_none: bool, **request: Any,
    ) -> tuple[Any, Mapping[str, str]] | None:  # fmt: skip
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=self._wait,
            retry=retry_if_exception_type(_Transient),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(self._attempt, method, url, read, missing_is_none, request)
        except _Transient as fault:
            # The fault's cause is not chained: its text may hold the query.
            raise ProviderError(
                f"{method} {_shown(url)}: {fault.reason}, {self._attempts} attempts; {fault.hint}"
            ) from None

    def _attempt(
        self, method: str, url: str, read: Callable[["requests.Response"], Any], missing_is_none: bool,
        request: dict[str, Any],
    ) -> tuple[Any, Mapping[str, str]] | None:  # fmt: skip
        response = self._send(method, url, request)
        status = response.status_code
        if status == _NOT_FOUND and missing_is_none:
            return None
        if status == _TOO_MANY or status >= _SERVER_ERROR:
            hint = _HINTS.get(status, "the source has a fault of its own: try again later")
            raise _Transient(f"status {status}", hint, self._retry_after(response.headers.get("Retry-After")))
        if status >= _CLIENT_ERROR:
            hint = _HINTS.get(status, "check the source's options")
            raise ProviderError(f"{method} {_shown(url)}: status {status}; {hint}")
        try:
            return read(response), response.headers
        except ValueError as error:
            raise _Transient("the answer is no JSON", "the source may have changed its format") from error

    def _send(self, method: str, url: str, request: dict[str, Any]) -> "requests.Response":
        target = url
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._send_once(method, target, request)
            if response.status_code not in _REDIRECTS:
                if 300 <= response.status_code < _CLIENT_ERROR:
                    raise ProviderError(f"{method} {_shown(target)}: status {response.status_code} without a body")
                return response
            target = _redirected(method, target, response.headers.get("Location", ""))
            request = {name: value for name, value in request.items() if name != "params"}
        raise ProviderError(f"{method} {_shown(url)}: more than {_MOST_REDIRECTS} redirects")

    def _send_once(self, method: str, url: str, request: dict[str, Any]) -> "requests.Response":
        import requests

        self._pace.wait()
        network = "check the network, or try again later"
        try:
            return self._session().request(method, url, timeout=self._timeout, allow_redirects=False, **request)
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
            raise _Transient("the answer is cut short or damaged", network) from error
        except requests.exceptions.Timeout as error:
            raise _Transient(f"no answer within {self._timeout:g} s", network) from error
        except requests.exceptions.ConnectionError as error:
            raise _Transient("no connection", network) from error
        except requests.exceptions.RequestException as error:
            raise ProviderError(f"{method} {_shown(url)}: {type(error).__name__}; check the address") from None

    def _session(self) -> "requests.Session":
        import requests

        if self._opened is None:
            self._opened = requests.Session()
            self._opened.headers["User-Agent"] = self._user_agent.encode()  # type: ignore[assignment]  # names are not all Latin-1
        return self._opened

    def _wait(self, state: "RetryCallState") -> float:
        from tenacity import wait_exponential_jitter

        fault = state.outcome.exception() if state.outcome else None
        asked = fault.retry_after if isinstance(fault, _Transient) else None
        if asked is not None:
            return min(asked, self._longest_wait)
        return wait_exponential_jitter(initial=_FIRST_WAIT_SECONDS, max=self._longest_wait)(state)

    def _retry_after(self, header: str | None) -> float | None:
        """Seconds to wait by a Retry-After header, which is a number of seconds or an HTTP date."""
        if not header:
            return None
        try:
            seconds = float(header)
        except ValueError:
            try:
                moment = parsedate_to_datetime(header)
            except ValueError:
                return None
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            seconds = (moment - datetime.fromtimestamp(self._clock(), UTC)).total_seconds()
        return max(seconds, 0.0) if math.isfinite(seconds) else None


class _Pace:
    """Lets one request through each interval, among all who share the file (or the object, without one)."""

    def __init__(
        self, interval: float, file: Path | None, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> None:
        self._interval, self._file, self._sleep, self._clock = interval, file, sleep, clock
        self._mutex = threading.Lock()
        self._last = -math.inf

    def wait(self) -> None:
        """Return when the next request may go."""
        with self._exclusive():
            now = self._clock()
            # A clock set back must not make anybody wait longer than one interval.
            pause = min(self._read() + self._interval - now, self._interval)
            if pause > 0:
                self._sleep(pause)
            self._write(max(self._clock(), now + max(pause, 0.0)))

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if self._file is None:
            with self._mutex:
                yield
        else:
            with locked(self._file.with_name(f"{self._file.name}.lock")):
                yield

    def _read(self) -> float:
        if self._file is None:
            return self._last
        try:
            return float(self._file.read_text())
        except FileNotFoundError:
            return -math.inf
        except ValueError:  # its writer was killed: somebody may just have asked
            return self._clock()

    def _write(self, moment: float) -> None:
        if self._file is None:
            self._last = moment
        else:
            self._file.write_text(f"{moment:.6f}")


def _content(response: "requests.Response") -> bytes:
    return response.content


def _parsed(response: "requests.Response") -> Any:
    return None if response.status_code == _NO_CONTENT else json.loads(response.content)


def _shown(url: str) -> str:
    """The address without user, query and fragment, where secrets are."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _redirected(method: str, url: str, location: str) -> str:
    target = urljoin(url, location)
    before, after = urlsplit(url), urlsplit(target)
    same_place = (before.scheme, before.netloc) == (after.scheme, after.netloc)
    upgraded = (before.scheme, after.scheme) == ("http", "https") and before.hostname == after.hostname
    if method != "GET" or not location or not (same_place or upgraded):
        raise ProviderError(
            f"{method} {_shown(url)}: redirected to {_shown(target)}, which is not followed; check the address"
        )
    return target
