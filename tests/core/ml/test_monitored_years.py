"""The monitor over simulated years: how often a healthy market alarms it, how soon it finds what is broken.

Markets of twenty symbols with moving volatility and filings, features by the real calculators; the reference is two
years of training rows, a year old when it is replaced.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signals_core.calendar import session_closes
from signals_core.feature_store import FeatureStore
from signals_core.features.inputs import FeatureInputs
from signals_core.ml.drift import Reference
from signals_core.ml.feed_silence import silent_feeds
from signals_core.ml.monitoring import DriftVerdict, FeatureDrift, ModelMonitor
from signals_core.ml.performance import Yardstick, signal_test, yardstick
from signals_core.ml.target import make_target
from signals_core.ml.validation import PROBABILITY_COLUMNS
from signals_core.settings import MLSettings, MonitoringSettings
from signals_core.synthetic import Market, MarketModel, make_market

pytestmark = pytest.mark.slow

SYMBOLS, WARM_UP, TRAINED, LAG = 20, 252, 504, 6
WINDOW, CONFIRM = 20, 5
KINDS = ("stochastic_volatility", "stochastic_volatility", "random_walk", "planted_drift")
YEARS_EACH = 10
EVERY = 2
"""Sessions from one report to the next: windows overlap, and the test takes half as long."""
MONITOR = ModelMonitor()
Change = Callable[[FeatureInputs], FeatureInputs]


class Rows:
    """A panel's rows by session number."""

    def __init__(self, panel: pd.DataFrame) -> None:
        self.sessions = panel.index.unique("date").sort_values()
        number = self.sessions.get_indexer(panel.index.get_level_values("date"))
        order = np.argsort(number, kind="stable")
        self._panel = panel.iloc[order]
        self._bounds = np.searchsorted(number[order], np.arange(len(self.sessions) + 1))

    def between(self, first: int, end: int) -> pd.DataFrame:
        return self._panel.iloc[self._bounds[first] : self._bounds[end]]

    def reference(self, at: int) -> Reference:
        """Of a model trained on what was labelled by then."""
        rows = self.between(at - TRAINED - LAG, at - LAG)
        return MONITOR.reference(rows.dropna(axis=1, how="all"))

    def judged(
        self, at: int, reference: Reference, silent: tuple[str, ...] = ()
    ) -> tuple[list[FeatureDrift], DriftVerdict]:
        recent = self.between(at - WINDOW + 1, at + 1)
        earlier = self.between(at - WINDOW - CONFIRM + 1, at - CONFIRM + 1)
        compared = MONITOR.compare(reference, recent, earlier)
        return compared, MONITOR.judge(compared, recent, silent)


def panel_of(market: Market, change: Change = lambda inputs: inputs) -> pd.DataFrame:
    store = FeatureStore(Path(), market.calendar)
    found = {}
    for symbol in market.symbols:
        inputs = change(market.inputs(symbol))
        given = {name: frame for name, frame in inputs.items() if frame is not None}
        found[symbol] = store.compute_features(symbol, **given).iloc[WARM_UP:].astype("float32")
    return pd.concat(found, names=["symbol", "date"])


def episodes(alarms: list[bool]) -> int:
    return int((np.diff(np.r_[0, np.array(alarms, dtype=int)]) == 1).sum())


@dataclass(frozen=True)
class Health:
    years: float
    retrain_episodes: int
    fault_episodes: int
    days_above_fixed_level: float
    """Share of days on which some feature is above the fixed level of .2."""


@cache
def healthy(number: int) -> Health:
    sessions = WARM_UP + TRAINED + LAG + YEARS_EACH * 252
    model = MarketModel(KINDS[number])  # type: ignore[arg-type]
    end = pd.Timestamp("2000-01-03") + pd.Timedelta(days=int(sessions * 365.25 / 251.5))
    rows = Rows(panel_of(make_market(SYMBOLS, "2000-01-03", end.date(), model, seed=100 + number, with_facts=True)))
    first = TRAINED + LAG
    days = range(first, min(first + YEARS_EACH * 252, len(rows.sessions)), EVERY)
    retrains, faults, above = [], [], []
    for day in days:
        if (day - first) % 252 == 0:
            reference = rows.reference(day)
        compared, verdict = rows.judged(day, reference)
        retrains.append(verdict.retrain)
        faults.append(bool(verdict.feed_faults))
        above.append(any(f.status == "major" for f in compared))
    return Health(len(days) * EVERY / 252, episodes(retrains), episodes(faults), float(np.mean(above)))


def test_forty_healthy_years_ask_for_at_most_one_retrain_a_year():
    found = [healthy(number) for number in range(len(KINDS))]
    years = sum(f.years for f in found)
    print(found)
    assert years > 39
    assert sum(f.retrain_episodes for f in found) <= 1.0 * years
    assert sum(f.fault_episodes for f in found) <= 0.2 * years
    assert all(f.days_above_fixed_level > 0.95 for f in found), "the fixed level alone alarms every day"


BROKEN = 600
"""The session, counted after the warm-up, from which something is broken; the model was trained a month before."""


@dataclass(frozen=True)
class Broken:
    market: Market
    rows: Rows
    reference: Reference

    @property
    def since(self) -> pd.Timestamp:
        return self.rows.sessions[BROKEN]

    def watch(self, rows: Rows, change: Change | None = None) -> tuple[dict[str, int], dict[str, int], int]:
        """The session after the break at which each feature and each feed was named first, and how often a retrain."""
        inputs = {s: self.market.inputs(s) for s in self.market.symbols} if change else {}
        features: dict[str, int] = {}
        feeds: dict[str, int] = {}
        retrains = 0
        for after in range(1, WINDOW + 1):
            at = BROKEN + after - 1
            session, first = rows.sessions[at], rows.sessions[at - TRAINED]
            close = session_closes("XNYS", rows.sessions[at : at + 1])[0]
            known = {s: change(given).until(session, close) for s, given in inputs.items()} if change else {}
            compared, verdict = rows.judged(at, self.reference, tuple(silent_feeds(known, session, first)))
            for f in compared:
                if f.fault:
                    features.setdefault(f.feature, after)
            for text in verdict.feed_faults:
                if text.startswith("feed "):
                    feeds.setdefault(text.removeprefix("feed ").partition(":")[0], after)
            retrains += verdict.retrain
        return features, feeds, retrains


