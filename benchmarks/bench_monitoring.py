"""The monitor's population stability index against a pandas loop and against Evidently; prediction in one batch.

Run with `make bench`. Evidently is no dependency of the project, and its release 0.7.23 needs pandas below 3: where
it cannot be imported the comparison is left out and says so. 55 features of 500 symbols, 504 training sessions,
windows of 20 sessions. Our reference is prepared once a model and kept; what preparing it costs is printed too. Seconds
of the processor: another process on the machine does not count.
"""

import platform
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd

from benchmarks.measuring import Measured, alternate, headings, line, worked
from signals_core.ml.calibration import ConfidenceCalibrator
from signals_core.ml.drift import BINS, Reference
from signals_core.ml.monitoring import ModelMonitor
from signals_core.ml.pipeline import MLPipeline
from signals_core.settings import MLSettings

SYMBOLS, FEATURES, TRAINED, WINDOW, CONFIRM = 500, 55, 504, 20, 5
LOOP_SYMBOLS = 50
"""The loop takes half a minute for all; it is measured on a tenth, each of which costs the same."""
REPEATS = 3
REQUIRED_LOOP, REQUIRED_EVIDENTLY, REQUIRED_BATCH = 500.0, 50.0, 100.0
WIDTH = 52


def rows(sessions: int, seed: int, start: str) -> pd.DataFrame:
    """Correlated symbols, one missing value in a hundred, float32 as features are stored."""
    dates = pd.bdate_range(start, periods=sessions, name="date")
    index = pd.MultiIndex.from_product([[f"S{n:03}" for n in range(SYMBOLS)], dates], names=["symbol", "date"])
    random = np.random.default_rng(seed)
    values = random.standard_normal((len(index), FEATURES), dtype="float32")
    values += np.tile(random.standard_normal((sessions, FEATURES), dtype="float32"), (SYMBOLS, 1))
    values[random.random(values.shape, dtype="float32") < 0.01] = np.nan
    return pd.DataFrame(values, index=index, columns=[f"feature_{n}" for n in range(FEATURES)])


def loop(base: dict[str, tuple[np.ndarray, np.ndarray]], sample: pd.DataFrame) -> np.ndarray:
    """PSI (symbols, features) as pandas users write it, with the reference's bins and shares given."""
    found = []
    for _, of_symbol in sample.groupby(level="symbol"):
        found.append([])
        for name in of_symbol.columns:
            edges, shares = base[name]
            bins = pd.cut(of_symbol[name].dropna(), edges, right=False)
            counts = bins.value_counts(sort=False).to_numpy() + 0.5
            now = counts / counts.sum()
            found[-1].append(float(((now - shares) * np.log(now / shares)).sum()))
    return np.array(found)


