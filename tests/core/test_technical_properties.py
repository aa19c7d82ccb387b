"""Technical features on many random series: TA-Lib's own values, exact warm-up, and only documented gaps."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from signals_core.calendar import sessions_between
from signals_core.features.catalog import catalog, feature_names
from signals_core.features.inputs import FeatureInputs
from signals_core.features.technical import TechnicalFeatureCalculator

SESSIONS = sessions_between("XNYS", pd.Timestamp("2010-01-01").date(), pd.Timestamp("2016-01-01").date())
PRICES = ["open", "high", "low", "close"]
STILL = {"bb_percent_b_20", "vol_ratio_20_60"}
"""Missing where the price did not move, as the catalogue says."""
UNTRADED = {"obv_slope_20", "close_to_vwap_20", "volume_to_sma_20", "cmf_20"}
"""Missing where nothing was traded in 20 sessions."""


def random_bars(seed: int, rows: int, volatility: float, level: float, tick: float) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    close = level * np.exp(np.cumsum(random.normal(0, volatility, rows)))
    open_ = close * np.exp(random.normal(0, volatility / 3, rows))
    reach = np.abs(random.normal(0, volatility / 2, (2, rows)))
    high, low = np.maximum(open_, close) * (1 + reach[0]), np.minimum(open_, close) * (1 - reach[1])
    frame = pd.DataFrame({"open": open_, "high": high, "low": low, "close": close}, index=SESSIONS[:rows])
    if tick:
        frame = np.maximum((frame / tick).round() * tick, tick)
    return frame.assign(volume=random.integers(0, 2_000_000, rows).astype("float64")).rename_axis("date")


BARS = st.builds(
    random_bars,
    seed=st.integers(0, 2**32 - 1),
    rows=st.one_of(st.integers(1, 40), st.integers(190, 600)),
    volatility=st.sampled_from([0.002, 0.02, 0.08]),
    level=st.sampled_from([0.05, 7.0, 100.0, 400_000.0]),
    tick=st.sampled_from([0.0, 0.01]),
)


def technical(bars: pd.DataFrame) -> pd.DataFrame:
    return TechnicalFeatureCalculator().calculate(FeatureInputs(bars))


def by_talib(bars: pd.DataFrame) -> dict[str, np.ndarray]:
    """What TA-Lib's public functions say, with their own defaults where the catalogue does not say otherwise."""
    high, low, close, volume = (bars[name].to_numpy() for name in ("high", "low", "close", "volume"))
    macd, signal, histogram = talib.MACD(close)
    slow_k, slow_d = talib.STOCH(high, low, close, fastk_period=14, slowk_period=3, slowd_period=3)
    upper, middle, lower = talib.BBANDS(close, timeperiod=20)
    return {
        "rsi_14": talib.RSI(close), "macd_pct": macd / close, "macd_signal_pct": signal / close,
        "macd_hist_pct": histogram / close, "stoch_k_14_3": slow_k, "stoch_d_3": slow_d,
        "willr_14": talib.WILLR(high, low, close), "cci_20": talib.CCI(high, low, close, timeperiod=20),
        "mfi_14": talib.MFI(high, low, close, volume), "adx_14": talib.ADX(high, low, close),
        "plus_di_14": talib.PLUS_DI(high, low, close), "minus_di_14": talib.MINUS_DI(high, low, close),
        "aroonosc_25": talib.AROONOSC(high, low, 25), "natr_14": talib.NATR(high, low, close),
        "close_to_ema_12": close / talib.EMA(close, 12) - 1, "close_to_ema_26": close / talib.EMA(close, 26) - 1,
        "ema_12_to_26": talib.EMA(close, 12) / talib.EMA(close, 26) - 1,
        **{f"close_to_sma_{n}": close / talib.SMA(close, n) - 1 for n in (20, 50, 200)},
        "sma_50_to_200": talib.SMA(close, 50) / talib.SMA(close, 200) - 1,
        **{f"roc_{n}": talib.ROC(close, n) / 100 for n in (1, 5, 10, 20, 60)},
        "bb_percent_b_20": (close - lower) / (upper - lower), "bb_bandwidth_20": (upper - lower) / middle,
        **{f"dist_high_{n}": close / talib.MAX(high, n) - 1 for n in (20, 252)},
        **{f"dist_low_{n}": close / talib.MIN(low, n) - 1 for n in (20, 252)},
    }  # fmt: skip


