"""What to hold after the next open: the plan of the account that has followed every stored signal up to a session."""

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import pandas as pd

from signals_core.errors import MissingPrerequisite
from signals_core.settings import UNIVERSE, Scope
from signals_core.strategy.covariance import adjusted_closes, covariance_of
from signals_core.strategy.signal_store import SignalStore, answered
from signals_core.strategy.sizing import SizingRules, size_positions
from signals_core.strategy.walk_forward import FollowedSignals, asked_weights, follow

if TYPE_CHECKING:
    from signals_core.workspace import Workspace


_STAYS = "what the last one asked for stays"


def targets_of_session(workspace: "Workspace", day: date, scope: Scope | None = None) -> pd.DataFrame:
    """Targets of the close of `day`: columns symbol, weight (signed share of equity) and reason.

    Signals of all scopes are followed in one simulated account by the backtest's own engine, so that minimum hold,
    caps and costs are those of the backtest, and what it would order now is what is asked for. The caps of `sizing`
    hold for the scopes together.

    Args:
        scope: None: the targets of all scopes. A scope: of these, the symbols whose latest prediction is its own.

    Raises:
        MissingPrerequisite: a scope that has signals, or the one asked for, has none of this session.
    """
    frame = _capped_together(workspace, _one_row_a_symbol(_stored(workspace, day, scope)))
    followed = follow(workspace, frame, trials=1)
    backtest = followed.run.backtest
    value = backtest.ordered[-1] * backtest.panel.mark[-1]
    targets = pd.DataFrame(
        {"weight": value / backtest.equity_values[-1]}, pd.Index(backtest.panel.symbols, name="symbol")
    )
    targets = targets.fillna(0.0).assign(reason=_reasons(followed, day, workspace.settings.ml.prediction_horizon))
    if scope is not None:
        owner = frame.drop_duplicates("symbol", keep="last").set_index("symbol")["scope"]
        targets = targets[owner.reindex(targets.index) == scope]
    return targets.reset_index()


def _stored(workspace: "Workspace", day: date, wanted: Scope | None) -> pd.DataFrame:
    """The rows of every scope up to a day, with a column scope."""
    store, frames = SignalStore(workspace.data / "signals"), []
    for scope in workspace.settings.ml.scopes:
        days = [known for known in store.days(scope) if known <= day]
        asked_for = wanted in (None, scope)
        if days and asked_for and days[-1] != day:
            raise MissingPrerequisite(
                f"{scope}: the last signals are of {days[-1]}, not of the last session {day}: run `signals predict`"
            )
        if not days and scope == wanted:
            raise MissingPrerequisite(f"{scope}: no signals of {day}: run `signals predict`")
        frames += [store.load(scope, known).assign(scope=scope) for known in days]
    if not frames:
        raise MissingPrerequisite(f"no signals of {day}: run `signals predict`")
    return pd.concat(frames, ignore_index=True)


def _one_row_a_symbol(frame: pd.DataFrame) -> pd.DataFrame:
    """Each symbol once a session, in order of date.

    On the days of a change, a ticker that got a model of its own has rows of two scopes: its own counts, unless it is
    refused and UNIVERSE's is not.
    """
    ranked = frame.assign(answered=answered(frame), own=frame["scope"] != UNIVERSE)
    ranked = ranked.sort_values(["date", "answered", "own"], kind="stable")
    return ranked.drop_duplicates(["symbol", "date"], keep="last")[list(frame.columns)].reset_index(drop=True)


def _capped_together(workspace: "Workspace", frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the caps laid on what all scopes hold at a session; each has sized its signals as if it were alone.

    The column together has the caps that bind because of it.
    """
    sizing = workspace.settings.sizing
    rules = replace(SizingRules.from_settings(sizing), kelly_fraction=1.0)
    held = frame[frame["weight"] != 0]
    closes = None if sizing.target_volatility is None else adjusted_closes(workspace, held["symbol"].unique().tolist())
    weights, together = frame["weight"].copy(), pd.Series("", frame.index, dtype=object)
    for day, rows in held.groupby("date"):
        symbols = rows["symbol"].tolist()
        sectors = workspace.sectors_at(symbols, day)
        covariance = None if closes is None else covariance_of(closes, symbols, day)
        sized = size_positions(symbols, rows["weight"].to_numpy(), rules, sectors, covariance).frame
        weights[rows.index], together[rows.index] = sized["weight"].to_numpy(), sized["binding"].to_numpy()
    return frame.assign(weight=weights, together=together)


def _reasons(followed: FollowedSignals, day: date, lapse_sessions: int) -> pd.Series:
    """Why each symbol of the account has its target; index symbol."""
    frame, panel = followed.frame, followed.run.backtest.panel
    latest = frame[frame["date"] == pd.Timestamp(day)].set_index("symbol")
    said = latest["direction"].where(latest["direction"] != "", latest["reason"])
    said += latest["together"].map(lambda caps: f"; made smaller by {caps} of all scopes together" if caps else "")
    standing = asked_weights(frame, panel, lapse_sessions).ffill().iloc[-1].fillna(0.0) != 0
    refused = ~answered(latest)
    said[refused & standing.reindex(latest.index)] += f"; {_STAYS}"
    silent = standing.map(
        {
            True: f"no prediction of this session: {_STAYS}",
            False: "no prediction of this session; held at least strategy.min_hold_days",
        }
    )
    return said.reindex(silent.index).fillna(silent)
