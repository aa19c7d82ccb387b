"""Whatever the broker and the machine do: no order twice, none lost, and the journal says what the broker says.

Random scenarios against a server that speaks Alpaca's format and fails in every way that we know of, while our
own process is killed between any two steps and starts anew.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
from pydantic import SecretStr

from signals_core.errors import SignalsError
from signals_core.execution import ledger as ledger_module
from signals_core.execution.brokers.alpaca import AlpacaBroker
from signals_core.execution.kill_switch import KillSwitch
from signals_core.execution.ledger import OrderLedger
from signals_core.execution.limits import Quote
from signals_core.execution.orders import OrderState
from signals_core.execution.planning import Book, Intention, plan_orders
from signals_core.execution.plans import Plan
from signals_core.execution.submission import Sessions, reconcile, submit_plan
from signals_core.http import HttpClient
from signals_core.settings_trading import ExecutionSettings, OrderLimits
from tests.core.execution.alpaca_server import (
    FAULTS_OF_ORDERS,
    FAULTS_OF_QUESTIONS,
    KEY_ID,
    SECRET,
    FakeAlpaca,
    serving,
)

CLOSED, OPENS, AFTER = date(2022, 7, 1), date(2022, 7, 5), date(2022, 7, 6)
SYMBOLS = ("AAPL", "AMZN", "GOOG", "IBM", "MSFT")
NOW = datetime(2022, 7, 1, 21, tzinfo=UTC)
SETTINGS = ExecutionSettings(limits=OrderLimits(max_gross=10, max_position_share=1))
QUOTES = {symbol: Quote(100.0, CLOSED, 0) for symbol in SYMBOLS}
MOST_LIVES = 40
DEFINITIVE = {"insufficient funds", "unprocessable"}


class Killed(BaseException):
    """The process dies here."""


@dataclass
class World:
    """One scenario: a broker with faults, and processes that are killed and started anew."""

    alpaca: FakeAlpaca
    folder: Path
    chance: random.Random
    faults: float
    """Probability of a fault at each request."""
    steps_to_live: int = -1
    session_closed: bool = False
    lives: int = 0
    happened: list[str] = field(default_factory=list)

    def fault(self, method: str, path: str) -> str:
        if self.chance.random() >= self.faults:
            return ""
        faults = FAULTS_OF_ORDERS if method == "POST" else FAULTS_OF_QUESTIONS
        chosen = self.chance.choice(faults)
        if chosen.startswith("slow") and self.chance.random() < 0.8:  # they take real time
            return ""
        self.happened.append(f"{method} {chosen}")
        return chosen

    def step(self) -> None:
        """Called before and after everything that outlives the process: here it may die."""
        if self.steps_to_live == 0:
            raise Killed
        self.steps_to_live -= 1

    def start(self) -> tuple[OrderLedger, AlpacaBroker]:
        """A new process: nothing is left of the old one but files."""
        ledger = OrderLedger(self.folder / "journal.jsonl", lambda: NOW)
        broker = AlpacaBroker(
            self.alpaca.url, False, SecretStr(KEY_ID), SecretStr(SECRET), timeout_seconds=0.15,
            requests_per_second=1e6, sleep=lambda seconds: None,
        )  # fmt: skip
        return ledger, broker

    def sessions(self) -> Sessions:
        return Sessions(OPENS, AFTER) if self.session_closed else Sessions(CLOSED, OPENS)

    def market_moves(self, only_fills: bool) -> None:
        """Between two lives anything may happen to the orders that arrived."""
        for name in self.alpaca.open_ids():
            event = self.chance.choice(["", "", "fill", "part"] + ([] if only_fills else ["canceled", "expired"]))
            order = self.alpaca.orders[name]
            left = float(order["qty"]) - float(order["filled_qty"])
            if event == "fill":
                self.alpaca.fill(name, left)
            elif event == "part" and left > 1:
                self.alpaca.fill(name, float(self.chance.randrange(1, int(left))))
            elif event and event != "part":
                self.alpaca.end(name, event)


@contextmanager
def mortal(world: World) -> Iterator[None]:
    """Let the process die between any two steps, in the middle of a line of the journal, too."""
    append, send = ledger_module.append_line, HttpClient._send_once

    def dying_append(path: Path, line: str) -> None:
        world.step()
        if world.steps_to_live == 0 and world.chance.random() < 0.5:
            with path.open("ab") as file:  # a torn line: it was not acknowledged
                file.write(line[: world.chance.randrange(len(line))].encode())
            raise Killed
        append(path, line)
        world.step()

    def dying_send(self: HttpClient, *request: Any) -> requests.Response:
        world.step()
        answer = send(self, *request)
        world.step()
        return answer

    ledger_module.append_line = dying_append
    HttpClient._send_once = dying_send  # type: ignore[method-assign]
    try:
        yield
    finally:
        ledger_module.append_line = append
        HttpClient._send_once = send  # type: ignore[method-assign]


def plan_of(ledger: OrderLedger, broker: AlpacaBroker, targets: pd.DataFrame) -> Plan:
    waiting = broker.list_open()
    book = Book(
        broker.name, broker.account(), {p.symbol: p for p in broker.positions()}, waiting,
        broker.flips_in_one_order, broker.fractional_shorts, ledger.records(), len(ledger.events()),
    )  # fmt: skip
    return plan_orders(targets, book, QUOTES, Intention("test", "UNIVERSE", OPENS), SETTINGS)


def live(world: World, run: Callable[[OrderLedger, AlpacaBroker], bool], mortality: float, only_fills: bool) -> None:
    """Lives until one gets to its end; the network heals and death spares us in the last ones."""
    for life in range(MOST_LIVES):
        world.lives += 1
        if life > MOST_LIVES // 2:
            world.faults = 0.0
        mortal_now = world.chance.random() < mortality and life <= MOST_LIVES // 2
        world.steps_to_live = world.chance.randrange(60) if mortal_now else -1
        ledger, broker = world.start()
        try:
            with mortal(world):
                if run(ledger, broker):
                    return
        except Killed:
            world.happened.append("killed")
        except SignalsError as error:
            world.happened.append(type(error).__name__)
        world.market_moves(only_fills)
    raise AssertionError(f"still not done after {MOST_LIVES} lives")


def scenario(alpaca: FakeAlpaca, folder: Path, seed: int, kind: str) -> World:
    """Carry out one plan (`resume`), or plan anew in each life (`replan`); `late`: the session closes midway."""
    chance = random.Random(seed)
    alpaca.reset()
    folder.mkdir()
    world = World(alpaca, folder, chance, chance.choice([0.0, 0.2, 0.5, 0.8]))
    alpaca.slow_seconds = 0.25
    targets = pd.DataFrame({"symbol": SYMBOLS, "shares": [chance.choice([-3, 0, 5, 20, 80]) for _ in SYMBOLS]})
    alpaca.positions = {s: float(chance.choice([0, 0, 2, 30])) for s in SYMBOLS}
    start = dict(alpaca.positions)
    switch = KillSwitch(folder / "KILL")
    plan = plan_of(*world.start(), targets)
    alpaca.fault = world.fault
    stop_after = chance.randrange(1, 6)

    def run(ledger: OrderLedger, broker: AlpacaBroker) -> bool:
        if kind == "late" and world.lives >= stop_after:
            return True
        chosen = plan
        if kind == "replan":
            assert not reconcile(ledger, broker, world.sessions()).conflicts
            chosen = plan_of(ledger, broker, targets)
        done = submit_plan(chosen, ledger, broker, switch, world.sessions)
        in_doubt = any(record.state.in_doubt for record in ledger.records().values())
        return not done.stopped and not in_doubt

    live(world, run, chance.choice([0.0, 0.5, 0.9]), only_fills=kind == "replan")
    alpaca.arrive()
    alpaca.fault = lambda method, path: ""
    world.session_closed = kind == "late"
    ledger, broker = world.start()
    found = reconcile(ledger, broker, world.sessions())
    assert not found.conflicts
    assert not found.strangers
    check(world, ledger, plan, start, targets, kind)
    return world


def check(
    world: World, ledger: OrderLedger, plan: Plan, start: dict[str, float], targets: pd.DataFrame, kind: str
) -> None:
    alpaca, records = world.alpaca, ledger.records()
    # No order doubled: one at the broker for each symbol, of exactly the shares that were meant.
    symbols = [order["symbol"] for order in alpaca.orders.values()]
    assert len(symbols) == len(set(symbols)), f"two orders for one target: {world.happened}"
    for name, order in alpaca.orders.items():
        assert name in records, "an order that nobody had written down"
        meant = records[name].order
        assert (order["symbol"], order["side"], float(order["qty"])) == (meant.symbol, meant.side, meant.quantity)
    # None lost: what was planned is at the broker, or was refused for good, or (late) its session is over.
    for name, record in records.items():
        theirs = alpaca.orders.get(name)
        if theirs is None:
            refused = name in alpaca.refused and record.state is OrderState.REJECTED
            over = kind == "late" and record.state is OrderState.CANCELLED
            assert refused or over, f"{name} {record.state} is lost: {world.happened}"
        else:
            says = theirs["status"].replace("canceled", "cancelled")
            assert record.state == says or (record.state, says) == (OrderState.ACCEPTED, "new")
            assert record.filled_quantity == float(theirs["filled_qty"])
    if kind != "late":
        planned = {order.client_order_id for order in plan.orders}
        assert planned == set(records)
    if kind == "replan":
        for symbol, shares in zip(targets["symbol"], targets["shares"], strict=True):
            ordered = [o for o in alpaca.orders.values() if o["symbol"] == symbol and o["status"] != "rejected"]
            signed = sum(float(o["qty"]) * (1 if o["side"] == "buy" else -1) for o in ordered)
            refused = any(records[name].order.symbol == symbol for name in alpaca.refused) or symbol in {
                o["symbol"] for o in alpaca.orders.values() if o["status"] == "rejected"
            }
            flips = start[symbol] * shares < 0
            small = 0 < abs(shares - start[symbol]) * 100 < SETTINGS.min_order_notional
            assert refused or small or start[symbol] + signed == (0 if flips else shares)


@pytest.fixture(scope="module")
def alpaca() -> Iterator[FakeAlpaca]:
    with serving() as server:
        yield server


def run_scenarios(alpaca: FakeAlpaca, folder: Path, seeds: range) -> dict[str, int]:
    """How often each thing happened."""
    happened: dict[str, int] = {}
    url = alpaca.url
    for seed in seeds:
        kind = ("resume", "replan", "late")[seed % 3]
        alpaca.url = url
        world = _run_one(alpaca, folder / str(seed), seed, kind)
        for name in {*world.happened, f"lives>{min(world.lives, 3) - 1}"}:
            happened[name] = happened.get(name, 0) + 1
    return happened


def _run_one(alpaca: FakeAlpaca, folder: Path, seed: int, kind: str) -> World:
    try:
        return scenario(alpaca, folder, seed, kind)
    except AssertionError as error:
        raise AssertionError(f"seed {seed} ({kind}): {error}") from error


def test_some_scenarios(alpaca: FakeAlpaca, tmp_path: Path) -> None:
    run_scenarios(alpaca, tmp_path, range(24))


@pytest.mark.slow
def test_a_thousand_scenarios(alpaca: FakeAlpaca, tmp_path: Path) -> None:
    happened = run_scenarios(alpaca, tmp_path, range(1000, 2000))
    print(dict(sorted(happened.items())))
    assert happened["killed"] > 300
    for fault in FAULTS_OF_ORDERS:
        assert happened[f"POST {fault}"] > 20, fault
    for fault in FAULTS_OF_QUESTIONS:
        assert happened[f"GET {fault}"] > 100, fault


def test_the_server_catches_a_client_that_repeats_without_an_id(alpaca: FakeAlpaca) -> None:
    alpaca.orders = {}
    faults = iter(["504 after accepting", ""])
    alpaca.fault = lambda method, path: next(faults)
    order = {"symbol": "IBM", "qty": "5", "side": "buy", "type": "market", "time_in_force": "opg"}
    while requests.post(f"{alpaca.url}/v2/orders", json=order, timeout=5).status_code != 200:
        pass
    assert len(alpaca.orders) == 2
