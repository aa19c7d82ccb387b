"""Plans: what would be ordered and why, kept so that what is submitted is what was shown."""

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from signals_core.errors import DataError, MissingPrerequisite
from signals_core.execution.orders import Order, order_from_json
from signals_core.files import write_bytes_atomic

_ID_LENGTH = 12

Status = Literal["order", "refused", "none"]


@dataclass(frozen=True)
class PlannedRow:
    """One symbol of a plan."""

    symbol: str
    target: str
    """As asked for, such as `weight 0.05` or `shares -20`."""
    desired: float | None
    """Shares that the target means at `price`, rounded."""
    held: float
    waiting: float
    """Shares of open orders, negative for sells."""
    price: float | None
    """Dollars a share that the plan reckons with: the last close."""
    status: Status
    reason: str
    order: Order | None = None

    @property
    def notional(self) -> float:
        """Dollars that the order moves, positive."""
        return 0.0 if self.order is None or self.price is None else self.order.quantity * self.price

    def as_record(self) -> dict[str, Any]:
        """A flat record for tables and JSON."""
        order = self.order
        return {
            "symbol": self.symbol,
            "target": self.target,
            "desired": self.desired,
            "held": self.held,
            "waiting": self.waiting,
            "side": str(order.side) if order else "",
            "quantity": order.quantity if order else 0.0,
            "price": self.price,
            "notional": self.notional,
            "status": self.status,
            "reason": self.reason,
            "client_order_id": order.client_order_id if order else "",
        }


@dataclass(frozen=True)
class Plan:
    """Every row of a plan; its orders are for the open of one session at one account."""

    broker: str
    strategy: str
    scope: str
    session: date
    equity: float
    """Dollars, when the plan was made."""
    journal_length: int
    """Events of the ledger that the plan took into account."""
    rows: tuple[PlannedRow, ...]

    @property
    def orders(self) -> list[Order]:
        """In the order in which they are sent."""
        return [row.order for row in self.rows if row.order is not None]

    @property
    def plan_id(self) -> str:
        """Names the content: another content has another name."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()[:_ID_LENGTH]

    def _content(self) -> dict[str, Any]:
        rows = [
            {
                **{k: v for k, v in vars(row).items() if k != "order"},
                "order": row.order.as_json() if row.order else None,
            }
            for row in self.rows
        ]
        return {**vars(self), "session": self.session.isoformat(), "rows": rows}

    def save(self, folder: Path) -> Path:
        """Write the plan as `<folder>/<plan_id>.json`."""
        path = folder / f"{self.plan_id}.json"
        write_bytes_atomic(path, json.dumps(self._content(), indent=1, sort_keys=True).encode())
        return path


def load_plan(folder: Path, plan_id: str) -> Plan:
    """A plan that was saved.

    Raises:
        MissingPrerequisite: there is none of this id.
        DataError: its file was changed since.
    """
    path = folder / f"{plan_id}.json"
    if not plan_id.isalnum() or not path.exists():
        raise MissingPrerequisite(f"no plan {plan_id}: make one with `signals orders plan`")
    try:
        content = json.loads(path.read_bytes())
        rows = tuple(
            PlannedRow(**{**row, "order": order_from_json(row["order"]) if row["order"] else None})
            for row in content["rows"]
        )
        plan = Plan(**{**content, "session": date.fromisoformat(content["session"]), "rows": rows})
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}): plan again") from error
    if plan.plan_id != plan_id:
        raise DataError(f"{path} was changed since it was made: plan again")
    return plan