def reference_bins(reference: Reference) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Edges and shares by feature, for the loop."""
    return {
        name: (np.r_[-np.inf, reference.edges[:, column].astype("float64"), np.inf], reference.shares[:, column])
        for column, name in enumerate(reference.names)
    }


def against_loop(reference: Reference, recent: pd.DataFrame) -> float:
    """27,500 indices: of every symbol and feature."""
    bins = reference_bins(reference)
    values, group = recent.to_numpy(), np.repeat(np.arange(SYMBOLS), WINDOW)
    tenth = recent.iloc[: LOOP_SYMBOLS * WINDOW]
    ours, theirs = reference.psi_by_group(values, group)[:LOOP_SYMBOLS], loop(bins, tenth)
    assert np.allclose(ours, theirs, rtol=1e-9, atol=1e-12), np.abs(ours - theirs).max()
    found = alternate(
        REPEATS,
        ours=lambda _: worked(lambda: reference.psi_by_group(values, group)),
        loop=lambda _: worked(lambda: loop(bins, tenth)) * SYMBOLS / LOOP_SYMBOLS,
    )
    print(
        line(f"PSI of {SYMBOLS} symbols x {FEATURES}, pandas loop (x{SYMBOLS // LOOP_SYMBOLS})", WIDTH, *found.values())
    )
    return found["loop"].median / found["ours"].median


def against_evidently(base: pd.DataFrame, reference: Reference, recent: pd.DataFrame) -> float | None:
    """55 indices over all symbols together: its report and ours differ in their bins, so no values are compared."""
    try:
        from evidently import Dataset, Report  # type: ignore[import-not-found]
        from evidently.presets import DataDriftPreset  # type: ignore[import-not-found]
    except ImportError as error:
        print(f"evidently: not compared ({error})")
        return None
    datasets = [Dataset.from_pandas(frame.reset_index(drop=True)) for frame in (recent, base)]

    def theirs() -> None:
        Report([DataDriftPreset(method="psi")]).run(*datasets).dict()

    found = alternate(
        REPEATS,
        ours=lambda _: worked(lambda: reference.psi(reference.count(recent).bins.sum(axis=0))),
        evidently=lambda _: worked(theirs),
    )
    print(line(f"PSI of {FEATURES} features, evidently", WIDTH, *found.values()))
    from_nothing = [
        worked(lambda: Reference.of(base).psi(reference.count(recent).bins.sum(axis=0))) for _ in range(REPEATS)
    ]
    print(
        line("  the same with our reference prepared each time", WIDTH, Measured("", from_nothing), found["evidently"])
    )
    return found["evidently"].median / found["ours"].median


def batch_against_rows() -> float:
    """Predict and calibrate one session of 500 symbols at once, or symbol by symbol."""
    random = np.random.default_rng(0)
    columns = [f"feature_{n}" for n in range(FEATURES)]
    frame = pd.DataFrame(random.standard_normal((20_000, FEATURES), dtype="float32"), columns=columns)
    labels = pd.Series(np.digitize(frame["feature_0"] + random.normal(size=len(frame)), [-0.5, 0.5]))
    pipeline = MLPipeline(MLSettings())
    pipeline.train(frame, labels)
    calibrator = ConfidenceCalibrator().fit(pipeline.predict(frame), labels.to_numpy())
    session = frame.iloc[:SYMBOLS]

    def at_once() -> np.ndarray:
        return calibrator.predict_proba(pipeline.predict(session))

    def one_by_one() -> np.ndarray:
        each: list[Callable[[], np.ndarray]] = [
            lambda n=n: calibrator.predict_proba(pipeline.predict(session.iloc[[n]]))  # type: ignore[misc]
            for n in range(SYMBOLS)
        ]
        return np.vstack([predict() for predict in each])

    assert np.allclose(at_once(), one_by_one(), rtol=1e-12)
    found = alternate(5, ours=lambda _: worked(at_once), rows=lambda _: worked(one_by_one))
    print(line(f"predict and calibrate {SYMBOLS} rows, one by one", WIDTH, *found.values()))
    return found["rows"].median / found["ours"].median


def main() -> int:
    """Print the ratios; 1 if one is missed."""
    print(f"{platform.processor() or platform.machine()}, numpy {np.__version__}, pandas {pd.__version__}; one thread")
    base, recent = rows(TRAINED, 0, "2020-01-01"), rows(WINDOW + CONFIRM, 1, "2022-01-03")
    dates = recent.index.get_level_values("date").unique()
    on = recent.index.get_level_values("date")
    earlier, recent = recent[on < dates[WINDOW]], recent[on >= dates[CONFIRM]]
    reference = Reference.of(base)
    print(headings(WIDTH))
    ratios = {
        "loop": (against_loop(reference, recent), REQUIRED_LOOP),
        "evidently": (against_evidently(base, reference, recent), REQUIRED_EVIDENTLY),
        "batch": (batch_against_rows(), REQUIRED_BATCH),
    }
    monitor = ModelMonitor(features={})
    prepared = Measured("", [worked(lambda: Reference.of(base)) for _ in range(REPEATS)])
    print(line("the reference, prepared once a model", WIDTH, prepared))
    whole = Measured("", [worked(lambda: monitor.compare(reference, recent, earlier)) for _ in range(REPEATS)])
    print(line("a day's comparison: two windows, own past, faults", WIDTH, whole))
    missed = [name for name, (ratio, required) in ratios.items() if ratio is not None and ratio < required]
    print(f"{BINS} bins; " + (f"missed: {', '.join(missed)}" if missed else "every required ratio is met"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
