"""What it helps a search to try the best trials of an earlier window first (`tuning.warm_start`).

Run with `make bench`. On invented markets with a planted drift, windows in order of time, each started from the
window before it, against the same number of trials and more started from nothing. What each finds is fitted on the
whole training period; its gain over the class prior in the test is taken in expectation under the market's truth, so
that the luck of the labels is in none of the differences. CPU time, one thread.
"""

import sys
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.measuring import interval, invented_panel
from signals_core.ml.pipeline import MLPipeline
from signals_core.ml.splits import PanelSplitter, Window
from signals_core.ml.tuning import Tuned, tune
from signals_core.settings import MLSettings, TuningSettings
from signals_core.synthetic import Market, expected_gain_rows
from signals_core.workspace import Panel

SYMBOLS, SEEDS, WINDOWS = 20, (1, 2, 3, 4), 5
TRAIN_MONTHS, TEST_MONTHS = 24, 6
COEFFICIENT = 0.2
WARM, COLD = (3, 6, 12), (3, 6, 12, 25, 50)
"""Trials a window."""
REFERENCE = 50


@dataclass(frozen=True)
class Searched:
    """What the windows of one market gained in nats, as a share of what there is, and their CPU seconds."""

    gains: list[float]
    seconds: float


def walk(market: Market, panel: Panel, windows: list[Window], trials: int, warm: bool, seed: int) -> Searched:
    """Tune every window, from the one before it if `warm`, and score what it found."""
    ml = MLSettings()
    settings = TuningSettings(trials=trials, feature_groups=("symbol_level",), seed=seed)
    truth, splitter = market.truth.probabilities(ml), PanelSplitter(panel.target)
    gains, seconds, before = [], 0.0, None
    for window in windows:
        rows = splitter.split(window)
        train, test = panel.features[rows.train], panel.features[rows.test]
        target = panel.target[rows.train]
        began = time.process_time()
        tuned: Tuned = tune(train, target, ml, settings, warm=before.suggested if warm and before else None)
        seconds += time.process_time() - began
        pipeline = MLPipeline(ml, seed)
        pipeline.train(train, target["label"], tuned.params, tuned.rounds)
        bayes = truth.loc[test.index].to_numpy()
        prior = np.broadcast_to(pipeline.prior, bayes.shape)
        expected = expected_gain_rows(bayes, pipeline.predict(test), prior).mean()
        gains.append(float(expected / expected_gain_rows(bayes, bayes, prior).mean()))
        before = tuned
    return Searched(gains, seconds)


def main() -> int:
    """Print the table. Nothing is required of it: the setting is off by default."""
    print(
        f"{len(SEEDS)} markets × {WINDOWS} windows, {SYMBOLS} symbols, IC {COEFFICIENT}, symbol-level columns; share "
        f"of the Bayes gain recovered in expectation; differences from {REFERENCE} trials from nothing, by window"
    )
    found: dict[tuple[bool, int], list[Searched]] = {
        (warm, n): [] for warm, ns in ((False, COLD), (True, WARM)) for n in ns
    }
    for seed in SEEDS:
        market, panel = invented_panel("planted_drift", SYMBOLS, seed, WINDOWS, COEFFICIENT)
        first = panel.features.index.get_level_values("date").min().to_period("M").to_timestamp()
        starts = [first + pd.DateOffset(months=TRAIN_MONTHS + TEST_MONTHS * n) for n in range(WINDOWS)]
        windows = [
            Window(
                (start - pd.DateOffset(months=TRAIN_MONTHS)).date(),
                start.date(),
                (start + pd.DateOffset(months=TEST_MONTHS)).date(),
            )
            for start in starts
        ]
        for (warm, trials), runs in found.items():
            runs.append(walk(market, panel, windows, trials, warm, seed))
    # The first window of a market has nothing to start from: it is in no difference.
    later = {key: [gain for run in runs for gain in run.gains[1:]] for key, runs in found.items()}
    print(f"{'':<28} {'recovered':>9} {'CPU s':>7}  less {REFERENCE} trials from nothing")
    for (warm, trials), gains in later.items():
        name = f"{trials} trials, {'from the window before' if warm else 'from nothing'}"
        seconds = sum(run.seconds for run in found[warm, trials])
        difference = [one - other for one, other in zip(gains, later[False, REFERENCE], strict=True)]
        print(f"{name:<34} {np.mean(gains):>6.3f} {seconds:>7.1f}  {interval(difference)}", flush=True)
    for trials in WARM:
        difference = [one - other for one, other in zip(later[True, trials], later[False, trials], strict=True)]
        print(f"at {trials} trials each, warm less cold: {interval(difference)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
