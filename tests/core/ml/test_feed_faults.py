"""Broken feeds, told from markets that move."""

import numpy as np
import pandas as pd
import pytest

from signals_core.features.catalog import Feature
from signals_core.features.inputs import FeatureInputs
from signals_core.ml.drift import Reference
from signals_core.ml.feed_faults import coverage_fault, feature_faults, named_feeds
from signals_core.ml.feed_silence import silent_feeds
from signals_core.ml.monitoring import ModelMonitor
from signals_core.settings import MonitoringSettings

SYMBOLS = [f"S{number:02d}" for number in range(20)]
DAY = pd.Timestamp("2022-06-30")


def made(sessions: int, seed: int, start: str) -> pd.DataFrame:
    """fast: a return; slow: a ratio of each company's own level; quarterly: the same in steps of sixty sessions."""
    random = np.random.default_rng(seed)
    dates = pd.bdate_range(start, periods=sessions, name="date")
    index = pd.MultiIndex.from_product([SYMBOLS, dates], names=["symbol", "date"])
    level = np.exp(np.random.default_rng(99).normal(0, 1, len(SYMBOLS)))[:, None]
    walk = np.exp(np.cumsum(random.normal(0, 0.01, (len(SYMBOLS), sessions)), axis=1))
    step = (np.arange(sessions)[None, :] + np.arange(len(SYMBOLS))[:, None] * 3) // 60
    quarterly = np.exp(random.normal(0, 0.1, (len(SYMBOLS), step.max() + 1)))
    columns = {
        "fast": random.normal(0, 0.02, (len(SYMBOLS), sessions)),
        "slow": level * walk,
        "quarterly": np.take_along_axis(quarterly, step, axis=1),
    }
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index=index)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.of(made(500, 0, "2020-01-01"))


def faults(reference: Reference, recent: pd.DataFrame) -> dict[str, str]:
    found = feature_faults(reference, recent, reference.count(recent), MonitoringSettings())
    return {name: fault.kind for name, fault in found.items()}


def broken_for(sessions: int, seed: int = 1) -> tuple[pd.DataFrame, np.ndarray]:
    """A window whose last sessions are to be broken, and which rows those are."""
    recent = made(20, seed, "2022-01-03")
    dates = recent.index.get_level_values("date")
    return recent, np.asarray(dates >= dates.unique()[-sessions])


@pytest.mark.parametrize("seed", range(10))
def test_a_healthy_window_has_no_fault(reference, seed):
    assert faults(reference, made(20, seed + 1, "2022-01-03")) == {}


@pytest.mark.parametrize("factor", [100.0, 0.01, 1000.0])
@pytest.mark.parametrize("name", ["fast", "slow", "quarterly"])
@pytest.mark.parametrize("sessions", [5, 20])
def test_a_change_of_unit_is_named_with_its_factor_in_its_column_only(reference, name, factor, sessions):
    recent, late = broken_for(sessions)
    recent.loc[late, name] *= factor
    found = feature_faults(reference, recent, reference.count(recent), MonitoringSettings())
    assert {n: (f.kind, f.factor) for n, f in found.items()} == {name: ("unit", pytest.approx(factor))}


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_ten_times_overnight_is_a_unit_and_ten_times_in_three_weeks_is_a_crisis(reference, factor):
    recent, late = broken_for(12)
    sudden, gradual = recent.copy(), recent.copy()
    sudden.loc[late, "slow"] *= factor
    found = feature_faults(reference, sudden, reference.count(sudden), MonitoringSettings())
    assert {n: f.factor for n, f in found.items()} == {"slow": pytest.approx(factor)}
    gradual["slow"] *= np.tile(factor ** (np.arange(20) / 19), len(SYMBOLS))
    assert faults(reference, gradual) == {}


def test_twice_as_volatile_is_a_market_and_not_a_unit(reference):
    recent, _ = broken_for(20)
    recent["fast"] *= 2
    recent["slow"] *= 0.5  # a crash
    assert faults(reference, recent) == {}
    assert ModelMonitor().compare(reference, recent)[0].psi > 0.2


@pytest.mark.parametrize("name", ["fast", "slow"])
def test_values_that_stand_still_are_constant_though_symbols_differ(reference, name):
    recent, late = broken_for(6)
    first = recent[late].groupby(level="symbol")[name].transform("first")
    recent.loc[late, name] = first
    assert recent[late][name].nunique() == len(SYMBOLS)
    assert faults(reference, recent) == {name: "constant"}


def test_a_quarterly_figure_that_stands_still_for_a_week_is_no_fault(reference):
    recent, late = broken_for(5)
    recent.loc[late, "quarterly"] = recent[late].groupby(level="symbol")["quarterly"].transform("first")
    assert faults(reference, recent) == {}


def test_holes_count_against_what_the_reference_lacked_too(reference):
    recent, late = broken_for(5)
    holes = np.random.default_rng(0).random(len(recent)) < 0.4
    recent.loc[late & holes, "slow"] = np.nan
    assert faults(reference, recent) == {"slow": "missing"}
    base = made(500, 0, "2020-01-01")
    base.loc[np.random.default_rng(1).random(len(base)) < 0.4, "slow"] = np.nan
    assert faults(Reference.of(base), recent) == {}


