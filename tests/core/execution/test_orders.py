"""Orders, their names and states; the ledger; the kill switch."""

import json
from datetime import UTC, date, datetime
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signals_core.errors import DataError, OrderConflict, TradingHalted
from signals_core.execution.kill_switch import KillSwitch
from signals_core.execution.ledger import OrderLedger
from signals_core.execution.orders import (
    LONGEST_CLIENT_ORDER_ID,
    TRANSITIONS,
    Order,
    OrderRecord,
    OrderReport,
    OrderState,
    OrderType,
    Side,
    client_order_id,
    order_from_json,
)

SESSION = date(2022, 7, 5)
NOW = datetime(2022, 7, 1, 21, tzinfo=UTC)
BUY = Order("IBM-1", "IBM", Side.BUY, 10.0, SESSION)


def report(state: OrderState, filled: float = 0.0, **how: object) -> OrderReport:
    fields = {"client_order_id": "IBM-1", "broker_order_id": "b", "symbol": "IBM", "side": Side.BUY, "quantity": 10.0}
    return OrderReport(**{**fields, "state": state, "filled_quantity": filled, **how})  # type: ignore[arg-type]


@given(
    st.text(min_size=1, max_size=20), st.text(max_size=10), st.from_regex(r"[A-Z0-9][A-Z0-9.\-]{0,15}", fullmatch=True),
    st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.text(max_size=30), st.integers(0, 99),
)  # fmt: skip
def test_ids_are_repeatable_short_and_plain(strategy, scope, symbol, session, target, attempt):  # type: ignore[no-untyped-def]
    name = client_order_id(strategy, scope, symbol, session, target, attempt)
    assert name == client_order_id(strategy, scope, symbol, session, target, attempt)
    assert len(name) <= LONGEST_CLIENT_ORDER_ID
    assert name.isascii()
    assert " " not in name


def test_every_part_of_an_intention_is_in_its_id() -> None:
    parts = [("a", "b"), ("UNIVERSE", "IBM"), ("IBM", "AAPL"), (SESSION, date(2022, 7, 6)), ("weight 0.1", "x"), (0, 1)]
    names = {client_order_id(*chosen) for chosen in product(*parts)}  # type: ignore[arg-type]
    assert len(names) == 2 ** len(parts)
    assert client_order_id("ml_signal", "UNIVERSE", "IBM", SESSION, "weight 0.1") == "IBM-20220705-efcfdb7fb7ed51d6"


@pytest.mark.parametrize("before", OrderState)
@pytest.mark.parametrize("after", OrderState)
def test_a_transition_is_possible_or_its_error_names_both_states(before: OrderState, after: OrderState) -> None:
    record = OrderRecord(BUY, before)
    if after in TRANSITIONS[before]:
        assert record.moved(after, "why").state is after
    else:
        with pytest.raises(OrderConflict, match=f"IBM-1 .*: {after} cannot follow {before}; after {before} come"):
            record.moved(after)


def test_ends_are_ends_and_every_state_leads_to_one() -> None:
    ends = {state for state in OrderState if state.is_final}
    assert ends == {OrderState.FILLED, OrderState.REJECTED, OrderState.CANCELLED, OrderState.EXPIRED}
    for state in set(OrderState) - ends:
        assert TRANSITIONS[state] & ends


def test_a_report_of_another_order_or_that_takes_fills_back_is_refused() -> None:
    record = OrderRecord(BUY, OrderState.SENT).adopted(report(OrderState.PARTIALLY_FILLED, 4, average_price=9.0))
    assert (record.state, record.filled_quantity, record.average_price) == (OrderState.PARTIALLY_FILLED, 4, 9.0)
    assert record.adopted(report(OrderState.PARTIALLY_FILLED, 6)).filled_quantity == 6
    for wrong in ({"symbol": "AAPL"}, {"side": Side.SELL}, {"quantity": 11.0}):
        with pytest.raises(OrderConflict, match="under this id"):
            record.adopted(report(OrderState.FILLED, 10, **wrong))
    with pytest.raises(OrderConflict, match="reports 3 shares filled, it had reported 4"):
        record.adopted(report(OrderState.PARTIALLY_FILLED, 3))
    with pytest.raises(OrderConflict, match="accepted cannot follow partially_filled"):
        record.adopted(report(OrderState.ACCEPTED, 4))


