"""The one way to talk HTTP: paced, retried, never silently half an answer, and with no secret in what it says."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from signals_core.errors import ProviderError, SignalsError
from signals_core.pace import Pace

if TYPE_CHECKING:
    import requests
    from tenacity import RetryCallState

_NO_CONTENT, _NOT_FOUND, _TOO_MANY = 204, 404, 429
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_FIRST_WAIT_SECONDS = 1.0
_HIDDEN = "***"
_LOGGERS = tuple(
    f"urllib3.{name}" for name in ("connection", "connectionpool", "poolmanager", "response", "util.retry")
)
_HINTS = {
    400: "the source does not understand the request",
    401: "access refused: check the key or contact in the source's options",
    403: "access refused: check the key or contact in the source's options, or wait if you asked too often",
    429: "asked too often: wait some minutes, or lower the rate",
}


@dataclass(frozen=True)
class Failure:
    """Why a request failed for good."""

    text: str
    """What was asked of whom, what went wrong, what to do."""
    reason: str
    transient: bool
    """Another attempt, later, may not meet it."""
    retry_after: float | None
    """Seconds that the server asked to wait."""


class Conventions:
    """How one kind of server says why it refuses and how long to wait, and what its failures are raised as.

    Args:
        secrets: never shown, neither in errors nor in the logs of the libraries below.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = tuple(secret for secret in secrets if secret)
        if self._secrets:
            _hiding.hide(self._secrets)

    def error(self, failure: Failure) -> SignalsError:
        """What is raised."""
        return ProviderError(failure.text)

    def reason(self, response: "requests.Response") -> str | None:
        """What the body of a refusal says, if that is more than its status."""
        return None

    def hint(self, status: int, reason: str | None) -> str | None:
        """What to do about a refusal, if that is more than the usual advice for its status."""
        return None

    def wait(self, response: "requests.Response") -> float | None:
        """Seconds that the body of a refusal asks to wait; None: what its Retry-After header says."""
        return None

    def shown(self, text: str) -> str:
        """`text` without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text


class _Hiding(logging.Filter):
    """Keeps secrets out of log records, which hold the paths of requests."""

    def __init__(self) -> None:
        super().__init__()
        self._secrets: set[str] = set()

    def hide(self, secrets: Sequence[str]) -> None:
        """From now on."""
        self._secrets.update(secrets)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes, without the secrets."""
        text = record.getMessage()
        for secret in sorted(self._secrets, key=len, reverse=True):
            if secret in text:
                text = text.replace(secret, _HIDDEN)
                record.msg, record.args, record.exc_info = text, None, None
        return True


_hiding = _Hiding()


