"""A server on 127.0.0.1 that speaks Alpaca's trading API v2 and misbehaves as told."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.core.loopback import Asked, Reply, listening

KEY_ID, SECRET = "PKTESTKEYID0123456789", "sEcReT/of+the/account/0123456789abcdef"

FAULTS_OF_ORDERS = (
    "504 after accepting", "504 without accepting", "504 and accepting later", "500 page without accepting",
    "429", "disconnect before accepting", "disconnect after accepting", "answer cut short", "slow after accepting",
    "slow without accepting", "insufficient funds", "unprocessable", "accepted and rejected", "no JSON after accepting",
)  # fmt: skip
FAULTS_OF_QUESTIONS = ("504", "429", "disconnect")
LATE = 3
"""Requests after which an order that was swallowed is accepted after all."""


class FakeAlpaca:
    """Orders by client order id. `fault(method, path)` names the fault of each request, or "" for none."""

    def __init__(self) -> None:
        self.url = ""
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """A new account without faults."""
        self.orders: dict[str, dict[str, Any]] = {}
        self.refused: dict[str, str] = {}
        self.positions: dict[str, float] = {}
        self.cash = 100_000.0
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.fault: Callable[[str, str], str] = lambda method, path: ""
        self.slow_seconds = 0.0
        self.answer_all: tuple[int, Any] | None = None
        self._later: list[list[Any]] = []

    # -- what the market does ------------------------------------------------------------------------------

    def fill(self, client_order_id: str, quantity: float, price: float = 100.0) -> None:
        """Fill part of an order, or the rest of it."""
        with self._lock:
            order = self.orders[client_order_id]
            filled = float(order["filled_qty"]) + quantity
            done = filled >= float(order["qty"])
            order |= {
                "filled_qty": f"{filled:g}",
                "filled_avg_price": f"{price:g}",
                "status": "filled" if done else "partially_filled",
            }
            signed = quantity if order["side"] == "buy" else -quantity
            self.positions[order["symbol"]] = self.positions.get(order["symbol"], 0.0) + signed

    def end(self, client_order_id: str, status: str) -> None:
        """Cancel, expire or reject an order."""
        self.orders[client_order_id]["status"] = status

    def open_ids(self) -> list[str]:
        with self._lock:
            return [name for name, order in self.orders.items() if _is_open(order)]

    def arrive(self) -> None:
        """Everything that was swallowed arrives now."""
        with self._lock:
            for waiting in self._later:
                self._accept(waiting[1])
            self._later = []

    # -- the service ---------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any] | str:
        """Status and content; or "disconnect", or "cut"."""
        with self._lock:
            self.requests.append((method, path))
            for waiting in self._later:
                waiting[0] -= 1
            for waiting in [w for w in self._later if w[0] <= 0]:
                self._later.remove(waiting)
                self._accept(waiting[1])
            fault = self.fault(method, path)
            answer = self._answer(method, path, query, body, fault)
        if fault.startswith("slow"):
            time.sleep(self.slow_seconds)
        return answer

    def _answer(
        self, method: str, path: str, query: dict[str, list[str]], body: bytes, fault: str
    ) -> tuple[int, Any] | str:
        if self.answer_all is not None:
            return self.answer_all
        if method == "POST" and path == "/v2/orders":
            return self._post(json.loads(body), fault)
        if fault == "504":
            return 504, "gateway timeout"
        if fault == "429":
            return 429, {"message": "too many requests."}
        if fault == "disconnect":
            return "disconnect"
        return self._read(method, path, query)

    def _post(self, order: dict[str, Any], fault: str) -> tuple[int, Any] | str:
        if fault == "429":
            return 429, {"message": "too many requests."}
        if fault in ("504 without accepting", "504 and accepting later"):
            if fault == "504 and accepting later":
                self._later.append([LATE, order])
            return 504, "<html>gateway timeout</html>"
        if fault == "500 page without accepting":
            return 500, "<html>internal error</html>"
        if fault == "disconnect before accepting":
            return "disconnect"
        if fault == "slow without accepting":
            return 504, "late"
        name = order.get("client_order_id") or str(uuid.uuid4())
        if name in self.orders:
            return 422, {"code": 40010001, "message": "client_order_id must be unique"}
        if fault == "insufficient funds":
            self.refused[name] = fault
            return 403, {"code": 40310000, "message": "insufficient buying power"}
        if fault == "unprocessable":
            self.refused[name] = fault
            return 422, {"code": 42210000, "message": "qty must be integer"}
        accepted = self._accept({**order, "client_order_id": name})
        if fault == "accepted and rejected":
            accepted["status"] = "rejected"
        if fault == "504 after accepting":
            return 504, "<html>gateway timeout</html>"
        if fault == "disconnect after accepting":
            return "disconnect"
        if fault == "answer cut short":
            return "cut"
        if fault == "no JSON after accepting":
            return 200, "<html>maintenance</html>"
        return 200, dict(accepted)

    def _accept(self, order: dict[str, Any]) -> dict[str, Any]:
        name = order["client_order_id"]
        if name not in self.orders:
            self.orders[name] = {
                "id": str(uuid.uuid4()), "client_order_id": name, "symbol": order["symbol"], "qty": order["qty"],
                "filled_qty": "0", "filled_avg_price": None, "side": order["side"], "type": order["type"],
                "time_in_force": order["time_in_force"], "limit_price": order.get("limit_price"),
                "status": "accepted", "submitted_at": f"2022-07-01T21:00:00.{len(self.orders):06d}Z",
            }  # fmt: skip
        return self.orders[name]

    def _read(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if path == "/v2/orders:by_client_order_id":
            found = self.orders.get(query["client_order_id"][0])
            return (200, dict(found)) if found else (404, {"code": 40410000, "message": "order not found"})
        if path == "/v2/orders":
            after = query.get("after", [""])[0]
            ordered = sorted(self.orders.values(), key=lambda order: order["submitted_at"])
            shown = [dict(o) for o in ordered if _is_open(o) and o["submitted_at"] > after]
            return 200, shown[: int(query["limit"][0])]
        if path == "/v2/positions":
            return 200, [
                {"symbol": s, "qty": f"{q:g}", "avg_entry_price": "100", "current_price": "100"}
                for s, q in sorted(self.positions.items()) if q
            ]  # fmt: skip
        if path == "/v2/account":
            return 200, {
                "equity": f"{self.cash:g}", "cash": f"{self.cash:g}", "buying_power": f"{2 * self.cash:g}",
                "status": "ACTIVE", "trading_blocked": False, "account_blocked": False,
                "trade_suspended_by_user": False,
            }  # fmt: skip
        if method == "DELETE":
            wanted = path.rpartition("/")[2]
            for order in self.orders.values():
                if order["id"] == wanted:
                    if not _is_open(order):
                        return 422, {"code": 42210000, "message": "order is not cancelable"}
                    order["status"] = "canceled"
                    return 204, None
        return 404, {"message": "not found"}


def _is_open(order: dict[str, Any]) -> bool:
    return order["status"] in ("new", "accepted", "partially_filled")


@contextmanager
def serving() -> Iterator[FakeAlpaca]:
    """The server on a free port while the block runs."""
    alpaca = FakeAlpaca()

    def reply(asked: Asked) -> Reply | None:
        alpaca.headers.append(dict(asked.headers))
        answer = alpaca.answer(asked.method, asked.path, asked.query, asked.body)
        if answer == "disconnect":
            return None
        status, content = (200, {"cut": "short"}) if answer == "cut" else answer
        raw = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        return Reply(
            status,
            b"" if status == 204 else raw,
            {"Retry-After": "2"} if status == 429 else {},
            missing_bytes=50 if answer == "cut" else 0,
        )

    with listening(reply) as alpaca.url:
        yield alpaca
