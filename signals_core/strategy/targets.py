"""What to hold after the next open: the plan of the account that has followed every stored signal up to a session."""

from datetime import date
from typing import TYPE_CHECKING

import pandas as pd

from signals_core.errors import MissingPrerequisite
from signals_core.settings import UNIVERSE, Scope
from signals_core.strategy.signal_store import SignalStore, answered
from signals_core.strategy.walk_forward import FollowedSignals, follow

if TYPE_CHECKING:
    from signals_core.workspace import Workspace


_STAYS = "what the last one asked for stays"


def targets_of_session(workspace: "Workspace", day: date, scope: Scope | None = None) -> pd.DataFrame:
    """Targets of the close of `day`: columns symbol, weight (signed share of equity) and reason.

    Signals of all scopes are followed in one simulated account by the backtest's own engine, so that minimum hold,
    caps and costs are those of the backtest, and what it would order now is what is asked for. Symbols that were
    refused at every session are no targets.

    Args:
        scope: None: the targets of all scopes. A scope: of these, the symbols whose latest prediction is its own.

    Raises:
        MissingPrerequisite: a scope that has signals, or the one asked for, has none of this session.
    """
    frame = _one_row_a_symbol(_stored(workspace, day, scope))
    followed = follow(workspace, frame, trials=1)
    backtest = followed.run.backtest
    value = backtest.ordered[-1] * backtest.panel.mark[-1]
    targets = pd.DataFrame(
        {"weight": value / backtest.equity_values[-1]}, pd.Index(backtest.panel.symbols, name="symbol")
    )
    targets = targets.fillna(0.0).assign(reason=_reasons(followed, day))
    # Of the others nobody has ever said anything: what the account holds of them is not ours to close.
    targets = targets[followed.asked.notna().any()]
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


def _reasons(followed: FollowedSignals, day: date) -> pd.Series:
    """Why each symbol of the account has its target; index symbol."""
    latest = followed.frame[followed.frame["date"] == pd.Timestamp(day)].set_index("symbol")
    said = latest["direction"].where(latest["direction"] != "", latest["reason"])
    standing = followed.asked.ffill().iloc[-1].fillna(0.0) != 0
    said[~answered(latest) & standing.reindex(latest.index)] += f"; {_STAYS}"
    silent = standing.map(
        {
            True: f"no prediction of this session: {_STAYS}",
            False: "no prediction of this session; held at least strategy.min_hold_days",
        }
    )
    caps = followed.binding.map(lambda names: f"; made smaller by {names} of the whole book" if names else "")
    return said.reindex(silent.index).fillna(silent) + caps
