"""Labels worked out by hand."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from signals_core.calendar import sessions_between
from signals_core.ml.target import DOWN, FLAT, NO_LABEL, UP, class_shares, make_target
from signals_core.settings import MLSettings
from tests.project.bars import make_bars

SESSIONS = sessions_between("XNYS", date(2012, 7, 2), date(2012, 7, 20))


def bars_of(closes: list[float], opens: list[float] | None = None) -> pd.DataFrame:
    index = SESSIONS[: len(closes)].rename("date")
    return pd.DataFrame({"open": opens or closes, "close": closes}, index=index, dtype="float64")


def test_labels_compare_the_return_over_the_horizon_with_the_thresholds() -> None:
    settings = MLSettings(prediction_horizon=2, up_threshold=0.25, down_threshold=-0.25)
    # Powers of two keep the returns exact: +0.5, +0.25 (not above), -0.5, -0.25 (not below), 0.
    target = make_target(bars_of([4, 4, 6, 5, 3, 3.75, 3, 3.75]), settings)
    assert target["forward_return"].iloc[:6].tolist() == [0.5, 0.25, -0.5, -0.25, 0.0, 0.0]
    assert target["label"].tolist() == [UP, FLAT, DOWN, FLAT, FLAT, FLAT, NO_LABEL, NO_LABEL]
    assert target["label"].dtype == "int8"


def test_the_last_h_rows_have_no_label_return_or_end() -> None:
    target = make_target(bars_of([4.0] * 8), MLSettings(prediction_horizon=3))
    for name in ("forward_return", "label_end"):
        assert target[name].isna().tolist() == [False] * 5 + [True] * 3
    assert (target["label"] == NO_LABEL).tolist() == [False] * 5 + [True] * 3


def test_a_label_ends_h_sessions_later_across_weekend_and_holiday() -> None:
    target = make_target(bars_of([4.0] * 8), MLSettings(prediction_horizon=2))
    # 2012-07-04 is Independence Day; 7 and 8 July are a weekend.
    assert target["label_end"].iloc[:4].dt.strftime("%m-%d").tolist() == ["07-05", "07-06", "07-09", "07-10"]
    assert target.index[:4].strftime("%m-%d").tolist() == ["07-02", "07-03", "07-05", "07-06"]


def test_a_trade_starts_at_the_next_open_and_not_at_the_close_that_gave_the_signal() -> None:
    target = make_target(bars_of([4, 5, 6, 7], opens=[1, 2, 3, 6]), MLSettings(prediction_horizon=1))
    assert target["trade_return"].iloc[:2].tolist() == [0.5, 1.0]
    assert target["trade_return"].iloc[2:].isna().all()


def test_bars_after_the_horizon_do_not_touch_a_label() -> None:
    settings = MLSettings(prediction_horizon=5)
    bars = make_bars("AAA").set_index("date")
    whole, cut = make_target(bars, settings), make_target(bars.iloc[:300], settings)
    pd.testing.assert_frame_equal(whole.iloc[:295], cut.iloc[:295], check_freq=False)
    assert (cut["label"].iloc[295:] == NO_LABEL).all()


def test_labels_do_not_depend_on_the_price_level() -> None:
    settings = MLSettings()
    bars = make_bars("BBB").set_index("date")
    assert make_target(bars, settings)["label"].equals(make_target(bars * 8, settings)["label"])


def test_a_history_shorter_than_the_horizon_has_no_labels() -> None:
    target = make_target(bars_of([4.0, 5.0]), MLSettings(prediction_horizon=5))
    assert target["label"].tolist() == [NO_LABEL, NO_LABEL]


def test_class_shares_leave_out_rows_without_label() -> None:
    assert class_shares(np.array([DOWN, UP, UP, FLAT, NO_LABEL, NO_LABEL])) == pytest.approx([0.25, 0.25, 0.5])
    assert class_shares(np.array([NO_LABEL])).tolist() == [0, 0, 0]
