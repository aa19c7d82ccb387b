"""The execution side of one project: its account, ledger, kill switch, and the plans made from them."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from signals_core.calendar import last_closed_session, next_open_session, sessions_between
from signals_core.errors import OrderConflict
from signals_core.execution.brokers.base import Broker
from signals_core.execution.kill_switch import FILE_NAME, KillSwitch
from signals_core.execution.ledger import OrderLedger
from signals_core.execution.limits import Quote
from signals_core.execution.planning import Book, Intention, plan_orders
from signals_core.execution.plans import Plan, load_plan
from signals_core.execution.submission import Reconciliation, Sessions, Submission, reconcile, submit_plan

if TYPE_CHECKING:
    from signals_core.workspace import Workspace

_QUOTE_HISTORY = timedelta(days=30)


class TradingDesk:
    """Plans, sends and reconciles the orders of a project; close it, or use it as a context manager.

    Args:
        workspace: settings, clock and market store.
        broker: the account; default: as `execution.broker` says.
    """

    def __init__(self, workspace: "Workspace", broker: Broker | None = None) -> None:
        self._workspace = workspace
        self._settings = workspace.settings.execution
        self._calendar = workspace.settings.exchange.calendar
        self.broker = broker or open_broker(workspace)
        self._folder = workspace.data / "orders" / self.broker.name
        self.ledger = OrderLedger(self._folder / "journal.jsonl", self._now)
        self.switch = KillSwitch(workspace.data / FILE_NAME, self._settings.halted)

    def __enter__(self) -> "TradingDesk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the account."""
        self.broker.close()

    def plan(
        self, targets: pd.DataFrame, strategy: str, scope: str, retry: bool = False
    ) -> tuple[Plan, Reconciliation]:
        """What to order for the next open so that the account holds the targets; kept, and nothing is sent.

        Raises:
            OrderConflict: the broker and the journal contradict each other.
            BrokerError: the broker does not answer.
            DataError: the targets are refused, see `check_targets`.
        """
        sessions = self.sessions()
        with self.ledger.exclusive():
            found = reconcile(self.ledger, self.broker, sessions)
            if found.conflicts:
                raise OrderConflict("the broker and the journal contradict each other: " + "; ".join(found.conflicts))
            book = self.book()
        named = {str(symbol) for symbol in targets.get("symbol", pd.Series(dtype=object))}
        quotes = self.quotes({*named, *book.positions, *(report.symbol for report in book.waiting)})
        intention = Intention(strategy, scope, sessions.next_open, retry)
        plan = plan_orders(targets, book, quotes, intention, self._settings)
        plan.save(self.plans_folder)
        return plan, found

    def submit(self, plan_id: str) -> tuple[Plan, Submission]:
        """Send a plan that was made before; see `submit_plan`."""
        plan = load_plan(self.plans_folder, plan_id)
        return plan, submit_plan(plan, self.ledger, self.broker, self.switch, self.sessions)

    def reconcile(self) -> Reconciliation:
        """Ask the broker for every order that is not at its end; sends nothing."""
        with self.ledger.exclusive():
            return reconcile(self.ledger, self.broker, self.sessions())

    @property
    def plans_folder(self) -> Path:
        """Where plans are kept."""
        return self._folder / "plans"

    def sessions(self) -> Sessions:
        """Where the exchange's day stands."""
        now = self._now()
        return Sessions(last_closed_session(self._calendar, now), next_open_session(self._calendar, now))

    def book(self) -> Book:
        """The account as it is, for planning."""
        # Waiting orders first: one that is filled in between then counts twice, which orders too little, not twice.
        waiting = self.broker.list_open()
        return Book(
            self.broker.name,
            self.broker.account(),
            {position.symbol: position for position in self.broker.positions()},
            waiting,
            self.broker.flips_in_one_order,
            self.broker.fractional_shorts,
            self.ledger.records(),
            len(self.ledger.events()),
        )

    def quotes(self, symbols: set[str]) -> dict[str, Quote]:
        """The last close of each symbol as knowable now, as traded; symbols without bars are absent."""
        now, last, found = self._now(), self.sessions().last_closed, {}
        for symbol in sorted(symbols):
            bars = self._workspace.market.load_bars(
                symbol, last - _QUOTE_HISTORY, last + timedelta(days=1), as_of=now, adjustment="none"
            )
            if len(bars):
                session = bars.index[-1].date()
                age = len(sessions_between(self._calendar, session, last))
                found[symbol] = Quote(float(bars["close"].iloc[-1]), session, age)
        return found

    def _now(self) -> datetime:
        return self._workspace.now


def open_broker(workspace: "Workspace") -> Broker:
    """The account that `execution.broker` names.

    Raises:
        SettingsError: Alpaca's address and `execution.live` contradict each other, or its keys are missing.
    """
    settings = workspace.settings.execution
    if settings.broker == "alpaca":
        from signals_core.execution.brokers.alpaca import AlpacaBroker

        return AlpacaBroker(settings.alpaca_url, settings.live)
    from signals_core.execution.brokers.paper import PaperBroker
    from signals_core.execution.costs import CostModel

    trading = workspace.settings.trading
    return PaperBroker(
        workspace.data / "paper",
        workspace.market,
        workspace.settings.exchange.calendar,
        CostModel.from_settings(trading),
        lambda: workspace.now,
        settings.paper.cash,
        settings.paper.leverage,
        trading.cash_bps_per_year,
    )
