"""The invented markets are what they say they are: against closed forms, by counting, and by a slower way."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from signals_core.calendar import session_closes, sessions_between
from signals_core.errors import SettingsError
from signals_core.feature_store import FeatureStore
from signals_core.features.catalog import catalog
from signals_core.features.leakage import cut_inputs, find_leaks
from signals_core.market_data.schemas import FUNDAMENTAL_VALUES, validate_bars
from signals_core.market_data.screening import screen_bars, screen_facts
from signals_core.ml.metrics import log_loss_rows, newey_west_mean
from signals_core.ml.target import UP, make_target
from signals_core.settings import MLSettings
from signals_core.synthetic import (
    Market,
    MarketModel,
    NormalTruth,
    VolatilityTruth,
    class_probabilities,
    expected_gain_rows,
    make_facts,
    make_market,
)
from signals_core.synthetic.market import Kind

ML = MLSettings()
KINDS: tuple[Kind, ...] = ("random_walk", "stochastic_volatility", "planted_drift")
START, END = "2010-01-01", "2020-01-01"
SESSIONS = 2516  # of XNYS in the ten years


@pytest.fixture(scope="module", params=KINDS)
def market(request: pytest.FixtureRequest) -> Market:
    return make_market(40, START, END, MarketModel(request.param, information_coefficient=0.3), seed=1)


@pytest.fixture(scope="module")
def planted() -> Market:
    return make_market(40, START, END, MarketModel("planted_drift", information_coefficient=0.3), seed=1)


def log_returns(market: Market, sessions: int = 1) -> pd.DataFrame:
    """Over `sessions` up to each date; a row lost at the start."""
    closes = pd.DataFrame({symbol: np.log(bars["close"]) for symbol, bars in market.bars.items()})
    return closes.diff(sessions).iloc[sessions:]


def labels_and(market: Market, truth: pd.DataFrame, ml: MLSettings = ML) -> tuple[np.ndarray, np.ndarray, pd.Index]:
    """Labels (n,) and the truth's probabilities (n, 3) of every labelled row, and their index."""
    target = pd.concat({s: make_target(bars, ml) for s, bars in market.bars.items()}, names=["symbol", "date"])
    rows = target[target["label"] >= 0].index.intersection(truth.index)
    return target.loc[rows, "label"].to_numpy(), truth.loc[rows].to_numpy(), rows


# --- bars -------------------------------------------------------------------------------------------------


def test_bars_are_of_real_sessions_and_pass_the_schema_and_the_screening(market: Market) -> None:
    sessions = sessions_between("XNYS", date(2010, 1, 1), date(2020, 1, 1))
    assert len(sessions) == SESSIONS
    others = {"SPY": market.index_bars, "XLK": market.sector_bars, "^VIX": market.implied_volatility_bars}
    some = {symbol: market.bars[symbol] for symbol in market.symbols[:6]}
    for symbol, bars in {**some, **others}.items():
        validate_bars(bars, symbol)
        assert bars.index.equals(sessions)
        screened = screen_bars(bars.reset_index(), symbol, sessions)
        assert len(screened.rejected) == 0


def test_volatility_and_correlation_are_the_stated_ones(market: Market) -> None:
    horizon = market.model.horizon if market.model.kind == "planted_drift" else 1
    returns = log_returns(market, horizon).iloc[::horizon]
    annual = np.sqrt((returns**2).to_numpy().mean() * 252 / horizon)
    assert annual == pytest.approx(0.20, rel=0.03)
    pairs = np.corrcoef(returns.to_numpy().T)[np.triu_indices(40, 1)]
    expected = {"random_walk": 0.30, "stochastic_volatility": 0.30, "planted_drift": 0.30}[market.model.kind]
    if market.model.kind == "planted_drift":  # the signals are independent, only the noise is common
        expected *= market.truth.noise**2  # type: ignore[union-attr]
    elif market.model.kind == "stochastic_volatility":  # E(exp(X1) exp(X2)) / E(exp(2 X)) of the own parts
        expected *= np.exp(-(market.model.own_log_volatility**2))
    assert pairs.mean() == pytest.approx(expected, abs=0.04)


