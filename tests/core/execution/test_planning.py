"""From targets to orders: rounding, limits, repeats."""

import math
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signals_core.errors import DataError, MissingPrerequisite
from signals_core.execution.brokers.base import Account, Position
from signals_core.execution.limits import Quote
from signals_core.execution.orders import Order, OrderRecord, OrderReport, OrderState, Side, TimeInForce
from signals_core.execution.planning import Book, Intention, plan_orders
from signals_core.execution.plans import Plan, PlannedRow, load_plan
from signals_core.execution.targets import check_targets, read_targets
from signals_core.settings_trading import ExecutionSettings, OrderLimits

CLOSED, SESSION = date(2022, 7, 1), date(2022, 7, 5)
WIDE = OrderLimits(max_order_notional=1e9, max_position_share=100, max_gross=100)


def quotes(**prices: float) -> dict[str, Quote]:
    return {symbol: Quote(price, CLOSED, 0) for symbol, price in prices.items()}


def book(held: dict[str, float] | None = None, equity: float = 100_000.0, **how: Any) -> Book:
    positions = {symbol: Position(symbol, quantity, 100.0) for symbol, quantity in (held or {}).items()}
    return Book("paper", Account(equity, equity, 2 * equity), positions, how.pop("waiting", []), **how)


def planned(
    targets: dict[str, float], account: Book, prices: dict[str, Quote], settings: ExecutionSettings | None = None,
    column: str = "weight", retry: bool = False, **columns: list[Any],
) -> dict[str, PlannedRow]:  # fmt: skip
    frame = pd.DataFrame({"symbol": list(targets), column: list(targets.values()), **columns})
    plan = plan_orders(frame, account, prices, Intention("s", "U", SESSION, retry), settings or ExecutionSettings())
    return {row.symbol: row for row in plan.rows}


def shares(row: PlannedRow) -> float:
    return row.order.signed_quantity if row.order else 0.0


def waits(symbol: str, quantity: float, name: str = "other") -> OrderReport:
    side = Side.BUY if quantity > 0 else Side.SELL
    return OrderReport(name, "b", symbol, side, abs(quantity), OrderState.ACCEPTED, 0.0, abs(quantity))


def test_weights_become_whole_shares_rounded_towards_zero() -> None:
    rows = planned(
        {"A": 0.1, "B": -0.1, "C": 0.05, "D": 0.1}, book({"C": 30.0}), quotes(A=99.0, B=99.0, C=100.0, D=10.0)
    )
    assert {s: shares(row) for s, row in rows.items()} == {"A": 101, "B": -101, "C": 20, "D": 1000}
    order = rows["A"].order
    assert order is not None
    assert (order.session, order.time_in_force, order.limit_price) == (SESSION, TimeInForce.OPENING, None)


def test_fractions_by_setting_are_day_orders_and_shorts_stay_whole_where_the_broker_wants_it() -> None:
    settings = ExecutionSettings(whole_shares=False)
    rows = planned({"A": 0.1, "B": -0.1}, book(fractional_shorts=False), quotes(A=99.0, B=99.0), settings)
    assert shares(rows["A"]) == pytest.approx(10_000 / 99)
    assert shares(rows["B"]) == -101
    assert [row.order.time_in_force for row in rows.values() if row.order] == [TimeInForce.DAY, TimeInForce.OPENING]


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.integers(-500, 500), st.floats(1, 1000)), min_size=1, max_size=8),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_orders_lead_to_the_target_and_never_past_zero_where_flips_are_not_taken(
    cases: list[tuple[float, int, float]], whole: bool, flips: bool
) -> None:
    names = [f"S{n}" for n in range(len(cases))]
    held = {n: float(c[1]) for n, c in zip(names, cases, strict=True) if c[1]}
    prices = quotes(**{n: c[2] for n, c in zip(names, cases, strict=True)})
    settings = ExecutionSettings(whole_shares=whole, limits=WIDE, min_order_notional=50)
    account = book(held, flips_in_one_order=flips)
    rows = planned({n: c[0] for n, c in zip(names, cases, strict=True)}, account, prices, settings)
    for name, (weight, have, price) in zip(names, cases, strict=True):
        after, exact = have + shares(rows[name]), weight * 100_000 / price
        if not flips:
            assert have * after >= 0
        if rows[name].order is None:
            assert abs(exact - have) * price < 50 + price * whole + 1e-6
        elif flips or have * exact >= 0:
            assert abs(after) <= abs(exact) + 1e-6
            assert abs(after - exact) < (1 if whole else 1e-6)
        else:
            assert after == 0


def test_what_waits_counts_as_held() -> None:
    rows = planned({"A": 100, "B": 100}, book({"A": 40.0}, waiting=[waits("A", 60), waits("B", 30)]),
                   quotes(A=100.0, B=100.0), column="shares")  # fmt: skip
    assert rows["A"].order is None
    assert "what waits" in rows["A"].reason
    assert shares(rows["B"]) == 70