def still_rows(bars: pd.DataFrame) -> pd.Series:
    """Rows where the definitions say something else than TA-Lib: no range, no flow, or no move in a window."""

    def constant(values: pd.Series, window: int) -> pd.Series:
        return values.rolling(window).max() == values.rolling(window).min()

    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    moved = (typical.diff().abs() > 1e-9 * typical) & (bars["volume"] > 0)
    return (
        constant(bars["close"], 15) | constant(typical, 15) | (moved.rolling(14).sum() == 0)
        | (bars["high"].rolling(14).max() == bars["low"].rolling(14).min())
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(bars=BARS)
def test_what_talib_defines_is_talibs_on_any_series(bars: pd.DataFrame) -> None:
    found, usual = technical(bars), ~still_rows(bars)
    with np.errstate(all="ignore"):
        for name, values in by_talib(bars).items():
            expected = np.where(np.isfinite(values), values, np.nan)
            np.testing.assert_allclose(found[name][usual], expected[usual], rtol=1e-8, atol=1e-10, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(bars=BARS)
def test_a_feature_is_missing_in_its_warm_up_and_where_the_catalogue_says(bars: pd.DataFrame) -> None:
    check_missing(bars, technical(bars))


def check_missing(bars: pd.DataFrame, found: pd.DataFrame) -> None:
    assert not np.isinf(found.to_numpy()).any()
    assert list(found.columns) == feature_names("technical")
    flat = bars["close"].rolling(20).max() == bars["close"].rolling(20).min()
    flat_60 = bars["close"].rolling(61).max() == bars["close"].rolling(61).min()
    untraded = bars["volume"].rolling(20).max() == 0
    excused: dict[str, Any] = {
        "bb_percent_b_20": flat, "vol_ratio_20_60": flat_60, **dict.fromkeys(UNTRADED, untraded),
    }  # fmt: skip
    for name in found:
        expected = pd.Series(np.arange(len(bars)) < catalog()[name].warm_up, bars.index)
        if name in excused:
            expected |= excused[name]
        wrong = expected != found[name].isna()
        assert not wrong.any(), f"{name} at {wrong.idxmax()}: {found[name][wrong.idxmax()]}"
    assert {n for n in found if catalog()[n].missing} == STILL | UNTRADED


BOUNDS = {
    **dict.fromkeys(("rsi_14", "stoch_k_14_3", "stoch_d_3", "mfi_14", "adx_14", "plus_di_14", "minus_di_14"), (0, 100)),
    "willr_14": (-100, 0), "aroonosc_25": (-100, 100), "cmf_20": (-1, 1), "close_location_value": (-1, 1),
    **dict.fromkeys(("hist_vol_20", "hist_vol_60", "parkinson_vol_20", "bb_bandwidth_20", "natr_14", "range_pct",
                     "vol_ratio_20_60"), (0, np.inf)),
    **dict.fromkeys(("dist_high_20", "dist_high_252"), (-1, 0)),
    **dict.fromkeys(("dist_low_20", "dist_low_252"), (0, np.inf)),
    "volume_to_sma_20": (0, 20), "close_to_vwap_20": (-1, np.inf),
}  # fmt: skip

STRETCHES = st.lists(
    st.tuples(
        st.sampled_from(["halt", "frozen", "untraded", "crash", "one price", "giant volume"]),
        st.integers(5, 560),
        st.integers(1, 80),
    ),
    min_size=1,
    max_size=5,
)


def disturbed(bars: pd.DataFrame, stretches: list[tuple[str, int, int]]) -> pd.DataFrame:
    bars = bars.copy()
    for kind, start, length in stretches:
        rows = slice(min(start, len(bars) - 2), start + length)
        before = bars["close"].iloc[max(rows.start - 1, 0)]
        if kind in ("halt", "frozen"):
            bars.iloc[rows, :4] = before
        if kind in ("halt", "untraded"):
            bars.iloc[rows, 4] = 0.0
        if kind == "one price":
            for name in ("open", "high", "low"):
                bars.iloc[rows, bars.columns.get_loc(name)] = bars["close"].iloc[rows]
        if kind == "crash":
            bars.iloc[rows.start :, :4] = bars.iloc[rows.start :, :4] * 0.03
        if kind == "giant volume":
            bars.iloc[rows, 4] = 5e11
    return bars


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), tick=st.sampled_from([0.0, 0.01]), stretches=STRETCHES)
def test_halts_freezes_and_crashes_give_defined_values(
    seed: int, tick: float, stretches: list[tuple[str, int, int]]
) -> None:
    bars = disturbed(random_bars(seed, 600, 0.02, 80.0, tick), stretches)
    found = technical(bars)
    check_missing(bars, found)
    for name, (low, high) in BOUNDS.items():
        values = found[name].dropna()
        assert values.between(low - 1e-6, high + 1e-6).all(), f"{name}: {values.min()}..{values.max()}"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), stretches=STRETCHES)