class _Failed(Exception):
    """A request that failed; it never leaves this module, since its cause may show the address."""

    def __init__(self, reason: str, hint: str | None = None, transient: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.hint, self.transient = reason, hint, transient
        self.retry_after: float | None = None


@dataclass(frozen=True)
class Answer:
    """What came back to one request that was not repeated, whatever its status."""

    status: int
    body: bytes
    retry_after: float | None
    """Seconds to wait, where the answer says so."""


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
        give_up_seconds: no wait ends later than that after the first attempt began.
        conventions: of the server.
        headers: sent with every request; they may hold secrets and are never shown.
        sleep: waits that many seconds.
        clock: seconds since 1970.
    """

    def __init__(
        self, user_agent: str, requests_per_second: float, pace_file: Path | None = None, attempts: int = 5,
        timeout_seconds: float = 30, longest_wait_seconds: float = 60, give_up_seconds: float = math.inf,
        conventions: Conventions | None = None, headers: Mapping[str, str] | None = None,
        sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._user_agent = user_agent
        self._headers = dict(headers or {})
        self._pace = Pace(1 / requests_per_second, pace_file, sleep, clock)
        self._attempts = attempts
        self._timeout = timeout_seconds
        self._longest_wait = longest_wait_seconds
        self._give_up = give_up_seconds
        self._conventions = conventions or Conventions()
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

    def post_json(
        self, url: str, body: Mapping[str, Any], read: Callable[[bytes], Any] | None = None
    ) -> tuple[Any, Mapping[str, str]]:
        """The answer to a JSON body as `read` (None for 204), and its headers by name in any case.

        Args:
            read: raises ValueError if the answer is not what it should be; it is asked for again then.

        Raises:
            ProviderError: the request is refused, or fails at every attempt.
        """
        accept = {"Accept": "application/json"}

        def parsed(response: "requests.Response") -> Any:
            return None if response.status_code == _NO_CONTENT else (read or _json)(response.content)

        answer = self._ask("POST", url, parsed, missing_is_none=False, json=body, headers=accept)
        assert answer is not None
        return answer

    def once(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Answer:
        """One attempt, whatever comes back: for a request that must not be repeated unasked, such as an order.

        Raises:
            ProviderError: there is no answer, or not a whole one; the request may have been carried out.
        """
        request: dict[str, Any] = {} if body is None else {"json": body}
        try:
            response = self._send(method, url, request)
        except _Failed as error:
            failed = error
        else:
            asked = self._retry_after(response.headers.get("Retry-After"))
            return Answer(response.status_code, response.content, asked)
        shown = self._conventions.shown
        text = shown(f"{method} {_shown(url)}: {failed.reason}")
        raise self._conventions.error(Failure(text, shown(failed.reason), failed.transient, None))

    def _ask(
        self, method: str, url: str, read: Callable[["requests.Response"], Any], *,
        missing_is_none: bool, **request: Any,
    ) -> tuple[Any, Mapping[str, str]] | None:  # fmt: skip
        from tenacity import Retrying, retry_if_exception, stop_after_attempt

        began = self._clock()

        def out_of_time(state: "RetryCallState") -> bool:
            return self._clock() - began + state.upcoming_sleep > self._give_up

        retrying = Retrying(
            stop=stop_after_attempt(self._attempts) | out_of_time,  # type: ignore[operator]
            wait=self._wait,
            retry=retry_if_exception(lambda error: isinstance(error, _Failed) and error.transient),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(self._attempt, method, url, read, missing_is_none, request)
        except _Failed as error:
            failed = error
        # Raised out here, so that nothing is chained: the text of the cause may hold the query or a secret.
        tries = f", {retrying.statistics['attempt_number']} attempts" if failed.transient else ""
        text = f"{method} {_shown(url)}: {failed.reason}{tries}" + (f"; {failed.hint}" if failed.hint else "")
        shown = self._conventions.shown
        raise self._conventions.error(Failure(shown(text), shown(failed.reason), failed.transient, failed.retry_after))

    def _attempt(
        self, method: str, url: str, read: Callable[["requests.Response"], Any], missing_is_none: bool,
        request: dict[str, Any],
    ) -> tuple[Any, Mapping[str, str]] | None:  # fmt: skip
        response = self._send(method, url, request)
        status = response.status_code
        if status == _NOT_FOUND and missing_is_none:
            return None
        if status >= _CLIENT_ERROR:
            raise self._refused(response)
        try:
            return read(response), response.headers
        except ValueError as error:
            hint = "the source may have changed its format"
            raise _Failed(f"the answer is {error}", hint, transient=True) from error

    def _refused(self, response: "requests.Response") -> _Failed:
        status, said = response.status_code, self._conventions.reason(response)
        transient = status == _TOO_MANY or status >= _SERVER_ERROR
        usual = "the source has a fault of its own: try again later" if transient else "check the source's options"
        hint = self._conventions.hint(status, said) or _HINTS.get(status, usual)
        failed = _Failed(f"status {status}" + (f", {said}" if said else ""), hint, transient)
        if transient:
            asked = self._conventions.wait(response)
            failed.retry_after = self._retry_after(response.headers.get("Retry-After")) if asked is None else asked
        return failed

    def _send(self, method: str, url: str, request: dict[str, Any]) -> "requests.Response":
        target = url
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._send_once(method, target, request)
            if response.status_code not in _REDIRECTS:
                if 300 <= response.status_code < _CLIENT_ERROR:
                    raise _Failed(f"status {response.status_code} without a body")
                return response
            target = _redirected(method, target, response.headers.get("Location", ""))
            request = {name: value for name, value in request.items() if name != "params"}
        raise _Failed(f"more than {_MOST_REDIRECTS} redirects")

    def _send_once(self, method: str, url: str, request: dict[str, Any]) -> "requests.Response":
        import requests

        self._pace.wait()
        network = "check the network, or try again later"
        try:
            return self._session().request(method, url, timeout=self._timeout, allow_redirects=False, **request)
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
            raise _Failed("the answer is cut short or damaged", network, transient=True) from error
        except requests.exceptions.Timeout as error:
            raise _Failed(f"no answer within {self._timeout:g} s", network, transient=True) from error
        except requests.exceptions.ConnectionError as error:
            raise _Failed("no connection", network, transient=True) from error
        except requests.exceptions.RequestException as error:
            raise _Failed(type(error).__name__, "check the address") from error

    def _session(self) -> "requests.Session":
        import requests

        if self._opened is None:
            self._opened = requests.Session()
            self._opened.headers["User-Agent"] = self._user_agent.encode()  # type: ignore[assignment]  # names are not all Latin-1
            self._opened.headers.update(self._headers)
        return self._opened

    def _wait(self, state: "RetryCallState") -> float:
        from tenacity import wait_exponential_jitter

        fault = state.outcome.exception() if state.outcome else None
        asked = fault.retry_after if isinstance(fault, _Failed) else None
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


def _content(response: "requests.Response") -> bytes:
    return response.content


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError("no JSON") from error


def _parsed(response: "requests.Response") -> Any:
    return _json(response.content)


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
        raise _Failed(f"redirected to {_shown(target)}, which is not followed", "check the address")
    return target
