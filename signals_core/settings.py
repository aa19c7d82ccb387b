"""Settings: YAML layers, then `SA_<SECTION>__<KEY>` from the environment; unknown keys are errors.

The layers, later ones winning: `config/settings.yaml`, `config/universe.yaml`, the file named by
`SIGNALS_CONFIG` (if any), the environment. The project's root is `SIGNALS_HOME`, or the current folder.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from signals_core.errors import SettingsError

ENV_PREFIX = "SA_"
UNIVERSE = "UNIVERSE"

Ticker = Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9.\-]{0,15}$")]
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
    vix: ReferenceSymbol = "^VIX"


class UniverseSettings(_Section):
    """The symbols that are modelled."""

    tickers: tuple[Ticker, ...] = Field(min_length=1)
    membership: Path | None = None
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
    """How much history a row needs before it is used."""

    min_history_sessions: int = Field(60, ge=0)


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

    method: Literal["sigmoid"] = "sigmoid"
    min_rows: int = Field(250, ge=30)


class GateSettings(_Section):
    """What a model must show to be promoted."""

    max_z: float = Field(1.645, ge=0)
    min_dates: int = Field(60, ge=2)


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
    events_max_length: int = Field(10_000, ge=1)


class AutomationSettings(_Section):
    """Whether schedules and sensors are on when Dagster first sees them."""

    default_status: Literal["running", "stopped"] = "running"


class ComputeSettings(_Section):
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
    monitoring: MonitoringSettings = MonitoringSettings()
    automation: AutomationSettings = AutomationSettings()
    compute: ComputeSettings = ComputeSettings()

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


@dataclass(frozen=True)
class LoadedSettings:
    """Settings, the origin of each value by dotted key, and the project's root."""

    settings: Settings
    origins: Mapping[str, str]
    root: Path

    def items(self) -> list[tuple[str, Any, str]]:
        """(dotted key, effective value, origin) for every setting, in order of definition."""
        flat = _flatten(self.settings.model_dump(mode="json"))
        return [(key, value, _origin_of(key, self.origins)) for key, value in flat.items()]


def load_settings(
    root: Path | None = None, config: Path | None = None, environ: Mapping[str, str] | None = None
) -> LoadedSettings:
    """Read every layer and validate the result.

    Raises:
        SettingsError: a file is missing or no mapping, a name is unknown or a value impossible; the text
            names the key and the file or variable it came from.
    """
    environ = os.environ if environ is None else environ
    root = (root or Path(environ.get("SIGNALS_HOME") or Path.cwd())).resolve()
    overlay = config or (Path(environ["SIGNALS_CONFIG"]) if environ.get("SIGNALS_CONFIG") else None)
    files = [root / "config" / "settings.yaml", root / "config" / "universe.yaml"]
    if overlay is not None:
        files.append(overlay if overlay.is_absolute() else root / overlay)

    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for path in files:
        name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        _merge(merged, _read_yaml(path), name, origins)
    _merge_environment(merged, environ, origins)
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None
    return LoadedSettings(settings, origins, root)


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        raise SettingsError(
            f"settings file {path} does not exist: run from the project's root or set SIGNALS_HOME to it"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path} must hold sections with keys, not a {type(content).__name__}")
    return content


# A mapping under one of these keys is one value: a later layer replaces it whole.
_WHOLE_VALUES = {
    "market_data.options",
    "market_data.overrides",
    "market_data.fundamentals.options",
    "market_data.insider_transactions.options",
    "market_data.short_interest.options",
}


def _merge(
    into: dict[str, Any], layer: Mapping[str, Any], origin: str, origins: dict[str, str], prefix: str = ""
) -> None:
    for key, value in layer.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and dotted not in _WHOLE_VALUES:
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value, origin, origins, f"{dotted}.")
        else:
            into[key] = value
            origins[dotted] = origin


def _merge_environment(merged: dict[str, Any], environ: Mapping[str, str], origins: dict[str, str]) -> None:
    variables = {k: v for k, v in environ.items() if k.upper().startswith(ENV_PREFIX)}
    for variable in variables:
        section, _, key = variable[len(ENV_PREFIX) :].lower().partition("__")
        if section not in Settings.model_fields or not key:
            raise SettingsError(
                f"environment variable {variable} names no setting: expected {ENV_PREFIX}<SECTION>__<KEY> "
                f"with a section of {', '.join(Settings.model_fields)}"
            )
    source = EnvSettingsSource(Settings)
    source.env_vars = {k.lower(): v for k, v in variables.items()}
    try:
        layer = source()
    except ValueError as error:
        given = ", ".join(sorted(variables))
        raise SettingsError(
            f"{error} (set: {given}); a list or mapping is written as JSON, such as "
            f"""{ENV_PREFIX}UNIVERSE__TICKERS='["AAPL", "IBM"]'"""
        ) from None
    layer = _with_nulls(layer)
    names = {k[len(ENV_PREFIX) :].lower().replace("__", "."): k for k in variables}
    flat: dict[str, str] = {}
    _merge(merged, layer, "environment", flat)
    for dotted in flat:
        matches = [variable for name, variable in names.items() if dotted.startswith(name)]
        origins[dotted] = f"environment {matches[0]}" if matches else "environment"


def _with_nulls(layer: dict[str, Any]) -> dict[str, Any]:
    """The environment can only say "null"."""
    return {
        key: _with_nulls(value) if isinstance(value, dict) else None if value == "null" else value
        for key, value in layer.items()
    }


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and dotted not in _WHOLE_VALUES:
            flat.update(_flatten(value, f"{dotted}."))
        else:
            flat[dotted] = value
    return flat


def _origin_of(dotted: str, origins: Mapping[str, str]) -> str:
    while dotted:
        if dotted in origins:
            return origins[dotted]
        dotted = dotted.rpartition(".")[0]
    return "built-in default"


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors():
        location = [str(part) for part in problem["loc"]]
        dotted = ".".join(location)
        origin = _origin_of(dotted, origins)
        where = f"{dotted} (from {origin})" if dotted else "settings"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: there is no such setting; {_near_miss(location)}")
        else:
            lines.append(f"{where}: {problem['msg']}, not {problem['input']!r}" if dotted else problem["msg"])
    return "\n".join(lines)


def _near_miss(location: list[str]) -> str:
    import difflib

    model: Any = Settings
    for part in location[:-1]:
        model = model.model_fields[part].annotation
    known = list(model.model_fields)
    close = difflib.get_close_matches(location[-1], known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
