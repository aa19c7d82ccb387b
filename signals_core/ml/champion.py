"""The challenger that served: the model that was in service before a window's test start."""

from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from signals_core.errors import BundleError
from signals_core.ml.bundle import load_bundle
from signals_core.ml.registry import Event, serves
from signals_core.ml.splits import Window
from signals_core.settings import Scope


class Predictor(Protocol):
    """A model that can be scored on a window's test rows."""

    @property
    def version_id(self) -> str:
        """Its name."""
        ...

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        """Probabilities (n, 3) of DOWN, FLAT, UP."""
        ...


FindChampion = Callable[[Window], Predictor | None]
"""Gives the model in service before a window's test start; None where there was none."""


def champion_before(journal: Sequence[Event], scope: Scope, day: date, timezone: str) -> str | None:
    """The folder's name of the model that was in service for a scope when `day` began; None if none was.

    What the journal says of a past day never changes.
    """
    moment = datetime.combine(day, time(), ZoneInfo(timezone))
    folders: dict[str, str] = {}
    champion = None
    for event in journal:
        if event.scope != scope or datetime.fromisoformat(event.at) >= moment:
            continue
        if event.action == "registered":
            folders[event.version_id] = event.evidence["model_path"]
        elif serves(event):
            champion = folders[event.version_id]
    return champion


def load_champion(folder: Path, day: date) -> Predictor | None:
    """The verified model of a folder; None if it is damaged.

    A model trained on dates from `day` on, as happens where a clock was set back, is none either: it would be scored
    on rows it knows.
    """
    try:
        model = load_bundle(folder)
    except BundleError:
        return None
    return model if date.fromisoformat(model.manifest["as_of"]) <= day else None
