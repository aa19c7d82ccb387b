import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from signals_core.ml.comparison import compare_challengers, earned_its_place
from signals_core.ml.validation import WalkForwardValidator, WindowResult
from signals_core.report import read_report
from signals_core.report_text import render
from tests.core.ml.helpers import QUICK_ML, QUICK_TUNING, make_panel


@pytest.fixture(scope="module")
def results() -> list[WindowResult]:
    panel = make_panel()
    return WalkForwardValidator(QUICK_ML, QUICK_TUNING).run(panel.features, panel.target, 6, 6, 3)


def with_probabilities(result: WindowResult, name: str, told: float) -> WindowResult:
    """The result with probabilities that give what happened `told`, and the others the rest."""
    rows = result.out_of_fold.copy()
    table = np.full((len(rows), 3), (1 - told) / 2)
    table[np.arange(len(rows)), rows["label"]] = told
    columns = ["p_down", "p_flat", "p_up"] if name == "xgboost" else [f"{name}_{k}" for k in ("down", "flat", "up")]
    rows[columns] = table
    return replace(result, out_of_fold=rows)


def test_rows_that_two_windows_tested_count_once(results):
    found = compare_challengers(results, horizon=5)
    distinct = set().union(*(r.out_of_fold.index for r in results))
    assert sum(r.test_rows for r in results) > len(distinct)
    assert {name: c.rows for name, c in found.items()} == {"prior": len(distinct), "logistic": len(distinct)}
    assert found["prior"].windows == len(results) == 3


def test_a_known_difference_is_found_with_its_sign(results):
    sharp = [with_probabilities(with_probabilities(r, "xgboost", 0.5), "logistic", 0.4) for r in results]
    found = compare_challengers(sharp, horizon=5)
    assert found["logistic"].advantage.mean == pytest.approx(np.log(0.5 / 0.4), abs=1e-6)
    assert found["logistic"].verdict == "XGBoost is better"
    assert earned_its_place(found)
    blunt = [with_probabilities(with_probabilities(r, "xgboost", 0.4), "logistic", 0.5) for r in results]
    found = compare_challengers(blunt, horizon=5)
    assert found["logistic"].advantage.mean == pytest.approx(np.log(0.4 / 0.5), abs=1e-6)
    assert found["logistic"].verdict == "the challenger is better"
    assert not earned_its_place(found)


def test_equal_probabilities_show_no_difference(results):
    even = [with_probabilities(with_probabilities(r, "xgboost", 0.4), "logistic", 0.4) for r in results]
    found = compare_challengers(even, horizon=5)
    assert (found["logistic"].advantage.mean, found["logistic"].verdict) == (0, "no difference is shown")
    assert "no difference is shown" in str(found["logistic"])


def test_a_champion_is_compared_where_it_served_and_only_there(results):
    last = with_probabilities(results[-1], "champion", 0.9)
    found = compare_challengers([*results[:-1], last], horizon=5)
    assert (found["champion"].rows, found["champion"].windows) == (last.test_rows, 1)
    assert found["champion"].verdict == "the challenger is better"
    assert "champion" not in compare_challengers(results, horizon=5)


def test_no_window_gives_no_comparison():
    assert compare_challengers([], horizon=5) == {}
    assert not earned_its_place({})


def test_pooled_means_are_those_of_the_latest_windows_rows(results):
    found = compare_challengers(results[::-1], horizon=5)["logistic"]
    rows = pd.concat([r.out_of_fold for r in results])
    rows = rows[~rows.index.duplicated(keep="last")]
    given = rows[["p_down", "p_flat", "p_up"]].to_numpy("float64")[np.arange(len(rows)), rows["label"]]
    assert found.xgboost_log_loss == pytest.approx(-np.log(given).mean(), abs=1e-9)


def test_the_report_says_whether_xgboost_earned_its_place(validated, open_workspace):
    report = read_report(open_workspace(validated))
    console = Console(width=160, file=io.StringIO())
    render(report, console)
    text = console.file.getvalue()
    for scope in report.scopes:
        assert list(scope.challenges) == ["prior", "logistic"]
        assert f"  {scope.challenges['logistic']}" in text
        earned = earned_its_place(scope.challenges)
        assert (f"{scope.scope}: XGBoost earned its place" in text) is earned
        assert (
            f"{scope.scope}: XGBoost has not shown that it is better than both prior and logistic" in text
        ) != earned
    assert [s["xgboost_earned_its_place"] for s in report.to_dict()["scopes"]] == [
        earned_its_place(scope.challenges) for scope in report.scopes
    ]
