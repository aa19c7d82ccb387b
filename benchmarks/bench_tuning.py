"""Tuning a window against the literal loop: XGBClassifier per trial on DataFrames, 256 bins, full rounds.

Run with `make bench`. Same rows, same purged validation part, same number of trials; windows of several markets
in order of time. What both found is then fitted on the whole training period and scored on the test, so that
speed is not bought with log-loss. A literal trial costs many times one of ours: the loop runs a few trials a
window, and its cost at 100 is that of its mean trial times 100 (the cost of a trial does not depend on how many
there are), stated with the uncertainty of that mean; ours runs all 100.
"""

import platform
import sys
import time
from dataclasses import dataclass
from datetime import date

import numpy as np
import optuna
import pandas as pd
import xgboost as xgb

from benchmarks.measuring import interval
from signals_core.calendar import sessions_between
from signals_core.ml.feature_groups import group_columns
from signals_core.ml.metrics import log_loss_rows
from signals_core.ml.pipeline import MLPipeline
from signals_core.ml.splits import PanelSplitter, Window, split_latest
from signals_core.ml.target import class_shares, make_target
from signals_core.ml.tuning import tune
from signals_core.settings import MLSettings, TuningSettings

SYMBOLS, SEEDS = 10, (1, 2)
WINDOWS = tuple(Window(date(y - 2, 1, 1), date(y, 1, 1), date(y, 7, 1)) for y in (2017, 2018, 2019))
EQUAL, MANY = 6, 100
REQUIRED, AIM = 8.0, 25.0
PERSISTENCE, SIGNAL = 0.9, 0.11
"""Of the planted column, and its weight in the next day's standardised return: an information coefficient of .2."""
NOISE_COLUMNS, MARKET_COLUMNS, WARM_UP = 40, 8, 60


@dataclass(frozen=True)
class Found:
    """CPU seconds of a search, and the log-loss on the test of what it found."""

    seconds: float
    log_loss: float


def market(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A planted column among noise of the symbols and of the market; labels of the returns it moves a little."""
    random = np.random.default_rng(seed)
    days = sessions_between("XNYS", date(2014, 9, 1), date(2019, 7, 15)).rename("date")
    common = random.normal(size=len(days))
    shared = pd.DataFrame(random.normal(size=(len(days), MARKET_COLUMNS)), index=days).ewm(halflife=10).mean()
    features, targets = {}, {}
    for number in range(SYMBOLS):
        shocks = pd.DataFrame(random.normal(size=(len(days), NOISE_COLUMNS + 1)), index=days)
        columns = shocks.ewm(alpha=1 - PERSISTENCE).mean()
        columns /= columns.std()
        moves = 0.5 * common + 0.85 * random.normal(size=len(days)) + SIGNAL * columns[0].shift(1).fillna(0)
        close = pd.Series(100 * np.exp(np.cumsum(0.014 * moves)), index=days)
        frame = pd.concat([columns.add_prefix("own_"), shared.add_prefix("market_")], axis=1)
        features[f"S{number:02d}"] = frame[WARM_UP:].astype("float32")
        bars = pd.DataFrame({"open": close, "close": close})
        targets[f"S{number:02d}"] = make_target(bars, MLSettings())[WARM_UP:]
    return tuple(pd.concat(frames, names=["symbol", "date"]) for frames in (features, targets))


def literal(train: pd.DataFrame, target: pd.DataFrame, seed: int, trials: int) -> tuple[dict, list[float]]:
    """The obvious loop over the specification's ranges: the best parameters, and the CPU seconds of each trial."""
    fit, score = split_latest(target, TuningSettings().validation_fraction)
    labels, seconds = target["label"], []

    def objective(trial: optuna.Trial) -> float:
        began = time.process_time()
        params = {
            "n_estimators": trial.suggest_int("n_estimators", 100, 500),
            "max_depth": trial.suggest_int("max_depth", 3, 10),
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.2),
            "subsample": trial.suggest_float("subsample", 0.6, 1.0),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.6, 1.0),
            "min_child_weight": trial.suggest_int("min_child_weight", 1, 10),
        }
        model = classifier(params, seed).fit(train[fit], labels[fit])
        loss = log_loss_rows(model.predict_proba(train[score]), labels[score].to_numpy()).mean()
        seconds.append(time.process_time() - began)
        return float(loss)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=trials)
    return study.best_params, seconds


