"""Settings of the strategy, of what trading costs, of sizes and of orders."""

from typing import Literal

from pydantic import Field

from signals_core.settings_section import Section


class StrategySettings(Section):
    """Which predictions are signals, and how long a position is held."""

    rule: Literal["confidence", "expected_return"] = "confidence"
    min_hold_days: int = Field(3, ge=1)


class TradingSettings(Section):
    """What trading costs and cash earns: the same in backtests and on paper."""

    commission_bps: float = Field(1, ge=0, lt=1_000)
    slippage_bps: float = Field(4, ge=0, lt=1_000)
    borrow_bps_per_year: float = Field(50, ge=0)
    cash_bps_per_year: float = Field(0, ge=0)
    min_trade_weight: float = Field(0.005, ge=0, lt=1)


class SizingSettings(Section):
    """From a forecast to a weight: the share of Kelly's, and the caps on it."""

    kelly_fraction: float = Field(0.25, gt=0, le=1)
    min_expected_return_bps: float = Field(0, ge=0)
    max_weight: float = Field(0.1, gt=0, le=1)
    max_sector_weight: float = Field(0.3, gt=0)
    max_gross: float = Field(1, gt=0)
    target_volatility: float | None = Field(None, gt=0)


class OrderLimits(Section):
    """What no order may do, whatever the strategy wants."""

    max_order_notional: float = Field(25_000, gt=0)
    max_position_share: float = Field(0.2, gt=0)
    max_gross: float = Field(1.0, gt=0)
    max_orders: int = Field(100, ge=0)
    price_collar: float = Field(0.1, gt=0, lt=1)
    max_price_age_sessions: int = Field(0, ge=0)


class PaperSettings(Section):
    """The paper account."""

    cash: float = Field(100_000, gt=0)
    leverage: float = Field(2.0, ge=1)


class ExecutionSettings(Section):
    """Which account orders go to, their kind and their limits."""

    broker: Literal["paper", "alpaca"] = "paper"
    live: bool = False
    alpaca_url: str = "https://paper-api.alpaca.markets"
    halted: bool = False
    whole_shares: bool = True
    order_type: Literal["market_on_open", "limit_on_open"] = "market_on_open"
    min_order_notional: float = Field(100, ge=0)
    close_missing: bool = False
    limits: OrderLimits = OrderLimits()
    paper: PaperSettings = PaperSettings()
