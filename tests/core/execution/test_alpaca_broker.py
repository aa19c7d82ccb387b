"""AlpacaBroker against a server on this machine that speaks Alpaca's format."""

import logging
import traceback
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from pydantic import SecretStr

from signals_core.errors import BrokerError, OrderRejected, OutcomeUnknown, SettingsError
from signals_core.execution.brokers.alpaca import LIVE_URL, PAPER_URL, AlpacaBroker, checked_url
from signals_core.execution.orders import Order, OrderState, OrderType, Side, TimeInForce
from tests.core.execution.alpaca_server import FAULTS_OF_ORDERS, KEY_ID, SECRET, FakeAlpaca, serving

ORDER = Order("IBM-1", "IBM", Side.BUY, 10.0, date(2022, 7, 5))


@pytest.fixture(scope="module")
def server() -> Iterator[FakeAlpaca]:
    with serving() as alpaca:
        yield alpaca


@pytest.fixture
def alpaca(server: FakeAlpaca) -> FakeAlpaca:
    server.reset()
    server.slow_seconds = 0.4
    return server


def broker(alpaca: FakeAlpaca, slept: list[float] | None = None) -> AlpacaBroker:
    return AlpacaBroker(
        alpaca.url, False, SecretStr(KEY_ID), SecretStr(SECRET), timeout_seconds=0.2, requests_per_second=1e6,
        sleep=(slept if slept is not None else []).append,
    )  # fmt: skip


def once(fault: str, method: str = "POST") -> Any:
    """A fault of the first request with this method."""
    left = [fault]
    return lambda asked, path: left.pop() if asked == method and left else ""


def test_an_order_is_sent_as_alpaca_wants_it(alpaca: FakeAlpaca) -> None:
    report = broker(alpaca).submit(ORDER)
    sent = alpaca.orders["IBM-1"]
    assert (sent["qty"], sent["side"], sent["type"], sent["time_in_force"]) == ("10", "buy", "market", "opg")
    assert (report.state, report.remaining_quantity, report.symbol) == (OrderState.ACCEPTED, 10, "IBM")
    limit = Order("IBM-2", "IBM", Side.SELL, 0.123456789, date(2022, 7, 5), OrderType.LIMIT_ON_OPEN,
                  TimeInForce.DAY, 9.9)  # fmt: skip
    broker(alpaca).submit(limit)
    sent = alpaca.orders["IBM-2"]
    assert (sent["qty"], sent["type"], sent["time_in_force"], sent["limit_price"]) == (
        "0.123456789", "limit", "day", "9.90",
    )  # fmt: skip
    assert {(h["apca-api-key-id"], h["apca-api-secret-key"]) for h in alpaca.headers} == {(KEY_ID, SECRET)}


@pytest.mark.parametrize(
    "fault",
    [
        "504 after accepting", "504 without accepting", "500 page without accepting", "disconnect before accepting",
        "disconnect after accepting", "answer cut short", "slow after accepting", "no JSON after accepting",
    ],
)  # fmt: skip
def test_a_lost_answer_is_unknown_and_the_order_is_posted_once(alpaca: FakeAlpaca, fault: str) -> None:
    alpaca.fault = once(fault)
    with pytest.raises(OutcomeUnknown, match="IBM-1"):
        broker(alpaca).submit(ORDER)
    assert alpaca.requests == [("POST", "/v2/orders")]
    known = broker(alpaca).get_by_client_id("IBM-1")
    assert (known is not None) == ("without" not in fault and "before" not in fault)


def test_an_id_that_alpaca_has_is_adopted(alpaca: FakeAlpaca) -> None:
    first = broker(alpaca).submit(ORDER)
    alpaca.fill("IBM-1", 4, 50.0)
    again = broker(alpaca).submit(ORDER)
    assert again.broker_order_id == first.broker_order_id
    assert (again.state, again.filled_quantity, again.remaining_quantity, again.average_price) == (
        OrderState.PARTIALLY_FILLED, 4, 6, 50,
    )  # fmt: skip
    assert len(alpaca.orders) == 1


def test_429_waits_as_long_as_asked_and_gives_up_as_unknown(alpaca: FakeAlpaca) -> None:
    slept: list[float] = []
    alpaca.fault = once("429")
    assert broker(alpaca, slept).submit(ORDER).state is OrderState.ACCEPTED
    assert 2.0 in slept
    alpaca.fault = lambda method, path: "429"
    with pytest.raises(OutcomeUnknown, match="status 429"):
        broker(alpaca).submit(Order("IBM-2", "IBM", Side.BUY, 1, date(2022, 7, 5)))
    assert list(alpaca.orders) == ["IBM-1"]