def test_an_open_order_of_unknown_size_refuses_its_symbol_and_every_new_risk() -> None:
    strange = OrderReport("x", "b", "A", Side.BUY, math.nan, OrderState.ACCEPTED, 0.0, math.nan)
    rows = planned({"A": 0.1, "B": 0.1}, book(waiting=[strange]), quotes(A=100.0, B=100.0))
    assert [row.status for row in rows.values()] == ["refused", "refused"]
    assert "unknown size" in rows["A"].reason


def test_orders_that_make_positions_smaller_come_first() -> None:
    rows = planned({"A": 0.1, "B": 0.0, "C": -0.1}, book({"B": 50.0}), quotes(A=100.0, B=100.0, C=100.0))
    assert list(rows) == ["B", "A", "C"]


def test_small_changes_are_left_and_small_positions_are_closed() -> None:
    rows = planned({"A": 0.0101, "B": 0.0}, book({"A": 100.0, "B": 1.0}), quotes(A=10.0, B=10.0))
    assert (rows["A"].status, rows["B"].status) == ("none", "order")
    assert "min_order_notional" in rows["A"].reason


def test_a_position_without_a_target_stays_unless_the_setting_closes_it() -> None:
    account = book({"B": 50.0})
    rows = planned({"A": 0.1}, account, quotes(A=100.0, B=100.0))
    assert (rows["B"].status, "left alone" in rows["B"].reason) == ("none", True)
    rows = planned({"A": 0.1}, account, quotes(A=100.0, B=100.0), ExecutionSettings(close_missing=True))
    assert shares(rows["B"]) == -50


def limits(**how: float) -> ExecutionSettings:
    return ExecutionSettings(limits=OrderLimits(**how))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (limits(max_order_notional=9_999), "max_order_notional 9,999"),
        (limits(max_position_share=0.099), "max_position_share 9.9%"),
        (limits(max_gross=0.099), "max_gross"),
        (limits(max_orders=0), "max_orders is 0"),
    ],
)
def test_a_limit_refuses_the_order_that_breaks_it_and_no_other(settings: ExecutionSettings, reason: str) -> None:
    rows = planned({"A": 0.1, "B": 0.0}, book({"B": 5.0}), quotes(A=100.0, B=100.0), settings)
    assert rows["A"].status == "refused"
    assert reason in rows["A"].reason
    assert rows["B"].status == ("refused" if "max_orders" in reason else "order")


def test_leaving_is_possible_beyond_the_limits_of_size() -> None:
    settings = limits(max_position_share=0.01, max_gross=0.01)
    rows = planned({"A": 0.0, "B": 0.2}, book({"A": 200.0, "B": 300.0}), quotes(A=100.0, B=100.0), settings)
    assert {s: shares(row) for s, row in rows.items()} == {"A": -200, "B": -100}


def test_gross_counts_what_this_plan_orders_and_what_it_frees() -> None:
    settings = limits(max_gross=0.5, max_position_share=0.5)
    rows = planned({"A": 0.2, "B": 0.2, "C": 0.2, "D": 0.0}, book({"D": 400.0}),
                   quotes(A=100.0, B=100.0, C=100.0, D=100.0), ExecutionSettings(limits=settings.limits.model_copy(
                       update={"max_order_notional": 1e6})))  # fmt: skip
    assert [rows[s].status for s in "DABC"] == ["order", "order", "order", "refused"]


def test_orders_of_the_session_that_were_sent_before_count() -> None:
    sent = Order("B-1", "B", Side.BUY, 5, SESSION)
    account = book(records={"B-1": OrderRecord(sent, OrderState.FILLED, 5)})
    rows = planned({"A": 0.1, "C": 0.1}, account, quotes(A=100.0, C=100.0), limits(max_orders=2))
    assert [row.status for row in rows.values()] == ["order", "refused"]


def test_stale_or_far_off_prices_refuse_exits_too() -> None:
    old = {"A": Quote(100.0, date(2022, 6, 30), 1), "B": Quote(100.0, CLOSED, 0), "C": Quote(100.0, CLOSED, 0)}
    account = book({"A": 10.0, "B": 10.0})
    rows = planned({"A": 0.0, "B": 0.0, "C": 0.1, "D": 0.1}, account, old, price=[math.nan, 89.0, 111.0, math.nan])
    assert {row.status for row in rows.values()} == {"refused"}
    assert "stale: the last bar is of 2022-06-30" in rows["A"].reason
    assert "price collar: 89" in rows["B"].reason
    assert "price collar: 111" in rows["C"].reason
    assert "no bars" in rows["D"].reason


def test_a_limit_on_open_is_within_the_collar() -> None:
    settings = ExecutionSettings(order_type="limit_on_open", limits=OrderLimits(price_collar=0.05))
    rows = planned({"A": 0.1, "B": -0.1}, book(), quotes(A=33.33, B=33.33), settings)
    assert [row.order.limit_price for row in rows.values() if row.order] == [34.99, 31.67]