def test_the_index_is_the_common_factor(market: Market) -> None:
    mean = log_returns(market).mean(axis=1)
    index = np.log(market.index_bars["close"]).diff().iloc[1:]
    assert np.corrcoef(mean, index)[0, 1] > (0.85 if market.model.kind == "planted_drift" else 0.97)


@pytest.mark.parametrize("kind", ["random_walk", "stochastic_volatility"])
def test_prices_without_a_drift_are_martingales(kind: Kind) -> None:
    # Without a common factor 40 x 2,515 returns are independent: the error of their mean is 4e-5.
    market = make_market(40, START, END, MarketModel(kind, correlation=0.0), seed=3)
    gross = np.exp(log_returns(market).to_numpy())
    error = gross.std() / np.sqrt(gross.size)
    assert abs(gross.mean() - 1) < 3 * error
    opens = np.concatenate([(b["open"] / b["close"].shift(1)).to_numpy()[1:] for b in market.bars.values()])
    assert abs(opens.mean() - 1) < 3 * opens.std() / np.sqrt(opens.size)


@pytest.mark.parametrize("kind", ["random_walk", "stochastic_volatility"])
def test_past_returns_gaps_ranges_and_volume_say_nothing_about_the_next_return(kind: Kind) -> None:
    market = make_market(20, START, END, MarketModel(kind, correlation=0.0), seed=4)
    panel = market.panel(min_history_sessions=252)
    rows = panel.target["label"] >= 0
    ranks = panel.features[rows].rank()
    ahead = panel.target.loc[rows, "trade_return"].rank()
    correlations = ranks.loc[:, ranks.notna().any()].corrwith(ahead)
    # 45,000 independent rows; 5 errors for the largest of 62 columns, some of which are heavy-tailed.
    assert correlations.abs().max() < 5 / np.sqrt(rows.sum())


