"""PaperBroker: an account of our own that fills orders at the next open of the stored bars.

Bars and corporate actions are those of the market store, as traded and as knowable at the present moment; prices
pay the cost model of the backtest. Every call first settles the sessions that have closed since the last one, in
order: the days since the last close cost interest and loan fees, splits change share counts (waiting orders too),
dividends are paid on what was held before the open, orders fill at the open or expire. The same calls at the
same moments give the same account.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pandas as pd

from signals_core.calendar import last_closed_session, next_open_session, sessions_between
from signals_core.errors import OrderRejected
from signals_core.execution.brokers.base import Account, Position
from signals_core.execution.brokers.paper_book import Holding, PaperBook, WorkingOrder
from signals_core.execution.costs import BASIS_POINT, BORROW_DAYS_PER_YEAR, CostModel
from signals_core.execution.orders import Order, OrderReport, OrderState, Side
from signals_core.market_data.prices import effects_per_bar
from signals_core.market_data.store import MarketStore
from signals_core.strategy.panel import MISSING_SESSIONS

_RECENT, _HISTORY = timedelta(days=15), timedelta(days=400)
"""How far back bars are read: to the bar before, and across a halt in trading if there is none so near."""
_PATIENCE_SESSIONS = 5
"""So long a session waits for the bars of what is held or ordered, before it is settled without them."""


@dataclass(frozen=True)
class _Day:
    """What a session did to a symbol; prices as traded."""

    open: float
    close: float
    split: float
    factor: float
    dividend: float


class PaperBroker:
    """A paper account under `folder`.

    Args:
        folder: of the account, such as `data/paper`.
        market: bars and corporate actions.
        calendar: of the exchange.
        costs: of trading, the backtest's own.
        now: the present moment.
        cash: dollars, when the account is opened.
        leverage: positions and waiting orders may be worth that many times equity.
        cash_bps_per_year: interest on cash, by calendar day; borrowed cash pays the same.
    """

    name = "paper"
    flips_in_one_order = True
    fractional_shorts = True

    def __init__(
        self, folder: Path, market: MarketStore, calendar: str, costs: CostModel, now: Callable[[], datetime],
        cash: float = 100_000, leverage: float = 2.0, cash_bps_per_year: float = 0.0,
    ) -> None:  # fmt: skip
        self._market, self._calendar, self._costs, self._now = market, calendar, costs, now
        self._cash, self._leverage, self._cash_bps = cash, leverage, cash_bps_per_year
        self.book = PaperBook(folder / "account.sqlite")
        self._read_at: tuple[datetime, tuple[int, int]] | None = None
        self._read: dict[str, pd.DataFrame] = {}

    def close(self) -> None:
        """Close the account's file."""
        self.book.close()

    def submit(self, order: Order) -> OrderReport:
        """Take an order for a coming open; see `Broker.submit`.

        Raises:
            OrderRejected: its open has passed, the symbol has no bars, or the account cannot afford it.
        """
        self._settle()
        with self.book.transaction():
            known = self.book.find_order(order.client_order_id)
            if known is not None:
                return known.report()
            coming = next_open_session(self._calendar, self._now())
            if order.session < coming or order.session <= self.book.session:
                raise OrderRejected(f"the open of {order.session} has passed")
            self._check_funds(order)
            self.book.add_order(order)
            return WorkingOrder(order, order.quantity, OrderState.ACCEPTED).report()

    def get_by_client_id(self, client_order_id: str) -> OrderReport | None:
        """What became of an order."""
        self._settle()
        found = self.book.find_order(client_order_id)
        return None if found is None else found.report()

    def list_open(self) -> list[OrderReport]:
        """Every order that waits for its open."""
        self._settle()
        return [working.report() for working in self.book.open_orders()]

    def cancel(self, client_order_id: str) -> None:
        """Cancel an order that still waits."""
        self._settle()
        with self.book.transaction():
            found = self.book.find_order(client_order_id)
            if found is not None and not found.state.is_final:
                self.book.update_order(replace(found, state=OrderState.CANCELLED, reason="cancelled as asked"))

    def positions(self) -> list[Position]:
        """What is held, at the last close known."""
        self._settle()
        held = self.book.positions()
        closes = self._closes(list(held))
        return [
            Position(symbol, holding.quantity, holding.average_price, closes.get(symbol))
            for symbol, holding in held.items()
        ]

    def account(self) -> Account:
        """Cash and equity at the last closes known."""
        self._settle()
        held, cash = self.book.positions(), self.book.cash
        closes = self._closes([*held, *(working.order.symbol for working in self.book.open_orders())])
        equity = cash + _worth(held, closes)
        return Account(equity, cash, max(self._leverage * equity - self._exposure(held, closes), 0.0))

    # -- funds ---------------------------------------------------------------------------------------------

    def _check_funds(self, order: Order) -> None:
        held = self.book.positions()
        symbols = [*held, order.symbol, *(working.order.symbol for working in self.book.open_orders())]
        closes = self._closes(symbols)
        if order.symbol not in closes:
            raise OrderRejected(f"{order.symbol} has no bars: nothing is known of its price")
        before, after = self._exposure(held, closes), self._exposure(held, closes, order)
        allowed = self._leverage * (self.book.cash + _worth(held, closes))
        if after > before and after > allowed:
            raise OrderRejected(f"insufficient buying power: {after:,.0f} would be at stake, {allowed:,.0f} is allowed")

    def _exposure(self, held: dict[str, Holding], closes: dict[str, float], order: Order | None = None) -> float:
        """Dollars of all positions, long and short added, with every waiting order counted as filled."""
        shares = {symbol: holding.quantity for symbol, holding in held.items()}
        for working in self.book.open_orders():
            symbol = working.order.symbol
            shares[symbol] = shares.get(symbol, 0.0) + working.order.side.sign * working.working_quantity
        if order is not None:
            shares[order.symbol] = shares.get(order.symbol, 0.0) + order.signed_quantity
        return sum(abs(quantity) * closes.get(symbol, 0.0) for symbol, quantity in shares.items())

    def _closes(self, symbols: list[str]) -> dict[str, float]:
        """The last close of each symbol up to the session that is settled, as traded."""
        settled, closes = pd.Timestamp(self.book.session), {}
        for symbol in dict.fromkeys(symbols):
            bars = self._bars(symbol)
            known = int(bars.index.searchsorted(settled, side="right"))
            if known:
                closes[symbol] = float(bars["close"].iloc[known - 1])
        return closes

    # -- settlement ----------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Do every session that has closed and whose bars are there, all or nothing."""
        now = self._now()
        last = last_closed_session(self._calendar, now)
        read_at = (now, self._market.state())
        if read_at != self._read_at:
            self._read_at, self._read = read_at, {}
        with self.book.transaction():
            self.book.opened(self._cash, last)
            begin = self.book.session + timedelta(days=1)
            sessions = [day.date() for day in sessions_between(self._calendar, begin, last + timedelta(days=1))]
            if not sessions:
                return
            waiting = [working.order.symbol for working in self.book.open_orders()]
            symbols = sorted({*self.book.positions(), *waiting})
            days = {symbol: self._days(symbol, begin, now) for symbol in symbols}
            # What the last session was settled without is not waited for again.
            last_known = {symbol: self._bars(symbol).index.max() for symbol in symbols}
            gone = {symbol for symbol, day in last_known.items() if not day >= pd.Timestamp(self.book.session)}
            for position, session in enumerate(sessions):
                late = [
                    symbol
                    for symbol, known in days.items()
                    if symbol not in gone and max(known, default=self.book.session) < session
                ]
                if late and len(sessions) - position <= _PATIENCE_SESSIONS:
                    return  # ingestion has not come so far
                self._settle_session(session, {s: known[session] for s, known in days.items() if session in known})
                gone.update(late)

    def _days(self, symbol: str, begin: date, now: datetime) -> dict[date, _Day]:
        bars = self._bars(symbol)
        split, factor, dividend = effects_per_bar(bars, self._market.load_actions(symbol, now))
        first = int(bars.index.searchsorted(pd.Timestamp(begin)))
        return {
            bars.index[at].date(): _Day(
                float(bars["open"].iloc[at]), float(bars["close"].iloc[at]),
                float(split[at]), float(factor[at]), float(dividend[at]),
            )
            for at in range(first, len(bars))
        }  # fmt: skip

    def _bars(self, symbol: str) -> pd.DataFrame:
        """Bars as traded and as knowable now: all that are not settled, and at least one before if there is any.

        Read once for each moment and state of the store.
        """
        if symbol not in self._read:
            now, settled = self._now(), self.book.session
            end = last_closed_session(self._calendar, now) + timedelta(days=1)
            for reach in (_RECENT, _HISTORY):
                bars = self._market.load_bars(symbol, settled - reach, end, as_of=now, adjustment="none")
                if len(bars) and bars.index[0] <= pd.Timestamp(settled):
                    break
            self._read[symbol] = bars
        return self._read[symbol]

    def _settle_session(self, session: date, days: dict[str, _Day]) -> None:
        self._accrue(session)
        orders = self.book.open_orders()
        for symbol, day in days.items():
            orders = self._apply_actions(session, symbol, day, orders)
        for symbol in self.book.positions().keys() - days.keys():
            self._settle_if_gone(session, symbol)
        for working in orders:
            if working.order.session <= session:
                self._execute(session, working, days.get(working.order.symbol))
        held = self.book.positions()
        closes = self._closes([symbol for symbol in held if symbol not in days])
        closes |= {symbol: days[symbol].close for symbol in held if symbol in days}
        self.book.settled(session, _worth(held, closes))

    def _accrue(self, session: date) -> None:
        """Interest and loan fees for the calendar days since the session before, on what was held at its close."""
        elapsed = (session - self.book.session).days
        interest = self.book.cash * self._cash_bps * BASIS_POINT * elapsed / BORROW_DAYS_PER_YEAR
        if interest:
            self.book.add_cash(session, "", "interest", interest)
        shorts = {symbol: held for symbol, held in self.book.positions().items() if held.quantity < 0}
        closes = self._closes(list(shorts))
        for symbol, holding in shorts.items():
            value = holding.quantity * closes.get(symbol, holding.average_price)
            fee = float(self._costs.borrow(value, elapsed))
            if fee:
                self.book.add_cash(session, symbol, "borrow", -fee, holding.quantity, value / holding.quantity)

    def _apply_actions(self, session: date, symbol: str, day: _Day, orders: list[WorkingOrder]) -> list[WorkingOrder]:
        """Splits and dividends of a session before its open; returns the orders as they are then."""
        # A factor, known from an adjusted close alone, may be either: counting it in shares keeps the value.
        ratio = day.split / day.factor
        holding = self.book.positions().get(symbol)
        if holding is not None:
            if ratio != 1:
                holding = Holding(holding.quantity * ratio, holding.average_price / ratio)
                self.book.hold(symbol, holding)
            if day.dividend:
                paid = holding.quantity * day.dividend
                self.book.add_cash(session, symbol, "dividend", paid, holding.quantity, day.dividend)
        if ratio == 1:
            return orders
        changed = []
        for working in orders:
            if working.order.symbol == symbol:
                working = replace(working, working_quantity=working.working_quantity * ratio)
                self.book.update_order(working)
            changed.append(working)
        return changed

    def _settle_if_gone(self, session: date, symbol: str) -> None:
        """A position in what has not traded for so long is paid out at the last close, as in the backtest."""
        bars = self._bars(symbol)
        known = bars[bars.index <= pd.Timestamp(session)]
        if known.empty:
            return
        last = known.index[-1].date() + timedelta(days=1)
        if len(sessions_between(self._calendar, last, session + timedelta(days=1))) < MISSING_SESSIONS:
            return
        quantity, price = self.book.positions()[symbol].quantity, float(known["close"].iloc[-1])
        self.book.add_cash(session, symbol, "settlement", quantity * price, quantity, price)
        self.book.hold(symbol, Holding(0.0, 0.0))

    def _execute(self, session: date, working: WorkingOrder, day: _Day | None) -> None:
        order = working.order
        if day is None or order.session < session:
            self._expire(working, f"no bar of {order.symbol} at the open of {order.session}")
            return
        price = float(self._costs.fill_price(day.open, order.signed_quantity))
        if order.limit_price is not None:
            # As a split changed the quantity, so it changes the limit.
            limit = order.limit_price * order.quantity / working.working_quantity
            if order.side.sign * (day.open - limit) > 0:
                self._expire(working, f"the open {day.open:g} is beyond the limit {limit:g}")
                return
            price = min(price, limit) if order.side is Side.BUY else max(price, limit)
        shares = order.side.sign * working.working_quantity
        held = self.book.positions().get(order.symbol, Holding(0.0, 0.0))
        self.book.hold(order.symbol, held.traded(shares, price))
        self.book.add_cash(session, order.symbol, "trade", -shares * price, shares, price)
        commission = float(self._costs.commission(shares * price))
        if commission:
            self.book.add_cash(session, order.symbol, "commission", -commission, shares, price)
        self.book.update_order(
            replace(working, state=OrderState.FILLED, filled_quantity=working.working_quantity, average_price=price)
        )

    def _expire(self, working: WorkingOrder, reason: str) -> None:
        self.book.update_order(replace(working, state=OrderState.EXPIRED, reason=reason))


def _worth(held: dict[str, Holding], closes: dict[str, float]) -> float:
    """Dollars of all positions, shorts negative; one without any close counts at its price paid."""
    return sum(holding.quantity * closes.get(symbol, holding.average_price) for symbol, holding in held.items())
