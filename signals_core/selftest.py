"""Can this installation be trusted? The whole pipeline on invented markets whose truth is known.

On a random walk it must find nothing, on a market with a planted drift it must find most of what there is, and
nothing may depend on what could not be known. Nothing of the project's data or settings is touched.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from signals_core.calendar import session_closes
from signals_core.feature_store import FeatureStore
from signals_core.features.leakage import cut_inputs, find_leaks
from signals_core.market_data.schemas import validate_bars
from signals_core.ml.audit import audit_calibration, audit_split, audit_window
from signals_core.ml.forward_calibration import calibrate_forward
from signals_core.ml.splits import calendar_windows, split_latest
from signals_core.ml.target import NO_LABEL
from signals_core.ml.validation import WalkForwardValidator, WindowResult, pool_out_of_fold
from signals_core.progress import task
from signals_core.settings import MLSettings, TuningSettings
from signals_core.synthetic import Market, MarketModel, make_market
from signals_core.synthetic.judgement import CONFIDENT, TEST_MONTHS, TRAIN_MONTHS, Judgement, judge

if TYPE_CHECKING:
    from signals_core.workspace import Panel

NULL_MAX_Z = 2.0
NULL_MIN_CALIBRATED_GAIN = -0.01
NULL_MAX_CONFIDENT_SHARE = 0.001
NULL_MAX_SHARPE_ERRORS = 3.0
"""|Sharpe| of a strategy without skill stays below three standard errors, 3 / sqrt(years)."""
PLANTED_COEFFICIENT, PLANTED_MIN_SHARE = 0.3, 0.4
"""Of the Bayes gain, for one seed; over many the mean must be .6 (tests/test_null_and_planted.py)."""
MAX_LUCK = 3.0
"""Standard errors between the gain on the labels as they fell and its expectation under the truth."""
MAX_CLASSWISE_ECE = 0.04
"""At about 500 dates, where a perfect model shows .014 on average and .021 in one case of twenty."""

_FIRST_TRAINING, _HISTORY = pd.Timestamp("2016-01-01"), pd.DateOffset(months=13)
"""Bars begin 13 months before training does, so that no feature is in its warm-up."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, with the figure and the limit it must keep."""

    name: str
    passed: bool
    figure: float
    threshold: float
    rule: Literal["at most", "at least"]
    detail: str = ""
    """What was found wrong, or how the figure came about."""


def selftest(seed: int = 1, symbols: int = 50, trials: int = 8, workers: int = 2) -> list[Finding]:
    """Run every check; a few minutes on two cores.

    Args:
        seed: of the markets. Thresholds hold for nearly every seed, not for all: the null ones are two to
            three standard errors wide.
        symbols: of each market.
        trials: Optuna trials a window.
        workers: processes; 1 runs everything in this one.
    """
    parts: list[tuple[Callable[..., list[Finding]], tuple[int, ...]]] = [
        (check_null, (seed, symbols, trials)),
        (check_planted, (seed, symbols, trials)),
        (check_integrity, (seed,)),
    ]
    with task("self-test", len(parts)) as done:
        found = []
        for findings, (part, _) in zip(_run(parts, workers), parts, strict=True):
            found += findings
            done(part.__name__)
    return found


def _run(parts: list[tuple[Callable[..., list[Finding]], tuple[int, ...]]], workers: int) -> Iterator[list[Finding]]:
    if workers <= 1:
        yield from (part(*arguments) for part, arguments in parts)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Fork would copy the locks of Arrow's threads in an unknown state.
    with ProcessPoolExecutor(min(workers, len(parts)), multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(part, *arguments) for part, arguments in parts]
        yield from (future.result() for future in futures)