def test_high_and_low_have_the_range_of_a_diffusion() -> None:
    market = make_market(40, START, END, MarketModel("random_walk", correlation=0.0), seed=5)
    sd = market.model.daily_volatility * np.sqrt(1 - market.model.overnight_share)
    up = np.concatenate([np.log(b["high"] / b["open"]).to_numpy() for b in market.bars.values()])
    down = np.concatenate([np.log(b["open"] / b["low"]).to_numpy() for b in market.bars.values()])
    # The maximum of a Brownian motion is distributed as |N(0, s^2)| (reflection principle); a drift of -s^2/2
    # moves it by half of that to first order.
    for reach, sign in ((up, -1), (down, 1)):
        assert reach.mean() == pytest.approx(sd * np.sqrt(2 / np.pi) + sign * sd**2 / 4, rel=0.01)
        assert (reach**2).mean() == pytest.approx(sd**2, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_depends_on_seed_and_name_only(kind: Kind) -> None:
    model = MarketModel(kind)
    market = make_market(["AAA", "BBB", "CCC"], "2019-01-02", "2020-01-01", model, seed=7, with_facts=True)
    other = make_market(["CCC", "AAA"], "2019-01-02", "2020-06-01", model, seed=7, with_facts=True)
    for symbol in ("AAA", "CCC"):
        bars = market.bars[symbol]
        pd.testing.assert_frame_equal(bars, other.bars[symbol].loc[: bars.index[-1]], rtol=1e-12)
        close = session_closes("XNYS", bars.index[-1:])[0]
        for name in ("fundamentals", "insider_transactions", "short_interest"):
            later = getattr(other.facts[symbol], name)
            known = later[later["available_at"] <= close].reset_index(drop=True)
            pd.testing.assert_frame_equal(getattr(market.facts[symbol], name), known)
    pd.testing.assert_frame_equal(market.index_bars, other.index_bars.loc[: market.index_bars.index[-1]], rtol=1e-12)
    another = make_market(["AAA"], "2019-01-02", "2020-01-01", model, seed=8)
    assert not np.allclose(another.bars["AAA"]["close"], market.bars["AAA"]["close"])
    assert not np.allclose(market.bars["BBB"]["close"], market.bars["AAA"]["close"])


# --- the planted drift ------------------------------------------------------------------------------------


@pytest.mark.parametrize("persistence", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("coefficient", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("horizon", [1, 5, 20])
def test_loadings_give_exactly_the_stated_ic_and_volatility(
    horizon: int, coefficient: float, persistence: float
) -> None:
    if coefficient * np.sqrt(horizon) > 1:  # more than the first session can carry
        persistence = max(persistence, 0.5)
    model = MarketModel(
        "planted_drift", horizon=horizon, information_coefficient=coefficient, signal_persistence=persistence
    )
    truth = model.truth_of(pd.DataFrame())
    slope, deviation = truth.forward_moments(horizon)
    assert truth.information_coefficient(horizon) == pytest.approx(coefficient, abs=1e-12)
    assert np.hypot(slope, deviation) == pytest.approx(model.daily_volatility * np.sqrt(horizon))


@pytest.mark.parametrize("horizon", [1, 3, 5, 10])
@pytest.mark.parametrize("persistence", [0.0, 0.5, 0.9])
def test_forward_moments_are_those_of_the_covariance_matrix(horizon: int, persistence: float) -> None:
    """The same by brute force: the joint covariance of s[t..t+h], conditioned on s[t] by regression."""
    truth = NormalTruth(pd.DataFrame(), 0.013, 0.6, -0.5, 0.9, persistence)
    lags = np.arange(horizon + 1)
    covariance = persistence ** np.abs(lags[:, None] - lags)
    sums = np.zeros(horizon + 1)
    for session in range(1, horizon + 1):  # r[t+k] = drift s[t+k-1] + gap s[t+k] + noise e
        sums[session - 1] += truth.drift_loading
        sums[session] += truth.gap_loading
    slope = sums @ covariance[:, 0]
    variance = sums @ covariance @ sums + horizon * truth.noise**2 - slope**2
    assert truth.forward_moments(horizon) == pytest.approx((0.013 * slope, 0.013 * np.sqrt(variance)))


def test_the_signal_is_the_last_gap_and_its_ic_is_as_planted(planted: Market) -> None:
    panel = planted.panel(min_history_sessions=1)
    assert isinstance(planted.truth, NormalTruth)
    signal = planted.truth.signal.T.stack().rename_axis(["symbol", "date"]).loc[panel.features.index]
    gap = np.log1p(panel.features["gap_pct"].astype("float64"))
    expected = signal * planted.truth.gap_loading * planted.truth.daily_volatility
    assert np.abs(gap - expected).max() < 1e-6
    rows = panel.target["label"] >= 0
    forward = np.log1p(panel.target.loc[rows, "forward_return"])
    assert np.corrcoef(signal[rows], forward)[0, 1] == pytest.approx(0.30, abs=0.01)
    # The residual is independent of the signal, and of the signal before it.
    slope, deviation = planted.truth.forward_moments(5)
    residual = forward - slope * signal[rows]
    assert residual.std() == pytest.approx(deviation, rel=0.02)
    assert abs(np.corrcoef(signal.groupby("symbol").shift(1)[rows].fillna(0), residual)[0, 1]) < 0.015


def test_nothing_else_that_is_known_adds_to_the_signal() -> None:
    """Bayes' probabilities given s are those given all features: the residual has no correlation with any."""
    planted = make_market(20, START, END, MarketModel("planted_drift", information_coefficient=0.3), seed=1)
    panel = planted.panel(min_history_sessions=252)
    assert isinstance(planted.truth, NormalTruth)
    rows = panel.target["label"] >= 0
    signal = planted.truth.signal.T.stack().rename_axis(["symbol", "date"]).loc[panel.features.index][rows]
    residual = np.log1p(panel.target.loc[rows, "forward_return"]) - planted.truth.forward_moments(5)[0] * signal
    # The common factor makes rows of a date alike: compare with the date's mean.
    by_date = residual.groupby("date")
    residual = residual - by_date.transform("mean")
    ranks = panel.features[rows].groupby("date").rank(pct=True) - 0.5
    correlations = ranks.loc[:, ranks.notna().any()].corrwith(residual).abs()
    # 2,259 dates with labels that overlap 5-fold, 20 symbols.
    assert correlations.max() < 5 / np.sqrt(len(residual) / 5)


@pytest.mark.parametrize("horizon", [1, 5, 10])
def test_bayes_probabilities_are_the_frequencies_of_the_labels(horizon: int) -> None:
    ml = MLSettings(prediction_horizon=horizon)
    model = MarketModel("planted_drift", information_coefficient=0.3, correlation=0.0)
    market = make_market(60, "2000-01-01", "2020-01-01", model, seed=2)
    assert isinstance(market.truth, NormalTruth)
    labels, truth, _ = labels_and(market, market.truth.probabilities(ml), ml)
    assert np.bincount(labels) / len(labels) == pytest.approx(market.truth.prior(ml), abs=0.004)
    order = np.argsort(truth[:, UP])
    for rows in np.array_split(order, 10):
        observed = np.bincount(labels[rows], minlength=3) / len(rows)
        # 30,000 rows a group, of which labels that overlap count once.
        error = np.sqrt(0.25 / (len(rows) / horizon))
        assert np.abs(observed - truth[rows].mean(axis=0)).max() < 4 * error


def test_the_bayes_gain_is_what_the_truth_gains(planted: Market) -> None:
    assert isinstance(planted.truth, NormalTruth)
    labels, truth, index = labels_and(planted, planted.truth.probabilities(ML))
    prior = planted.truth.prior(ML)
    gain = newey_west_mean(pd.Series(log_loss_rows(prior, labels) - log_loss_rows(truth, labels), index=index), 5)
    assert gain.standard_error < 0.002
    assert abs(gain.mean - planted.truth.bayes_gain(ML)) < 3 * gain.standard_error
    expected = expected_gain_rows(truth, truth, np.broadcast_to(prior, truth.shape)).mean()
    assert expected == pytest.approx(planted.truth.bayes_gain(ML), rel=0.02)


@pytest.mark.parametrize("coefficient", [0.05, 0.1, 0.2, 0.3])
def test_the_bayes_gain_is_near_eight_tenths_of_half_the_squared_ic(coefficient: float) -> None:
    truth = MarketModel("planted_drift", information_coefficient=coefficient).truth_of(pd.DataFrame())
    assert truth.bayes_gain(ML) == pytest.approx(0.8 * coefficient**2 / 2, rel=0.03)


def test_a_random_walk_has_nothing_to_gain() -> None:
    market = make_market(2, "2019-01-01", "2020-01-01", seed=1)
    assert isinstance(market.truth, NormalTruth)
    assert market.truth.bayes_gain(ML) == pytest.approx(0, abs=1e-12)
    assert market.truth.probabilities(ML).to_numpy() == pytest.approx(np.tile(market.truth.prior(ML), (2 * 252, 1)))


def test_expected_gain_is_the_mean_of_the_realised_one(planted: Market) -> None:
    """For a forecast that is wrong: half the signal, twice the deviation."""
    assert isinstance(planted.truth, NormalTruth)
    labels, truth, index = labels_and(planted, planted.truth.probabilities(ML))
    signal = planted.truth.signal.T.stack().rename_axis(["symbol", "date"]).loc[index].to_numpy()
    slope, deviation = planted.truth.forward_moments(5)
    forecast = class_probabilities(slope / 2 * signal, 2 * deviation, ML)
    prior = np.broadcast_to(planted.truth.prior(ML), truth.shape)
    realised = pd.Series(log_loss_rows(prior, labels) - log_loss_rows(forecast, labels), index=index)
    difference = newey_west_mean(realised - expected_gain_rows(truth, forecast, prior), 5)
    assert abs(difference.mean) < 3 * difference.standard_error
    assert difference.standard_error < 0.005


# --- stochastic volatility --------------------------------------------------------------------------------


def test_returns_are_normal_given_their_volatility_and_labels_given_its_path() -> None:
    market = make_market(40, START, END, MarketModel("stochastic_volatility", correlation=0.0), seed=6)
    assert isinstance(market.truth, VolatilityTruth)
    volatility = market.truth.volatility.iloc[1:]
    standard = ((log_returns(market) + volatility**2 / 2) / volatility).to_numpy()
    assert standard.mean() == pytest.approx(0, abs=3 / np.sqrt(standard.size))
    assert standard.std() == pytest.approx(1, abs=0.01)
    assert (standard**4).mean() == pytest.approx(3, abs=0.1)
    raw = log_returns(market).to_numpy()
    assert (raw**4).mean() / (raw**2).mean() ** 2 > 4  # fat tails without knowing it
    labels, truth, _ = labels_and(market, market.truth.probabilities_given_path(ML))
    order = np.argsort(truth[:, 1])
    for rows in np.array_split(order, 10):
        observed = np.bincount(labels[rows], minlength=3) / len(rows)
        assert np.abs(observed - truth[rows].mean(axis=0)).max() < 4 * np.sqrt(0.25 / (len(rows) / 5))
    assert truth[order[0], 1] < 0.1 < 0.6 < truth[order[-1], 1]


def test_volatility_persists_as_stated() -> None:
    market = make_market(40, START, END, MarketModel("stochastic_volatility"), seed=6)
    assert isinstance(market.truth, VolatilityTruth)
    logs = np.log(market.truth.volatility)
    assert logs.std().mean() == pytest.approx(np.hypot(0.3, 0.3), rel=0.1)
    assert logs.apply(lambda column: column.autocorr(1)).mean() == pytest.approx(0.97, abs=0.01)
    level = market.implied_volatility_bars["close"]
    assert np.corrcoef(np.log(level), logs.mean(axis=1))[0, 1] > 0.9


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kind": "bubble"}, "kind 'bubble' is none of random_walk, stochastic_volatility, planted_drift"),
        ({"signal_persistence": 1.0}, r"signal_persistence 1.0 is not in \[0, 1\)"),
        ({"correlation": 1.5}, "needs correlation in 0..1"),
        ({"kind": "planted_drift", "information_coefficient": 0.99}, "leaves no room for noise; lower it"),
    ],
)
def test_an_impossible_market_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        MarketModel(**changes)  # type: ignore[arg-type]


def test_a_market_without_sessions_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"1 symbols and 0 sessions in 2020-01-04\.\.2020-01-05"):
        make_market(1, "2020-01-04", "2020-01-05")