@pytest.fixture(scope="module", params=[0, 1])
def broken(request: pytest.FixtureRequest) -> Broken:
    model = MarketModel("stochastic_volatility")
    market = make_market(SYMBOLS, "2010-01-04", "2014-01-01", model, seed=request.param, with_facts=True)
    rows = Rows(panel_of(market))
    return Broken(market, rows, rows.reference(BROKEN - 14))


@pytest.mark.parametrize(("factor", "least"), [(100.0, 1.0), (1000.0, 1.0), (0.01, 0.9)])
def test_a_unit_error_of_a_hundred_is_named_within_twenty_sessions(broken, factor, least):
    whole = broken.rows.between(0, BROKEN + WINDOW)
    late = whole.index.get_level_values("date") >= broken.since
    features, feeds, retrains = broken.watch(Rows(whole.mul(np.where(late, factor, 1.0), axis=0)))
    missed = [name for name in broken.reference.names if name not in features]
    print(factor, "median", np.median(list(features.values())), "missed", missed, feeds)
    assert len(features) >= least * len(broken.reference.names), missed
    assert retrains == 0


def frozen_bars(name: str, since: pd.Timestamp) -> Change:
    def change(inputs: FeatureInputs) -> FeatureInputs:
        bars = getattr(inputs, name).copy()
        bars.loc[bars.index >= since] = bars[bars.index < since].iloc[-1].to_numpy()
        return FeatureInputs(**{**dict(inputs.items()), name: bars})

    return change


def stopped_facts(name: str, since: pd.Timestamp) -> Change:
    def change(inputs: FeatureInputs) -> FeatureInputs:
        facts = getattr(inputs, name)
        return FeatureInputs(**{**dict(inputs.items()), name: facts[facts["available_at"] < since]})

    return change


@pytest.mark.parametrize(
    "feed", ["bars", "spy_bars", "sector_bars", "vix_bars", "insider_transactions", "short_interest"]
)
def test_a_frozen_feed_is_named_within_twenty_sessions_and_asks_for_no_retrain(broken, feed):
    change = (frozen_bars if feed.endswith("bars") else stopped_facts)(feed, broken.since)
    _, feeds, retrains = broken.watch(Rows(panel_of(broken.market, change)), change)
    print(feed, feeds)
    assert list(feeds) == [feed]
    assert retrains == 0


ML, SETTINGS = MLSettings(), MonitoringSettings()
CROWD = 50


def forecasts(seed: int, years: int = YEARS_EACH) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, Yardstick]:
    """The best possible predictions of a planted drift of IC .2, their outcomes, the same without the drift."""
    end = f"{2002 + years}-01-01"
    alive, dead = (make_market(CROWD, "2000-01-03", end, MarketModel("planted_drift"), s) for s in (seed, seed + 500))
    outcomes, unrelated = (
        pd.concat({s: make_target(bars, ML) for s, bars in market.bars.items()}, names=["symbol", "date"])
        for market in (alive, dead)
    )
    said = alive.truth.probabilities(ML).reindex(outcomes.index).set_axis(PROBABILITY_COLUMNS, axis=1)
    early = outcomes.index.get_level_values("date") < "2002-01-01"
    past = outcomes[early & (outcomes["label"] >= 0)]
    prior = alive.truth.prior(ML)
    known = said.loc[past.index].to_numpy()
    own = yardstick(prior, known, np.tile(prior, (len(past), 1)), past["label"], past["label_end"])
    assert own is not None
    return said[~early].assign(model_version="v1"), outcomes[~early], unrelated[~early], own


def test_a_dead_signal_is_found_within_twelve_weeks_and_a_living_one_is_not_buried():
    weeks, alarms, years = [], 0, 0.0
    for seed in range(4):
        said, alive, dead, own = forecasts(seed)
        dates = alive.index.unique("date").sort_values()
        on = alive.index.get_level_values("date")
        path: dict[str, float] = {}
        for year in range(2003, 2003 + YEARS_EACH):  # a report shows the last year of the statistic
            known = alive[(alive["label"] >= 0) & (alive["label_end"] < f"{year}-01-01")]
            test = signal_test(said, known, {"v1": own}, SETTINGS.signal_slack, SETTINGS.signal_limit)
            path |= dict(test.path)
        alarms += episodes([value > SETTINGS.signal_limit for value in path.values()])
        years += len(path) * ML.prediction_horizon / 252
        for died in range(252, len(dates) - 400, 252):
            day = dates[died]
            both = alive.where(pd.Series(on < day, index=alive.index), dead)
            lived = both[(on >= dates[died - 126]) & (on < dates[died + 250]) & (both["label"] >= 0)]
            test = signal_test(said, lived, {"v1": own}, SETTINGS.signal_slack, SETTINGS.signal_limit)
            late = [pd.Timestamp(d) for d, value in test.path if value > test.limit and pd.Timestamp(d) > day]
            weeks.append((late[0] - day).days / 7 if late else np.inf)
    print("weeks", np.median(weeks), np.quantile(weeks, 0.9), "alarms a year", alarms / years, years)
    assert np.median(weeks) <= 12
    assert alarms <= 0.2 * years