@pytest.mark.parametrize("quantity", [0.0, -1.0, float("nan"), float("inf")])
def test_an_order_needs_a_positive_quantity(quantity: float) -> None:
    with pytest.raises(OrderConflict, match="must be positive and finite"):
        Order("x", "IBM", Side.BUY, quantity, SESSION)


def test_an_order_survives_json() -> None:
    limit = Order("x", "IBM", Side.SELL, 0.123456789, SESSION, OrderType.LIMIT_ON_OPEN, limit_price=9.99)
    assert order_from_json(json.loads(json.dumps(limit.as_json()))) == limit
    with pytest.raises(OrderConflict, match="needs a limit price"):
        Order("x", "IBM", Side.SELL, 1, SESSION, OrderType.LIMIT_ON_OPEN)


def ledger(folder: Path) -> OrderLedger:
    return OrderLedger(folder / "journal.jsonl", lambda: NOW)


def test_the_ledger_is_what_was_written_also_for_another_process(tmp_path: Path) -> None:
    one, other = ledger(tmp_path), ledger(tmp_path)
    one.intend(BUY, "plan")
    assert other.records()["IBM-1"].state is OrderState.INTENDED
    other.move("IBM-1", OrderState.SENT)
    one.adopt(report(OrderState.PARTIALLY_FILLED, 4, average_price=9.0))
    other.adopt(report(OrderState.FILLED, 10, average_price=9.5))
    assert one.records() == other.records() == ledger(tmp_path).records()
    record = one.records()["IBM-1"]
    assert (record.state, record.filled_quantity, record.plan_id) == (OrderState.FILLED, 10, "plan")


def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    one = ledger(tmp_path)
    one.intend(BUY)
    one.intend(BUY)
    one.move("IBM-1", OrderState.SENT)
    one.adopt(report(OrderState.ACCEPTED))
    before = len(one.events())
    one.adopt(report(OrderState.ACCEPTED))
    assert len(one.events()) == before == 3


def test_an_impossible_step_is_refused_and_leaves_the_journal_readable(tmp_path: Path) -> None:
    one = ledger(tmp_path)
    one.intend(BUY)
    with pytest.raises(OrderConflict, match="filled cannot follow intended"):
        one.adopt(report(OrderState.FILLED, 10))
    with pytest.raises(OrderConflict, match="plan again"):
        one.intend(Order("IBM-1", "IBM", Side.BUY, 11.0, SESSION))
    with pytest.raises(OrderConflict, match="no intention"):
        one.move("IBM-2", OrderState.SENT)
    assert [event.state for event in ledger(tmp_path).events()] == [OrderState.INTENDED]


def test_a_torn_line_was_never_said_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    one = ledger(tmp_path)
    one.intend(BUY)
    path = tmp_path / "journal.jsonl"
    with path.open("ab") as file:
        file.write(b'{"at": "2022')
    assert ledger(tmp_path).records()["IBM-1"].state is OrderState.INTENDED
    one.move("IBM-1", OrderState.SENT)
    assert ledger(tmp_path).records()["IBM-1"].state is OrderState.SENT
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(DataError, match="line 1 cannot be read"):
        ledger(tmp_path).records()


def test_an_older_journal_put_back_is_read_anew(tmp_path: Path) -> None:
    one, path = ledger(tmp_path), tmp_path / "journal.jsonl"
    one.intend(BUY)
    older = path.read_bytes()
    one.move("IBM-1", OrderState.SENT)
    assert one.records()["IBM-1"].state is OrderState.SENT
    path.write_bytes(older)
    assert one.records()["IBM-1"].state is OrderState.INTENDED


def test_the_kill_switch_is_a_file_or_a_setting(tmp_path: Path) -> None:
    switch = KillSwitch(tmp_path / "KILL")
    switch.check()
    switch.halt("too many fills")
    with pytest.raises(TradingHalted, match=r"halted \(KILL says: too many fills\): nothing is sent"):
        switch.check()
    switch.resume()
    switch.check()
    (tmp_path / "KILL").touch()
    assert switch.reason() == "KILL exists"
    (tmp_path / "KILL").unlink()
    with pytest.raises(TradingHalted, match=r"execution\.halted is true"):
        KillSwitch(tmp_path / "KILL", by_setting=True).resume()
