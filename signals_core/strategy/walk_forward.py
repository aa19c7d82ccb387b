"""Accounts that follow predictions made out of sample: of the validation windows, or of the days themselves."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from signals_core.calendar import sessions_between
from signals_core.errors import DataError, MissingPrerequisite
from signals_core.ml.bundle import read_frame
from signals_core.ml.forward_calibration import CALIBRATED_COLUMNS
from signals_core.ml.target import CLASSES
from signals_core.ml.validation import PROBABILITY_COLUMNS
from signals_core.settings import Scope
from signals_core.strategy import rules
from signals_core.strategy.base import signals_frame
from signals_core.strategy.book import within_caps
from signals_core.strategy.covariance import adjusted_closes, covariance_of
from signals_core.strategy.engine import StrategyRun
from signals_core.strategy.history import MarketHistory
from signals_core.strategy.panel import PricePanel
from signals_core.strategy.portfolio import Rules, simulate
from signals_core.strategy.signal_store import STRATEGY_NAME, answered, signals_of
from signals_core.strategy.sizing import ClassMoments

if TYPE_CHECKING:
    from signals_core.ml.registry import Version
    from signals_core.workspace import Workspace

_FEWEST_ROWS, _FEWEST_OF_A_CLASS = 250, 2
"""Of known labels, from which class moments are estimated: a deviation needs two."""


@dataclass(frozen=True, eq=False)
class FollowedSignals:
    """An account that followed predictions, the predictions, and how many trials found the model."""

    run: StrategyRun
    frame: pd.DataFrame
    """As `SessionSignals.frame`, of all sessions."""
    trials: int
    asked: pd.DataFrame
    """(T, N) as from `asked_weights`."""
    binding: pd.Series
    """By symbol, the caps on the whole book that bind at the last session."""


def follow(workspace: "Workspace", frame: pd.DataFrame, trials: int, sessions_after: int = 0) -> FollowedSignals:
    """Trade stored signals at the next opens, on bars as traded, with the costs and caps of the settings.

    What is held without a row is said in `asked_weights`, what caps do in `within_caps`.

    Args:
        frame: rows as of `SessionSignals.frame`, each symbol at most once a session.
        trials: that were made to find what predicted; they deflate the Sharpe ratio.
        sessions_after: the account ends so many sessions after the last row, as far as there are bars.

    Raises:
        MissingPrerequisite: there are no rows, or no bars of their symbols.
        DataError: see `asked_weights`.
    """
    if frame.empty:
        raise MissingPrerequisite("no session has predictions to follow: run `signals predict`, or train first")
    settings = workspace.settings
    first, last = frame["date"].min().date(), frame["date"].max().date()
    after = sessions_between(settings.exchange.calendar, last, last + timedelta(days=10 + 2 * sessions_after))
    end = after[: sessions_after + 1][-1].date() + timedelta(days=1)
    panel = market_history(workspace, sorted(frame["symbol"].unique()), first, end).panel
    asked = asked_weights(frame, panel, settings.ml.prediction_horizon)
    weights, binding = within_caps(workspace, asked)
    rules = replace(
        Rules.from_settings(settings.trading, settings.sizing), min_hold_sessions=settings.strategy.min_hold_days
    )
    said = frame[frame["date"].isin(panel.dates)].sort_values("date", kind="stable")
    in_force = pd.Series(STRATEGY_NAME, panel.dates, name="strategy")
    run = StrategyRun(STRATEGY_NAME, simulate(panel, weights, rules), signals_frame(signals_of(said)), in_force)
    return FollowedSignals(run, frame, trials, asked, binding)


def asked_weights(frame: pd.DataFrame, panel: PricePanel, lapse_sessions: int) -> pd.DataFrame:
    """What stored rows ask for at each close, for `simulate`.

    A session without an answer about a symbol, that is, without a row or with one that was refused, says nothing about
    it: a job that failed or a bar that is late is no reason to sell, and out-of-fold rows end `lapse_sessions` before a
    symbol does, since a row needs a label; selling then would know the future. What was asked for lapses at the close
    that makes it more than `lapse_sessions` sessions without an answer.

    Args:
        frame: rows as of `SessionSignals.frame`; those at dates that the panel does not have are left out.
        panel: T sessions of N symbols.
        lapse_sessions: how long a row is followed after its session.

    Returns:
        (T, N) signed shares of equity: a row's weight if it is a signal, 0 if it is none or where rows have lapsed, NaN
        (the shares stay) where there is no answer.

    Raises:
        DataError: two rows of a symbol at one session, a signal of a symbol without bars, or one without a weight.
    """
    signal = (frame["direction"] != "").to_numpy()
    rows = panel.dates.get_indexer(pd.DatetimeIndex(frame["date"]))
    columns = pd.Index(panel.symbols).get_indexer(pd.Index(frame["symbol"]))
    _refuse(frame, frame.duplicated(["symbol", "date"]).to_numpy(), "two rows of {}")
    _refuse(frame, signal & (columns < 0), "a signal of {}, which has no bars")
    _refuse(frame, signal & ~np.isfinite(frame["weight"].to_numpy(dtype="float64")), "a signal of {} without a weight")
    table = np.full(panel.close.shape, np.nan)
    known = (rows >= 0) & (columns >= 0) & answered(frame).to_numpy()
    table[rows[known], columns[known]] = np.where(signal, frame["weight"], 0.0)[known]
    number = np.arange(len(table))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(table), -1, number), axis=0)
    table[(last >= 0) & (number - last == lapse_sessions + 1)] = 0.0
    return panel.frame(table)


def _refuse(frame: pd.DataFrame, wrong: np.ndarray, problem: str) -> None:
    if wrong.any():
        row = frame.iloc[int(wrong.argmax())]
        raise DataError(f"stored signals: {problem.format(row['symbol'])} at {row['date'].date()}")


def market_history(workspace: "Workspace", symbols: Iterable[str], start: date, end: date) -> MarketHistory:
    """Bars as traded, actions and membership of start <= session < end, as known at the workspace's moment."""
    bars, actions, members = {}, {}, {}
    end = min(end, workspace.last_session + timedelta(days=1))
    for symbol in symbols:
        own = workspace.market.load_bars(symbol, start, end, as_of=workspace.now, adjustment="none")
        if own.empty:
            continue
        bars[symbol] = own[["open", "high", "low", "close", "volume"]]
        actions[symbol] = workspace.market.load_actions(symbol, workspace.now)
        members[symbol] = pd.Series(workspace.membership(symbol, pd.DatetimeIndex(own.index)), own.index)
    if not bars:
        raise MissingPrerequisite(f"the market store has no bars in {start}..{end}: run `signals ingest`")
    table = None
    if workspace.settings.universe.membership is not None:
        table = pd.DataFrame(members).ffill().fillna(False).astype(bool)
    return MarketHistory(bars, actions, table)