@pytest.mark.parametrize(
    ("fault", "says"), [("insufficient funds", "insufficient buying power"), ("unprocessable", "qty must be integer")]
)
def test_a_refused_order_says_why(alpaca: FakeAlpaca, fault: str, says: str) -> None:
    alpaca.fault = once(fault)
    with pytest.raises(OrderRejected, match=says):
        broker(alpaca).submit(ORDER)


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_keys_are_no_rejection_of_the_order(alpaca: FakeAlpaca, status: int) -> None:
    alpaca.answer_all = (status, {"message": "forbidden."})
    with pytest.raises(BrokerError, match="APCA_API_KEY_ID") as caught:
        broker(alpaca).submit(ORDER)
    assert not isinstance(caught.value, OutcomeUnknown)
    with pytest.raises(BrokerError, match="APCA_API_KEY_ID"):
        broker(alpaca).positions()


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("new", OrderState.ACCEPTED), ("pending_new", OrderState.ACCEPTED), ("done_for_day", OrderState.ACCEPTED),
        ("filled", OrderState.FILLED), ("canceled", OrderState.CANCELLED), ("replaced", OrderState.CANCELLED),
        ("expired", OrderState.EXPIRED), ("rejected", OrderState.REJECTED),
    ],
)  # fmt: skip
def test_alpacas_states_are_ours(alpaca: FakeAlpaca, status: str, state: OrderState) -> None:
    broker(alpaca).submit(ORDER)
    alpaca.end("IBM-1", status)
    known = broker(alpaca).get_by_client_id("IBM-1")
    assert known is not None
    assert (known.state, known.remaining_quantity) == (state, 0 if state.is_final else 10)


def test_a_state_that_nobody_knows_is_an_error(alpaca: FakeAlpaca) -> None:
    broker(alpaca).submit(ORDER)
    alpaca.end("IBM-1", "quantum")
    with pytest.raises(BrokerError, match="not in the known format"):
        broker(alpaca).get_by_client_id("IBM-1")


def test_more_open_orders_than_a_page_are_all_listed(alpaca: FakeAlpaca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signals_core.execution.brokers.alpaca._PAGE", 3)
    sender = broker(alpaca)
    names = [f"IBM-{n}" for n in range(8)]
    for name in names:
        sender.submit(Order(name, "IBM", Side.BUY, 1, date(2022, 7, 5)))
    alpaca.end("IBM-4", "expired")
    assert [report.client_order_id for report in sender.list_open()] == [n for n in names if n != "IBM-4"]


def test_the_account_positions_and_cancelling(alpaca: FakeAlpaca) -> None:
    asking = broker(alpaca)
    asking.submit(ORDER)
    alpaca.fill("IBM-1", 4)
    asking.cancel("IBM-1")
    asking.cancel("IBM-1")
    asking.cancel("unknown")
    assert alpaca.orders["IBM-1"]["status"] == "canceled"
    assert [(p.symbol, p.quantity) for p in asking.positions()] == [("IBM", 4)]
    assert (asking.account().equity, asking.account().blocked) == (100_000, "")


@pytest.mark.parametrize(
    ("url", "live", "says"),
    [
        (PAPER_URL, True, "need both"),
        (LIVE_URL, False, "execution.live is false"),
        (f"{LIVE_URL}/", False, "execution.live is false"),
        ("https://example.org", False, "neither of Alpaca's two hosts"),
        ("http://paper-api.alpaca.markets", False, "neither"),
        ("https://paper-api.alpaca.markets.example.org", False, "neither"),
        ("http://127.0.0.1:80@example.org", False, "neither"),
        ("http://127.0.0.1:80", True, "need both"),
    ],
)
def test_money_and_keys_go_where_two_settings_agree(url: str, live: bool, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        AlpacaBroker(url, live, SecretStr(KEY_ID), SecretStr(SECRET))
    assert checked_url(f"{PAPER_URL}/", live=False) == PAPER_URL
    assert checked_url(LIVE_URL, live=True) == LIVE_URL


def test_missing_keys_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APCA_API_KEY_ID", raising=False)
    with pytest.raises(SettingsError, match="APCA_API_KEY_ID"):
        AlpacaBroker()


def test_no_output_holds_a_key(
    alpaca: FakeAlpaca, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every fault, with all logging at DEBUG: neither logs nor errors nor anything printed names a key."""
    caplog.set_level(logging.DEBUG)
    texts = []
    for number, fault in enumerate(FAULTS_OF_ORDERS):
        alpaca.fault = once(fault)
        sender = broker(alpaca)
        texts.append(repr(sender) + str(sender))
        try:
            sender.submit(Order(f"IBM-{number}", "IBM", Side.BUY, 1, date(2022, 7, 5)))
        except (BrokerError, OrderRejected) as error:
            texts.append("".join(traceback.format_exception(error)) + repr(error) + repr(vars(error)))
    for fault in ("504", "429", "disconnect"):
        alpaca.fault = lambda method, path, fault=fault: fault  # type: ignore[misc]
        with pytest.raises(BrokerError) as caught:
            broker(alpaca).account()
        texts.append("".join(traceback.format_exception(caught.value)))
    captured = capfd.readouterr()
    output = "".join([*texts, caplog.text, captured.out, captured.err])
    assert "POST" in output
    assert KEY_ID not in output
    assert SECRET not in output
