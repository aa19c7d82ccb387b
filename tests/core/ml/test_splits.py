from datetime import date

import numpy as np
import pandas as pd
import pytest

from signals_core.errors import DataError
from signals_core.ml.splits import (
    REASONS,
    PanelSplitter,
    RowUse,
    Window,
    calendar_windows,
    window_rows,
)
from signals_core.ml.target import make_target
from signals_core.workspace import Panel
from tests.core.ml.helpers import QUICK_ML, make_panel

WINDOW = Window(date(2020, 1, 1), date(2021, 1, 1), date(2021, 7, 1))


def dates_of(panel: Panel, rows: np.ndarray) -> pd.DatetimeIndex:
    return panel.target.index.get_level_values("date")[rows]


@pytest.fixture(scope="module")
def panel() -> Panel:
    return make_panel()


def test_windows_of_two_and_a_half_years_start_on_these_dates():
    windows = calendar_windows(date(2020, 1, 1), date(2022, 7, 2), train_months=12, test_months=6, step_months=3)
    assert [(w.train_start.isoformat(), w.key, w.test_end.isoformat()) for w in windows] == [
        ("2020-01-01", "2021-01-01", "2021-07-01"),
        ("2020-04-01", "2021-04-01", "2021-10-01"),
        ("2020-07-01", "2021-07-01", "2022-01-01"),
        ("2020-10-01", "2021-10-01", "2022-04-01"),
        ("2021-01-01", "2022-01-01", "2022-07-01"),
    ]


@pytest.mark.parametrize(("end", "count"), [(date(2021, 6, 30), 0), (date(2021, 7, 1), 1), (date(2021, 9, 30), 1)])
def test_a_window_exists_only_once_its_test_has_ended(end, count):
    assert len(list(calendar_windows(date(2020, 1, 1), end, 12, 6, 3))) == count


def test_windows_begin_with_the_month_of_the_first_date():
    first = next(calendar_windows(date(2020, 2, 17), date(2023, 1, 1), 24, 6, 3))
    assert (first.train_start, first.test_start) == (date(2020, 2, 1), date(2022, 2, 1))


def test_training_ends_five_sessions_before_the_test_around_christmas(panel):
    rows = window_rows(WINDOW, panel.target)
    trained = dates_of(panel, rows.train)
    # The label of 23 December 2020 ends on the 31st; that of the 24th on 4 January, inside the test.
    assert (trained.min(), trained.max()) == (pd.Timestamp("2020-01-02"), pd.Timestamp("2020-12-23"))
    assert rows.counts["purged"] == 2 * 5


def test_testing_ends_where_labels_would_reach_past_the_window(panel):
    rows = window_rows(WINDOW, panel.target)
    tested = dates_of(panel, rows.test)
    assert (tested.min(), tested.max()) == (pd.Timestamp("2021-01-04"), pd.Timestamp("2021-06-23"))
    assert rows.counts["unlabelled"] == 2 * 5


@pytest.mark.parametrize("embargo", [0, 1, 10])
@pytest.mark.parametrize("horizon", [1, 5, 20])
def test_no_label_of_training_reaches_the_test_and_none_of_the_test_past_its_end(horizon, embargo):
    panel = make_panel(horizon=horizon)
    rows = window_rows(WINDOW, panel.target, embargo)
    ends = panel.target["label_end"]
    assert ends[rows.train].max() < pd.Timestamp("2021-01-01")
    assert ends[rows.test].max() < pd.Timestamp("2021-07-01")
    assert not (rows.train & rows.test).any()
    assert len(dates_of(panel, rows.train).unique()) == 253 - horizon - embargo  # XNYS had 253 sessions in 2020


def test_an_embargo_of_three_sessions_moves_the_last_training_date_three_sessions_back(panel):
    rows = window_rows(WINDOW, panel.target, embargo_sessions=3)
    # The barrier is 29 December 2020: the last label ends on the 28th.
    assert dates_of(panel, rows.train).max() == pd.Timestamp("2020-12-18")
    assert (rows.counts["purged"], rows.counts["embargoed"]) == (2 * 5, 2 * 3)


def test_an_embargo_before_the_first_bar_of_a_late_listing_is_refused_like_any_window_without_training_rows():
    late = make_panel(("AAA",), listed={"AAA": date(2021, 3, 1)})
    rows = window_rows(WINDOW, late.target, embargo_sessions=5)
    assert not rows.train.any()


