"""Every setting, its default and the values it may have; unknown keys are errors."""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from signals_core.settings_alerts import AlertSettings
from signals_core.settings_section import ENV_PREFIX, Section
from signals_core.settings_trading import ExecutionSettings, SizingSettings, StrategySettings, TradingSettings

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


class ExchangeSettings(Section):
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


class ClockSettings(Section):
    """A moment to pretend it is; None is the wall clock."""

    as_of: datetime | None = None

    @field_validator("as_of")
    @classmethod
    def _needs_offset(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("needs a UTC offset, such as 2013-03-03T02:00:00-05:00")
        return value


class PathSettings(Section):
    """Where run-time files live, relative to the project's root."""

    data: Path = Path("data")
    models: Path = Path("models")


class StoreSettings(Section):
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


class SourceSettings(Section):
    """Where one kind of data comes from: a provider's name or `package.module:ClassName`, and its options."""

    provider: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class MarketDataSettings(Section):
    """The sources: of bars, of single symbols' bars from elsewhere, and of facts (None: there is none)."""

    provider: str = "files"
    options: dict[str, Any] = Field(default_factory=dict)
    overrides: dict[ReferenceSymbol, SourceSettings] = Field(default_factory=dict)
    fundamentals: SourceSettings = SourceSettings()
    insider_transactions: SourceSettings = SourceSettings()
    short_interest: SourceSettings = SourceSettings()
    date_only_lag_sessions: int = Field(0, ge=0, le=20)
    accepted: tuple[Annotated[str, Field(pattern=r"^\S+ \d{4}-\d{2}-\d{2}$")], ...] = ()


class ReferenceSettings(Section):
    """The symbols that stand for the market, the sector and implied volatility."""

    spy: ReferenceSymbol = "SPY"
    sector: ReferenceSymbol = "XLK"
    sectors: dict[Sector, ReferenceSymbol] = Field(default_factory=dict)
    vix: ReferenceSymbol = "^VIX"


class UniverseSettings(Section):
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


class PartitionSettings(Section):
    """The date dimension of the Dagster partitions."""

    start: date = date(2015, 1, 1)
    end: date | None = None
    date_grain: Literal["day", "month", "year"] = "month"


class FeatureSettings(Section):
    """How much history a row needs before it is used, a user's own features, and how long a fact is believed."""

    min_history_sessions: int = Field(60, ge=0)
    modules: tuple[str, ...] = ()
    max_age_days: dict[Literal["fundamentals", "short_interest"], Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict
    )


class XgbParams(Section):
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


class MLSettings(Section):
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


class ValidationSettings(Section):
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


class TuningSettings(Section):
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


class CalibrationSettings(Section):
    """How out-of-fold predictions become the calibrator."""

    method: Literal["nested", "sigmoid", "temperature", "dirichlet", "auto"] = "nested"
    min_rows: int = Field(250, ge=30)


class GateSettings(Section):
    """What a model must show to be promoted."""

    max_z: float = Field(1.645, ge=0)
    min_dates: int = Field(60, ge=2)
    max_loss: float = Field(0.01, ge=0)
    max_calibration_error: float = Field(0.1, gt=0)
    refresh_after_days: int | None = Field(28, ge=1)
    refresh_margin: float = Field(0.001, ge=0)


class RegistrySettings(Section):
    """How many bundles are kept."""

    keep_versions: int = Field(50, ge=1)


class MonitoringSettings(Section):
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


class RetrainingSettings(Section):
    """When sensors may ask for a retrain."""

    cooldown_days: int = Field(7, ge=1)
    max_per_month: int = Field(4, ge=0)
    failure_retries: int = Field(2, ge=0)
    failure_wait_hours: float = Field(1, gt=0)


class AutomationSettings(Section):
    """Whether schedules and sensors are on when Dagster first sees them."""

    default_status: Literal["running", "stopped"] = "running"


class ComputeSettings(Section):
    """Processes; every numerical library is held to one thread in each."""

    workers: int = Field(2, ge=1, le=256)


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