def test_symbol_level_columns_leave_out_what_is_the_same_for_all() -> None:
    market = make_market(3, "2019-01-01", "2020-01-01", seed=1)
    complete, own = market.panel(columns="complete").features, market.panel().features
    dropped = {"vix_level", "vix_change_5", "day_of_week", "month", "quarter", "day_of_year", "is_month_end"}
    assert set(complete) - set(own) == dropped
    for name in dropped:
        assert complete[name].groupby("date").nunique().max() == 1
    assert len(own) == 3 * (252 - 60)


# --- filings, insider trades, short interest --------------------------------------------------------------


@pytest.fixture(scope="module")
def with_facts() -> Market:
    return make_market(4, "2015-01-01", "2019-01-01", seed=11, with_facts=True)


def test_what_was_known_at_a_moment_is_what_the_versions_say(with_facts: Market) -> None:
    """The truth, kept as first and corrected figures, against the store's rows folded one by one."""
    values = list(FUNDAMENTAL_VALUES)
    for symbol in with_facts.symbols:
        facts = with_facts.facts[symbol]
        for moment in pd.date_range("2015-01-15", "2018-12-31", freq="11D") + pd.Timedelta(hours=21):
            known: dict[pd.Timestamp, np.ndarray] = {}
            for row in facts.fundamentals.sort_values("available_at").itertuples():
                if row.available_at <= moment:
                    known[row.period_end] = np.array([getattr(row, name) for name in values])
            truth = facts.filings.known(moment)
            assert list(truth.index) == sorted(known)
            assert np.array_equal(truth.to_numpy(), np.array([known[end] for end in truth.index]))


