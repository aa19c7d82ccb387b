"""The search for lookahead finds a leak that was planted, and none in the store as it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signals_core.feature_store import FeatureStore
from signals_core.features.fundamental import RATIOS
from signals_core.features.inputs import FeatureInputs
from signals_core.features.leakage import Leak, cut_inputs, find_leaks
from signals_core.features.technical import TechnicalFeatureCalculator
from signals_core.features.temporal import TemporalFeatureCalculator
from signals_core.market_data.schemas import FUNDAMENTAL_VALUES
from tests.project.bars import make_bars

DATES = [pd.Timestamp(d) for d in ("2021-06-15", "2021-11-26", "2022-03-31")]


def bars_of(symbol: str) -> pd.DataFrame:
    return make_bars(symbol).set_index("date")


@pytest.fixture(scope="module")
def inputs() -> FeatureInputs:
    trades = pd.DataFrame(
        {"available_at": pd.to_datetime(["2021-06-01 12:00", "2021-06-15 21:00", "2021-11-26 18:30"]),
         "code": ["P", "S", "P"], "shares": [10.0, -5.0, 7.0], "price": 20.0}
    )  # fmt: skip
    others = {"spy_bars": bars_of("SPY"), "sector_bars": bars_of("XLK"), "vix_bars": bars_of("BBB")}
    return FeatureInputs(bars_of("AAA"), **others, insider_transactions=trades)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path)


def leaks_of(store: FeatureStore, inputs: FeatureInputs, values: pd.DataFrame | None = None) -> list[Leak]:
    values = store.compute(inputs) if values is None else values
    return find_leaks("AAA", values, lambda cut: store.compute(cut_inputs(inputs, cut, "XNYS")), DATES)


def leaking(store: FeatureStore, inputs: FeatureInputs) -> set[str]:
    return {leak.feature for leak in leaks_of(store, inputs)}


def test_the_store_as_it_is_has_no_leak(store: FeatureStore, inputs: FeatureInputs) -> None:
    values = store.compute(inputs)
    assert values.loc[DATES].notna().all()[["roc_60", "corr_spy_60", "vix_change_5", "insider_value_90d"]].all()
    assert leaking(store, inputs) == set()


def test_a_leak_names_its_feature_its_last_row_and_both_values(store: FeatureStore, inputs: FeatureInputs) -> None:
    values = store.compute(inputs)
    knowable = values.loc[DATES[1], "roc_5"]
    values.loc[DATES[1], "roc_5"] = 0.5
    at_once, later = leaks_of(store, inputs, values)
    assert (at_once.symbol, at_once.feature, at_once.cut, at_once.date) == ("AAA", "roc_5", DATES[1], DATES[1])
    assert (at_once.rows, at_once.value, at_once.knowable) == (1, 0.5, knowable)
    assert (later.cut, later.date, later.rows) == (DATES[2], DATES[1], 1)


@pytest.mark.parametrize(
    ("calculator", "feature"), [(TechnicalFeatureCalculator, "roc_1"), (TemporalFeatureCalculator, "day_of_week")]
)
def test_a_feature_shifted_into_the_future_is_caught_and_no_other(
    store: FeatureStore, inputs: FeatureInputs, monkeypatch: pytest.MonkeyPatch, calculator: type, feature: str
) -> None:
    honest = calculator.calculate

    def peek(self: object, given: FeatureInputs) -> pd.DataFrame:
        frame = honest(self, given)
        return frame.assign(**{feature: frame[feature].shift(-1)})

    monkeypatch.setattr(calculator, "calculate", peek)
    assert leaking(store, inputs) == {feature}


def test_a_statistic_over_the_whole_history_is_caught(
    store: FeatureStore, inputs: FeatureInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = TechnicalFeatureCalculator.calculate

    def standardise(self: TechnicalFeatureCalculator, given: FeatureInputs) -> pd.DataFrame:
        frame = honest(self, given)
        return frame.assign(natr_14=(frame["natr_14"] - frame["natr_14"].mean()) / frame["natr_14"].std())

    monkeypatch.setattr(TechnicalFeatureCalculator, "calculate", standardise)
    assert leaking(store, inputs) == {"natr_14"}


def test_corrected_short_interest_does_not_leak(store: FeatureStore, inputs: FeatureInputs) -> None:
    reports = pd.DataFrame(
        {
            "settlement_date": pd.to_datetime(["2021-05-14", "2021-05-28", "2021-05-14"]),
            "available_at": pd.to_datetime(["2021-05-25", "2021-06-09", "2021-07-01"]),
            "shares_short": [100.0, 150.0, 120.0], "avg_daily_volume": 50.0, "shares_float": 1000.0,
        }
    )  # fmt: skip
    known = FeatureInputs(inputs.bars, short_interest=reports)
    assert leaking(store, known) == set()


def test_filings_restatements_and_short_interest_do_not_leak(store: FeatureStore, inputs: FeatureInputs) -> None:
    ends = pd.date_range("2020-03-31", "2021-12-31", freq="QE")
    values = [n for n in FUNDAMENTAL_VALUES if n != "shares_outstanding"]
    amounts = np.random.default_rng(3).uniform(1, 9, (len(ends), len(values)))
    filed = pd.DataFrame(amounts, columns=values).assign(
        period_end=ends, available_at=ends + pd.Timedelta(days=30, hours=21), shares_outstanding=10.0
    )
    restated = filed.iloc[[3]].assign(available_at=pd.Timestamp("2021-11-26 18:30"), revenue=99.0)
    fundamentals = pd.concat([filed, restated]).sort_values("available_at")
    settled = pd.date_range("2021-05-14", "2021-12-31", freq="14D")
    reports = pd.DataFrame({"settlement_date": settled, "available_at": settled + pd.Timedelta(days=9, hours=21),
                            "shares_short": np.arange(1.0, len(settled) + 1), "avg_daily_volume": 5.0,
                            "shares_float": 90.0})  # fmt: skip
    known = replace(inputs, fundamentals=fundamentals, short_interest=reports)
    index = known.bars.index
    medians = pd.DataFrame(1.0, index=index, columns=list(RATIOS))
    sectors = pd.DataFrame({"sector": ["energy"]}, index=pd.DatetimeIndex(["1900-01-01"], dtype="datetime64[us]"))
    known = replace(known, sector_fundamentals=medians, sectors=sectors)
    assert store.compute(known).loc[DATES[1]].notna().all()
    assert leaking(store, known) == set()


def test_inputs_are_cut_at_the_close_by_date_and_by_availability(inputs: FeatureInputs) -> None:
    cut = cut_inputs(inputs, pd.Timestamp("2021-11-26"), "XNYS")  # closed at 13:00, 18:00 UTC
    assert cut.bars.index[-1] == cut.spy_bars.index[-1] == pd.Timestamp("2021-11-26")
    assert len(cut.insider_transactions) == 2
    assert len(cut_inputs(inputs, pd.Timestamp("2021-11-29"), "XNYS").insider_transactions) == 3
    assert len(inputs.insider_transactions) == 3