def check_null(seed: int, symbols: int, trials: int) -> list[Finding]:
    """On a random walk the pipeline claims no skill, no confidence and no profit."""
    found = judge(*_market("random_walk", symbols, seed, tests=5), trials=trials)
    return [
        _at_most("random walk: log-loss gain in standard errors", found.gain.z, NULL_MAX_Z, _dates(found)),
        _at_least("random walk: mean calibrated gain (nats)", found.gain.mean, NULL_MIN_CALIBRATED_GAIN),
        _at_most(f"random walk: share of rows above {CONFIDENT}", found.confident_share, NULL_MAX_CONFIDENT_SHARE),
        _at_most(
            "random walk: |Sharpe ratio|",
            abs(found.sharpe_ratio),
            NULL_MAX_SHARPE_ERRORS / np.sqrt(found.years),
            f"{found.years:.1f} years",
        ),
        _at_most("random walk: classwise calibration error", found.classwise_ece, MAX_CLASSWISE_ECE),
    ]


def check_planted(seed: int, symbols: int, trials: int) -> list[Finding]:
    """A planted drift is found, and the labels fall as the truth says."""
    found = judge(*_market("planted_drift", symbols, seed, tests=3), trials=trials)
    shares = f"{found.raw_share:.2f} before calibration; {found.realised_share:.2f} on the labels as they fell"
    return [
        _at_least(
            f"planted drift, IC {PLANTED_COEFFICIENT}: recovered share of the Bayes gain",
            found.share,
            PLANTED_MIN_SHARE,
            shares,
        ),
        _at_most(
            "planted drift: realised gain against the expected one, in standard errors",
            abs(found.luck.z),
            MAX_LUCK,
            f"{found.dates} dates, {found.luck.mean:+.4f} ± {found.luck.standard_error:.4f} nats",
        ),
    ]


def check_integrity(seed: int) -> list[Finding]:
    """Bars, filings and labels are as known; nothing depends on what came later; and the checks can see."""
    market = make_market(2, "2014-12-01", "2017-10-01", MarketModel("planted_drift"), seed, with_facts=True)
    ml, tuning = MLSettings(min_training_samples=100), TuningSettings(trials=3, max_rounds=15)
    whole = market.panel(ml, "complete", min_history_sessions=0)
    panel = _from(whole, _FIRST_TRAINING)
    unlike, noticed = _leaks(market)
    windows = list(calendar_windows(_FIRST_TRAINING.date(), pd.Timestamp("2017-10-01").date(), 12, 3, 3))
    validator = WalkForwardValidator(ml, tuning)
    results = [validator.run_window(window, panel.features, panel.target) for window in windows]
    pooled = pool_out_of_fold(results)
    window = windows[0]
    repeated = validator.run_window(window, panel.features, panel.target)
    rows = _fitted_rows(panel.target, window.test_start)
    return [
        _none("bars pass their schema", _bad_bars(market)),
        _none("labels are the forward returns beyond the thresholds", _bad_labels(market, whole.target, ml)),
        _none("filings, restatements included, as known at each close", _bad_filings(market, whole.features)),
        _none("no feature changes when its future is cut off", unlike),
        _at_least("… and a value of the day after is noticed", noticed, 1),
        _none(
            "no model or prediction depends on the test's outcome",
            audit_window(validator, window, panel.features, panel.target),
        ),
        _none("tuning scores on later dates than it fits", audit_split(rows, *split_latest(rows, 0.25))),
        _none(
            "calibration uses what was known before each window",
            audit_calibration(calibrate_forward, pooled, 100, ml.prediction_horizon),
        ),
        _none("the same seed gives the same predictions", _differences(results[0], repeated)),
    ]


def _market(
    kind: Literal["random_walk", "planted_drift"], symbols: int, seed: int, tests: int
) -> tuple[Market, "Panel"]:
    """A market with a training period and `tests` test periods, and its symbol-level panel."""
    # A few sessions more: the last test must have ended.
    end = _FIRST_TRAINING + pd.DateOffset(months=TRAIN_MONTHS + tests * TEST_MONTHS, days=7)
    model = MarketModel(kind, information_coefficient=PLANTED_COEFFICIENT)
    market = make_market(symbols, (_FIRST_TRAINING - _HISTORY).date(), end.date(), model, seed)
    return market, _from(market.panel(), _FIRST_TRAINING)


