from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from signals_core.errors import DataError, MissingPrerequisite
from signals_core.ml import validation
from signals_core.ml.splits import PanelSplitter, RowUse, Window, calendar_windows, window_rows
from signals_core.ml.validation import WalkForwardValidator, pool_out_of_fold, warm_source
from signals_core.settings import TuningSettings, ValidationSettings
from signals_core.workspace import Panel
from tests.core.ml.helpers import QUICK_ML, QUICK_TUNING, make_panel

WINDOW = Window(date(2020, 1, 1), date(2021, 1, 1), date(2021, 7, 1))


def dates_of(panel: Panel, rows: np.ndarray) -> pd.DatetimeIndex:
    return panel.target.index.get_level_values("date")[rows]


def validator(**changes) -> WalkForwardValidator:
    return WalkForwardValidator(QUICK_ML, QUICK_TUNING, ValidationSettings(**changes))


@pytest.fixture(scope="module")
def panel() -> Panel:
    return make_panel()


def rows_that_reach_the_model(monkeypatch, panel: Panel) -> pd.DataFrame:
    """The target rows that the validator hands to tuning and training."""
    seen = []
    real = validation.tune

    def spy(features, target, ml, tuning, **more):
        seen.append(target)
        assert features.index.equals(target.index)
        return real(features, target, ml, tuning, **more)

    monkeypatch.setattr(validation, "tune", spy)
    result = validator().run_window(WINDOW, panel.features, panel.target)
    assert result.train_rows == len(seen[0])
    return seen[0]


def assert_purged(rows: pd.DataFrame) -> None:
    assert rows["label_end"].max() < pd.Timestamp(WINDOW.test_start)


def test_what_reaches_the_model_is_purged(monkeypatch, panel):
    assert_purged(rows_that_reach_the_model(monkeypatch, panel))


def test_the_purge_test_notices_when_the_purge_is_removed(monkeypatch, panel):
    class WithoutPurge(PanelSplitter):
        def split(self, window):
            rows = super().split(window)
            return replace(rows, train_rows=np.flatnonzero(np.isin(rows.use, [RowUse.TRAIN, RowUse.PURGED])))

    monkeypatch.setattr(validation, "PanelSplitter", WithoutPurge)
    with pytest.raises(AssertionError):
        assert_purged(rows_that_reach_the_model(monkeypatch, panel))


def test_run_gives_one_result_a_window_in_time_order(panel):
    results = validator().run(panel.features, panel.target, train_months=12, test_months=3, step_months=2)
    assert [(r.start, r.end) for r in results] == [
        ("2021-01-01", "2021-04-01"),
        ("2021-03-01", "2021-06-01"),
    ]
    for result in results:
        assert 0 < result.accuracy < 1
        assert result.log_loss > 0
        assert result.params["max_depth"] == 2
        assert np.isfinite(result.sharpe_ratio)


def test_figures_are_those_of_the_out_of_fold_predictions(panel):
    result = validator().run_window(WINDOW, panel.features, panel.target)
    rows = result.out_of_fold
    table = rows[["p_down", "p_flat", "p_up"]].to_numpy(dtype="float64")
    given = table[np.arange(len(rows)), rows["label"]]
    assert result.log_loss == pytest.approx(-np.log(given).mean(), abs=1e-6)
    assert result.accuracy == pytest.approx((table.argmax(axis=1) == rows["label"]).mean())
    prior = np.asarray(result.prior)[rows["label"]]
    daily = pd.Series(np.log(given / prior), index=rows.index).groupby(level="date").mean()
    assert result.gain == pytest.approx(daily.mean(), abs=1e-6)
    assert result.prior == pytest.approx(
        panel.target["label"][window_rows(WINDOW, panel.target).train].value_counts(normalize=True).sort_index()
    )
    assert result.test_rows == len(rows) == 2 * 119


def test_series_labels_give_the_same_predictions_as_the_whole_target_but_no_sharpe_ratio(panel):
    labels = panel.target["label"].astype("Int8").mask(panel.target["label"] < 0)
    (from_labels,) = validator().run(panel.features, labels, 12, 6, 3)
    (from_frame,) = validator().run(panel.features, panel.target, 12, 6, 3)
    columns = ["label_end", "p_down", "p_flat", "p_up"]
    pd.testing.assert_frame_equal(from_labels.out_of_fold[columns], from_frame.out_of_fold[columns])
    assert from_labels.log_loss == from_frame.log_loss
    assert np.isnan(from_labels.sharpe_ratio)
    assert np.isfinite(from_frame.sharpe_ratio)