def follow_windows(workspace: "Workspace", scope: Scope, version: "Version | None" = None) -> FollowedSignals:
    """The account that followed a model's out-of-fold predictions: each made by a window's model on dates it never saw.

    Calibrated with earlier windows only. Class moments, which size positions, are estimated at each window's start
    from the labels known by then; before there are enough, nothing is held.

    Args:
        version: None: the one in service.

    Raises:
        MissingPrerequisite: no model is in service.
    """
    version = version or workspace.registry.get_active(scope)
    if version is None:
        raise MissingPrerequisite(f"{scope}: no model is in service: train one (`signals train`)")
    rows = read_frame(workspace.models / version.model_path, "out_of_fold").sort_index(level="date")
    frame = decide_windows(workspace, rows, version.version_id)
    # Rows end a horizon before the bars do; what happened to the last positions counts too.
    return follow(workspace, frame, int(version.metrics.get("trials", 1)), workspace.settings.ml.prediction_horizon)


def decide_windows(workspace: "Workspace", rows: pd.DataFrame, version_id: str) -> pd.DataFrame:
    """Out-of-fold rows, index (symbol, date), as rows of `SessionSignals.frame`.

    Uses the columns window, label, label_end, forward_return and the calibrated probabilities; for a volatility target
    also the stored closes up to each day.

    Raises:
        MissingPrerequisite: no window has enough earlier labels.
    """
    dates = rows.index.get_level_values("date")
    everyone = rows.index.unique("symbol").tolist()
    closes = None if workspace.settings.sizing.target_volatility is None else adjusted_closes(workspace, everyone)
    found = []
    for window, of_window in rows.groupby("window", sort=True):
        start = pd.Timestamp(str(window))
        known = rows[(rows["label_end"] < start) & (dates < start)]
        if not _enough(known):
            continue
        moments = ClassMoments.estimate(known["label"].to_numpy(), known["forward_return"].to_numpy())
        usable = of_window.dropna(subset=CALIBRATED_COLUMNS)
        for day, of_day in usable.groupby(level="date"):
            symbols = of_day.index.get_level_values("symbol").tolist()
            probabilities = of_day[CALIBRATED_COLUMNS].to_numpy()
            names = workspace.sectors_at(symbols, day)
            covariance = None if closes is None else covariance_of(closes, symbols, day)
            decided = rules.decide(symbols, probabilities, moments, workspace.settings, names, covariance).reset_index()
            decided[PROBABILITY_COLUMNS] = probabilities
            found.append(decided.assign(date=day, model_version=f"{version_id}, window {window}"))
    if not found:
        raise MissingPrerequisite(
            f"{version_id}: no window has enough earlier labels to size positions with: add history"
        )
    return pd.concat(found, ignore_index=True)


def _enough(known: pd.DataFrame) -> bool:
    """Whether class moments can be estimated from these rows."""
    by_class = known["label"][known["forward_return"].notna()].value_counts().reindex(range(len(CLASSES)), fill_value=0)
    return len(known) >= _FEWEST_ROWS and bool((by_class >= _FEWEST_OF_A_CLASS).all())
