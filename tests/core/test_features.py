"""The catalogue, and features against TA-Lib, against slower definitions and by invariance."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib

from signals_core.calendar import sessions_between
from signals_core.features.catalog import CATEGORIES, catalog, feature_names
from signals_core.features.cross_asset import CrossAssetFeatureCalculator
from signals_core.features.documentation import as_markdown
from signals_core.features.inputs import FeatureInputs
from signals_core.features.technical import TechnicalFeatureCalculator
from signals_core.features.temporal import TemporalFeatureCalculator
from tests.project.bars import make_bars

PRICES = ["open", "high", "low", "close"]


def bars_of(symbol: str) -> pd.DataFrame:
    return make_bars(symbol).set_index("date")


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return bars_of("AAA")


def technical(bars: pd.DataFrame) -> pd.DataFrame:
    return TechnicalFeatureCalculator().calculate(FeatureInputs(bars))


def cross_asset(close: pd.Series, **others: pd.Series | None) -> pd.DataFrame:
    frames = {name: None if s is None else s.to_frame("close") for name, s in others.items()}
    return CrossAssetFeatureCalculator().calculate(FeatureInputs(close.to_frame("close"), **frames))


def test_the_catalogue_has_over_fifty_features_each_named_once() -> None:
    by_category = [name for category in CATEGORIES for name in feature_names(category)]
    assert len(by_category) >= 50
    assert len(set(by_category)) == len(by_category)
    assert by_category == feature_names() == list(catalog())


def test_every_feature_is_missing_for_exactly_its_warm_up(bars: pd.DataFrame) -> None:
    others = {"spy_bars": bars_of("SPY"), "sector_bars": bars_of("XLK"), "vix_bars": bars_of("BBB")}
    inputs = FeatureInputs(bars, **others)
    frame = pd.concat(
        [c.calculate(inputs) for c in (TechnicalFeatureCalculator(), CrossAssetFeatureCalculator(),
                                       TemporalFeatureCalculator())], axis=1
    )  # fmt: skip
    missing = {name: int(frame[name].isna().sum()) for name in frame}
    assert missing == {name: catalog()[name].warm_up for name in frame}
    assert {name: frame[name].first_valid_index() for name in frame} == {
        name: bars.index[catalog()[name].warm_up] for name in frame
    }


def test_what_talib_defines_equals_talib(bars: pd.DataFrame) -> None:
    found = technical(bars)
    high, low, close, volume = (bars[n].to_numpy() for n in ("high", "low", "close", "volume"))
    macd, signal, histogram = talib.MACD(close)
    slow_k, slow_d = talib.STOCH(high, low, close, fastk_period=14)
    upper, middle, lower = talib.BBANDS(close, timeperiod=20)
    expected = {
        "rsi_14": talib.RSI(close),
        "macd_pct": macd / close,
        "macd_signal_pct": signal / close,
        "macd_hist_pct": histogram / close,
        "stoch_k_14_3": slow_k,
        "stoch_d_3": slow_d,
        "willr_14": talib.WILLR(high, low, close),
        "cci_20": talib.CCI(high, low, close, timeperiod=20),
        "mfi_14": talib.MFI(high, low, close, volume),
        "close_to_ema_12": close / talib.EMA(close, 12) - 1,
        "close_to_ema_26": close / talib.EMA(close, 26) - 1,
        "ema_12_to_26": talib.EMA(close, 12) / talib.EMA(close, 26) - 1,
        "adx_14": talib.ADX(high, low, close),
        "plus_di_14": talib.PLUS_DI(high, low, close),
        "minus_di_14": talib.MINUS_DI(high, low, close),
        "aroonosc_25": talib.AROONOSC(high, low, 25),
        "natr_14": talib.NATR(high, low, close),
        "bb_percent_b_20": (close - lower) / (upper - lower),
        "bb_bandwidth_20": (upper - lower) / middle,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


def test_rsi_is_wilders_recursion(bars: pd.DataFrame) -> None:
    change = bars["close"].diff().to_numpy()[1:]
    gain, loss = np.maximum(change, 0), np.maximum(-change, 0)
    up, down = gain[:14].mean(), loss[:14].mean()
    expected = [100 * up / (up + down)]
    for g, b in zip(gain[14:], loss[14:], strict=True):
        up, down = (13 * up + g) / 14, (13 * down + b) / 14
        expected.append(100 * up / (up + down))
    np.testing.assert_allclose(technical(bars)["rsi_14"].iloc[14:], expected, rtol=1e-9)


def test_the_other_technical_features_follow_their_formulas(bars: pd.DataFrame) -> None:
    found = technical(bars)
    open_, high, low, close, volume = (bars[n] for n in (*PRICES, "volume"))
    returns = np.log(close / close.shift(1))
    clv = ((close - low) - (high - close)) / (high - low)
    signed = volume * np.sign(close.diff()).fillna(1)
    slope = signed.cumsum().rolling(20).apply(lambda w: np.polyfit(np.arange(20), w, 1)[0], raw=True)

    def total(series: pd.Series) -> pd.Series:
        return series.rolling(20).sum()

    volatility = {n: returns.rolling(n).apply(lambda w: w.std(ddof=1), raw=True) * 252**0.5 for n in (20, 60)}
    expected = {
        **{f"roc_{n}": close.pct_change(n) for n in (1, 5, 10, 20, 60)},
        **{f"close_to_sma_{n}": close / close.rolling(n).mean() - 1 for n in (20, 50, 200)},
        "sma_50_to_200": close.rolling(50).mean() / close.rolling(200).mean() - 1,
        "hist_vol_20": volatility[20],
        "hist_vol_60": volatility[60],
        "vol_ratio_20_60": volatility[20] / volatility[60],
        "parkinson_vol_20": np.sqrt(total(np.log(high / low) ** 2) / 20 / (4 * np.log(2)) * 252),
        "obv_slope_20": slope / volume.rolling(20).mean(),
        "close_to_vwap_20": close / (total((high + low + close) / 3 * volume) / total(volume)) - 1,
        "volume_to_sma_20": volume / volume.rolling(20).mean(),
        "cmf_20": total(clv * volume) / total(volume),
        **{f"dist_high_{n}": close / high.rolling(n).max() - 1 for n in (20, 252)},
        **{f"dist_low_{n}": close / low.rolling(n).min() - 1 for n in (20, 252)},
        "range_pct": (high - low) / close,
        "close_location_value": clv,
        "gap_pct": open_ / close.shift(1) - 1,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-7, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("factor", [0.01, 8.0, 1234.5])
def test_prices_times_k_and_volume_over_k_change_no_technical_feature(bars: pd.DataFrame, factor: float) -> None:
    scaled = bars.assign(**{n: bars[n] * factor for n in PRICES}, volume=bars["volume"] / factor)
    pd.testing.assert_frame_equal(technical(scaled), technical(bars), rtol=1e-7, atol=1e-9)


def test_later_bars_change_no_technical_feature(bars: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(technical(bars.iloc[:400]), technical(bars).iloc[:400], rtol=1e-10, check_freq=False)


def test_a_price_that_does_not_move_gives_defined_values(bars: pd.DataFrame) -> None:
    flat = bars.assign(open=50.3, high=50.3, low=50.3, close=50.3, volume=1e6)
    found = technical(flat)
    last = found.iloc[-1]
    assert last[["rsi_14", "stoch_k_14_3", "stoch_d_3", "willr_14"]].tolist() == [50, 50, 50, -50]
    assert last["volume_to_sma_20"] == pytest.approx(1)
    zero = last.drop(["rsi_14", "stoch_k_14_3", "stoch_d_3", "willr_14", "mfi_14", "volume_to_sma_20",
                      "bb_percent_b_20", "vol_ratio_20_60"])  # fmt: skip
    assert zero.abs().max() < 1e-12
    assert last[["bb_percent_b_20", "vol_ratio_20_60"]].isna().all()  # 0 / 0
    defined = found.drop(columns=["bb_percent_b_20", "vol_ratio_20_60"])
    assert {n: int(defined[n].isna().sum()) for n in defined} == {n: catalog()[n].warm_up for n in defined}


def test_a_halt_with_no_volume_gives_no_infinity(bars: pd.DataFrame) -> None:
    halted = bars.copy()
    halted.iloc[300:340, :4] = halted["close"].iloc[299]
    halted.iloc[300:340, 4] = 0.0
    found = technical(halted)
    assert not np.isinf(found.to_numpy()).any()
    assert np.isnan(found["volume_to_sma_20"].iloc[330])
    assert found["hist_vol_20"].iloc[330] == pytest.approx(0, abs=1e-7)


def test_too_few_bars_give_missing_values_and_no_error(bars: pd.DataFrame) -> None:
    found = technical(bars.iloc[:5])
    assert found["rsi_14"].isna().all()
    assert found["roc_1"].notna().sum() == 4


def test_strength_is_measured_against_the_market_and_the_sector() -> None:
    index = sessions_between("XNYS", date(2012, 1, 3), date(2012, 7, 1))
    steps = np.arange(len(index))
    close = pd.Series(100 * 2 ** (steps / 20), index)  # doubles in 20 sessions
    found = cross_asset(close, spy_bars=close**0 * 50, sector_bars=close * 3, vix_bars=pd.Series(20.0 + steps, index))
    last = found.iloc[-1]
    assert last["relative_strength_spy_20"] == pytest.approx(2)
    assert last["excess_return_spy_20"] == pytest.approx(1)
    assert last["relative_strength_sector_20"] == pytest.approx(1)
    assert last["excess_return_sector_20"] == pytest.approx(0, abs=1e-12)
    assert last["vix_level"] == 20 + steps[-1]
    assert last["vix_change_5"] == pytest.approx(5 / (15 + steps[-1]))


def test_correlation_is_one_with_itself_and_minus_one_with_its_mirror(bars: pd.DataFrame) -> None:
    returns = bars["close"].pct_change().fillna(0)
    mirror = (1 - returns).cumprod()
    with_itself = cross_asset(bars["close"], spy_bars=bars["close"] * 7)["corr_spy_60"].dropna()
    with_mirror = cross_asset(bars["close"], spy_bars=mirror)["corr_spy_60"].dropna()
    assert (with_itself.min(), with_mirror.max()) == (pytest.approx(1), pytest.approx(-1))
    assert len(with_itself) == len(bars) - 60


def test_a_session_another_instrument_lacks_stays_missing(bars: pd.DataFrame) -> None:
    vix = bars_of("BBB")["close"]
    found = cross_asset(bars["close"], vix_bars=vix.drop(vix.index[100]))
    assert list(found.index[found["vix_level"].isna()]) == [bars.index[100]]
    assert list(np.flatnonzero(found["vix_change_5"].isna())) == [0, 1, 2, 3, 4, 100, 105]


def test_an_absent_instrument_leaves_only_its_own_features_missing(bars: pd.DataFrame) -> None:
    found = cross_asset(bars["close"], spy_bars=bars_of("SPY")["close"])
    absent = {name for name in found if found[name].isna().all()}
    assert absent == {name for name in found if {"vix_bars", "sector_bars"} & set(catalog()[name].needs)}


def test_the_calendar_features_of_known_days() -> None:
    index = pd.DatetimeIndex(["2012-02-29", "2012-12-31", "2013-03-27", "2013-03-28"], name="date")
    found = TemporalFeatureCalculator().calculate(FeatureInputs(pd.DataFrame({"close": 1.0}, index=index)))
    assert found["day_of_week"].tolist() == [3, 1, 3, 4]
    assert found["month"].tolist() == [2, 12, 3, 3]
    assert found["quarter"].tolist() == [1, 4, 1, 1]
    assert found["day_of_year"].tolist() == [60, 366, 86, 87]
    assert found["is_month_end"].tolist() == [1, 1, 0, 1]


def test_the_page_of_features_is_that_of_the_catalogue() -> None:
    page = Path(__file__).parents[2] / "docs" / "features.md"
    assert page.read_text() == as_markdown(catalog()), "make it anew: signals features docs > docs/features.md"


def test_the_catalogue_has_every_feature_of_the_specification() -> None:
    named = [
        "rsi_14",
        "macd_pct",
        "macd_signal_pct",
        "macd_hist_pct",
        "roc_1",
        "roc_5",
        "roc_10",
        "roc_20",
        "roc_60",
        "stoch_k_14_3",
        "stoch_d_3",
        "willr_14",
        "cci_20",
        "mfi_14",
        "close_to_sma_20",
        "close_to_sma_50",
        "close_to_sma_200",
        "sma_50_to_200",
        "close_to_ema_12",
        "close_to_ema_26",
        "ema_12_to_26",
        "adx_14",
        "plus_di_14",
        "minus_di_14",
        "aroonosc_25",
        "natr_14",
        "bb_percent_b_20",
        "bb_bandwidth_20",
        "hist_vol_20",
        "hist_vol_60",
        "parkinson_vol_20",
        "vol_ratio_20_60",
        "obv_slope_20",
        "close_to_vwap_20",
        "volume_to_sma_20",
        "cmf_20",
        "dist_high_20",
        "dist_high_252",
        "dist_low_20",
        "dist_low_252",
        "range_pct",
        "close_location_value",
        "gap_pct",
        "pe_ratio",
        "pb_ratio",
        "ps_ratio",
        "ev_to_ebitda",
        "earnings_yield",
        "book_to_price",
        "sales_to_price",
        "ebitda_to_ev",
        "roe",
        "current_ratio",
        "debt_to_equity",
        "revenue_growth_yoy",
        "earnings_growth_yoy",
        "dividend_yield",
        "days_since_filing",
        "corr_spy_60",
        "relative_strength_spy_20",
        "relative_strength_sector_20",
        "excess_return_spy_20",
        "excess_return_sector_20",
        "vix_level",
        "vix_change_5",
        "insider_net_value_90d_to_mcap",
        "insider_buy_count_90d",
        "insider_shares_90d_to_so",
        "insider_value_90d",
        "short_interest_to_float",
        "days_to_cover",
        "short_interest_change",
        "day_of_week",
        "month",
        "quarter",
        "day_of_year",
        "is_month_end",
    ]
    compared = [n for n in catalog() if n.endswith(("_to_sector", "_minus_sector"))]
    dummies = [n for n in catalog() if n.startswith("sector_")]
    assert (len(named), len(compared), len(dummies)) == (77, 8, 11)
    assert set(catalog()) == {*named, *compared, *dummies}
