"""The account of the portfolio engine once more, event by event, symbol by symbol: the oracle of its tests.

Written from the rules in `signals_core.strategy.portfolio`, sharing no code with it: dictionaries and plain
numbers, a list of tranches with their own ends, costs spelled out.
"""

import math
from dataclasses import dataclass, field

from signals_core.strategy.panel import PricePanel
from signals_core.strategy.portfolio import Rules


@dataclass
class Tranche:
    symbol: str
    shares: float
    ends: int
    """The session at whose close it is no longer wanted."""


@dataclass
class SlowAccount:
    panel: PricePanel
    rules: Rules
    tranches_of: int | None
    cash: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    wanted: dict[str, float] = field(default_factory=dict)
    ordered: dict[str, float] = field(default_factory=dict)
    opened: dict[str, int] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    tranches: list[Tranche] = field(default_factory=list)
    ruined: bool = False
    history: list[dict] = field(default_factory=list)

    def run(self, weights) -> list[dict]:
        """One dict a session: equity, cash, shares, traded and ordered by symbol."""
        self.cash = self.rules.capital
        for t in range(len(self.panel.dates)):
            traded = self.session(t)
            equity = self.cash + sum(self.shares.get(s, 0.0) * self.last[s] for s in self.last)
            self.ruined = self.ruined or equity <= 0
            self.decide(t, weights[t], equity)
            self.history.append(
                {
                    "equity": equity,
                    "cash": self.cash,
                    "shares": {s: self.shares.get(s, 0.0) for s in self.panel.symbols},
                    "traded": traded,
                    "ordered": {s: self.ordered.get(s, 0.0) for s in self.panel.symbols},
                }
            )
        return self.history

    def session(self, t: int) -> dict[str, float]:
        panel, costs = self.panel, self.rules.costs
        days = (panel.dates[t] - panel.dates[t - 1]).days if t else 0
        fees = 0.0
        for symbol, held in self.shares.items():
            if held < 0:
                fees += -held * self.last[symbol] * costs.borrow_bps_per_year / 10_000 * days / 365
        self.cash = self.cash * (1 + self.rules.cash_bps_per_year / 10_000 * days / 365) - fees
        traded = {}
        for i, symbol in enumerate(panel.symbols):
            ratio = panel.split[t, i]
            for counts in (self.shares, self.wanted, self.ordered):
                counts[symbol] = counts.get(symbol, 0.0) * ratio
            for tranche in self.tranches:
                if tranche.symbol == symbol:
                    tranche.shares *= ratio
            self.cash += self.shares[symbol] * panel.dividend[t, i]
            if panel.settled[t, i]:
                if self.shares[symbol]:
                    self.cash += self.shares[symbol] * self.last[symbol] * (1 + panel.settlement_return[i])
                self.shares[symbol] = self.wanted[symbol] = self.ordered[symbol] = 0.0
                self.tranches = [tranche for tranche in self.tranches if tranche.symbol != symbol]
        for i, symbol in enumerate(panel.symbols):
            before, price = self.shares[symbol], panel.open[t, i]
            change = self.ordered[symbol] - before
            if math.isnan(price) or change == 0:
                traded[symbol] = 0.0
            else:
                paid = price * (1 + costs.slippage_bps / 10_000 if change > 0 else 1 - costs.slippage_bps / 10_000)
                self.cash -= change * paid + abs(change * paid) * costs.commission_bps / 10_000
                self.shares[symbol], traded[symbol] = self.ordered[symbol], change
                if self.shares[symbol] and self.shares[symbol] * before <= 0:
                    self.opened[symbol] = t
            if not math.isnan(panel.close[t, i]):
                self.last[symbol] = panel.close[t, i]
        return traded

    def decide(self, t: int, row, equity: float) -> None:
        if self.ruined:
            self.wanted, self.ordered, self.tranches = {}, {}, []
            return
        self.tranches = [tranche for tranche in self.tranches if tranche.ends > t]
        for i, symbol in enumerate(self.panel.symbols):
            weight = float(row[i])
            price = self.last.get(symbol)
            if not self.panel.member[t, i]:
                self.tranches = [tranche for tranche in self.tranches if tranche.symbol != symbol]
                weight = 0.0
            if self.tranches_of is not None:
                if not math.isnan(weight) and price:
                    shares = weight / self.tranches_of * equity / price
                    self.tranches.append(Tranche(symbol, shares, t + self.tranches_of))
                self.wanted[symbol] = sum(tranche.shares for tranche in self.tranches if tranche.symbol == symbol)
            elif not math.isnan(weight):
                self.wanted[symbol] = weight * equity / price if price else 0.0
            self.limit(symbol, equity, price)
            self.ordered[symbol] = self.order(t, symbol, equity, price)

    def limit(self, symbol: str, equity: float, price: float | None) -> None:
        if self.rules.max_weight is None or not self.wanted.get(symbol):
            return
        most = self.rules.max_weight * equity / price
        share = most / abs(self.wanted[symbol])
        if share < 1:
            self.wanted[symbol] *= share
            for tranche in self.tranches:
                if tranche.symbol == symbol:
                    tranche.shares *= share

    def order(self, t: int, symbol: str, equity: float, price: float | None) -> float:
        held, wanted = self.shares.get(symbol, 0.0), self.wanted.get(symbol, 0.0)
        if self.rules.whole_shares:
            wanted = math.copysign(math.floor(abs(wanted) + 1e-9), wanted)
        if wanted and price and abs(wanted - held) * price < self.rules.min_trade_weight * equity:
            return held
        closes_some = (wanted < held and held > 0) or (wanted > held and held < 0)
        if closes_some and t + 1 < self.opened[symbol] + self.rules.min_hold_sessions:
            return held
        return wanted