def test_a_date_is_never_split_between_training_and_test():
    panel = make_panel(("AAA", "BBB", "CCC"))
    for window in calendar_windows(date(2020, 1, 1), date(2021, 8, 1), 6, 2, 1):
        rows = window_rows(window, panel.target)
        for side in (rows.train, rows.test):
            assert set(pd.Series(dates_of(panel, side)).value_counts()) == {3}
        assert not set(dates_of(panel, rows.train)) & set(dates_of(panel, rows.test))


def test_a_late_listing_trains_from_its_first_bar_and_is_purged_by_its_own_labels():
    panel = make_panel(listed={"BBB": date(2020, 9, 1)})
    rows = window_rows(WINDOW, panel.target)
    index = panel.target.index
    late = index.get_level_values("symbol") == "BBB"
    assert dates_of(panel, rows.train & late).min() == pd.Timestamp("2020-09-01")
    assert dates_of(panel, rows.train & ~late).min() == pd.Timestamp("2020-01-02")
    assert panel.target["label_end"][rows.train & late].max() == pd.Timestamp("2020-12-31")


def test_a_symbol_with_missing_bars_is_purged_by_its_own_later_label_end(panel):
    # BBB does not trade for a fortnight before the test: five of ITS bars reach further than five sessions.
    dates = panel.target.xs("AAA").index
    gone = (dates >= "2020-12-14") & (dates < "2020-12-28")
    bars = pd.DataFrame({"open": 1.0, "close": np.arange(len(dates)) + 100.0}, index=dates)[~gone]
    target = pd.concat({"AAA": panel.target.xs("AAA"), "BBB": make_target(bars, QUICK_ML)}, names=["symbol", "date"])
    rows = window_rows(WINDOW, target)
    last = (
        pd.Series(target.index.get_level_values("date")[rows.train], target.index[rows.train]).groupby("symbol").max()
    )
    assert last.to_dict() == {"AAA": pd.Timestamp("2020-12-23"), "BBB": pd.Timestamp("2020-12-10")}


def test_an_audit_names_dates_counts_and_every_row_left_out_with_its_reason(panel):
    audit = window_rows(WINDOW, panel.target, embargo_sessions=2).audit(panel.target)
    assert audit.train_dates == (date(2020, 1, 2), date(2020, 12, 21))
    assert audit.test_dates == (date(2021, 1, 4), date(2021, 6, 23))
    assert audit.barrier == date(2020, 12, 30)
    # 253 sessions of 2020, less five purged and two embargoed; 124 of the test, less five that end after it.
    assert audit.counts == {
        "train": 2 * 246,
        "test": 2 * 119,
        "purged": 2 * 5,
        "embargoed": 2 * 2,
        "unlabelled": 2 * 5,
    }
    left_out = audit.left_out.xs("AAA")
    shown = [f"{day:%Y-%m-%d} {row.label_end:%Y-%m-%d} {row.use}" for day, row in left_out.iterrows()]
    assert shown == [
        "2020-12-22 2020-12-30 embargoed",
        "2020-12-23 2020-12-31 embargoed",
        "2020-12-24 2021-01-04 purged",
        "2020-12-28 2021-01-05 purged",
        "2020-12-29 2021-01-06 purged",
        "2020-12-30 2021-01-07 purged",
        "2020-12-31 2021-01-08 purged",
        "2021-06-24 2021-07-01 unlabelled",
        "2021-06-25 2021-07-02 unlabelled",
        "2021-06-28 2021-07-06 unlabelled",
        "2021-06-29 2021-07-07 unlabelled",
        "2021-06-30 2021-07-08 unlabelled",
    ]
    assert set(left_out["reason"]) == {REASONS[use] for use in (RowUse.PURGED, RowUse.EMBARGOED, RowUse.UNLABELLED)}


def test_rows_without_a_label_are_left_out_as_such_on_both_sides(panel):
    target = panel.target.copy()
    target.loc[("AAA", pd.Timestamp("2020-03-03")), "label"] = -1
    target.loc[("BBB", pd.Timestamp("2021-02-02")), "label_end"] = pd.NaT
    audit = window_rows(WINDOW, target).audit(target)
    assert audit.counts["unlabelled"] == 2 * 5 + 2  # those at the end of the test, whose label ends after it, too
    rows = audit.left_out[(audit.left_out["use"] == "unlabelled")].loc[:, : pd.Timestamp("2021-06-01"), :]
    assert [(symbol, f"{day:%Y-%m-%d}") for symbol, day in rows.index] == [("AAA", "2020-03-03"), ("BBB", "2021-02-02")]


