"""Reading the settings: YAML layers, then `SA_<SECTION>__<KEY>` from the environment; and where each value came from.

The layers, later ones winning: `config/settings.yaml`, `config/universe.yaml`, the file named by
`SIGNALS_CONFIG` (if any), the environment. The project's root is `SIGNALS_HOME`, or the current folder.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from signals_core.errors import SettingsError
from signals_core.settings import Settings
from signals_core.settings_section import ENV_PREFIX


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

    def printable_items(self) -> list[tuple[str, Any, str]]:
        """The same, with `***` for the password of a server's URL."""
        return [(key, _without_password(key, value), origin) for key, value, origin in self.items()]


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
        # Not the error's own text: it quotes the line, which may hold a secret.
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it holds characters that no YAML text has"
        raise SettingsError(f"{path} is not valid YAML{where}: {problem}") from None
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
    "universe.reference.sectors",
    "features.max_age_days",
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
            given = "" if _may_hold_secret(location) else f", not {problem['input']!r}"
            lines.append(f"{where}: {problem['msg']}{given}" if dotted else problem["msg"])
    return "\n".join(lines)


def _may_hold_secret(location: list[str]) -> bool:
    """Whether the value at a location, or one inside it, is a secret."""
    model: Any = Settings
    for part in location:
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return False
        model = fields[part].annotation
    inner = getattr(model, "model_fields", {}).values()
    return any("SecretStr" in str(annotation) for annotation in (model, *(field.annotation for field in inner)))


def _near_miss(location: list[str]) -> str:
    import difflib

    model: Any = Settings
    for part in location[:-1]:
        model = model.model_fields[part].annotation
    known = list(model.model_fields)
    close = difflib.get_close_matches(location[-1], known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def _without_password(key: str, value: Any) -> Any:
    if not key.endswith("_url") or not isinstance(value, str):
        return value
    parts = urlsplit(value)
    if parts.password is None:
        return value
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")))
