"""What to hold after the next open: the plan of the account that has followed every stored signal up to a session."""

from datetime import date
from typing import TYPE_CHECKING

import pandas as pd

from signals_core.errors import MissingPrerequisite
from signals_core.strategy.signal_store import SignalStore
from signals_core.strategy.walk_forward import follow

if TYPE_CHECKING:
    from signals_core.workspace import Workspace


def targets_of_session(workspace: "Workspace", day: date) -> pd.DataFrame:
    """Targets of the close of `day`: columns symbol, weight (signed share of equity) and reason.

    Signals of all scopes are followed in one simulated account by the backtest's own engine, so that minimum hold,
    caps and costs are those of the backtest, and what it would order now is what is asked for.

    Raises:
        MissingPrerequisite: a scope that has signals has none of this session.
    """
    store, frames = SignalStore(workspace.data / "signals"), []
    for scope in workspace.settings.ml.scopes:
        days = [known for known in store.days(scope) if known <= day]
        if not days:
            continue
        if days[-1] != day:
            raise MissingPrerequisite(
                f"{scope}: the last signals are of {days[-1]}, not of the last session {day}: run `signals predict`"
            )
        frames += [store.load(scope, known) for known in days]
    if not frames:
        raise MissingPrerequisite(f"no signals of {day}: run `signals predict`")
    frame = pd.concat(frames, ignore_index=True).sort_values("date", kind="stable")
    # A ticker that got a model of its own has rows of two scopes on the days of the change: its own counts.
    frame = frame.drop_duplicates(["symbol", "date"], keep="last")
    backtest = follow(workspace, frame, trials=1).run.backtest
    value = backtest.ordered[-1] * backtest.panel.mark[-1]
    weights = pd.Series(value / backtest.equity_values[-1], backtest.panel.symbols).fillna(0.0)
    latest = frame[frame["date"] == pd.Timestamp(day)].set_index("symbol")
    said = latest["direction"].where(latest["direction"] != "", latest["reason"]).reindex(weights.index)
    held = said.fillna("no prediction of this session; held at least strategy.min_hold_days")
    return pd.DataFrame({"symbol": weights.index, "weight": weights.to_numpy(), "reason": held.to_numpy()})
