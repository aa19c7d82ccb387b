"""How results are shown in Dagster: numbers that plot over time, tables and pictures."""

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from signals_core.errors import MissingPrerequisite

OWNERS = ["team:quant"]


def materialized(
    context: dg.AssetExecutionContext,
    by_key: Mapping[str, Mapping[str, Any]],
    common: Mapping[str, Any] | None = None,
) -> dg.MaterializeResult:
    """The result of a run of one partition or many, each with its own metadata."""
    if len(by_key) == 1:
        (only,) = by_key.values()
        return dg.MaterializeResult(metadata={**(common or {}), **only})
    for key, values in by_key.items():
        context.add_asset_metadata(dict(values), partition_key=key)
    return dg.MaterializeResult(metadata=dict(common or {}))


def of_each_scope(
    context: dg.AssetExecutionContext,
    keys: Sequence[dg.MultiPartitionKey],
    describe: Callable[[str, date], Mapping[str, Any]],
) -> dg.MaterializeResult:
    """Describe every (scope, date) of a run; one that lacks something does not stop the others.

    Raises:
        MissingPrerequisite: none of them could be made.
    """
    by_key: dict[str, Mapping[str, Any]] = {}
    refusals = []
    for key in keys:
        scope, day = key.keys_by_dimension["scope"], date.fromisoformat(key.keys_by_dimension["date"])
        try:
            by_key[str(key)] = describe(scope, day)
        except MissingPrerequisite as error:
            context.log.warning(str(error))
            refusals.append(error)
            by_key[str(key)] = {"refused": str(error)}
    if len(refusals) == len(keys):
        raise MissingPrerequisite("; ".join(dict.fromkeys(map(str, refusals))))
    return materialized(context, by_key)


def numbers_of(scope: str, values: Mapping[str, float | int]) -> dict[str, float | int]:
    """Numbers under `<scope>/<name>`: Dagster plots one line a key, and scopes must not alternate on it."""
    return {f"{scope}/{name}": value for name, value in values.items()}


def table(rows: Sequence[Mapping[str, Any]]) -> dg.MetadataValue:
    """Rows as a table; numbers are rounded for reading."""
    records = [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in rows]
    if not records:
        return dg.MetadataValue.text("no rows")
    return dg.MetadataValue.table(records=records)


def picture(png: bytes, title: str) -> dg.MetadataValue:
    """A PNG; Dagster shows it behind "Show Markdown"."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def _cell(value: Any) -> str | int | float | bool:
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return round(value, 4)
    return "" if value is None else str(value)
