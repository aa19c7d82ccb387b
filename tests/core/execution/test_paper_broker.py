"""The paper account against accounts kept by hand."""

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signals_core.calendar import next_open_session
from signals_core.errors import OrderRejected
from signals_core.execution.brokers.paper import PaperBroker
from signals_core.execution.costs import CostModel
from signals_core.execution.orders import Order, OrderState, OrderType, Side
from signals_core.market_data.store import MarketStore
from tests.core.execution.markets import CALENDAR, SESSIONS, after_close, raw_bars, store_with

COSTS = CostModel(commission_bps=2, slippage_bps=5, borrow_bps_per_year=300)
DAYS = [day.date() for day in SESSIONS]
SYMBOLS = ("AAA", "BBB", "CCC")


class Clock:
    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def __call__(self) -> datetime:
        return self.moment


@pytest.fixture(scope="module")
def bars() -> dict[str, pd.DataFrame]:
    made = {symbol: raw_bars(seed) for seed, symbol in enumerate(SYMBOLS, start=11)}
    made["BBB"] = made["BBB"].drop(index=[20, 21])  # a halt in trading
    return made


@pytest.fixture(scope="module")
def market(bars: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Iterator[MarketStore]:
    store = store_with(tmp_path_factory.mktemp("paper"), bars)
    yield store
    store.close()


def opened(folder: Path, market: MarketStore, clock: Callable[[], datetime], **how: float) -> PaperBroker:
    return PaperBroker(folder, market, CALENDAR, COSTS, clock, **{"cash": 100_000.0, "leverage": 4.0, **how})


def order(symbol: str, shares: float, session: date, name: str = "", limit: float | None = None) -> Order:
    kind = OrderType.MARKET_ON_OPEN if limit is None else OrderType.LIMIT_ON_OPEN
    side = Side.BUY if shares > 0 else Side.SELL
    return Order(name or f"{symbol}-{session}", symbol, side, abs(shares), session, kind, limit_price=limit)


def orders_of(seed: int) -> dict[date, list[Order]]:
    """Orders by the session after whose close they are sent."""
    random = np.random.default_rng(seed)
    sent: dict[date, list[Order]] = {}
    for day, following in pairwise(DAYS[2:]):
        for symbol in SYMBOLS:
            if random.random() < 0.3:
                shares = float(random.integers(-40, 41)) or 7.0
                sent.setdefault(day, []).append(order(symbol, shares, following))
    return sent


def by_hand(
    bars: dict[str, pd.DataFrame], sent: dict[date, list[Order]], cash_bps: float
) -> tuple[list[tuple[date, float, float]], dict[str, float]]:
    """The account kept with a loop over days and symbols, from the raw bars alone."""
    tables = {symbol: frame.set_index("date") for symbol, frame in bars.items()}
    cash, shares, last = 100_000.0, dict.fromkeys(SYMBOLS, 0.0), dict.fromkeys(SYMBOLS, 0.0)
    for symbol, table in tables.items():
        last[symbol] = table["close"].iloc[table.index.searchsorted(SESSIONS[2])]
    told, waiting = [], list(sent.get(DAYS[2], []))
    for previous, day in pairwise(DAYS[2:]):
        nights = (day - previous).days
        cash *= 1 + cash_bps / 1e4 * nights / 365
        for symbol in SYMBOLS:
            cash -= max(-shares[symbol] * last[symbol], 0) * 300 / 1e4 * nights / 365
        for symbol, table in tables.items():
            if pd.Timestamp(day) not in table.index:
                continue
            row = table.loc[pd.Timestamp(day)]
            ratio = row["split"] or 1.0
            shares[symbol] *= ratio
            cash += shares[symbol] * row["dividend"]
            for each in [w for w in waiting if w.symbol == symbol]:
                sign = 1 if each.side is Side.BUY else -1
                filled = row["open"] * (1 + sign * 5 / 1e4)
                traded = sign * each.quantity * ratio
                shares[symbol] += traded
                cash -= traded * filled + abs(traded) * filled * 2 / 1e4
            last[symbol] = row["close"]
        told.append((day, cash, sum(shares[s] * last[s] for s in SYMBOLS)))
        waiting = list(sent.get(day, []))
    return told, {symbol: held for symbol, held in shares.items() if abs(held) > 1e-9}


def run(broker: PaperBroker, clock: Clock, sent: dict[date, list[Order]], look_every: int = 1) -> None:
    for number, day in enumerate(DAYS[2:]):
        clock.moment = after_close(day)
        for each in sent.get(day, []):
            assert broker.submit(each).state is OrderState.ACCEPTED
        if number % look_every == 0:
            broker.account()
    broker.account()


@pytest.mark.parametrize("seed", range(12))
def test_the_account_is_the_one_kept_by_hand(
    seed: int, bars: dict[str, pd.DataFrame], market: MarketStore, tmp_path: Path
) -> None:
    cash_bps = 200.0 if seed % 2 else 0.0
    clock = Clock(after_close(DAYS[2]))
    broker, sent = opened(tmp_path, market, clock, cash_bps_per_year=cash_bps), orders_of(seed)
    run(broker, clock, sent)
    told, shares = by_hand(bars, sent, cash_bps)
    ours = broker.book.equity()
    assert [day for day, _, _ in ours] == [day for day, _, _ in told]
    np.testing.assert_allclose([o[1:] for o in ours], [t[1:] for t in told], rtol=0, atol=1e-6)
    assert {p.symbol: p.quantity for p in broker.positions()} == pytest.approx(shares)
    account = broker.account()
    assert account.equity == pytest.approx(told[-1][1] + told[-1][2])
    assert account.cash == pytest.approx(sum(flow[3] for flow in broker.book.cash_flows()))
    broker.close()


def test_looking_seldom_or_often_and_starting_anew_gives_the_same_account(market: MarketStore, tmp_path: Path) -> None:
    books = []
    for name, look_every in (("daily", 1), ("weekly", 7), ("at the end", 1000)):
        clock = Clock(after_close(DAYS[2]))
        broker = opened(tmp_path / name, market, clock)
        run(broker, clock, orders_of(3), look_every)
        broker.close()
        again = opened(tmp_path / name, market, clock)
        books.append((again.book.equity(), again.book.cash_flows(), again.positions(), again.account()))
        again.close()
    assert books[0] == books[1] == books[2]


def test_an_order_sent_again_under_its_id_is_the_same_order(market: MarketStore, tmp_path: Path) -> None:
    clock = Clock(after_close(DAYS[5]))
    broker = opened(tmp_path, market, clock)
    once = order("AAA", 10, DAYS[6])
    assert broker.submit(once) == broker.submit(once)
    clock.moment = after_close(DAYS[6])
    assert broker.submit(once).state is OrderState.FILLED
    assert [p.quantity for p in broker.positions()] == [10]
    broker.close()


def test_an_order_sent_during_a_session_waits_for_the_next_open(
    bars: dict[str, pd.DataFrame], market: MarketStore, tmp_path: Path
) -> None:
    clock = Clock(after_close(DAYS[5]))
    broker = opened(tmp_path, market, clock)
    clock.moment = after_close(DAYS[6]) - timedelta(hours=3)
    assert next_open_session(CALENDAR, clock.moment) == DAYS[7]
    with pytest.raises(OrderRejected, match="has passed"):
        broker.submit(order("AAA", 10, DAYS[6]))
    broker.submit(order("AAA", 10, DAYS[7]))
    clock.moment = after_close(DAYS[6])
    assert broker.positions() == []
    clock.moment = after_close(DAYS[7])
    filled = broker.get_by_client_id(f"AAA-{DAYS[7]}")
    assert filled is not None
    assert filled.average_price == pytest.approx(bars["AAA"]["open"].iloc[7] * 1.0005)
    broker.close()


def test_an_order_without_a_bar_at_its_open_expires_once_the_bars_are_in(market: MarketStore, tmp_path: Path) -> None:
    clock = Clock(after_close(DAYS[19]))
    broker = opened(tmp_path, market, clock)
    broker.submit(order("BBB", 10, DAYS[20]))
    clock.moment = after_close(DAYS[21])
    waiting = broker.get_by_client_id(f"BBB-{DAYS[20]}")
    assert waiting is not None
    assert waiting.state is OrderState.ACCEPTED, "its bar may only be late"
    clock.moment = after_close(DAYS[22])
    expired = broker.get_by_client_id(f"BBB-{DAYS[20]}")
    assert expired is not None
    assert (expired.state, "no bar of BBB" in expired.reason) == (OrderState.EXPIRED, True)
    assert broker.positions() == []
    broker.close()


def test_a_symbol_that_is_gone_holds_the_account_up_once(tmp_path: Path) -> None:
    bars = {"AAA": raw_bars(1), "GONE": raw_bars(2).iloc[:30]}
    store = store_with(tmp_path, bars)
    clock = Clock(after_close(DAYS[27]))
    broker = opened(tmp_path / "paper", store, clock)
    for symbol in bars:
        broker.submit(order(symbol, 10, DAYS[28]))
    settled = []
    for day in DAYS[28:40]:
        clock.moment = after_close(day)
        broker.account()
        settled.append(DAYS.index(broker.book.session) - DAYS.index(day))
    assert settled == [0, 0, -1, -2, -3, -4, -5, 0, 0, 0, 0, 0]
    clock.moment = after_close(DAYS[48])
    assert [position.symbol for position in broker.positions()] == ["AAA", "GONE"]
    clock.moment = after_close(DAYS[49])  # the 20th session without a bar
    assert [position.symbol for position in broker.positions()] == ["AAA"]
    day, symbol, kind, amount, *_ = broker.book.cash_flows()[-1]
    assert (day, symbol, kind) == (DAYS[49], "GONE", "settlement")
    assert amount == pytest.approx(10 * bars["GONE"]["close"].iloc[-1])
    broker.close()
    store.close()


def test_a_limit_is_kept_or_the_order_expires(
    bars: dict[str, pd.DataFrame], market: MarketStore, tmp_path: Path
) -> None:
    open_ = bars["CCC"]["open"].iloc[3]
    clock = Clock(after_close(DAYS[2]))
    broker = opened(tmp_path, market, clock)
    for name, shares, limit in (
        ("buy beyond", 10, open_ * 0.999), ("buy within", 10, open_ * 1.0001),
        ("sell beyond", -10, open_ * 1.001), ("sell within", -10, open_ * 0.9),
    ):  # fmt: skip
        broker.submit(order("CCC", shares, DAYS[3], name, limit))
    clock.moment = after_close(DAYS[3])
    found = {name: broker.get_by_client_id(name) for name in ("buy beyond", "buy within", "sell beyond", "sell within")}
    assert {name: str(r.state) for name, r in found.items() if r} == {
        "buy beyond": "expired", "buy within": "filled", "sell beyond": "expired", "sell within": "filled",
    }  # fmt: skip
    assert found["buy within"].average_price == pytest.approx(open_ * 1.0001)  # type: ignore[union-attr]
    assert found["sell within"].average_price == pytest.approx(open_ * 0.9995)  # type: ignore[union-attr]
    broker.close()


def test_what_the_account_cannot_afford_is_rejected_and_leaving_is_not(market: MarketStore, tmp_path: Path) -> None:
    clock = Clock(after_close(DAYS[2]))
    broker = opened(tmp_path, market, clock, cash=1_000.0, leverage=1.0)
    broker.submit(order("AAA", 9, DAYS[3]))
    with pytest.raises(OrderRejected, match="insufficient buying power"):
        broker.submit(order("BBB", -3, DAYS[3]))
    with pytest.raises(OrderRejected, match="has no bars"):
        broker.submit(order("ZZZ", 1, DAYS[3]))
    clock.moment = after_close(DAYS[3])
    broker.submit(order("AAA", -9, DAYS[4]))
    clock.moment = after_close(DAYS[4])
    assert broker.positions() == []
    broker.close()


def test_a_cancelled_order_is_not_filled(market: MarketStore, tmp_path: Path) -> None:
    clock = Clock(after_close(DAYS[2]))
    broker = opened(tmp_path, market, clock)
    broker.submit(order("AAA", 9, DAYS[3]))
    broker.cancel(f"AAA-{DAYS[3]}")
    clock.moment = after_close(DAYS[3])
    assert (broker.positions(), broker.list_open()) == ([], [])
    broker.cancel(f"AAA-{DAYS[3]}")
    broker.close()


def test_a_settlement_that_is_killed_is_done_whole_by_the_next(
    market: MarketStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each of its changes in turn; in the end the account is the undisturbed one."""
    from signals_core.execution.brokers.paper_book import PaperBook

    class Killed(BaseException):
        pass

    names = ("add_cash", "hold", "update_order", "settled")
    originals = {name: getattr(PaperBook, name) for name in names}
    clock = Clock(after_close(DAYS[2]))
    sent = orders_of(5)
    undisturbed = opened(tmp_path / "a", market, clock)
    run(undisturbed, clock, sent)
    deaths, left = 0, 3

    def dying(name: str) -> Callable[..., None]:
        def change(self: PaperBook, *arguments: object) -> None:
            nonlocal left, deaths
            if left == 0:
                left, deaths = deaths % 40, deaths + 1
                raise Killed
            left -= 1
            originals[name](self, *arguments)

        return change

    for name in names:
        monkeypatch.setattr(PaperBook, name, dying(name))
    disturbed = opened(tmp_path / "b", market, clock)
    clock.moment = after_close(DAYS[2])
    for day in DAYS[2:]:
        clock.moment = after_close(day)
        while True:
            try:
                for each in sent.get(day, []):
                    disturbed.submit(each)
                disturbed.account()
                break
            except Killed:
                disturbed.close()
                disturbed = opened(tmp_path / "b", market, clock)
    assert deaths > 20
    assert disturbed.book.cash_flows() == undisturbed.book.cash_flows()
    assert disturbed.book.equity() == undisturbed.book.equity()
    disturbed.close()
    undisturbed.close()