@pytest.mark.parametrize(
    "horizon",
    [
        pytest.param(
            1,
        ),
        2,
        5,
    ],
)
def test_a_window_does_not_change_when_later_bars_arrive(horizon):
    settings = QUICK_ML.model_copy(update={"prediction_horizon": horizon})
    runs = []
    for end in (date(2021, 7, 1), date(2021, 8, 1)):
        panel = make_panel(end=end, horizon=horizon)
        chosen = WalkForwardValidator(settings, QUICK_TUNING, ValidationSettings())
        runs.append(chosen.run_window(WINDOW, panel.features, panel.target))
    pd.testing.assert_frame_equal(runs[0].out_of_fold, runs[1].out_of_fold)
    assert runs[0].figures() == runs[1].figures()


def test_bars_after_the_window_cannot_change_it_whatever_they_are(panel):
    result = validator().run_window(WINDOW, panel.features, panel.target)
    features, target = panel.features.copy(), panel.target.copy()
    later = features.index.get_level_values("date") >= "2021-07-01"
    features[later], target.loc[later, ["label", "trade_return"]] = 1e6, [2, 9.0]
    assert validator().run_window(WINDOW, features, target).figures() == result.figures()


def test_too_few_training_rows_are_refused_with_the_window_and_both_numbers():
    late = make_panel(("AAA",), listed={"AAA": date(2020, 12, 1)})
    with pytest.raises(MissingPrerequisite, match=r"window 2021-01-01: 17 training rows.*asks for 30"):
        validator().run_window(WINDOW, late.features, late.target)


def test_a_window_without_a_test_row_is_refused(panel):
    window = Window(date(2020, 1, 1), date(2021, 8, 1), date(2022, 2, 1))
    with pytest.raises(MissingPrerequisite, match="window 2021-08-01: no labelled row to test on"):
        validator().run_window(window, panel.features, panel.target)


def test_dates_that_hold_no_whole_window_are_refused(panel):
    with pytest.raises(MissingPrerequisite, match=r"holds no window of 24 \+ 6 months"):
        validator().run(panel.features, panel.target)


def test_features_and_target_of_different_rows_are_refused(panel):
    with pytest.raises(DataError, match="same"):
        validator().run(panel.features.iloc[1:], panel.target, 12, 6, 3)


def test_pooling_counts_each_symbol_and_date_once_from_the_latest_window(panel):
    results = validator().run(panel.features, panel.target, train_months=6, test_months=6, step_months=3)
    assert [r.start for r in results] == ["2020-07-01", "2020-10-01", "2021-01-01"]
    pooled = pool_out_of_fold(results[::-1])  # whatever the order they come in
    assert pooled.index.is_unique
    assert set(pooled.index) == set().union(*(r.out_of_fold.index for r in results))
    spans = pooled.reset_index().groupby("window")["date"].agg(["min", "max"])
    # The first window keeps what the second has not tested, and so on.
    assert spans["min"].dt.strftime("%Y-%m-%d").tolist() == ["2020-07-01", "2020-10-01", "2021-01-04"]
    assert spans["max"].dt.strftime("%Y-%m-%d").tolist() == ["2020-09-30", "2020-12-31", "2021-06-23"]
    last = results[2]
    assert pooled.loc[last.out_of_fold.index, "p_up"].equals(last.out_of_fold["p_up"].sort_index())
    assert pooled.loc[last.out_of_fold.index, "prior_up"].unique() == pytest.approx([last.prior[2]])


class Oracle:
    """A champion that gives what happened .8."""

    version_id = "v1"

    def __init__(self, panel: Panel) -> None:
        self.labels = panel.target["label"]
        self.asked: list[pd.Index] = []

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        self.asked.append(features.index)
        return np.eye(3)[self.labels[features.index]] * 0.7 + 0.1


