"""Alpaca's trading service over its REST API v2: the paper account, or the live one where two settings agree.

An order is sent once. When its answer is lost (504, timeout, disconnect) nobody knows whether it arrived, so the
account is asked for the client order id before anything else; Alpaca takes an id once and answers 422 to the
second order that carries it, which then means that the first arrived.
"""

import json
import os
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from signals_core.errors import BrokerError, OrderRejected, OutcomeUnknown, ProviderError, SettingsError
from signals_core.execution.brokers.base import Account, Position
from signals_core.execution.orders import Order, OrderReport, OrderState, OrderType, Side
from signals_core.http import Answer, Conventions, HttpClient

PAPER_URL, LIVE_URL = "https://paper-api.alpaca.markets", "https://api.alpaca.markets"
_KEY_ID, _SECRET = "APCA_API_KEY_ID", "APCA_API_SECRET_KEY"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_REQUESTS_PER_SECOND = 3.0
"""Alpaca allows 200 a minute."""
_ATTEMPTS_WHEN_BUSY = 4
_WAIT_WHEN_BUSY_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 60.0
_PAGE = 500
_OK, _NO_CONTENT, _BAD_REQUEST, _UNAUTHORISED, _FORBIDDEN, _NOT_FOUND, _UNPROCESSABLE, _BUSY = (
    200, 204, 400, 401, 403, 404, 422, 429,
)  # fmt: skip
_DUPLICATE = re.compile(r"client[\s_-]?order[\s_-]?id must be unique", re.IGNORECASE)
_REFUSED_ORDER_CODE = "403"
"""An order refused for lack of funds or shares comes with status 403, as wrong keys do; its code begins so."""

_STATES = {
    **dict.fromkeys(
        ("new", "accepted", "pending_new", "accepted_for_bidding", "pending_cancel", "pending_replace", "calculated",
         "stopped", "suspended", "done_for_day", "held", "pending_review", "partially_filled"),
        OrderState.ACCEPTED,
    ),
    "filled": OrderState.FILLED,
    "canceled": OrderState.CANCELLED,
    "replaced": OrderState.CANCELLED,
    "expired": OrderState.EXPIRED,
    "rejected": OrderState.REJECTED,
}  # fmt: skip