def test_a_fault_is_no_drift_and_asks_for_no_retrain(reference):
    recent = made(20, 1, "2022-01-03") * 100
    monitor = ModelMonitor(features={})
    compared = monitor.compare(reference, recent, recent)
    verdict = monitor.judge(compared, recent)
    assert [f.alarm for f in compared] == [True] * 3
    assert not verdict.retrain
    assert [text.partition(" ")[0] for text in verdict.feed_faults] == ["fast", "slow", "quarterly"]
    assert "100 times the values of the reference" in verdict.feed_faults[0]


def test_real_drift_beside_a_broken_feed_waits_for_the_feed(reference):
    recent = made(20, 1, "2022-01-03")
    recent[["fast", "slow"]] += [0.1, 5]
    monitor = ModelMonitor(features={})
    compared = monitor.compare(reference, recent, recent)
    assert monitor.judge(compared, recent).retrain
    with_fault = recent.assign(quarterly=np.nan)
    verdict = monitor.judge(monitor.compare(reference, with_fault, with_fault), with_fault)
    assert not verdict.retrain
    assert "no retrain on the data of a broken feed" in verdict.text
    silent = monitor.judge(compared, recent, ["feed spy_bars: there is no bar since 2022-01-03"])
    assert (silent.retrain, silent.feed_faults) == (False, ["feed spy_bars: there is no bar since 2022-01-03"])


def features(**needs: tuple) -> dict[str, Feature]:
    return {name: Feature(name, "technical", "f", "ratio", needs=need) for name, need in needs.items()}


FEATURES = features(
    rsi=("bars",), roc=("bars",), vol=("bars",), atr=("bars",), pe=("bars", "fundamentals"),
    pb=("bars", "fundamentals"), roe=("bars", "fundamentals"), vix=("bars", "vix_bars"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("faulty", "feeds"),
    [
        (["pe", "pb"], ["fundamentals"]),
        (["pe"], []),
        (["vix"], ["vix_bars"]),
        (["pe", "pb", "vix"], ["fundamentals", "vix_bars"]),
        (["rsi", "roc", "pe", "pb", "vix"], ["bars"]),
        (["rsi"], []),
        ([], []),
        (["a user's own"], []),
    ],
)
def test_a_feed_is_named_by_the_rarest_input_of_its_features(faulty, feeds):
    assert named_feeds(faulty, [*FEATURES, "a user's own"], FEATURES) == feeds


def test_half_of_the_symbols_without_a_row_is_a_fault_of_the_bars():
    rows = made(20, 1, "2022-01-03")
    dates, symbols = (rows.index.get_level_values(level) for level in ("date", "symbol"))
    assert coverage_fault(rows) is None
    assert coverage_fault(rows[(dates < dates.max()) | symbols.isin(SYMBOLS[:10])]) is None
    assert coverage_fault(rows[(dates < dates.max()) | symbols.isin(SYMBOLS[:9])]) == (
        "feed bars: 9 symbols have a row in the last session, 20 had one before"
    )


def bars(last: pd.Timestamp = DAY, frozen: int = 0) -> pd.DataFrame:
    index = pd.bdate_range(end=last, periods=30, name="date")
    values = np.random.default_rng(0).uniform(90, 110, (30, 5))
    values[30 - frozen :] = values[29 - frozen]
    return pd.DataFrame(values, index=index, columns=["open", "high", "low", "close", "volume"])


def published(every_days: int, last: str) -> pd.DataFrame:
    return pd.DataFrame({"available_at": pd.date_range(end=last, periods=40, freq=f"{every_days}D")})


def said(**inputs: pd.DataFrame) -> list[str]:
    each = {symbol: FeatureInputs(**{"bars": bars(), **inputs}) for symbol in ("AAA", "BBB")}
    return silent_feeds(each, DAY, pd.Timestamp("2020-01-01"))


def test_instruments_that_repeat_themselves_or_stay_behind_are_named():
    assert said(spy_bars=bars(), vix_bars=bars()) == []
    assert said(spy_bars=bars(frozen=1)) == [], "a bar may repeat the one before"
    assert said(spy_bars=bars(frozen=2)) == ["feed spy_bars: the last 3 bars are the same"]
    assert said(vix_bars=bars(DAY - pd.Timedelta(days=1))) == ["feed vix_bars: there is no bar since 2022-06-29"]


def test_bars_of_one_symbol_of_three_are_a_halted_share():
    def of(frozen: int) -> list[str]:
        each = {f"S{n}": FeatureInputs(bars(frozen=2 if n < frozen else 0)) for n in range(3)}
        return silent_feeds(each, DAY, pd.Timestamp("2020-01-01"))

    assert of(1) == []
    assert of(2) == ["feed bars: of 2 of 3 symbols the last 3 bars are the same"]


def test_facts_are_silent_once_they_are_for_longer_than_they_ever_were():
    assert said(short_interest=published(15, "2022-06-10")) == []
    assert said(short_interest=published(15, "2022-06-06")) == [
        "feed short_interest: nothing new for 25 days, 15 at most before"
    ]


def test_facts_that_were_always_rare_say_nothing():
    assert said(fundamentals=published(90, "2022-01-01").tail(5)) == []
