"""MLSignalStrategy: from the model in service to signals; one prediction for all symbols, refusals with reasons."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from signals_core.calendar import DATE_UNIT, has_opened_since, sessions_between
from signals_core.errors import BundleError, MissingPrerequisite, NoRows
from signals_core.ml.journal import fold, read_journal
from signals_core.ml.prediction_log import PredictionLog
from signals_core.ml.training import newest_age
from signals_core.ml.validation import PROBABILITY_COLUMNS
from signals_core.provenance import digest, modules_behind, source_digest
from signals_core.settings import UNIVERSE, Scope
from signals_core.strategy import rules
from signals_core.strategy.base import OHLCV, BaseStrategy, Signal, to_frame
from signals_core.strategy.covariance import adjusted_closes, covariance_of
from signals_core.strategy.signal_store import STRATEGY_NAME, SessionSignals, SignalStore, signals_of

if TYPE_CHECKING:
    from signals_core.ml.bundle import Model
    from signals_core.workspace import Workspace

__all__ = ["MLSignalStrategy", "SessionSignals", "SignalStore", "is_current", "served_tickers", "session_signals"]

CODE = (
    *modules_behind("signals_core.strategy.ml_strategy", "signals_core.strategy.signal_store"),
    *modules_behind("signals_core.ml.calibration"),
    "signals_core.ml.pipeline",
    "signals_core.features.sectors",
    "signals_core.execution.costs",
)
"""What signals are decided by."""
_NOTHING = {"direction": "", "strength": np.nan, "expected_return": np.nan, "weight": 0.0, "binding": ""}
"""Of a symbol without a signal."""


class MLSignalStrategy(BaseStrategy):
    """XGBoost-based signal generation with 3-class prediction (UP/DOWN/FLAT).

    Features come from the feature store's calculators, the model from the registry: the one in service, asked for anew
    at every call, unless one is given. All symbols are predicted in one call.

    After each call `refusals` says, by symbol, why it has no signal.
    """

    def __init__(
        self,
        workspace: "Workspace",
        model: "Model | None" = None,
        scope: Scope = UNIVERSE,
        min_hold_days: int | None = None,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            model: None: what the registry has in service for `scope` when signals are asked for.
            min_hold_days: None: as in the settings (3).
        """
        settings = workspace.settings
        super().__init__(STRATEGY_NAME, settings.strategy.min_hold_days if min_hold_days is None else min_hold_days)
        self.scope = scope
        self.rule = settings.strategy.rule
        self.confidence_threshold = settings.ml.confidence_threshold
        self._workspace = workspace
        self._model = model
        self.refusals: dict[str, str] = {}

    def generate_signals(self, data: dict[str, list[OHLCV]]) -> list[Signal]:
        """The signals of the latest session in `data`, as `BaseStrategy` has it.

        Bars must be adjusted forward. What else features need (the market, the sector, facts) is read from the
        project's stores as it was knowable at the close of that session.
        """
        self.refusals = {}
        last = {symbol: bars[-1].timestamp for symbol, bars in data.items() if bars}
        if not last:
            return []
        day = max(last.values()).date()
        try:
            model = self._model or self._workspace.registry.load_active(self.scope)
        except (MissingPrerequisite, BundleError) as error:
            self.refusals = dict.fromkeys(data, str(error))
            return []
        rows = {}
        for symbol, bars in data.items():
            reason = self._why_not(symbol, bars, day)
            if reason:
                self.refusals[symbol] = reason
                continue
            rows[symbol] = self._features(symbol, bars, day)
        frame = pd.DataFrame.from_dict(rows, orient="index")
        decided = _decided(self._workspace, self.scope, model, day, frame, list(rows))
        self.refusals |= {row.symbol: row.reason for row in decided.itertuples() if row.direction == ""}
        return signals_of(decided)

    def _why_not(self, symbol: str, bars: Sequence[OHLCV], day: date) -> str:
        if not bars or bars[-1].timestamp.date() != day:
            return f"no bar of {day}"
        least = self._workspace.settings.features.min_history_sessions
        if len(bars) <= least:
            return f"{len(bars)} bars, features.min_history_sessions asks for more than {least}"
        return _why_absent(self._workspace, symbol, day)

    def _features(self, symbol: str, bars: Sequence[OHLCV], day: date) -> pd.Series:
        inputs = replace(self._workspace.provider.inputs_at(symbol, day), bars=to_frame(bars))
        # As the store has them.
        computed = self._workspace.features.compute(inputs)
        return computed.iloc[-1].astype("float32")