def test_every_row_of_the_spans_is_accounted_for_and_none_outside_is(panel):
    rows = window_rows(WINDOW, panel.target, embargo_sessions=3)
    dates = panel.target.index.get_level_values("date")
    inside = (dates >= "2020-01-01") & (dates < "2021-07-01")
    assert ((rows.use == RowUse.OUTSIDE) == ~inside).all()
    assert sum(rows.counts.values()) == inside.sum()


@pytest.mark.parametrize("embargo", [0, 4])
def test_the_order_of_the_rows_does_not_matter(panel, embargo):
    shuffled = panel.target.sample(frac=1, random_state=3)
    rows, other = (window_rows(WINDOW, target, embargo) for target in (panel.target, shuffled))
    pd.testing.assert_series_equal(
        pd.Series(rows.use, panel.target.index).sort_index(), pd.Series(other.use, shuffled.index).sort_index()
    )


def test_dates_that_a_slice_of_a_panel_no_longer_has_count_for_no_embargo(panel):
    # Without December's rows the last session before the test is 30 November.
    dates = panel.target.index.get_level_values("date")
    target = panel.target[(dates < "2020-12-01") | (dates >= "2021-01-01")]
    assert window_rows(WINDOW, target, embargo_sessions=1).barrier == date(2020, 11, 30)


def test_one_splitter_says_of_every_window_what_a_loop_over_the_rows_says():
    panel = make_panel(("AAA", "BBB", "CCC"), listed={"BBB": date(2020, 9, 1)})
    splitter = PanelSplitter(panel.target, embargo_sessions=2)
    sessions = sorted(panel.target.index.unique("date"))
    for window in calendar_windows(date(2020, 1, 1), date(2021, 8, 1), 6, 2, 1):
        start, test, end = (pd.Timestamp(day) for day in (window.train_start, window.test_start, window.test_end))
        barrier = [day for day in sessions if day < test][-2]
        expected = []
        for (_, day), row in panel.target.iterrows():
            labelled = row["label"] >= 0 and not pd.isna(row["label_end"])
            if not start <= day < end:
                expected.append(RowUse.OUTSIDE)
            elif not labelled or row["label_end"] >= end:
                expected.append(RowUse.UNLABELLED)
            elif day >= test:
                expected.append(RowUse.TEST)
            elif row["label_end"] < barrier:
                expected.append(RowUse.TRAIN)
            else:
                expected.append(RowUse.EMBARGOED if row["label_end"] < test else RowUse.PURGED)
        assert splitter.split(window).use.tolist() == expected


def test_a_label_that_ends_before_it_begins_is_refused_by_row(panel):
    target = panel.target.copy()
    target.loc[("BBB", pd.Timestamp("2020-05-06")), "label_end"] = pd.Timestamp("2020-05-06")
    with pytest.raises(DataError, match=r"label of \('BBB', Timestamp\('2020-05-06.*ends on or before its own date"):
        PanelSplitter(target)


def test_labels_may_be_nullable_and_dates_of_another_unit(panel):
    target = panel.target.copy()
    target["label"] = target["label"].astype("Int8").mask(target["label"] < 0)
    target["label_end"] = target["label_end"].astype("datetime64[ns]")
    assert np.array_equal(window_rows(WINDOW, target).use, window_rows(WINDOW, panel.target).use)


def test_a_symbol_that_trades_again_after_the_window_changes_nothing_in_it(panel):
    # BBB is halted from 15 December 2020 on: its last labels are never known, or long after the test.
    dates = panel.target.xs("AAA").index
    closes = pd.DataFrame({"open": 1.0, "close": np.arange(len(dates)) + 100.0}, index=dates)
    uses = []
    for halted in (dates >= "2020-12-15", (dates >= "2020-12-15") & (dates < "2021-07-06")):
        bars = closes[~halted]
        target = pd.concat(
            {"AAA": panel.target.xs("AAA"), "BBB": make_target(bars, QUICK_ML)}, names=["symbol", "date"]
        )
        rows = window_rows(WINDOW, target)
        inside = rows.use != RowUse.OUTSIDE
        uses.append(pd.Series(rows.use[inside], index=target.index[inside]))
    pd.testing.assert_series_equal(*uses)
    assert (uses[0] == RowUse.UNLABELLED).groupby("symbol").sum().to_dict() == {"AAA": 5, "BBB": 5}