def _from(panel: "Panel", first: pd.Timestamp) -> "Panel":
    from signals_core.workspace import Panel

    kept = panel.features.index.get_level_values("date") >= first
    return Panel(panel.features[kept], panel.target[kept])


def _fitted_rows(target: pd.DataFrame, until: date) -> pd.DataFrame:
    return target[(target["label_end"] < pd.Timestamp(until)).to_numpy()]


def _bad_bars(market: Market) -> list[str]:
    for symbol, bars in market.bars.items():
        validate_bars(bars, symbol)  # raises by name, row and reason
    return []


def _bad_labels(market: Market, target: pd.DataFrame, ml: MLSettings) -> list[str]:
    found = []
    for symbol, bars in market.bars.items():
        close, labels = bars["close"].to_numpy(), target.loc[symbol, "label"].to_numpy()
        for position in range(0, len(close) - ml.prediction_horizon, 7):
            change = close[position + ml.prediction_horizon] / close[position] - 1
            wanted = 2 if change > ml.up_threshold else 0 if change < ml.down_threshold else 1
            if labels[position] != wanted:
                found.append(f"{symbol} on {bars.index[position].date()}")
        if (labels[-ml.prediction_horizon :] != NO_LABEL).any():
            found.append(f"{symbol} has a label before it can be known")
    return found


def _bad_filings(market: Market, features: pd.DataFrame) -> list[str]:
    """book_to_price computed from the truth of the filings, against the feature."""
    found = []
    for symbol, facts in market.facts.items():
        bars, stored = market.bars[symbol], features.loc[symbol, "book_to_price"]
        closes = session_closes(market.calendar, pd.DatetimeIndex(bars.index))
        for position in range(0, len(bars), 11):
            latest = facts.filings.known(closes[position]).iloc[-1]
            value = latest["shares_outstanding"] * bars["close"].iloc[position]
            if not np.isclose(stored.iloc[position], latest["total_equity"] / value, rtol=1e-4):
                found.append(f"{symbol} on {bars.index[position].date()}")
    return found


def _leaks(market: Market) -> tuple[list[str], int]:
    """Features of one symbol that change when their future is cut off; and whether a planted one is among them."""
    symbol, planted = market.symbols[0], "roc_5"
    store, inputs = FeatureStore(Path(), market.calendar), market.inputs(market.symbols[0])
    values = store.compute(inputs)
    days = values.index[[320, 455, 600]]
    values.loc[days[0], planted] = values[planted].shift(-1)[days[0]]
    leaks = find_leaks(symbol, values, lambda cut: store.compute(cut_inputs(inputs, cut, market.calendar)), days)
    noticed = [leak for leak in leaks if (leak.feature, leak.date) == (planted, days[0])]
    return sorted({leak.feature for leak in leaks if leak not in noticed}), len(noticed)


def _differences(one: WindowResult, two: WindowResult) -> list[str]:
    same = one.figures() == two.figures() and one.out_of_fold.equals(two.out_of_fold)
    return [] if same else [f"window {one.start} differs when computed again"]


def _dates(found: Judgement) -> str:
    return f"{found.dates} dates, mean {found.gain.mean:+.4f} ± {found.gain.standard_error:.4f} nats"


def _at_most(name: str, figure: float, limit: float, detail: str = "") -> Finding:
    return Finding(name, bool(figure <= limit), float(figure), float(limit), "at most", detail)


def _at_least(name: str, figure: float, limit: float, detail: str = "") -> Finding:
    return Finding(name, bool(figure >= limit), float(figure), float(limit), "at least", detail)


def _none(name: str, problems: list[str]) -> Finding:
    return _at_most(name, len(problems), 0, "; ".join(problems[:3]))
