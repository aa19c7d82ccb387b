"""Every setting, its default and the values it may have; unknown keys are errors."""

import re
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

ENV_PREFIX = "SA_"
UNIVERSE = "UNIVERSE"

Ticker = Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9.\-]{0,15}$")]
Sector = Literal[
    "communication_services",
    "consumer_discretionary",
    "consumer_staples",
    "energy",
    "financials",
    "health_care",
    "industrials",
    "information_technology",
    "materials",
    "real_estate",
    "utilities",
]
"""The sectors of the Global Industry Classification Standard (GICS)."""
ReferenceSymbol = Annotated[str, Field(pattern=r"^\^?[A-Z0-9][A-Z0-9.\-]{0,15}$")]
Scope = str
"""`UNIVERSE`, the model pooled over all tickers, or a ticker with a model of its own."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExchangeSettings(_Section):
    """Which exchange's sessions count, and the time zone of schedules."""

    calendar: str = "XNYS"
    timezone: str = "America/New_York"

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        from zoneinfo import ZoneInfo

        try:
            ZoneInfo(value)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError("is no time zone of the IANA database, such as America/New_York") from error
        return value


class ClockSettings(_Section):
    """A moment to pretend it is; None is the wall clock."""

    as_of: datetime | None = None

    @field_validator("as_of")
    @classmethod
    def _needs_offset(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("needs a UTC offset, such as 2013-03-03T02:00:00-05:00")
        return value


class PathSettings(_Section):
    """Where run-time files live, relative to the project's root."""

    data: Path = Path("data")
    models: Path = Path("models")


class StoreSettings(_Section):
    """Servers by URL; None is the embedded default."""

    market_url: str | None = None
    redis_url: str | None = None
    dagster_url: str | None = None

    @field_validator("market_url")
    @classmethod
    def _sql(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("postgresql+psycopg2://", "sqlite:///")):
            raise ValueError("needs postgresql+psycopg2://user:password@host/database, or null for SQLite")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("needs redis://host:port/number, or null for the embedded one")
        return value


class SourceSettings(_Section):
    """Where one kind of data comes from: a provider's name or `package.module:ClassName`, and its options."""

    provider: str | None = None
    options: dict[str, Any] = {}


class MarketDataSettings(_Section):
    """The sources: of bars, of single symbols' bars from elsewhere, and of facts (None: there is none)."""

    provider: str = "files"
    options: dict[str, Any] = {}
    overrides: dict[ReferenceSymbol, SourceSettings] = {}
    fundamentals: SourceSettings = SourceSettings()
    insider_transactions: SourceSettings = SourceSettings()
    short_interest: SourceSettings = SourceSettings()
    date_only_lag_sessions: int = Field(0, ge=0, le=20)
    accepted: tuple[Annotated[str, Field(pattern=r"^\S+ \d{4}-\d{2}-\d{2}$")], ...] = ()


class ReferenceSettings(_Section):
    """The symbols that stand for the market, the sector and implied volatility."""

    spy: ReferenceSymbol = "SPY"
    sector: ReferenceSymbol = "XLK"
    sectors: dict[Sector, ReferenceSymbol] = {}
    vix: ReferenceSymbol = "^VIX"


class UniverseSettings(_Section):
    """The symbols that are modelled."""

    tickers: tuple[Ticker, ...] = Field(min_length=1)
    membership: Path | None = None
    sectors: Path | None = None
    reference: ReferenceSettings = ReferenceSettings()

    @field_validator("tickers")
    @classmethod
    def _unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        repeated = sorted({t for t in value if value.count(t) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)} named more than once")
        if UNIVERSE in value:
            raise ValueError(f"{UNIVERSE} is the name of the pooled scope, not a ticker")
        return value


class PartitionSettings(_Section):
    """The date dimension of the Dagster partitions."""

    start: date = date(2015, 1, 1)
    end: date | None = None
    date_grain: Literal["day", "month", "year"] = "month"


class FeatureSettings(_Section):
    """How much history a row needs before it is used, a user's own features, and how long a fact is believed."""

    min_history_sessions: int = Field(60, ge=0)
    modules: tuple[str, ...] = ()
    max_age_days: dict[Literal["fundamentals", "short_interest"], Annotated[int, Field(ge=1)]] = {}


class XgbParams(_Section):
    """XGBoost's parameters by its scikit-learn names."""

    n_estimators: int = Field(300, ge=1, le=10_000)
    max_depth: int = Field(6, ge=1, le=20)
    learning_rate: float = Field(0.05, gt=0, le=1)
    subsample: float = Field(0.8, gt=0, le=1)
    colsample_bytree: float = Field(0.8, gt=0, le=1)
    min_child_weight: float = Field(5, ge=0)
    objective: Literal["multi:softprob"] = "multi:softprob"
    num_class: Literal[3] = 3
    eval_metric: Literal["mlogloss"] = "mlogloss"


class MLSettings(_Section):
    """The target, the model and when it is too old."""

    scopes: tuple[Scope, ...] = (UNIVERSE,)
    prediction_horizon: int = Field(5, ge=1, le=60)
    up_threshold: float = Field(0.01, ge=0, lt=1)
    down_threshold: float = Field(-0.01, gt=-1, le=0)
    min_training_samples: int = Field(500, ge=30)
    retrain_interval_days: int = Field(7, ge=1)
    model_staleness_days: int = Field(14, ge=1)
    confidence_threshold: float = Field(0.55, gt=1 / 3, lt=1)
    class_weighting: Literal["balanced", "none"] = "balanced"
    train_months: int = Field(24, ge=1)
    xgb_params: XgbParams = XgbParams()

    @field_validator("scopes")
    @classmethod
    def _unique_scopes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("needs at least one scope, each named once")
        return value


class ValidationSettings(_Section):
    """Walk-forward windows, in calendar months."""

    train_months: int = Field(24, ge=1)
    test_months: int = Field(6, ge=1)
    step_months: Literal[1, 2, 3, 4, 6, 12] = 3
    embargo_sessions: int = Field(0, ge=0)
    cost_bps: float = Field(5, ge=0)

    @model_validator(mode="after")
    def _steps_cover_tests(self) -> "ValidationSettings":
        if self.test_months % self.step_months:
            raise ValueError(
                f"test_months ({self.test_months}) must be a multiple of step_months ({self.step_months}), "
                "so that every date after the first window is tested equally often"
            )
        return self


class TuningSettings(_Section):
    """The search for hyperparameters inside a training period."""

    trials: int = Field(100, ge=0)
    search_space: Literal["regularised", "specification"] = "regularised"
    feature_groups: tuple[Literal["all", "symbol_level"], ...] = ("all", "symbol_level")
    validation_fraction: float = Field(0.25, gt=0, lt=0.9)
    early_stopping_rounds: int = Field(20, ge=1)
    max_rounds: int = Field(300, ge=1)
    pruning: bool = True
    warm_start: bool = False
    seed: int = 7

    @field_validator("feature_groups")
    @classmethod
    def _some_groups(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("needs at least one group, each named once")
        return value


class CalibrationSettings(_Section):
    """How out-of-fold predictions become the calibrator."""

    method: Literal["nested", "sigmoid", "temperature", "dirichlet", "auto"] = "nested"
    min_rows: int = Field(250, ge=30)


class GateSettings(_Section):
    """What a model must show to be promoted."""

    max_z: float = Field(1.645, ge=0)
    min_dates: int = Field(60, ge=2)
    max_loss: float = Field(0.01, ge=0)
    max_calibration_error: float = Field(0.05, gt=0)
    refresh_after_days: int | None = Field(28, ge=1)
    refresh_margin: float = Field(0.001, ge=0)


class RegistrySettings(_Section):
    """How many bundles are kept."""

    keep_versions: int = Field(50, ge=1)


class MonitoringSettings(_Section):
    """Drift and realised performance."""

    window_sessions: int = Field(20, ge=1)
    confirm_sessions: int = Field(5, ge=1)
    psi_minor: float = Field(0.1, gt=0)
    psi_major: float = Field(0.2, gt=0)
    min_rows: int = Field(100, ge=1)
    own_history_factor: float = Field(2.0, ge=1)
    retrain_share: float = Field(0.25, gt=0, le=1)
    accuracy_window: int = Field(100, ge=1)
    accuracy_threshold: float = Field(0.5, gt=0, lt=1)
    signal_slack: float = Field(0.25, ge=0)
    signal_limit: float = Field(8.0, gt=0)
    events_max_length: int = Field(10_000, ge=1)


class RetrainingSettings(_Section):
    """When sensors may ask for a retrain."""

    cooldown_days: int = Field(7, ge=1)
    max_per_month: int = Field(4, ge=0)
    failure_retries: int = Field(2, ge=0)
    failure_wait_hours: float = Field(1, gt=0)


Severity = Literal["info", "warning", "error"]
ChannelName = Literal["log", "slack", "telegram"]
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _safe_address(url: str) -> bool:
    """Encrypted, or on this machine; nothing but host and path."""
    parts = urlsplit(url)
    encrypted = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    return encrypted and bool(parts.hostname) and not (parts.username or parts.query or parts.fragment)


class AlertSettings(_Section):
    """Who is told, of what, and how often at most."""

    channels: tuple[ChannelName, ...] = ("log",)
    min_severity: Severity = "warning"
    max_per_hour: int = Field(10, ge=1)
    give_up_seconds: float = Field(30, gt=0)
    slack_webhook_url: SecretStr | None = None
    telegram_token: SecretStr | None = None
    telegram_chat_id: str | None = None
    telegram_api: str = "https://api.telegram.org"
    dagster_url: str | None = None

    @field_validator("slack_webhook_url")
    @classmethod
    def _webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (
            _safe_address(value.get_secret_value()) and urlsplit(value.get_secret_value()).path.strip("/")
        ):
            raise ValueError("needs the address of an incoming webhook, https://hooks.slack.com/services/...")
        return value

    @field_validator("telegram_token")
    @classmethod
    def _token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"\d+:[A-Za-z0-9_-]{8,}", value.get_secret_value()):
            raise ValueError("needs a bot's token as BotFather gives it: digits, a colon, letters and digits")
        return value

    @field_validator("telegram_chat_id", mode="before")
    @classmethod
    def _chat(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @field_validator("telegram_api")
    @classmethod
    def _api(cls, value: str) -> str:
        if not _safe_address(value):
            raise ValueError("needs https://host, or http:// of this machine")
        return value.rstrip("/")

    @field_validator("dagster_url")
    @classmethod
    def _link(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("needs http://host:port of Dagster's pages, or null")
        return value.rstrip("/") if value else None

    @model_validator(mode="after")
    def _channels_are_complete(self) -> "AlertSettings":
        needed = {"slack": ("slack_webhook_url",), "telegram": ("telegram_token", "telegram_chat_id")}
        lacking = [key for name in self.channels for key in needed.get(name, ()) if getattr(self, key) is None]
        if lacking:
            raise ValueError(
                f"channels need {', '.join(lacking)} too; set it as {ENV_PREFIX}ALERTS__{lacking[0].upper()}"
            )
        return self


class StrategySettings(_Section):
    """Which predictions are signals, and how long a position is held."""

    rule: Literal["confidence", "expected_return"] = "confidence"
    min_hold_days: int = Field(3, ge=1)


class TradingSettings(_Section):
    """What trading costs and cash earns: the same in backtests and on paper."""

    commission_bps: float = Field(1, ge=0, lt=1_000)
    slippage_bps: float = Field(4, ge=0, lt=1_000)
    borrow_bps_per_year: float = Field(50, ge=0)
    cash_bps_per_year: float = Field(0, ge=0)


class SizingSettings(_Section):
    """From a forecast to a weight: the share of Kelly's, and the caps on it."""

    kelly_fraction: float = Field(0.25, gt=0, le=1)
    min_expected_return_bps: float = Field(0, ge=0)
    max_weight: float = Field(0.1, gt=0, le=1)
    max_sector_weight: float = Field(0.3, gt=0)
    max_gross: float = Field(1, gt=0)
    target_volatility: float | None = Field(None, gt=0)


class AutomationSettings(_Section):
    """Whether schedules and sensors are on when Dagster first sees them."""

    default_status: Literal["running", "stopped"] = "running"


class ComputeSettings(_Section):
    """Processes; every numerical library is held to one thread in each."""

    workers: int = Field(2, ge=1, le=256)


class OrderLimits(_Section):
    """What no order may do, whatever the strategy wants."""

    max_order_notional: float = Field(25_000, gt=0)
    max_position_share: float = Field(0.2, gt=0)
    max_gross: float = Field(1.0, gt=0)
    max_orders: int = Field(100, ge=0)
    price_collar: float = Field(0.1, gt=0, lt=1)
    max_price_age_sessions: int = Field(0, ge=0)


class PaperSettings(_Section):
    """The paper account."""

    cash: float = Field(100_000, gt=0)
    leverage: float = Field(2.0, ge=1)


class ExecutionSettings(_Section):
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


class Settings(BaseSettings):
    """Every setting of the project, validated; immutable."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    exchange: ExchangeSettings = ExchangeSettings()
    clock: ClockSettings = ClockSettings()
    paths: PathSettings = PathSettings()
    stores: StoreSettings = StoreSettings()
    market_data: MarketDataSettings = MarketDataSettings()
    universe: UniverseSettings
    partitions: PartitionSettings = PartitionSettings()
    features: FeatureSettings = FeatureSettings()
    ml: MLSettings = MLSettings()
    validation: ValidationSettings = ValidationSettings()
    tuning: TuningSettings = TuningSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    gate: GateSettings = GateSettings()
    registry: RegistrySettings = RegistrySettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    retraining: RetrainingSettings = RetrainingSettings()
    alerts: AlertSettings = AlertSettings()
    strategy: StrategySettings = StrategySettings()
    trading: TradingSettings = TradingSettings()
    sizing: SizingSettings = SizingSettings()
    automation: AutomationSettings = AutomationSettings()
    compute: ComputeSettings = ComputeSettings()
    execution: ExecutionSettings = ExecutionSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `load_settings` merged, and nothing from the environment behind its back."""
        return (init_settings,)

    @model_validator(mode="after")
    def _scopes_are_known(self) -> "Settings":
        unknown = [s for s in self.ml.scopes if s != UNIVERSE and s not in self.universe.tickers]
        if unknown:
            raise ValueError(f"ml.scopes: {', '.join(unknown)} is neither {UNIVERSE} nor one of universe.tickers")
        return self

    def scope_tickers(self, scope: Scope) -> tuple[str, ...]:
        """The tickers whose rows train the model of `scope`."""
        return self.universe.tickers if scope == UNIVERSE else (scope,)
