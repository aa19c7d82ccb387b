"""Walk-forward validation: calendar windows over a (symbol, date) panel, purged by each label's own interval.

A window with test start T trains on [T - train_months, T) and tests on [T, T + test_months):
a row at t trains if its label was known before T (label_end < T, less the embargo), and tests if its label
was known before the test ends (label_end < T + test_months). A window therefore uses nothing from after
its own end, and once that has passed it never changes.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from signals_core.errors import DataError, MissingPrerequisite
from signals_core.ml import metrics
from signals_core.ml.pipeline import MLPipeline, labels_of
from signals_core.ml.target import CLASSES, NO_LABEL, class_shares
from signals_core.ml.tuning import tune
from signals_core.settings import MLSettings, TuningSettings, ValidationSettings

_TRADE_SESSIONS = 2
"""A trade on the signal of t is entered at the open of t+1 and valued at the open of t+2."""
PROBABILITY_COLUMNS = ["p_down", "p_flat", "p_up"]


@dataclass(frozen=True)
class Window:
    """Half-open calendar spans of one window."""

    train_start: date
    test_start: date
    test_end: date

    @property
    def key(self) -> str:
        """The test start, `2004-03-01`: the window's partition key."""
        return self.test_start.isoformat()


@dataclass(frozen=True)
class WindowRows:
    """Which rows of a panel a window uses, and why it leaves the others of its spans out."""

    train: np.ndarray
    test: np.ndarray
    """Boolean (n,)."""
    purged: int
    """Rows in the training span whose label reaches into the test span or the embargo."""
    unlabelled: int
    """Rows in either span whose label is not known before the test span ends."""


@dataclass(frozen=True)
class WindowResult:
    """The figures of one window; `out_of_fold` has one row a test row."""

    start: str
    end: str
    train_start: str
    accuracy: float
    log_loss: float
    prior_log_loss: float
    gain: float
    gain_error: float
    sharpe_ratio: float
    train_rows: int
    test_rows: int
    purged_rows: int
    unlabelled_rows: int
    prior: list[float]
    test_shares: list[float]
    params: dict[str, Any]
    rounds: int
    out_of_fold: pd.DataFrame = field(repr=False, compare=False)
    """Index (symbol, date); columns label, label_end, forward_return, p_down, p_flat, p_up (uncalibrated)."""

    def figures(self) -> dict[str, Any]:
        """Everything but the predictions, as plain JSON values."""
        return {k: v for k, v in asdict(self).items() if k != "out_of_fold"}


class WalkForwardValidator:
    """Tunes, trains and scores a model in every window, each inside its own training period."""

    def __init__(
        self,
        ml: MLSettings | None = None,
        tuning: TuningSettings | None = None,
        validation: ValidationSettings | None = None,
    ) -> None:
        self.ml = ml or MLSettings()
        self.tuning = tuning or TuningSettings()
        self.validation = validation or ValidationSettings()

    def run(
        self,
        features: pd.DataFrame,
        target: pd.DataFrame | pd.Series,
        train_months: int = 24,
        test_months: int = 6,
        step_months: int = 3,
    ) -> list[WindowResult]:
        """Every whole window of the panel, in time order.

        Args:
            features: index (symbol, date), float columns.
            target: same index; the frame of `make_target`, or only labels: then each label is taken to
                be known `prediction_horizon` rows of its symbol later, and there is no Sharpe ratio.

        Raises:
            MissingPrerequisite: the dates hold no whole window.
        """
        frame = target if isinstance(target, pd.DataFrame) else _frame_of(target, self.ml.prediction_horizon)
        if not features.index.equals(frame.index):
            raise DataError("features and target must have the same (symbol, date) index")
        dates = features.index.get_level_values("date")
        first, last = dates.min().date(), (dates.max() + pd.Timedelta(days=1)).date()
        windows = list(calendar_windows(first, last, train_months, test_months, step_months))
        if not windows:
            raise MissingPrerequisite(f"{first}..{last} holds no window of {train_months} + {test_months} months")
        return [self.run_window(window, features, frame) for window in windows]

    def run_window(self, window: Window, features: pd.DataFrame, target: pd.DataFrame) -> WindowResult:
        """Tune and train on the window's training rows, predict its test rows.

        Raises:
            MissingPrerequisite: too few training rows, or none to test.
        """
        rows = window_rows(window, target, self.validation.embargo_sessions)
        if not rows.test.any():
            raise MissingPrerequisite(f"window {window.key}: no labelled row to test on")
        target = window_target(target, rows, self.ml.prediction_horizon)
        train_x, train_y = features[rows.train], target[rows.train]
        test_x, test_y = features[rows.test], target[rows.test]
        pipeline = MLPipeline(self.ml, self.tuning.seed)
        try:
            if len(train_x) < self.ml.min_training_samples:
                raise MissingPrerequisite(
                    f"{len(train_x)} training rows, ml.min_training_samples asks for {self.ml.min_training_samples}"
                )
            tuned = tune(train_x, train_y, self.ml, self.tuning)
            pipeline.train(train_x, train_y["label"], tuned.params, tuned.rounds)
        except MissingPrerequisite as error:
            raise MissingPrerequisite(f"window {window.key}: {error}") from error

        predicted = pipeline.predict(test_x)
        labels = labels_of(test_y["label"])
        loss = metrics.log_loss_rows(predicted, labels)
        prior_loss = metrics.log_loss_rows(pipeline.prior, labels)
        gain = metrics.newey_west_mean(pd.Series(prior_loss - loss, index=test_y.index), self.ml.prediction_horizon)
        probabilities = pd.DataFrame(predicted, index=test_y.index, columns=PROBABILITY_COLUMNS)
        followed = metrics.signal_returns(
            probabilities, test_y["trade_return"], self.ml.prediction_horizon, self.validation.cost_bps
        )
        return WindowResult(
            start=window.test_start.isoformat(),
            end=window.test_end.isoformat(),
            train_start=window.train_start.isoformat(),
            accuracy=metrics.accuracy(predicted, labels),
            log_loss=float(loss.mean()),
            prior_log_loss=float(prior_loss.mean()),
            gain=gain.mean,
            gain_error=gain.standard_error,
            sharpe_ratio=metrics.sharpe_ratio(followed),
            train_rows=int(rows.train.sum()),
            test_rows=int(rows.test.sum()),
            purged_rows=rows.purged,
            unlabelled_rows=rows.unlabelled,
            prior=pipeline.prior.tolist(),
            test_shares=class_shares(labels).tolist(),
            params=json.loads(json.dumps(tuned.params)),
            rounds=tuned.rounds,
            out_of_fold=pd.concat(
                [test_y[["label", "label_end", "forward_return"]], probabilities.astype("float32")], axis=1
            ),
        )


