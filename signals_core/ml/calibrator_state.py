"""The plain JSON state of a calibrator: written, and read with every number checked."""

from typing import Any

import numpy as np

from signals_core.errors import BundleError
from signals_core.ml.target import CLASSES

FORMAT = 1


def write_state(method: str, rows: int, **numbers: np.ndarray) -> dict[str, Any]:
    """Plain JSON values of a fitted calibrator."""
    plain = {name: values.tolist() for name, values in numbers.items()}
    return {"format": FORMAT, "method": method, "classes": list(CLASSES), **plain, "rows": rows}


def read_state(state: dict[str, Any], method: str, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The arrays of a state by name.

    Raises:
        BundleError: the state is of another format, method or order of classes, or an array is absent, of another
            shape or not finite.
    """
    if state.get("format") != FORMAT or state.get("method") != method:
        raise BundleError(
            f"calibrator of format {state.get('format')!r}, method {state.get('method')!r}; "
            f"expected format {FORMAT}, {method}"
        )
    absent = [key for key in ("classes", *shapes, "rows") if key not in state]
    if absent:
        raise BundleError(f"calibrator lacks {', '.join(absent)}")
    if state["classes"] != list(CLASSES):
        raise BundleError(f"calibrator is for the classes {state['classes']}, not {list(CLASSES)}")
    found = {}
    for name, shape in shapes.items():
        try:
            found[name] = np.asarray(state[name], dtype="float64")
        except (TypeError, ValueError):
            raise BundleError(f"calibrator's {name} are no numbers") from None
        if found[name].shape != shape:
            raise BundleError(f"calibrator needs {' x '.join(map(str, shape))} {name}, not {found[name].shape}")
        if not np.isfinite(found[name]).all():
            raise BundleError(f"calibrator's {name} hold numbers that are not finite")
    return found