def test_filings_lag_and_some_are_restated(with_facts: Market) -> None:
    for facts in with_facts.facts.values():
        filed = facts.fundamentals
        lag = (filed["available_at"] - filed["period_end"]).dt.days
        first = ~filed["document"].str.contains("10A")
        assert lag[first].between(25, 78).all()
        assert lag[~first].min() >= 60 + 25
        assert 0 < (~first).sum() < first.sum()
        # Prices say what was known then; the day a restatement comes, the truth changes.
        restated = filed[~first].iloc[0]
        before = facts.filings.known(restated["available_at"] - pd.Timedelta(seconds=1))
        after = facts.filings.known(restated["available_at"])
        change = after.loc[restated["period_end"], "revenue"] / before.loc[restated["period_end"], "revenue"] - 1
        assert 0.05 <= abs(change) <= 0.20


def test_facts_pass_the_screening_and_none_is_from_after_the_last_close(with_facts: Market) -> None:
    close = session_closes("XNYS", with_facts.index_bars.index[-1:])[0]
    for symbol, facts in with_facts.facts.items():
        for dataset in ("fundamentals", "insider_transactions", "short_interest"):
            raw = getattr(facts, dataset)
            screened = screen_facts(dataset, raw, symbol, "XNYS")
            assert len(screened.rejected) == 0
            assert len(screened.good) == len(raw) > 10
            assert screened.good["available_at"].tolist() == raw["available_at"].tolist()
            assert raw["available_at"].max() <= close


