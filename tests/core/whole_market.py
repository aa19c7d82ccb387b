"""A synthetic market in which every source is present and awkward: what the properties of features are tried on.

Five tickers of two sectors with restated and incomplete filings, ties, evening filings, corrected insider trades
filed twice, corrected short interest, a split, dividends, a listing in mid-history, a missing session, a change
of sector and a member who leaves.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from signals_core.calendar import session_closes, sessions_between
from signals_core.feature_store import FeatureStore
from signals_core.input_provider import InputProvider
from signals_core.market_data.schemas import FUNDAMENTAL_VALUES
from signals_core.market_data.screening import ScreenedBars, screen_facts
from signals_core.market_data.store import MarketStore
from signals_core.settings import FeatureSettings, PartitionSettings, ReferenceSettings, Settings, UniverseSettings
from tests.project.bars import make_bars

START, END = date(2018, 6, 1), date(2020, 10, 1)
SESSIONS = sessions_between("XNYS", START, END).rename("date")
NOW = datetime(2020, 10, 1, 22, tzinfo=UTC)
TICKERS = ("AA", "BB", "CC", "DD", "EE")
INSTRUMENTS = ("SPY", "XLE", "XLK", "^VIX")
LISTED = pd.Timestamp("2019-03-11")
"""First bar of EE; its partitions start before."""
SPLIT, RATIO = pd.Timestamp("2020-02-03"), 4.0
"""Of BB."""
MOVED = pd.Timestamp("2019-09-16")
"""AA changes its sector."""
LEFT = pd.Timestamp("2020-03-02")
"""CC is no member from then on."""


def sectors(*rows: tuple[str, str]) -> pd.DataFrame:
    """Of one symbol, from each date on, as from `read_sectors`."""
    dates = pd.DatetimeIndex([pd.Timestamp(day) for day, _ in rows], name="date").astype("datetime64[us]")
    return pd.DataFrame({"sector": [name for _, name in rows]}, index=dates)


CLASSIFICATION = {
    "AA": sectors(("1900-01-01", "information_technology"), (str(MOVED.date()), "energy")),
    **{ticker: sectors(("1900-01-01", "energy")) for ticker in ("BB", "CC", "DD")},
    "EE": sectors(("2019-06-03", "energy")),
}
SETTINGS = Settings(
    universe=UniverseSettings(
        tickers=TICKERS,
        reference=ReferenceSettings(sectors={"energy": "XLE", "information_technology": "XLK"}),
    ),
    partitions=PartitionSettings(start=START),
)


@dataclass(frozen=True)
class Facts:
    """One symbol's facts of each dataset, in the columns of a provider."""

    fundamentals: pd.DataFrame
    insider_transactions: pd.DataFrame
    short_interest: pd.DataFrame

    def items(self) -> list[tuple[str, pd.DataFrame]]:
        return list(vars(self).items())


def bars_of(symbol: str) -> pd.DataFrame:
    """As traded, index `date`."""
    frame = make_bars(symbol, START, END).set_index("date")
    if symbol == "EE":
        frame = frame.loc[LISTED:]
    if symbol == "BB":
        after = np.where(frame.index < SPLIT, 1.0, RATIO)
        prices = ["open", "high", "low", "close"]
        frame = frame.assign(**{name: frame[name] / after for name in prices}, volume=frame["volume"] * after)
    if symbol == "DD":
        frame = frame.drop(pd.Timestamp("2019-05-14"))
    if symbol == "^VIX":
        frame = frame.drop(pd.to_datetime(["2019-07-05", "2020-01-10"]))
    return frame


def actions_of(symbol: str) -> pd.DataFrame:
    """A split of BB, dividends of CC."""
    rows: list[tuple[pd.Timestamp, str, float]] = []
    if symbol == "BB":
        rows = [(SPLIT, "split", RATIO)]
    if symbol == "CC":
        rows = [(pd.Timestamp(day), "dividend", 0.8) for day in ("2018-12-03", "2019-06-03", "2020-06-01")]
    frame = pd.DataFrame(rows, columns=["ex_date", "kind", "value"])
    return frame.astype({"ex_date": "datetime64[us]", "value": "float64"})