def served_tickers(workspace: "Workspace", scope: Scope) -> list[str]:
    """The tickers whose prediction comes from the model of `scope`.

    A ticker with a model of its own in service is served by that one, every other by the pooled one.
    """
    _, active = fold(read_journal(workspace.models))
    own = {ticker for ticker in workspace.settings.ml.scopes if ticker != UNIVERSE and ticker in active}
    if scope != UNIVERSE:
        return [scope]
    return [ticker for ticker in workspace.settings.universe.tickers if ticker not in own]


def session_signals(workspace: "Workspace", scope: Scope, day: date, made_at: datetime | None = None) -> SessionSignals:
    """Bring the signals of a scope at a session up to date; see `rules.decide` for what is one.

    What is predicted anew goes to the prediction log first. Once the next session has opened, what was said has been
    acted on: it stays, whatever model serves by now, and what is said for the first time is no forecast and is not
    logged. (To have it said anew all the same, delete its file.)

    Args:
        workspace: of the project.
        scope: of the model.
        day: the session.
        made_at: the moment of the prediction, with a time zone; default: the workspace's.

    Raises:
        MissingPrerequisite: no model of the scope is in service, or `day` is no closed session.
        BundleError: no sound model is.
    """
    workspace.require_session(day)
    store = _store(workspace)
    if _is_settled(workspace, scope, day):
        return SessionSignals(scope, day, store.load(scope, day), computed=False)
    model, tickers, rows, inputs = _gather(workspace, scope, day)
    if store.inputs(scope, day) == inputs:
        return SessionSignals(scope, day, store.load(scope, day), computed=False)
    frame = _decided(workspace, scope, model, day, rows.droplevel("date"), tickers)
    logged, moment = None, made_at or workspace.now
    if not has_opened_since(workspace.settings.exchange.calendar, day, moment):
        logged = PredictionLog(workspace.data / "predictions").append(scope, day, frame, moment)
    signals = SessionSignals(scope, day, frame, computed=True, logged=logged)
    store.save(signals, inputs)
    return signals


def is_current(workspace: "Workspace", scope: Scope, day: date) -> bool:
    """Whether the stored signals of a scope and day stand: acted on already, or made from the present inputs."""
    if _is_settled(workspace, scope, day):
        return True
    return _store(workspace).inputs(scope, day) == _gather(workspace, scope, day)[3]


def _store(workspace: "Workspace") -> SignalStore:
    return SignalStore(workspace.data / "signals")


def _is_settled(workspace: "Workspace", scope: Scope, day: date) -> bool:
    opened = has_opened_since(workspace.settings.exchange.calendar, day, workspace.now)
    return opened and _store(workspace).inputs(scope, day) is not None


def _gather(workspace: "Workspace", scope: Scope, day: date) -> tuple["Model", list[str], pd.DataFrame, str]:
    """The model in service, the tickers it serves, their rows of the session, and the digest of it all."""
    settings = workspace.settings
    model = workspace.registry.load_active(scope)
    tickers = served_tickers(workspace, scope)
    rows = _rows(workspace, scope, day, tickers)
    rule = (
        settings.ml.confidence_threshold,
        [getattr(settings, name).model_dump(mode="json") for name in ("strategy", "trading", "sizing")],
        _why_unfit(workspace, scope, model, day),
        workspace.sectors_at(tickers, day),
        source_digest(*CODE),
    )
    return model, tickers, rows, digest(rows, tickers, model.version_id, model.manifest["digest"], rule)