class AlpacaBroker:
    """An Alpaca account.

    Args:
        url: of the service.
        live: whether orders may cost money; must agree with the address.
        key_id, secret: of the account; default: the environment's APCA_API_KEY_ID and APCA_API_SECRET_KEY.
        timeout_seconds: to connect, and between two pieces of an answer.
        sleep: waits that many seconds.

    Raises:
        SettingsError: the address and `live` contradict each other, or the keys are missing.
    """

    flips_in_one_order = False
    fractional_shorts = False

    def __init__(
        self, url: str = PAPER_URL, live: bool = False, key_id: SecretStr | None = None,
        secret: SecretStr | None = None, timeout_seconds: float = 30,
        requests_per_second: float = _REQUESTS_PER_SECOND, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._url = checked_url(url, live)
        self.name = "alpaca-live" if live else "alpaca-paper"
        self._sleep = sleep
        key_id, secret = key_id or _key(_KEY_ID), secret or _key(_SECRET)
        plain_key, plain_secret = key_id.get_secret_value(), secret.get_secret_value()
        self._http = HttpClient(
            "signals",
            requests_per_second,
            timeout_seconds=timeout_seconds,
            headers={"APCA-API-KEY-ID": plain_key, "APCA-API-SECRET-KEY": plain_secret},
            conventions=Conventions(secrets=(plain_key, plain_secret)),
            sleep=sleep,
        )

    def __repr__(self) -> str:
        return f"AlpacaBroker({self._url}, {self.name})"

    def submit(self, order: Order) -> OrderReport:
        """Send an order; see `Broker.submit`. One under an id that Alpaca has already is not placed again."""
        answer = self._post_order(order)
        said = _json(answer.body)
        message = str(said.get("message", "")) if isinstance(said, dict) else ""
        if answer.status == _OK:
            try:
                return _report(said)
            except BrokerError as error:
                raise OutcomeUnknown(f"{order.client_order_id}: {error}") from error
        if answer.status in (_BAD_REQUEST, _UNPROCESSABLE) and _DUPLICATE.search(message):
            known = self.get_by_client_id(order.client_order_id)
            if known is None:
                raise OutcomeUnknown(f"{order.client_order_id}: Alpaca says that it has this id, and does not find it")
            return known
        code = str(said.get("code", "")) if isinstance(said, dict) else ""
        refused_order = answer.status == _FORBIDDEN and code.startswith(_REFUSED_ORDER_CODE)
        if refused_order or answer.status in (_BAD_REQUEST, _NOT_FOUND, _UNPROCESSABLE):
            raise OrderRejected(message or f"status {answer.status}")
        if answer.status in (_UNAUTHORISED, _FORBIDDEN):
            raise BrokerError(
                f"Alpaca refuses access (status {answer.status}): check {_KEY_ID} and {_SECRET}, and that they are of "
                f"the {self.name.removeprefix('alpaca-')} account"
            )
        raise OutcomeUnknown(f"{order.client_order_id}: Alpaca answers with status {answer.status}")

    def _post_order(self, order: Order) -> Answer:
        body = {
            "symbol": order.symbol,
            "qty": _decimal(order.quantity),
            "side": str(order.side),
            "type": "market" if order.type is OrderType.MARKET_ON_OPEN else "limit",
            "time_in_force": str(order.time_in_force),
            "client_order_id": order.client_order_id,
        }
        if order.limit_price is not None:
            body["limit_price"] = f"{order.limit_price:.2f}"
        wait = _WAIT_WHEN_BUSY_SECONDS
        for _ in range(_ATTEMPTS_WHEN_BUSY):
            try:
                answer = self._http.once("POST", f"{self._url}/v2/orders", body)
            except ProviderError as error:
                raise OutcomeUnknown(f"{order.client_order_id}: {error}") from None
            if answer.status != _BUSY:
                return answer
            self._sleep(min(answer.retry_after if answer.retry_after is not None else wait, _LONGEST_WAIT_SECONDS))
            wait *= 2
        return answer

    def get_by_client_id(self, client_order_id: str) -> OrderReport | None:
        """What Alpaca knows of an order; None if it has none of this id."""
        found = self._get("/v2/orders:by_client_order_id", {"client_order_id": client_order_id})
        return None if found is None else _report(found)

    def list_open(self) -> list[OrderReport]:
        """Every order that may still be filled."""
        found: dict[str, OrderReport] = {}
        after: dict[str, str] = {}
        while True:
            query = {"status": "open", "limit": str(_PAGE), "direction": "asc", "nested": "false", **after}
            page = _listed(self._get("/v2/orders", query))
            new = {str(item.get("id")): _report(item) for item in page if str(item.get("id")) not in found}
            found |= new
            if len(page) < _PAGE or not new:
                return list(found.values())
            after = {"after": str(page[-1].get("submitted_at"))}

    def cancel(self, client_order_id: str) -> None:
        """Ask for an order to be cancelled; one that is at its end already stays so."""
        known = self.get_by_client_id(client_order_id)
        if known is None or known.state.is_final:
            return
        try:
            answer = self._http.once("DELETE", f"{self._url}/v2/orders/{known.broker_order_id}")
        except ProviderError as error:
            raise BrokerError(f"Alpaca: whether {client_order_id} is cancelled is unknown ({error})") from None
        if answer.status not in (_OK, _NO_CONTENT, _NOT_FOUND, _UNPROCESSABLE):  # 422: it cannot be cancelled any more
            raise BrokerError(f"Alpaca: {client_order_id} is not cancelled: status {answer.status}; try again")

    def positions(self) -> list[Position]:
        """What is held."""
        try:
            return [
                Position(
                    str(item["symbol"]),
                    float(item["qty"]),
                    float(item["avg_entry_price"]),
                    float(item["current_price"]) if item.get("current_price") else None,
                )
                for item in _listed(self._get("/v2/positions"))
            ]
        except (LookupError, TypeError, ValueError) as error:
            raise _unknown_format("a position", error) from error

    def account(self) -> Account:
        """The account's money."""
        found = self._get("/v2/account")
        try:
            flags = [name for name in ("trading_blocked", "account_blocked", "trade_suspended_by_user") if found[name]]
            status = str(found["status"])
            blocked = ", ".join([*flags, *([] if status == "ACTIVE" else [f"status {status}"])])
            return Account(float(found["equity"]), float(found["cash"]), float(found["buying_power"]), blocked)
        except (LookupError, TypeError, ValueError) as error:
            raise _unknown_format("the account", error) from error

    def close(self) -> None:
        """Nothing is held open."""

    def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        try:
            return self._http.get_json(f"{self._url}{path}", query)
        except ProviderError as error:
            raise BrokerError(f"Alpaca: {error} (the keys are {_KEY_ID} and {_SECRET})") from None


def checked_url(url: str, live: bool) -> str:
    """The address without a slash at its end, if it is the one that `live` means.

    Raises:
        SettingsError: it is not. Keys are sent to Alpaca's two hosts only, and to this machine.
    """
    parts, plain = urlsplit(url), url.rstrip("/")
    if live:
        if plain != LIVE_URL:
            raise SettingsError(
                f"execution.live is true, and execution.alpaca_url is {plain}, not {LIVE_URL}: orders with real money "
                "need both"
            )
        return plain
    if plain == LIVE_URL:
        raise SettingsError(
            f"execution.alpaca_url is the live service, and execution.live is false: set the address to {PAPER_URL}, "
            "or execution.live to true if orders are to cost real money"
        )
    if plain != PAPER_URL and (parts.hostname not in _LOOPBACK or parts.username is not None):
        raise SettingsError(f"execution.alpaca_url is {parts.scheme}://{parts.hostname}, neither of Alpaca's two hosts")
    return plain


def _key(name: str) -> SecretStr:
    value = os.environ.get(name)
    if not value:
        raise SettingsError(f"execution.broker alpaca needs your keys: set the environment variable {name}")
    return SecretStr(value)


def _report(said: Any) -> OrderReport:
    try:
        # An order for an amount of money, which we never send, has no quantity.
        quantity, filled = float(said["qty"] or "nan"), float(said.get("filled_qty") or 0)
        state = _STATES[said["status"]]
        if state is OrderState.ACCEPTED and filled > 0:
            state = OrderState.PARTIALLY_FILLED
        price = said.get("filled_avg_price")
        return OrderReport(
            client_order_id=str(said["client_order_id"]),
            broker_order_id=str(said["id"]),
            symbol=str(said["symbol"]),
            side=Side(said["side"]),
            quantity=quantity,
            state=state,
            filled_quantity=filled,
            remaining_quantity=0.0 if state.is_final else quantity - filled,
            average_price=float(price) if price else None,
            reason=f"Alpaca says {said['status']}" if state.is_final and state is not OrderState.FILLED else "",
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _unknown_format("an order", error) from error


def _unknown_format(what: str, error: Exception) -> BrokerError:
    return BrokerError(f"Alpaca: {what} is not in the known format ({type(error).__name__}: {error})")


def _listed(found: Any) -> list[dict[str, Any]]:
    if not isinstance(found, list):
        raise BrokerError("Alpaca: a list was expected, and something else came")
    return found


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _decimal(quantity: float) -> str:
    """At most nine decimal places, as Alpaca counts shares."""
    return f"{quantity:.9f}".rstrip("0").rstrip(".")
