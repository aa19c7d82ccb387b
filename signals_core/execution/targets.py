"""Target positions as planning takes them: a frame with one row a symbol."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from signals_core.errors import DataError, MissingPrerequisite

_AMOUNTS = ("weight", "shares")
_COLUMNS = ("symbol", *_AMOUNTS, "price", "reason")


def check_targets(frame: pd.DataFrame) -> pd.DataFrame:
    """Targets in the form that planning takes, or why they cannot be.

    Args:
        frame: columns symbol and weight (share of equity, negative is short) or shares (negative is short), of
            which each row has one; optional price (dollars a share that the sizing reckoned with) and reason.
            Other columns are dropped.

    Returns:
        Columns symbol, weight, shares, price (float64, NaN where absent) and reason (text), in the same order.

    Raises:
        DataError: a column is missing, a symbol is empty or repeated, or a number is none.
    """
    if "symbol" not in frame or not any(name in frame for name in _AMOUNTS):
        raise DataError(f"targets need the columns symbol and weight or shares, not {', '.join(map(str, frame))}")
    targets = frame.reindex(columns=list(_COLUMNS)).reset_index(drop=True)
    targets["symbol"] = targets["symbol"].astype("string").str.strip().fillna("").astype(object)
    if (targets["symbol"] == "").any():
        raise DataError("targets: a row has no symbol")
    repeated = sorted(targets.loc[targets["symbol"].duplicated(), "symbol"].unique())
    if repeated:
        raise DataError(f"targets: {', '.join(repeated)} named more than once")
    for name in (*_AMOUNTS, "price"):
        try:
            targets[name] = pd.to_numeric(targets[name]).astype("float64")
        except (ValueError, TypeError) as error:
            raise DataError(f"targets: the column {name} holds something that is no number: {error}") from error
    given = targets[list(_AMOUNTS)].notna().sum(axis=1)
    finite = ~np.isinf(targets[list(_AMOUNTS)].to_numpy()).any(axis=1)
    wrong = targets.loc[(given != 1) | ~finite, "symbol"]
    if len(wrong):
        raise DataError(f"targets: {', '.join(wrong)} must have either a finite weight or a finite number of shares")
    targets["reason"] = targets["reason"].astype("string").fillna("").astype(object)
    return targets


def read_targets(path: Path) -> pd.DataFrame:
    """Targets from a CSV or Parquet file, checked.

    Raises:
        MissingPrerequisite: there is no such file.
        DataError: it cannot be read, or `check_targets` refuses it.
    """
    if not path.is_file():
        raise MissingPrerequisite(f"no file of targets {path}: name one with --targets FILE (columns symbol, weight)")
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return check_targets(frame)


def targets_path(data: Path, scope: str, day: date) -> Path:
    """Where the targets of a scope, decided after the close of a session, are stored."""
    return data / "targets" / f"scope={scope}" / f"{day}.parquet"