def _rows(workspace: "Workspace", scope: Scope, day: date, tickers: Sequence[str]) -> pd.DataFrame:
    """The features of those tickers that have a bar of the session, index (symbol, date)."""
    try:
        features = workspace.panel(scope, day, day + timedelta(days=1)).features
    except NoRows:
        index = pd.MultiIndex.from_arrays([[], pd.DatetimeIndex([])], names=["symbol", "date"])
        return pd.DataFrame(index=index)
    keys = [(ticker, pd.Timestamp(day)) for ticker in tickers]
    return features.loc[[key for key in keys if key in features.index]]


def _decided(
    workspace: "Workspace", scope: Scope, model: "Model", day: date, features: pd.DataFrame, tickers: Sequence[str]
) -> pd.DataFrame:
    """The frame of `SessionSignals`; `features` has the rows (index symbol) of the tickers that can be predicted."""
    frame = pd.DataFrame({"symbol": list(tickers), "date": pd.Timestamp(day)})
    frame["date"] = frame["date"].astype(f"datetime64[{DATE_UNIT}]")
    frame[PROBABILITY_COLUMNS] = np.nan
    frame = frame.assign(**_NOTHING, reason="")
    known = frame["symbol"].isin(features.index).to_numpy()
    if known.any() and not _knows_what_came_after(workspace, model, day):
        symbols = frame.loc[known, "symbol"].tolist()
        probabilities = model.predict_proba(features.loc[symbols])
        frame.loc[known, PROBABILITY_COLUMNS] = probabilities
        decided = rules.decide(
            symbols,
            probabilities,
            rules.moments_of(model.manifest),
            workspace.settings,
            workspace.sectors_at(symbols, day),
            _covariance(workspace, symbols, day),
        )
        frame.loc[known, list(rules.COLUMNS)] = decided[list(rules.COLUMNS)].to_numpy()
    unfit = _why_unfit(workspace, scope, model, day)
    if unfit:
        frame = frame.assign(**_NOTHING, reason=unfit)
    else:
        frame.loc[~known, "reason"] = [
            _why_absent(workspace, ticker, day) or "no features of this session"
            for ticker in frame.loc[~known, "symbol"]
        ]
    numbers = dict.fromkeys((*PROBABILITY_COLUMNS, "strength", "expected_return", "weight"), "float64")
    return frame.astype(numbers).assign(model_version=model.version_id)


def _covariance(workspace: "Workspace", symbols: Sequence[str], day: date) -> np.ndarray | None:
    """Needed for a volatility target only."""
    if workspace.settings.sizing.target_volatility is None:
        return None
    return covariance_of(adjusted_closes(workspace, symbols), symbols, day)


def _why_absent(workspace: "Workspace", ticker: str, day: date) -> str:
    member = workspace.membership(ticker, pd.DatetimeIndex([day])).all()
    return "" if member else "not a member of the universe on this day"


def _knows_what_came_after(workspace: "Workspace", model: "Model", day: date) -> bool:
    """Whether a session after `day` had closed when the model was trained: its labels reach up to that moment."""
    calendar, as_of = workspace.settings.exchange.calendar, date.fromisoformat(model.manifest["as_of"])
    return len(sessions_between(calendar, day + timedelta(days=1), as_of)) > 0


def _why_unfit(workspace: "Workspace", scope: Scope, model: "Model", day: date) -> str:
    """Why the model must not speak about a session, or nothing.

    Age counts from the last training of the scope that was judged: a champion that no challenger has beaten
    since is not stale, one that nobody has challenged for weeks is.
    """
    if _knows_what_came_after(workspace, model, day):
        return f"the model was trained as of {model.manifest['as_of']} and knows what came after this session"
    age, limit = newest_age(workspace, scope, day), workspace.settings.ml.model_staleness_days
    return f"the model was last judged {age} days ago, the limit is {limit}" if age is not None and age > limit else ""