def test_a_blocked_account_takes_nothing() -> None:
    account = book()
    blocked = Book("paper", Account(1e5, 1e5, 0, "trading_blocked"), {}, [])
    assert planned({"A": 0.1}, account, quotes(A=100.0))["A"].status == "order"
    assert "trading_blocked" in planned({"A": 0.1}, blocked, quotes(A=100.0))["A"].reason


def after(state: OrderState, filled: float = 0.0, quantity: float = 100.0) -> tuple[Order, dict[str, OrderRecord]]:
    first = planned({"A": 0.1}, book(), quotes(A=100.0))["A"].order
    assert first is not None
    order = Order(first.client_order_id, "A", Side.BUY, quantity, SESSION)
    return order, {order.client_order_id: OrderRecord(order, state, filled, reason="why")}


@pytest.mark.parametrize("state", [OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED, OrderState.FILLED])
def test_an_order_that_arrived_is_not_ordered_again_even_if_the_position_lags(state: OrderState) -> None:
    order, records = after(state)
    row = planned({"A": 0.1}, book(records=records), quotes(A=100.0), retry=True)["A"]
    assert (row.order, row.status) == (None, "none")
    assert order.client_order_id in row.reason


@pytest.mark.parametrize("state", [OrderState.REJECTED, OrderState.CANCELLED, OrderState.EXPIRED])
def test_an_order_that_ended_without_a_fill_is_tried_again_only_if_asked(state: OrderState) -> None:
    order, records = after(state)
    row = planned({"A": 0.1}, book(records=records), quotes(A=100.0))["A"]
    assert (row.status, "--retry" in row.reason) == ("refused", True)
    again = planned({"A": 0.1}, book(records=records), quotes(A=100.0), retry=True)["A"].order
    assert again is not None
    assert again.client_order_id != order.client_order_id


@pytest.mark.parametrize("state", [OrderState.INTENDED, OrderState.UNKNOWN])
def test_an_order_that_may_not_have_arrived_is_repeated_under_its_id_only(state: OrderState) -> None:
    order, records = after(state)
    row = planned({"A": 0.1}, book(records=records), quotes(A=100.0))["A"]
    assert row.order == order


def test_in_doubt_and_another_order_by_now_is_refused() -> None:
    _, records = after(OrderState.UNKNOWN)
    for targets, account in (({"A": 0.2}, book(records=records)), ({"A": 0.1}, book({"A": 100.0}, records=records)),
                             ({"A": 0.1}, book({"A": 7.0}, records=records))):  # fmt: skip
        row = planned(targets, account, quotes(A=100.0))["A"]
        assert (row.status, "in doubt" in row.reason) == ("refused", True)


def test_intended_and_another_order_by_now_gets_another_name() -> None:
    order, records = after(OrderState.INTENDED, quantity=99.0)
    row = planned({"A": 0.1}, book(records=records), quotes(A=100.0))["A"]
    assert row.order is not None
    assert (row.order.quantity, row.order.client_order_id != order.client_order_id) == (100, True)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        ({"ticker": ["A"]}, "need the columns symbol and weight or shares"),
        ({"symbol": ["A", "A"], "weight": [0.1, 0.2]}, "A named more than once"),
        ({"symbol": ["A", None], "weight": [0.1, 0.2]}, "a row has no symbol"),
        ({"symbol": ["A"], "weight": [math.nan]}, "A must have either"),
        ({"symbol": ["A"], "weight": [0.1], "shares": [3]}, "A must have either"),
        ({"symbol": ["A"], "weight": [math.inf]}, "A must have either a finite"),
        ({"symbol": ["A"], "weight": ["much"]}, "weight holds something that is no number"),
    ],
)
def test_targets_that_cannot_be_say_why(frame: dict[str, list[Any]], says: str) -> None:
    with pytest.raises(DataError, match=says):
        check_targets(pd.DataFrame(frame))


def test_targets_come_from_csv_and_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame({"symbol": ["A", "B"], "weight": [0.1, math.nan], "shares": [math.nan, -3]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_targets(tmp_path / "t.csv"), read_targets(tmp_path / "t.parquet"))
    with pytest.raises(MissingPrerequisite, match="--targets"):
        read_targets(tmp_path / "none.csv")


def test_a_plan_is_read_as_it_was_shown_or_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"symbol": ["A", "B", "C"], "weight": [0.1, 0.5, -0.1]})
    settings = ExecutionSettings(order_type="limit_on_open")
    plan = plan_orders(frame, book(), quotes(A=100.0, B=100.0, C=7.0), Intention("s", "U", SESSION), settings)
    path = plan.save(tmp_path)
    read = load_plan(tmp_path, plan.plan_id)
    assert isinstance(read, Plan)
    assert read == plan
    path.write_text(path.read_text().replace('"quantity": 100.0', '"quantity": 1000.0'))
    with pytest.raises(DataError, match="was changed since"):
        load_plan(tmp_path, plan.plan_id)
    with pytest.raises(MissingPrerequisite, match="no plan"):
        load_plan(tmp_path, "../../etc")