def test_features_of_filings_follow_the_truth_date_by_date(with_facts: Market) -> None:
    """book_to_price at t is the equity known at the close of t of the latest quarter, over the market value."""
    symbol = with_facts.symbols[0]
    inputs = {name: frame for name, frame in with_facts.inputs(symbol).items() if frame is not None}
    from pathlib import Path

    frame = FeatureStore(Path()).compute_features(symbol, **inputs)
    truth, bars = with_facts.facts[symbol].filings, with_facts.bars[symbol]
    closes = session_closes("XNYS", bars.index)
    for position in range(0, len(bars), 7):
        known = truth.known(closes[position])
        year = known.tail(4)
        value = known["shares_outstanding"].iloc[-1] * bars["close"].iloc[position]
        row = frame.iloc[position]
        assert row["book_to_price"] == pytest.approx(known["total_equity"].iloc[-1] / value)
        assert row["sales_to_price"] == pytest.approx(year["revenue"].sum() / value)
        growth = known["revenue"].iloc[-1] / known["revenue"].iloc[-5] - 1
        assert row["revenue_growth_yoy"] == pytest.approx(growth)


def test_features_of_insider_trades_and_short_interest_follow_what_was_published(with_facts: Market) -> None:
    symbol = with_facts.symbols[1]
    facts, bars = with_facts.facts[symbol], with_facts.bars[symbol]
    panel = with_facts.panel(min_history_sessions=0).features.loc[symbol]
    closes = session_closes("XNYS", bars.index)
    checked = 0
    for position in range(60, len(bars), 13):
        close, row = closes[position], panel.iloc[position]
        filed = facts.insider_transactions["available_at"]
        recent = facts.insider_transactions[(filed <= close) & (filed > close - pd.Timedelta(days=90))]
        recent = recent[recent["code"].isin(["P", "S"])]
        if (filed <= close).any() and not np.isnan(row["insider_value_90d"]):
            expected = (recent["shares"] * recent["price"]).sum()
            assert row["insider_value_90d"] == pytest.approx(expected, rel=1e-5, abs=1)
            assert row["insider_buy_count_90d"] == (recent["code"] == "P").sum()
            checked += 1
        reports = facts.short_interest
        latest = reports[reports["available_at"] <= close].iloc[-1]
        assert row["days_to_cover"] == pytest.approx(latest["shares_short"] / 1e6, rel=1e-5)
    assert checked > 50


def test_no_feature_of_a_market_with_facts_leaks(with_facts: Market) -> None:
    from pathlib import Path

    store, symbol = FeatureStore(Path()), with_facts.symbols[2]
    inputs = with_facts.inputs(symbol)
    values = store.compute(inputs)
    dates = values.index[[300, 470, 655, 900]]
    of_sectors = [
        name for name in values if "sector_fundamentals" in catalog()[name].needs or name.startswith("sector_")
    ]
    assert values.drop(columns=of_sectors).loc[dates[1:]].notna().all(axis=None)
    assert find_leaks(symbol, values, lambda cut: store.compute(cut_inputs(inputs, cut, "XNYS")), dates) == []
    assert len(cut_inputs(inputs, dates[0], "XNYS").fundamentals) < len(inputs.fundamentals)  # type: ignore[arg-type]


def test_another_company_has_other_figures() -> None:
    sessions = sessions_between("XNYS", date(2018, 1, 1), date(2019, 1, 1))
    one, two, again = (make_facts(name, sessions, seed=1).fundamentals for name in ("AAA", "BBB", "AAA"))
    pd.testing.assert_frame_equal(one, again)
    assert not np.isclose(one["revenue"].iloc[0], two["revenue"].iloc[0])