def classifier(params: dict, seed: int) -> xgb.XGBClassifier:
    return xgb.XGBClassifier(**params, max_bin=256, tree_method="hist", n_jobs=1, random_state=seed)


def ours(
    features: pd.DataFrame, target: pd.DataFrame, train: np.ndarray, test: np.ndarray, trials: int, seed: int
) -> Found:
    ml, settings = MLSettings(), TuningSettings(trials=trials, seed=seed)
    began = time.process_time()
    tuned = tune(features[train], target[train], ml, settings)
    seconds = time.process_time() - began
    columns = group_columns(features[train], tuned.group)
    pipeline = MLPipeline(ml, seed)
    pipeline.train(features.loc[train, columns], target["label"][train], tuned.params, tuned.rounds)
    losses = log_loss_rows(pipeline.predict(features[test]), target["label"].to_numpy()[test])
    return Found(seconds, float(losses.mean()))


def main() -> int:
    """Print the table; 1 if the required ratio is missed or the log-loss is worse."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, xgboost {xgb.__version__}, optuna "
        f"{optuna.__version__}; one thread, CPU time; {SYMBOLS} symbols × 24 months, "
        f"{NOISE_COLUMNS + MARKET_COLUMNS + 1} columns, {len(SEEDS)} markets × {len(WINDOWS)} windows"
    )
    print(
        f"{'market window':<18} {'literal s':>10} {'ours s':>8} {'ratio':>7} {f'ours {MANY}: s':>12} {'ratio':>7}",
        end="",
    )
    print(f" {'log-loss: prior':>16} {'literal':>8} {'ours':>8} {f'ours {MANY}':>9}", flush=True)
    equal, many, better, better_many, costs = [], [], [], [], []
    for seed in SEEDS:
        features, target = market(seed)
        splitter = PanelSplitter(target)
        for window in WINDOWS:
            rows = splitter.split(window)
            train, test = rows.train, rows.test
            labels = target["label"].to_numpy()
            few, all_trials = (ours(features, target, train, test, trials, seed) for trials in (EQUAL, MANY))
            params, seconds = literal(features[train], target[train], seed, EQUAL)
            model = classifier(params, seed).fit(features[train], labels[train])
            loss = float(log_loss_rows(model.predict_proba(features[test]), labels[test]).mean())
            prior = float(log_loss_rows(class_shares(labels[train]), labels[test]).mean())
            costs += seconds
            equal.append(sum(seconds) / few.seconds)
            many.append(all_trials.seconds)
            better.append(loss - few.log_loss)
            better_many.append(loss - all_trials.log_loss)
            print(
                f"{seed:<6} {window.key:<11} {sum(seconds):>10.1f} {few.seconds:>8.2f} {equal[-1]:>6.1f}× "
                f"{all_trials.seconds:>12.2f} {np.mean(seconds) * MANY / all_trials.seconds:>6.1f}× "
                f"{prior:>16.4f} {loss:>8.4f} {few.log_loss:>8.4f} {all_trials.log_loss:>9.4f}",
                flush=True,
            )
    ratio = float(np.exp(np.mean(np.log(equal))))
    at_many = np.mean(costs) * MANY / np.mean(many)
    errors = [np.std(v, ddof=1) / np.sqrt(len(v)) / np.mean(v) for v in (costs, many)]
    spread = 1.96 * np.hypot(*errors) * at_many
    print(f"{EQUAL} trials each: {ratio:.1f}× (geometric mean; {min(equal):.1f}× to {max(equal):.1f}×)")
    print(f"{MANY} trials: {at_many:.0f}× ± {spread:.0f} (literal: mean of {len(costs)} trials × {MANY})")
    print(f"log-loss of the literal loop less ours, paired: {interval(better)}; {MANY} trials {interval(better_many)}")
    if at_many < AIM:
        print(f"short of the aim of {AIM:.0f}× at {MANY} trials")
    if ratio < REQUIRED or np.mean(better) < 0:
        print(f"missed: required {REQUIRED:.0f}× with a log-loss that is not worse")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
