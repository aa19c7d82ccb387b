"""What a source of bars looks like, and how settings name one."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from signals_core.errors import SettingsError


class BarProvider(Protocol):
    """A source of daily bars. Twenty lines of your own suffice; see `FilesProvider` and the README."""

    name: str

    def fetch_bars(self, symbol: str) -> pd.DataFrame | None:
        """All daily bars of `symbol`, or None if this source has none.

        Columns: date (the exchange's date), open, high, low, close, volume, as traded; and optionally
        `adjustment`, the factor that turns a raw price into one adjusted for splits and dividends.
        """
        ...


BUILT_IN = {
    "files": "signals_core.market_data.providers.files:FilesProvider",
    "demo": "signals_core.market_data.providers.demo:DemoProvider",
}


def open_provider(name: str, options: Mapping[str, Any], root: Path) -> BarProvider:
    """The provider called `name`, built-in or `package.module:ClassName`, constructed with its options.

    Raises:
        SettingsError: there is no such provider, or it does not take these options.
    """
    target = BUILT_IN.get(name, name)
    module_name, _, class_name = target.partition(":")
    if not class_name:
        raise SettingsError(
            f"market_data.provider: {name!r} is neither of {', '.join(BUILT_IN)} nor package.module:ClassName"
        )
    try:
        factory = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise SettingsError(f"market_data.provider: cannot load {target}: {error}") from error
    try:
        return factory(root=root, **options)
    except TypeError as error:
        raise SettingsError(f"market_data.options do not fit {target}: {error}") from error
