"""The data-quality report says of a small store what is there, what is missing and what was refused."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from signals_core.calendar import sessions_between
from signals_core.market_data.ingest import ingest_bars, ingest_facts
from signals_core.market_data.quality import QualityReport, SymbolQuality, quality_report
from signals_core.market_data.store import MarketStore
from tests.project.bars import make_bars

SESSIONS = sessions_between("XNYS", date(2020, 1, 1), date(2020, 2, 14))
"""Thirty of them, 2020-01-02 .. 2020-02-13."""
LAST = SESSIONS[-1].date()
NOW = datetime(2020, 2, 13, 23, tzinfo=UTC)


class Source:
    """Frames by symbol, the same for every dataset."""

    name = "source"

    def __init__(self, frames: dict[str, pd.DataFrame]) -> None:
        self._frames = frames

    def fetch_bars(self, symbol: str, since: object = None) -> pd.DataFrame | None:
        return self._frames.get(symbol)

    def fetch_short_interest(self, symbol: str, since: object = None) -> pd.DataFrame | None:
        return self._frames.get(symbol)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MarketStore]:
    opened = MarketStore.embedded(tmp_path / "market.sqlite")
    yield opened
    opened.close()


def bars(symbol: str = "AAA") -> pd.DataFrame:
    return make_bars(symbol).iloc[:30].reset_index(drop=True)


def load(store: MarketStore, frames: dict[str, pd.DataFrame], *symbols: str, now: datetime = NOW) -> None:
    ingest_bars(store, Source(frames), list(symbols or frames), "XNYS", now)


def quality(store: MarketStore, symbol: str = "AAA", last: date = LAST) -> SymbolQuality:
    (found,) = quality_report(store, [symbol], last, "XNYS").bars
    return found


def test_bars_of_every_session_up_to_the_last_are_complete(store: MarketStore) -> None:
    load(store, {"AAA": bars()})
    found = quality(store)
    assert (found.sessions, found.first, found.last) == (30, date(2020, 1, 2), LAST)
    assert (found.behind, found.missing, found.rejected, found.restated, found.problem) == (0, 0, 0, 0, None)
    assert found.complete


def test_bars_that_end_early_are_behind_and_not_complete(store: MarketStore) -> None:
    load(store, {"AAA": bars().iloc[:27]})
    found = quality(store)
    assert (found.behind, found.missing, found.complete) == (3, 0, False)
    assert quality(store, last=date(2020, 2, 10)).complete


def test_a_weekend_does_not_leave_bars_behind(store: MarketStore) -> None:
    load(store, {"AAA": bars().iloc[:27]})
    assert SESSIONS[26].date() == date(2020, 2, 10)
    load(store, {"BBB": bars("BBB").iloc[:26]})
    assert quality(store, "BBB", date(2020, 2, 9)).behind == 0


def test_sessions_without_a_bar_between_the_first_and_the_last_are_missing(store: MarketStore) -> None:
    load(store, {"AAA": bars().iloc[2:].drop(index=[5, 6, 20])})
    found = quality(store)
    assert (found.sessions, found.behind, found.missing, found.complete) == (25, 0, 3, False)


def test_bars_after_the_session_asked_for_do_not_count(store: MarketStore) -> None:
    load(store, {"AAA": bars()})
    found = quality(store, last=SESSIONS[9].date())
    assert (found.sessions, found.last, found.behind, found.complete) == (10, SESSIONS[9].date(), 0, True)


def test_a_symbol_without_bars_is_shown_and_not_complete(store: MarketStore) -> None:
    load(store, {"AAA": bars()}, "AAA", "ZZZ")
    found = quality(store, "ZZZ")
    assert (found.sessions, found.first, found.last, found.behind, found.largest_move) == (0, None, None, None, None)
    assert found.problem == "source has no bars of ZZZ"
    assert not found.complete


def test_rejected_rows_are_counted_by_symbol_and_by_reason(store: MarketStore) -> None:
    one, two = bars(), bars("BBB")
    one.loc[[3, 4], "volume"] = -1.0
    one.loc[8, "open"] = np.nan
    two.loc[5, "volume"] = -1.0
    load(store, {"AAA": one, "BBB": two})
    report = quality_report(store, ["AAA", "BBB", "CCC"], LAST, "XNYS")
    assert [item.rejected for item in report.bars] == [3, 1, 0]
    assert report.bars[0].missing == 3
    assert report.reasons == {"bars": {"volume is negative": 3, "price or volume is missing or infinite": 1}}


def test_what_a_later_load_corrects_is_no_longer_rejected(store: MarketStore) -> None:
    broken = bars()
    broken.loc[20, "volume"] = -1.0
    load(store, {"AAA": broken})
    assert quality(store).rejected == 1
    load(store, {"AAA": bars()})
    found = quality(store)
    assert (found.rejected, found.missing, found.complete) == (0, 0, True)


def test_each_later_version_of_a_bar_is_counted_as_restated(store: MarketStore) -> None:
    load(store, {"AAA": bars(), "BBB": bars("BBB")})
    for day, volume in ((14, 7.0), (15, 8.0)):
        changed = bars()
        changed.loc[[20, 21], "volume"] = volume
        load(store, {"AAA": changed}, now=datetime(2020, 2, day, 23, tzinfo=UTC))
    assert quality(store).restated == 4
    assert quality(store, "BBB").restated == 0


def test_the_problem_of_the_last_load_is_shown_until_a_load_succeeds(store: MarketStore) -> None:
    load(store, {"AAA": bars()})
    load(store, {"AAA": bars().drop(columns="low")})
    found = quality(store)
    assert found.problem is not None
    assert found.problem.startswith("bars of AAA lack the column(s) low; found date")
    assert found.sessions == 30
    load(store, {"AAA": bars()})
    assert quality(store).problem is None


def test_the_largest_move_is_that_of_adjusted_closes(store: MarketStore) -> None:
    raw = bars().assign(split=0.0)
    later = np.where(raw.index >= 20, 0.25, 1.0)
    raw[["open", "high", "low", "close"]] = raw[["open", "high", "low", "close"]].mul(later, axis=0)
    raw.loc[20, "split"] = 4.0
    load(store, {"AAA": raw})
    moves = bars()["close"].pct_change().abs()
    found = quality(store)
    assert found.largest_move == pytest.approx(moves.max())
    assert found.largest_move_on == SESSIONS[int(moves.argmax())].date()


def test_one_bar_alone_has_no_move(store: MarketStore) -> None:
    load(store, {"AAA": bars().iloc[-1:]})
    found = quality(store)
    assert (found.sessions, found.largest_move, found.complete) == (1, None, True)


def report_with_facts(store: MarketStore) -> QualityReport:
    settlements = pd.DataFrame(
        {"available_at": ["2020-01-27", "2020-02-11", "2020-02-12"], "shares_short": [10.0, 20.0, -1.0],
         "settlement_date": ["2020-01-15", "2020-01-31", "2020-02-03"]}
    )  # fmt: skip
    load(store, {"AAA": bars()})
    ingest_facts(store, "short_interest", Source({"AAA": settlements}), ["AAA", "BBB"], "XNYS", NOW)
    return quality_report(store, ["AAA", "BBB"], LAST, "XNYS", ["short_interest", "fundamentals"])


def test_facts_are_counted_by_dataset_and_symbol_with_what_was_refused(store: MarketStore) -> None:
    report = report_with_facts(store)
    found = {(item.dataset, item.symbol): item for item in report.facts}
    assert list(found) == [
        (dataset, symbol) for dataset in ("short_interest", "fundamentals") for symbol in ("AAA", "BBB")
    ]
    first = found["short_interest", "AAA"]
    assert (first.facts, first.rejected, first.problem) == (2, 1, None)
    assert first.latest == pd.Timestamp("2020-02-11 21:00")
    second = found["short_interest", "BBB"]
    assert (second.facts, second.latest, second.rejected) == (0, None, 0)
    assert second.problem == "source has no short_interest of BBB"
    assert found["fundamentals", "AAA"].problem is None
    assert report.reasons == {"bars": {}, "short_interest": {"shares_short is negative": 1}, "fundamentals": {}}


def test_the_report_becomes_plain_values_that_say_what_is_complete(store: MarketStore) -> None:
    plain: dict[str, Any] = json.loads(json.dumps(report_with_facts(store).to_dict(), default=str))
    assert plain["session"] == "2020-02-13"
    assert [(item["symbol"], item["complete"]) for item in plain["bars"]] == [("AAA", True), ("BBB", False)]
    assert plain["facts"][0]["facts"] == 2
    assert plain["reasons"]["short_interest"] == {"shares_short is negative": 1}
