"""Digests: what an artifact was made from. Equal digests mean the artifact need not be made again."""

import ast
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

_HEX_LENGTH = 32


def digest(*parts: Any) -> str:
    """A short hexadecimal digest of values, settings sections, frames and arrays, in order."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(_as_bytes(part))
        hasher.update(b"\x1f")
    return hasher.hexdigest()[:_HEX_LENGTH]


def prefix_digests(frame: pd.DataFrame, lengths: Sequence[int], *parts: Any) -> list[str]:
    """The digest of the first n rows of `frame` (index and values), for each n of non-decreasing `lengths`."""
    names, dtypes = frame.columns.tolist(), [str(dtype) for dtype in frame.dtypes]
    head = digest(names, dtypes, str(frame.index.dtype), *parts).encode()
    # Floats lie row by row, so that a prefix is one piece; texts and dates each have a hasher.
    floats = [at for at, dtype in enumerate(dtypes) if dtype == "float64"]
    others = [frame.iloc[:, at].to_numpy() for at, dtype in enumerate(dtypes) if dtype != "float64"]
    block = frame if len(floats) == len(names) else frame.iloc[:, floats]
    arrays = [np.ascontiguousarray(block.to_numpy()), frame.index.to_numpy(), *others]
    hashers = [hashlib.sha256() for _ in arrays]
    found, done = [], 0
    for length in lengths:
        for hasher, array in zip(hashers, arrays, strict=True):
            hasher.update(_array_bytes(array[done:length]))
        done = max(done, length)
        whole = b"".join([head, str(done).encode(), *(hasher.digest() for hasher in hashers)])
        found.append(hashlib.sha256(whole).hexdigest()[:_HEX_LENGTH])
    return found


class PrefixDigester:
    """`prefix_digests` that remembers the last frames it was given: an input is the same for several categories."""

    def __init__(self, remembered: int = 16) -> None:
        self._remembered = remembered
        self._known: OrderedDict[tuple[int, tuple[int, ...]], tuple[pd.DataFrame, list[str]]] = OrderedDict()

    def __call__(self, frame: pd.DataFrame, lengths: Sequence[int]) -> list[str]:
        """As `prefix_digests`; the frame must not be changed in place."""
        key = (id(frame), tuple(lengths))
        if key not in self._known:  # the frame is kept too, so its id is not another's
            self._known[key] = (frame, prefix_digests(frame, lengths))
            if len(self._known) > self._remembered:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key][1]


@cache
def source_digest(*modules: str) -> str:
    """A digest of the source text of modules and packages, so that changed code makes artifacts stale."""
    hasher = hashlib.sha256()
    for module in sorted(modules):
        for path in _source_files(module):
            hasher.update(path.name.encode())
            hasher.update(path.read_bytes())
    return hasher.hexdigest()[:_HEX_LENGTH]


@cache
def modules_behind(module: str, *unrelated: str) -> tuple[str, ...]:
    """A module and those of its package that it imports, directly or not, at the top or inside a function; sorted.

    What an artifact is computed by: a module added to that chain is noticed, one outside it changes nothing.

    Args:
        unrelated: modules that keep results and do not make them; they and what only they import are left out.

    Raises:
        ValueError: a module has a relative import, which is not followed.
    """
    package = module.rpartition(".")[0]
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in unrelated:
            continue
        (path,) = _source_files(name)
        found.add(name)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                raise ValueError(f"{name} line {node.lineno}: write the import with the package's full name")
            if isinstance(node, ast.ImportFrom) and node.module:
                # from package import module, or from package.module import name
                candidates = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                candidates = [alias.name for alias in node.names]
            else:
                continue
            inside = [c for c in candidates if c.startswith(f"{package}.") and c.count(".") == module.count(".")]
            waiting += [c for c in inside if find_spec(c) is not None]
    return tuple(sorted(found))


def outermost_package(module: str) -> str:
    """The outermost package that holds a module, and so the modules of its own that it may use; else itself."""
    names = module.split(".")
    for length in range(1, len(names)):
        package = ".".join(names[:length])
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:  # a folder without __init__.py has no source of its own
            return package
    return module


def file_digest(path: Path) -> str:
    """The full SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _source_files(module: str) -> Iterable[Path]:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no source for module {module!r}")
    origin = Path(spec.origin)
    return sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]


def _as_bytes(part: Any) -> bytes:
    if isinstance(part, pd.DataFrame):
        columns = [_as_bytes(part[name].to_numpy()) for name in part.columns]
        index = b"".join(
            _as_bytes(part.index.get_level_values(level).to_numpy()) for level in range(part.index.nlevels)
        )
        return json.dumps(list(map(str, part.columns))).encode() + index + b"".join(columns)
    if isinstance(part, pd.Series):
        return _as_bytes(part.to_frame("value"))
    if isinstance(part, np.ndarray):
        return part.dtype.str.encode() + _array_bytes(part)
    if isinstance(part, BaseModel):
        return part.model_dump_json().encode()
    return json.dumps(part, sort_keys=True, default=str).encode()


def _array_bytes(array: np.ndarray) -> bytes:
    if array.dtype == object or array.dtype.kind in "UST":
        return "".join(f"{value}\x1e" for value in array).encode()
    return np.ascontiguousarray(array).tobytes()
