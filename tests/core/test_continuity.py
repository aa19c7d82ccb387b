"""Bars that contradict the bars around them are held back; what only looks odd goes on."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signals_core.calendar import sessions_between
from signals_core.market_data.continuity import screen_series
from signals_core.market_data.ingest import ingest_bars
from signals_core.market_data.prices import adjust
from signals_core.market_data.screening import ScreenedBars, screen_bars
from signals_core.market_data.store import MarketStore
from tests.project.bars import make_bars

SESSIONS = sessions_between("XNYS", date(2020, 1, 1), date(2022, 7, 2))
N = 100


@pytest.fixture
def raw() -> pd.DataFrame:
    """A hundred calm bars with the columns of a source."""
    return make_bars("AAA").iloc[:N].reset_index(drop=True).assign(split=0.0)


def jump(raw: pd.DataFrame, at: int, ratio: float, volume: float | None = None) -> pd.DataFrame:
    """From row `at` on prices are divided by `ratio`, the first of them exactly, and volume multiplied by it."""
    later = raw.index >= at
    step = raw.loc[at - 1, "close"] / ratio / raw.loc[at, "open"]
    prices = raw[["open", "high", "low", "close"]].mul(np.where(later, step, 1.0), axis=0)
    shares = raw["volume"] * np.where(later, ratio, 1.0)
    if volume is not None:
        shares[at] = volume * raw["volume"].iloc[max(0, at - 20) : at].median()
    return raw.assign(**prices, volume=shares)


def screened(raw: pd.DataFrame, stored: pd.DataFrame | None = None, accepted: tuple[str, ...] = ()) -> ScreenedBars:
    known = make_bars("AAA").iloc[:0].set_index("date") if stored is None else stored
    return screen_series(screen_bars(raw, "AAA", SESSIONS), SESSIONS, known, accepted)


def as_stored(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.set_index("date")[["open", "high", "low", "close", "volume"]]


def rows(found: ScreenedBars) -> list[int]:
    """Which of the first sessions have a good bar."""
    return list(SESSIONS.searchsorted(found.good.index))


def reasons(found: ScreenedBars) -> dict[str, int]:
    return found.rejected["reason"].value_counts().to_dict()


def days(*at: int) -> list[str]:
    return [str(SESSIONS[n].date()) for n in at]


# -- a calm series -----------------------------------------------------------------------------------------


def test_a_calm_series_passes_unchanged(raw: pd.DataFrame) -> None:
    found = screened(raw)
    assert found.rejected.empty
    pd.testing.assert_frame_equal(found.good, as_stored(raw), check_exact=True, check_freq=False)


@pytest.mark.parametrize("count", [0, 1])
def test_no_bar_and_one_bar_contradict_nothing(raw: pd.DataFrame, count: int) -> None:
    found = screened(raw.iloc[:count])
    assert (len(found.good), len(found.rejected)) == (count, 0)


def test_what_was_rejected_before_stays_rejected(raw: pd.DataFrame) -> None:
    raw.loc[5, "volume"] = -1.0
    found = screened(jump(raw, 80, 4))
    assert found.rejected["reason"].iloc[0] == "volume is negative"
    assert len(found.good) + len(found.rejected) == N


# -- frozen feeds ------------------------------------------------------------------------------------------


def repeat(raw: pd.DataFrame, first: int, times: int) -> pd.DataFrame:
    values = ["open", "high", "low", "close", "volume"]
    raw.loc[first + 1 : first + times - 1, values] = raw.loc[first, values].to_numpy()
    return raw


def test_of_three_equal_bars_the_first_is_kept(raw: pd.DataFrame) -> None:
    found = screened(repeat(raw, 50, 3))
    assert found.rejected["item"].tolist() == days(51, 52)
    assert reasons(found) == {"equal to the bars before: the feed is frozen": 2}
    assert rows(found) == [*range(51), *range(53, N)]


def test_two_equal_bars_are_no_frozen_feed(raw: pd.DataFrame) -> None:
    assert screened(repeat(raw, 50, 2)).rejected.empty


def test_bars_of_equal_prices_and_different_volume_are_no_frozen_feed(raw: pd.DataFrame) -> None:
    raw = repeat(raw, 50, 10)
    raw["volume"] = 1e6 + np.arange(N)
    assert screened(raw).rejected.empty


def test_a_feed_that_is_frozen_to_the_end_is_cut_at_its_second_bar(raw: pd.DataFrame) -> None:
    assert rows(screened(repeat(raw, 90, 10))) == list(range(91))


# -- splits that nobody told of ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (4, "opens at 0.25 times the close before: a split of 4 for 1 that the source does not report?"),
        (2, "opens at 0.5 times the close before: a split of 2 for 1 that the source does not report?"),
        (1.5, "opens at 0.6667 times the close before: a split of 1.5 for 1 that the source does not report?"),
        (20, "opens at 0.05 times the close before: a split of 20 for 1 that the source does not report?"),
        (1 / 10, "opens at 10 times the close before: a split of 1 for 10 that the source does not report?"),
        (1 / 2, "opens at 2 times the close before: a split of 1 for 2 that the source does not report?"),
    ],
)
def test_a_jump_like_a_split_that_is_not_reported_is_refused(raw: pd.DataFrame, ratio: float, text: str) -> None:
    found = screened(jump(raw, 80, ratio))
    assert reasons(found) == {text: 20}
    assert found.rejected["item"].tolist() == days(*range(80, N))


def test_the_longer_side_of_a_break_is_kept(raw: pd.DataFrame) -> None:
    assert rows(screened(jump(raw, 20, 4))) == list(range(20, N))
    assert rows(screened(jump(raw, 80, 4))) == list(range(80))


def test_between_two_breaks_the_middle_is_kept(raw: pd.DataFrame) -> None:
    assert rows(screened(jump(jump(raw, 20, 4), 80, 2))) == list(range(20, 80))


@pytest.mark.parametrize("ratio", [4, 2, 1.5, 1 / 10])
def test_a_reported_split_of_bars_as_traded_passes(raw: pd.DataFrame, ratio: float) -> None:
    raw = jump(raw, 80, ratio)
    raw.loc[80, "split"] = ratio
    found = screened(raw)
    assert found.rejected.empty
    assert found.actions["value"].tolist() == [ratio]


def test_a_reported_split_whose_bar_is_broken_explains_the_next_bar(raw: pd.DataFrame) -> None:
    raw = jump(raw, 80, 4)
    raw.loc[80, ["split", "open"]] = [4.0, np.nan]
    assert reasons(screened(raw)) == {"price or volume is missing or infinite": 1}


def test_a_split_told_by_an_adjusted_close_passes_and_without_it_is_refused(raw: pd.DataFrame) -> None:
    raw = jump(raw, 80, 2)
    assert screened(raw.assign(adjustment=np.where(raw.index < 80, 0.5, 1.0))).rejected.empty
    assert len(screened(raw.assign(adjustment=1.0)).rejected) == 20


def test_bars_divided_by_a_reported_split_twice_are_refused(raw: pd.DataFrame) -> None:
    raw = jump(raw, 80, 16)
    raw.loc[80, "split"] = 4.0
    found = screened(raw)
    text = "opens at 0.0625 times the close before, where a split explains 0.25: adjusted twice"
    assert reasons(found) == {text: 20}


@pytest.mark.parametrize("ratio", [4.0, 1.5, 0.1])
def test_a_reported_split_of_bars_that_are_adjusted_already_is_dropped_and_its_bars_kept(
    raw: pd.DataFrame, ratio: float
) -> None:
    raw.loc[80, "split"] = ratio
    found = screened(raw)
    text = f"split of {ratio:g} without a jump in the price: the bars are adjusted already"
    assert found.rejected[["item", "reason"]].values.tolist() == [[days(80)[0], text]]
    assert found.actions.empty
    assert len(found.good) == N


def test_a_small_stock_dividend_cannot_be_judged_and_is_believed(raw: pd.DataFrame) -> None:
    raw.loc[80, "split"] = 1.05
    found = screened(raw)
    assert found.rejected.empty
    assert found.actions["value"].tolist() == [1.05]


def test_a_dividend_larger_than_the_price_makes_no_price_negative(raw: pd.DataFrame) -> None:
    raw["dividend"] = 0.0
    raw.loc[80, "dividend"] = 2 * raw.loc[79, "close"]
    found = screened(raw)
    assert (adjust(found.good, found.actions)["close"] > 0).all()


def test_a_dividend_on_the_new_shares_of_a_split_is_no_larger_than_what_they_cost(raw: pd.DataFrame) -> None:
    raw = jump(raw, 80, 4).assign(dividend=0.0)
    raw.loc[80, ["split", "dividend"]] = [4.0, raw.loc[79, "close"] / 2]  # four times half of the price before
    found = screened(raw)
    assert (adjust(found.good, found.actions)["close"] > 0).all()
    assert "split" in set(found.actions["kind"])


def test_dividends_that_fall_on_one_bar_are_together_no_larger_than_the_price(raw: pd.DataFrame) -> None:
    raw["dividend"] = 0.0
    raw.loc[[79, 80], "dividend"] = 0.6 * raw.loc[78, "close"]
    raw.loc[79, "open"] = np.nan
    found = screened(raw)
    assert (adjust(found.good, found.actions)["close"] > 0).all()


def test_every_refused_row_is_stored_also_where_two_are_of_one_day(tmp_path: Path, raw: pd.DataFrame) -> None:
    raw = jump(raw, 20, 4)
    found = screened(pd.concat([raw.iloc[[0]], raw], ignore_index=True))
    assert reasons(found)["date occurs more than once"] == 1
    assert len(found.rejected) == 21
    store = MarketStore.embedded(tmp_path / "market.sqlite")
    store.save_bars("AAA", found, datetime(2026, 1, 2, tzinfo=UTC))
    assert store.rejected("bars", "AAA")["reason"].value_counts().to_dict() == reasons(found)
    store.close()


# -- what only looks like a split --------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [2, 4, 1 / 2])
def test_a_genuine_crash_or_takeover_comes_with_heavy_volume_and_passes(raw: pd.DataFrame, ratio: float) -> None:
    assert screened(jump(raw, 80, ratio, volume=20 * max(ratio, 1))).rejected.empty


def test_the_same_fall_in_calm_volume_is_refused(raw: pd.DataFrame) -> None:
    assert len(screened(jump(raw, 80, 2, volume=2)).rejected) == 20


@pytest.mark.parametrize("left", [0.72, 0.62, 0.43])
def test_a_fall_that_no_split_explains_passes(raw: pd.DataFrame, left: float) -> None:
    assert screened(jump(raw, 80, 1 / left, volume=1)).rejected.empty


def test_a_fall_within_the_day_is_no_split(raw: pd.DataFrame) -> None:
    raw.loc[80:, ["low", "close"]] /= 2
    raw.loc[81:, ["open", "high"]] /= 2
    assert screened(raw).rejected.empty


def test_an_index_without_volume_has_no_splits(raw: pd.DataFrame) -> None:
    assert screened(jump(raw.assign(volume=0.0), 80, 1 / 1.515)).rejected.empty


def test_a_break_that_a_person_has_accepted_passes_and_no_other(raw: pd.DataFrame) -> None:
    raw = jump(raw, 80, 4)
    assert screened(raw, accepted=tuple(days(80))).rejected.empty
    assert len(screened(raw, accepted=tuple(days(79, 81))).rejected) == 20


# -- long gaps ---------------------------------------------------------------------------------------------


@pytest.fixture
def long_raw() -> pd.DataFrame:
    return make_bars("AAA").iloc[:300].reset_index(drop=True)


def test_before_a_long_gap_may_be_another_company_so_what_follows_is_kept(long_raw: pd.DataFrame) -> None:
    found = screened(long_raw.drop(index=range(100, 221)))
    text = "121 sessions without a bar before it: the symbol may belong to another company now"
    assert reasons(found) == {text: 100}
    assert rows(found) == list(range(221, 300))


def test_a_gap_of_120_sessions_passes(long_raw: pd.DataFrame) -> None:
    assert screened(long_raw.drop(index=range(100, 220))).rejected.empty


def test_after_a_long_gap_the_stored_company_is_kept(long_raw: pd.DataFrame) -> None:
    found = screened(long_raw.iloc[221:], stored=as_stored(long_raw.iloc[:100]))
    text = "121 sessions without a bar before it: the symbol may belong to another company now"
    assert reasons(found) == {text: 79}
    assert found.good.empty


def test_an_accepted_gap_passes(long_raw: pd.DataFrame) -> None:
    found = screened(long_raw.iloc[221:], stored=as_stored(long_raw.iloc[:100]), accepted=tuple(days(221)))
    assert found.rejected.empty


# -- incremental loads -------------------------------------------------------------------------------------


def test_new_bars_are_judged_against_the_stored_ones(raw: pd.DataFrame) -> None:
    raw = jump(raw, 80, 4)
    assert len(screened(raw.iloc[80:], stored=as_stored(raw.iloc[:80])).good) == 0
    raw.loc[80, "split"] = 4.0
    assert screened(raw.iloc[80:], stored=as_stored(raw.iloc[:80])).rejected.empty


def test_stored_bars_that_the_load_gives_again_are_not_judged_twice(raw: pd.DataFrame) -> None:
    stored = as_stored(raw.iloc[:90])
    found = screened(raw.iloc[80:], stored=stored)
    assert found.rejected.empty
    assert rows(found) == list(range(80, N))


@pytest.mark.parametrize("at", [20, 80])
def test_a_split_stored_long_ago_does_not_refuse_new_bars(raw: pd.DataFrame, at: int) -> None:
    raw = jump(raw, at, 4)  # told when it was loaded; a source asked for what is new does not tell it again
    found = screened(raw.iloc[95:], stored=as_stored(raw.iloc[:95]))
    assert found.rejected.empty
    assert rows(found) == list(range(95, N))


@pytest.mark.parametrize("stored", [10, 90])
def test_the_stored_side_of_a_break_is_kept_however_short(raw: pd.DataFrame, stored: int) -> None:
    raw = jump(raw, stored + 5, 4)
    found = screened(raw.iloc[stored:], stored=as_stored(raw.iloc[:stored]))
    assert rows(found) == list(range(stored, stored + 5))


def test_a_split_on_the_first_new_bar_is_judged_against_the_last_stored_one(raw: pd.DataFrame) -> None:
    raw.loc[80, "split"] = 4.0  # and no jump: adjusted already
    found = screened(raw.iloc[80:], stored=as_stored(raw.iloc[:80]))
    assert found.actions.empty
    assert len(found.good) == 20


class Source:
    """A source that gives what it is asked for and nothing before."""

    name = "source"

    def __init__(self, rows: pd.DataFrame) -> None:
        self._rows = rows

    def fetch_bars(self, symbol: str, since: date | None = None) -> pd.DataFrame | None:
        given = self._rows if since is None else self._rows[self._rows["date"] >= pd.Timestamp(since)]
        return given.reset_index(drop=True)


def load_daily(path: Path, raw: pd.DataFrame, first: int) -> MarketStore:
    """A store into which a source was loaded after each session from the `first` on."""
    store = MarketStore.embedded(path / "market.sqlite")
    for n in range(first, len(raw)):
        day = SESSIONS[n].date()
        now = datetime(day.year, day.month, day.day, 23, tzinfo=UTC)
        ingest_bars(store, Source(raw.iloc[: n + 1]), ["AAA"], "XNYS", now)
    return store


def test_day_after_day_a_reported_split_is_stored_once_and_every_bar_with_it(tmp_path: Path, raw: pd.DataFrame) -> None:
    raw = jump(raw, 70, 4)
    raw.loc[70, "split"] = 4.0
    store = load_daily(tmp_path, raw, 65)
    assert len(store.load_bars("AAA")) == N
    assert store.load_actions("AAA")["value"].tolist() == [4.0]
    assert store.load_bars("AAA")["close"].pct_change().abs().max() < 0.15
    store.close()


def test_day_after_day_a_split_of_adjusted_bars_is_never_stored(tmp_path: Path, raw: pd.DataFrame) -> None:
    raw.loc[70, "split"] = 4.0
    store = load_daily(tmp_path, raw, 65)
    assert store.load_actions("AAA").empty
    assert len(store.load_bars("AAA")) == N
    store.close()


def test_day_after_day_the_bars_after_a_split_that_is_not_reported_stay_out(tmp_path: Path, raw: pd.DataFrame) -> None:
    store = load_daily(tmp_path, jump(raw, 70, 4), 65)
    assert store.load_bars("AAA").index[-1] == SESSIONS[69]
    store.close()
