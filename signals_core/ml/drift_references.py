"""Prepared references on disk: a model's training rows are read and sorted once, not for every report."""

import hashlib
import io
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from signals_core.files import write_bytes_atomic
from signals_core.ml.bundle import Model, read_frame
from signals_core.ml.drift import Reference, SessionCounts
from signals_core.ml.monitoring import ModelMonitor
from signals_core.provenance import digest, source_digest

_COUNTS = tuple(field.name for field in fields(SessionCounts))
_ARRAYS = ("edges", "valid", "varied", "low", "high")


def prepared_reference(folder: Path, bundle: Path, model: Model, monitor: ModelMonitor) -> Reference:
    """The reference of a model, from `folder` if it was prepared before; a file that was altered is made anew.

    Args:
        bundle: where the model's training rows are.

    Raises:
        BundleError: it has none, or they are damaged.
    """
    names = monitor.monitored(model.pipeline.features)
    code = source_digest("signals_core.ml.drift", "signals_core.ml.drift_references")
    key = digest(model.manifest["inputs"], model.manifest["digest"], names, code)[:8]
    path = folder / f"{model.version_id}-{key}.bin"
    found = _read(path, names)
    if found is None:
        found = Reference.of(read_frame(bundle, "reference"), names)
        write_bytes_atomic(path, _content(found))
    return found


def _content(reference: Reference) -> bytes:
    """A digest, and plain arrays without pickle that it is of."""
    target = io.BytesIO()
    np.savez(
        target,
        first=reference.first,
        symbols=reference.levels.index.to_numpy("U"),
        levels=reference.levels.to_numpy(),
        **{name: getattr(reference, name) for name in _ARRAYS},
        **{f"counts_{name}": getattr(reference.counts, name) for name in _COUNTS},
    )
    arrays = target.getvalue()
    return hashlib.sha256(arrays).digest() + arrays


def _read(path: Path, names: list[str]) -> Reference | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    length = hashlib.sha256().digest_size
    if hashlib.sha256(content[length:]).digest() != content[:length]:
        return None
    with np.load(io.BytesIO(content[length:]), allow_pickle=False) as found:
        arrays = dict(found)
    index = pd.Index(arrays["symbols"].astype(object), name="symbol")
    return Reference(
        names=names,
        first=arrays["first"][()],
        **{name: arrays[name] for name in _ARRAYS},
        counts=SessionCounts(*(arrays[f"counts_{name}"] for name in _COUNTS)),
        levels=pd.DataFrame(arrays["levels"], index, names),
    )