def test_challengers_are_scored_on_the_same_rows_with_their_uncertainty(panel):
    champion = Oracle(panel)
    chosen = WalkForwardValidator(QUICK_ML, QUICK_TUNING, ValidationSettings(), champion=lambda window: champion)
    result = chosen.run_window(WINDOW, panel.features, panel.target)
    assert list(result.challengers) == ["logistic", "champion"]
    assert champion.asked[0].equals(result.out_of_fold.index)
    served = result.challengers["champion"]
    assert served.log_loss == pytest.approx(-np.log(0.8))
    assert served.advantage == pytest.approx(served.log_loss - result.log_loss, abs=1e-9)
    assert served.gain == pytest.approx(result.prior_log_loss - served.log_loss, abs=1e-9)
    assert (served.advantage < 0, served.advantage_error > 0, served.detail) == (True, True, "v1")
    rows = result.out_of_fold
    for name in ("logistic", "champion"):
        table = rows[[f"{name}_down", f"{name}_flat", f"{name}_up"]].to_numpy("float64")
        given = table[np.arange(len(rows)), rows["label"]]
        assert result.challengers[name].log_loss == pytest.approx(-np.log(given).mean(), abs=1e-6)


def test_a_window_before_which_nothing_served_has_no_champion(panel):
    chosen = WalkForwardValidator(QUICK_ML, QUICK_TUNING, champion=lambda window: None)
    assert list(chosen.run_window(WINDOW, panel.features, panel.target).challengers) == ["logistic"]


def test_logistic_regression_does_not_see_the_test(panel):
    result = validator().run_window(WINDOW, panel.features, panel.target)
    target = panel.target.copy()
    tested = target.index.get_level_values("date") >= "2021-01-01"
    target.loc[tested & (target["label"] >= 0), "label"] = 2
    columns = ["logistic_down", "logistic_flat", "logistic_up", "p_down", "p_flat", "p_up"]
    again = validator().run_window(WINDOW, panel.features, target)
    pd.testing.assert_frame_equal(again.out_of_fold[columns], result.out_of_fold[columns])


def test_a_result_says_what_was_done_with_the_rows(panel):
    result = validator(embargo_sessions=2).run_window(WINDOW, panel.features, panel.target)
    assert result.train_dates == ["2020-01-02", "2020-12-21"]
    assert result.test_dates == ["2021-01-04", "2021-06-23"]
    assert result.barrier == "2020-12-30"
    assert result.rows == {"train": 492, "test": 238, "purged": 10, "embargoed": 4, "unlabelled": 10}


def test_a_row_that_occurs_twice_is_refused_by_name(panel):
    doubled = Panel(*(pd.concat([frame, frame.iloc[[7]]]) for frame in (panel.features, panel.target)))
    with pytest.raises(DataError, match=r"\('AAA', Timestamp\('2020-01-13.*occurs more than once"):
        validator().run(doubled.features, doubled.target, 12, 6, 3)


def test_a_warm_start_comes_from_the_latest_window_whose_test_had_ended():
    windows = list(calendar_windows(date(2020, 1, 1), date(2023, 1, 1), 12, 6, 3))
    found = {w.key: source.key if (source := warm_source(w, windows)) else None for w in windows}
    assert found == {
        "2021-01-01": None,
        "2021-04-01": None,
        "2021-07-01": "2021-01-01",
        "2021-10-01": "2021-04-01",
        "2022-01-01": "2021-07-01",
        "2022-04-01": "2021-10-01",
        "2022-07-01": "2022-01-01",
    }


def test_warm_starts_go_forward_only(panel):
    tuning = TuningSettings(trials=2, max_rounds=5, warm_start=True)
    results = WalkForwardValidator(QUICK_ML, tuning).run(panel.features, panel.target, 6, 3, 3)
    assert [(r.start, r.warm_from) for r in results] == [
        ("2020-07-01", None),
        ("2020-10-01", "2020-07-01"),
        ("2021-01-01", "2020-10-01"),
        ("2021-04-01", "2021-01-01"),
    ]
    shorter = panel.target.index.get_level_values("date") < "2021-04-01"
    earlier = WalkForwardValidator(QUICK_ML, tuning).run(panel.features[shorter], panel.target[shorter], 6, 3, 3)
    # Its last window's labels end in the rows that were cut off; the others cannot know.
    assert [r.figures() for r in earlier[:2]] == [r.figures() for r in results[:2]]