def test_money_flow_is_its_definition_also_where_little_is_traded(
    seed: int, stretches: list[tuple[str, int, int]]
) -> None:
    """The plain sums; TA-Lib's run on, and call a flow under 1 none."""
    check_money_flow(disturbed(random_bars(seed, 400, 0.02, 80.0, 0.0), stretches))


def test_no_money_flows_when_what_moves_is_not_traded_and_what_is_traded_does_not_move() -> None:
    bars = disturbed(random_bars(1, 100, 0.02, 80.0, 0.0), [("frozen", 50, 7), ("untraded", 57, 9)])
    assert technical(bars)["mfi_14"].iloc[64:66].tolist() == [50.0, 50.0]
    check_money_flow(bars)


def check_money_flow(bars: pd.DataFrame) -> None:
    typical = (bars["high"] + bars["low"] + bars["close"]).to_numpy() / 3
    flow = typical * bars["volume"].to_numpy()
    expected = np.full(len(bars), np.nan)
    for row in range(14, len(bars)):
        up = sum(flow[i] for i in range(row - 13, row + 1) if typical[i] > typical[i - 1])
        down = sum(flow[i] for i in range(row - 13, row + 1) if typical[i] < typical[i - 1])
        expected[row] = 50.0 if up + down == 0 else 100 * up / (up + down)
    np.testing.assert_allclose(technical(bars)["mfi_14"], expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("price", [0.0003, 0.1, 50.3, 123_456.789])
def test_a_price_that_never_moved_has_no_other_gap_than_the_catalogues(price: float) -> None:
    bars = pd.DataFrame(price, index=SESSIONS[:400], columns=PRICES).assign(volume=3e5).rename_axis("date")
    found = technical(bars)
    check_missing(bars, found)
    zero = set(found) - {"rsi_14", "mfi_14", "stoch_k_14_3", "stoch_d_3", "willr_14", "volume_to_sma_20"} - STILL
    assert found.iloc[-1][sorted(zero)].abs().max() < 1e-9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), gone=st.sets(st.integers(1, 498), min_size=1, max_size=60))
def test_missing_sessions_are_rows_that_do_not_exist(seed: int, gone: set[int]) -> None:
    """A window counts bars, so the dates of the bars that there are change nothing."""
    bars = random_bars(seed, 500, 0.02, 80.0, 0.0)
    kept = bars.drop(bars.index[sorted(gone)])
    found = technical(kept)
    check_missing(kept, found)
    dense = technical(kept.set_axis(SESSIONS[: len(kept)].rename("date")))
    np.testing.assert_array_equal(found.to_numpy(), dense.to_numpy())


@given(bars=BARS, last=st.sampled_from([1, 2, 21, 252, 10_000]))
@settings(max_examples=60, deadline=None)
def test_the_last_sessions_alone_are_those_of_all_history(bars: pd.DataFrame, last: int) -> None:
    whole = technical(bars).iloc[-last:]
    alone = TechnicalFeatureCalculator().calculate(FeatureInputs(bars), last=last)
    pd.testing.assert_frame_equal(alone, whole, rtol=1e-8, atol=1e-8, check_freq=False)