def _moments(random: np.random.Generator, days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """A moment of each day: before, at and after the close, and midnight (a date without a time)."""
    hours = random.choice([0.0, 12.0, 20.0, 20.5, 21.0, 21.75, 23.5], len(days))
    return days + pd.to_timedelta(hours, unit="h")


def facts_of(symbol: str, seed: int = 0) -> Facts:
    random = np.random.default_rng([zlib.crc32(symbol.encode()), seed])
    return Facts(_fundamentals(random), _insider(random), _short_interest(random))


def _fundamentals(random: np.random.Generator) -> pd.DataFrame:
    ends = pd.date_range("2017-03-31", "2020-06-30", freq="QE")
    amounts = random.uniform(1.0, 9.0, (len(ends), len(FUNDAMENTAL_VALUES)))
    filed = pd.DataFrame(amounts, columns=list(FUNDAMENTAL_VALUES)).assign(
        period_end=ends, available_at=_moments(random, ends + pd.to_timedelta(random.integers(25, 50, len(ends)), "D"))
    )
    filed["net_income"] -= 2.0  # some losses
    filed["fiscal_period"] = [f"Q{(end.month - 1) // 3 + 1}" for end in ends]
    filed.loc[filed["period_end"] == ends[6], ["revenue", "total_equity"]] = np.nan
    later = filed.iloc[[2, 5, 7, 9, 9]].copy()
    later["available_at"] = _moments(
        random, pd.DatetimeIndex(later["available_at"].dt.normalize() + pd.Timedelta(97, "D"))
    )
    later["revenue"] *= random.uniform(0.5, 1.5, len(later))
    # The quarter after the last restated one is filed at the same moment as its restatement.
    later.iloc[-1, later.columns.get_loc("available_at")] = filed["available_at"].iloc[10]
    facts = pd.concat([filed, later], ignore_index=True)
    return facts.assign(document=[f"filing-{number}" for number in range(len(facts))])


def _insider(random: np.random.Generator) -> pd.DataFrame:
    days = SESSIONS[np.sort(random.integers(20, len(SESSIONS) - 5, 60))]
    code = random.choice(["P", "S", "A", "M"], len(days), p=[0.4, 0.3, 0.2, 0.1])
    shares = random.integers(1, 500, len(days)) / 1e3 * np.where(code == "S", -1, 1)
    trades = pd.DataFrame({
        "available_at": _moments(random, days + pd.Timedelta(2, "D")), "transaction_date": days, "code": code,
        "shares": shares, "price": np.where(code == "A", 0.0, random.uniform(50, 150, len(days))),
        "document": [f"form4-{number // 2}" for number in range(len(days))],
        "insider": random.choice(["Ann", "Bob"], len(days)), "line": np.arange(len(days)),
    })  # fmt: skip
    amended = trades.iloc[5::7].copy()
    amended["available_at"] += pd.Timedelta(33, "D")
    amended["price"] *= random.uniform(0.5, 1.5, len(amended))
    twice = trades.iloc[3::11].assign(document=lambda rows: rows["document"] + "-again")
    return pd.concat([trades, amended, twice], ignore_index=True)


def _short_interest(random: np.random.Generator) -> pd.DataFrame:
    settled = SESSIONS[5:-12:10]
    reports = pd.DataFrame({
        "available_at": _moments(random, settled + pd.Timedelta(11, "D")), "settlement_date": settled,
        "shares_short": random.uniform(1, 5, len(settled)), "avg_daily_volume": random.uniform(1, 2, len(settled)),
        "shares_float": random.uniform(50, 60, len(settled)), "document": "",
    })  # fmt: skip
    reports.loc[reports.index[7], "shares_float"] = np.nan
    corrected = reports.iloc[4::9].copy()
    corrected["available_at"] += pd.Timedelta(25, "D")
    corrected["shares_short"] *= 1.25
    return pd.concat([reports, corrected], ignore_index=True).assign(
        document=lambda rows: rows["settlement_date"].dt.strftime("finra-%Y-%m-%d")
    )


def membership(ticker: str, sessions: pd.DatetimeIndex) -> np.ndarray:
    """CC leaves."""
    return np.asarray(sessions < LEFT) if ticker == "CC" else np.ones(len(sessions), dtype=bool)


def fill(
    store: MarketStore, until: pd.Timestamp | None = None, symbols: Sequence[str] = (*TICKERS, *INSTRUMENTS)
) -> None:
    """Save the market, or what was knowable at the close of the session `until`, as if nothing had come after."""
    last = SESSIONS[-1] if until is None else until
    (close,) = session_closes("XNYS", pd.DatetimeIndex([last]))
    nothing = pd.DataFrame({"item": [], "reason": []})
    for symbol in symbols:
        bars, actions = bars_of(symbol).loc[:last], actions_of(symbol)
        if bars.empty:
            continue
        store.save_bars(symbol, ScreenedBars(bars, nothing, actions[actions["ex_date"] <= last]), NOW)
        if symbol in INSTRUMENTS:
            continue
        for dataset, facts in facts_of(symbol).items():
            screened = screen_facts(dataset, facts[facts["available_at"] <= close], symbol, "XNYS")
            store.save_facts(dataset, symbol, screened.good, NOW, rejected=screened.rejected)


def provider_of(
    store: MarketStore, until: pd.Timestamp | None = None, settings: Settings = SETTINGS,
    classification: dict[str, pd.DataFrame] = CLASSIFICATION,
) -> InputProvider:  # fmt: skip
    """Over a filled store; `until` forgets also what the classification says of later."""
    last = SESSIONS[-1] if until is None else until
    known = {symbol: frame.loc[:last] for symbol, frame in classification.items() if len(frame.loc[:last])}
    return InputProvider(store, settings, known, membership, NOW, last.date())


def opened(folder: Path, until: pd.Timestamp | None = None) -> MarketStore:
    """A store in `folder` that holds the market."""
    store = MarketStore.embedded(folder / "market.sqlite")
    fill(store, until)
    return store


def feature_store(folder: Path, settings: Settings = SETTINGS) -> FeatureStore:
    ages = {str(name): days for name, days in settings.features.max_age_days.items()}
    return FeatureStore(folder, max_age_days=ages)


def aged(fundamentals: int, short_interest: int) -> Settings:
    """The settings with limits of staleness."""
    ages = FeatureSettings(max_age_days={"fundamentals": fundamentals, "short_interest": short_interest})
    return SETTINGS.model_copy(update={"features": ages})