def calendar_windows(first: date, end: date, train_months: int, test_months: int, step_months: int) -> Iterator[Window]:
    """Windows whose training begins at the first month's start or later and whose test ends by `end`."""
    month = pd.Period(first, freq="M")
    while True:
        test_start = month + train_months
        test_end = test_start + test_months
        if test_end.start_time.date() > end:
            return
        yield Window(month.start_time.date(), test_start.start_time.date(), test_end.start_time.date())
        month += step_months


def window_rows(window: Window, target: pd.DataFrame, embargo_sessions: int = 0) -> WindowRows:
    """The rows of a panel that a window trains and tests on; see the module for the exact predicate.

    Args:
        target: index (symbol, date), columns label and label_end.
        embargo_sessions: dates of the panel before the test start that labels must not reach either.
    """
    dates = target.index.get_level_values("date")
    known = target["label_end"]
    labelled = (target["label"].fillna(NO_LABEL) != NO_LABEL) & known.notna()
    train_start, test_start, test_end = (
        pd.Timestamp(day) for day in (window.train_start, window.test_start, window.test_end)
    )
    barrier = test_start
    if embargo_sessions:
        earlier = dates.unique().sort_values()
        earlier = earlier[earlier < test_start]
        if len(earlier):
            barrier = earlier[-min(embargo_sessions, len(earlier))]
    in_train = (dates >= train_start) & (dates < test_start)
    in_test = (dates >= test_start) & (dates < test_end)
    trains = np.asarray(in_train & labelled & (known < barrier))
    tests = np.asarray(in_test & labelled & (known < test_end))
    purged = np.asarray(in_train & labelled & (known >= barrier))
    unlabelled = (in_train & ~labelled) | (in_test & ~tests)
    return WindowRows(trains, tests, int(purged.sum()), int(np.asarray(unlabelled).sum()))


def window_target(target: pd.DataFrame, rows: WindowRows, horizon: int) -> pd.DataFrame:
    """The target as a window may see it: no `trade_return` that needs an open after the test's end.

    A test row's label ends before the test does, `horizon` sessions after the row; its trade ends two
    sessions after it. Only a horizon of one session lets the trade reach further.
    """
    last = target[rows.test].groupby(level="symbol").cumcount(ascending=False) < _TRADE_SESSIONS - horizon
    return target.assign(trade_return=target["trade_return"].mask(last.reindex(target.index, fill_value=False)))


def pool_out_of_fold(results: list[WindowResult]) -> pd.DataFrame:
    """Out-of-fold rows of all windows, each (symbol, date) once: from the latest window that tested it.

    The latest is what a weekly retrain would have served. Adds the columns `window` (its key), `prior_down`,
    `prior_flat`, `prior_up` (its training shares).
    """
    parts = []
    for result in results:
        priors = {f"prior_{n.lower()}": p for n, p in zip(CLASSES, result.prior, strict=True)}
        parts.append(result.out_of_fold.assign(window=result.start, **priors))
    pooled = pd.concat(parts)
    pooled = pooled.sort_values("window", kind="stable")
    return pooled[~pooled.index.duplicated(keep="last")].sort_index()


def _frame_of(labels: pd.Series, horizon: int) -> pd.DataFrame:
    dates = pd.Series(labels.index.get_level_values("date"), index=labels.index)
    return pd.DataFrame(
        {
            "label": labels,
            "label_end": dates.groupby(level="symbol").shift(-horizon),
            "forward_return": np.nan,
            "trade_return": np.nan,
        }
    )
