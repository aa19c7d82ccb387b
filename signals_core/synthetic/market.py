"""Correlated symbols, an index, a sector and a volatility index on real exchange sessions, with their truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from signals_core.calendar import sessions_between
from signals_core.errors import SettingsError
from signals_core.features.catalog import catalog
from signals_core.features.inputs import FeatureInputs
from signals_core.ml.target import make_target
from signals_core.settings import FeatureSettings, MLSettings
from signals_core.synthetic.facts import SymbolFacts, make_facts
from signals_core.synthetic.processes import autoregression, make_bars, normals
from signals_core.synthetic.truth import NormalTruth, VolatilityTruth

if TYPE_CHECKING:
    from signals_core.workspace import Panel

SESSIONS_PER_YEAR = 252
Kind = Literal["random_walk", "stochastic_volatility", "planted_drift"]
Columns = Literal["symbol_level", "complete"]

# Names of streams that are no symbol: a symbol is never written in small letters.
_INDEX, _SECTOR, _IMPLIED = "index", "sector", "implied volatility"
_SECTOR_CORRELATION = 0.9
_LEAST_COMMON_SHARE = 0.05
"""Of a symbol's variance in the index's: an index of unrelated symbols moves all the same."""
_IMPLIED_NOISE, _IMPLIED_PERSISTENCE = 0.10, 0.95
"""Log deviation of the volatility index from the index's true volatility."""
_IMPLIED_SESSION_SD = 0.03


@dataclass(frozen=True)
class MarketModel:
    """What a market is made of. Returns are log returns; every price is a martingale but for a planted drift.

    Raises:
        SettingsError: a value is impossible, or leaves no room for noise.
    """

    kind: Kind = "random_walk"
    annual_volatility: float = 0.20
    """Of every symbol; under a planted drift, that of returns over the horizon."""
    correlation: float = 0.3
    """Of two symbols' noise, by one common factor."""
    overnight_share: float = 0.25
    """Of a session's variance before the open."""
    common_log_volatility: float = 0.3
    """Standard deviation of the common part of log volatility (stochastic_volatility)."""
    own_log_volatility: float = 0.3
    volatility_persistence: float = 0.97
    """AR(1) coefficient a session of both parts."""
    information_coefficient: float = 0.2
    """Correlation of the signal with the log return of the next `horizon` sessions (planted_drift)."""
    horizon: int = 5
    signal_persistence: float = 0.5
    """AR(1) coefficient of the signal a session."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise SettingsError(f"synthetic market: kind {self.kind!r} is none of {', '.join(get_args(Kind))}")
        for name in ("overnight_share", "volatility_persistence", "signal_persistence"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"synthetic market: {name} {getattr(self, name)} is not in [0, 1)")
        if not 0 <= self.correlation <= 1 or self.annual_volatility <= 0 or self.horizon < 1:
            raise SettingsError("synthetic market: needs correlation in 0..1, annual_volatility > 0 and horizon >= 1")
        if self.kind == "planted_drift" and not self._noise_variance() > 0:
            raise SettingsError(
                f"synthetic market: an information coefficient of {self.information_coefficient} over {self.horizon} "
                "sessions leaves no room for noise; lower it, overnight_share or signal_persistence"
            )

    @property
    def daily_volatility(self) -> float:
        """Standard deviation of a session's log return (its root mean square if it moves)."""
        return self.annual_volatility / float(np.sqrt(SESSIONS_PER_YEAR))

    def truth_of(self, signal: pd.DataFrame) -> NormalTruth:
        """The truth of a market with this signal: see `NormalTruth` for the equation.

        The gap at the open is -sqrt(overnight_share) s: news to which the night overreacts. The drift loading
        makes the correlation of s[t] with the next `horizon` sessions' return the information coefficient, and
        the noise makes the variance of that return `horizon` times the daily one.
        """
        if self.kind != "planted_drift":
            return NormalTruth(signal, self.daily_volatility, 0.0, 0.0, 1.0, 0.0)
        drift, gap = self._loadings()
        noise = float(np.sqrt(self._noise_variance()))
        return NormalTruth(signal, self.daily_volatility, drift, gap, noise, self.signal_persistence)

    def _loadings(self) -> tuple[float, float]:
        """The drift and gap loadings: m = drift A + gap a A with A = 1 + a + ... + a^(h-1) must be IC sqrt(h)."""
        gap = -float(np.sqrt(self.overnight_share))
        persistence, sessions = self.signal_persistence, float(np.sqrt(self.horizon))
        spread = float((persistence ** np.arange(self.horizon)).sum())
        return self.information_coefficient * sessions / spread - gap * persistence, gap

    def _noise_variance(self) -> float:
        drift, gap = self._loadings()
        noiseless = NormalTruth(pd.DataFrame(), 1.0, drift, gap, 0.0, self.signal_persistence)
        slope, deviation = noiseless.forward_moments(self.horizon)
        return 1 - (slope**2 + deviation**2) / self.horizon


@dataclass(frozen=True)
class Market:
    """An invented market. It is a `DataProvider`: the feature store takes it as it is."""

    model: MarketModel
    seed: int
    calendar: str
    bars: Mapping[str, pd.DataFrame]
    """By symbol: index `date`, columns open, high, low, close, volume."""
    index_bars: pd.DataFrame
    """Of the common factor, with the noise of no symbol."""
    sector_bars: pd.DataFrame
    implied_volatility_bars: pd.DataFrame
    """The index's true volatility, annualised in percent, with noise: a stand-in for VIX."""
    truth: NormalTruth | VolatilityTruth
    facts: Mapping[str, SymbolFacts] = field(default_factory=dict)
    """By symbol; empty unless asked for."""

    @property
    def symbols(self) -> list[str]:
        """In the order of the panel."""
        return list(self.bars)

    def inputs(self, symbol: str) -> FeatureInputs:
        """All that features of a symbol are computed from."""
        facts = self.facts.get(symbol)
        return FeatureInputs(
            self.bars[symbol],
            spy_bars=self.index_bars,
            vix_bars=self.implied_volatility_bars,
            sector_bars=self.sector_bars,
            fundamentals=facts.fundamentals if facts else None,
            insider_transactions=facts.insider_transactions if facts else None,
            short_interest=facts.short_interest if facts else None,
        )

    def panel(
        self, ml: MLSettings | None = None, columns: Columns = "symbol_level", min_history_sessions: int | None = None
    ) -> "Panel":
        """Features and target of every symbol, by the calculators that real data go through.

        Of a planted drift the feature `gap_pct` is the signal, exactly: the gap before the last open.

        Args:
            ml: the label's horizon and thresholds.
            columns: symbol_level leaves out what is the same for every symbol on a date (VIX, calendar).
            min_history_sessions: rows of a symbol before this are left out (default: that of the settings).

        Returns:
            Both with the index (symbol, date); features are float32, as they are stored.
        """
        from signals_core.feature_store import FeatureStore
        from signals_core.workspace import Panel

        first = FeatureSettings().min_history_sessions if min_history_sessions is None else min_history_sessions
        names = [f.name for f in catalog().values() if columns == "complete" or not (f.market_wide or f.calendar)]
        store = FeatureStore(Path(), self.calendar)  # computes without touching the disk
        features, targets = {}, {}
        for symbol in self.symbols:
            inputs = {name: frame for name, frame in self.inputs(symbol).items() if frame is not None}
            features[symbol] = store.compute_features(symbol, **inputs)[names].iloc[first:].astype("float32")
            targets[symbol] = make_target(self.bars[symbol], ml or MLSettings()).iloc[first:]
        return Panel(pd.concat(features, names=["symbol", "date"]), pd.concat(targets, names=["symbol", "date"]))


@dataclass(frozen=True)
class _Returns:
    """Log returns (sessions, n) and the deviation of the way from open to close."""

    overnight: np.ndarray
    intraday: np.ndarray
    intraday_sd: np.ndarray


def make_market(
    symbols: int | Sequence[str],
    start: str | date,
    end: str | date,
    model: MarketModel | None = None,
    seed: int = 0,
    calendar: str = "XNYS",
    with_facts: bool = False,
) -> Market:
    """Invent a market on the sessions start <= date < end.

    Args:
        symbols: their names, or how many (S000, S001, ...).
        start: of the paths; another start is another market.
        end: a later end only adds rows.
        model: what it is made of (default: a random walk).
        seed: the same seed, symbol and model give the same path, whatever else is asked for.
        calendar: of the exchange.
        with_facts: filings, insider trades and short interest too; they say nothing about prices.

    Raises:
        SettingsError: there is no session in the span, or no symbol.
    """
    model = model or MarketModel()
    names = tuple(f"S{number:03d}" for number in range(symbols)) if isinstance(symbols, int) else tuple(symbols)
    sessions = sessions_between(calendar, pd.Timestamp(start).date(), pd.Timestamp(end).date())
    if not names or not len(sessions):
        raise SettingsError(f"synthetic market: {len(names)} symbols and {len(sessions)} sessions in {start}..{end}")

    common = _log_volatility(model, seed, (_INDEX,), "volatility", len(sessions))
    truth: NormalTruth | VolatilityTruth
    if model.kind == "planted_drift":
        signal = autoregression(normals(seed, names, "signal", len(sessions)), model.signal_persistence)
        truth = model.truth_of(pd.DataFrame(signal, index=sessions.rename("date"), columns=list(names)))
        returns = _planted_returns(model, truth, seed, names)
    else:
        own = _log_volatility(model, seed, names, "volatility", len(sessions))
        deviation = model.daily_volatility * np.exp(common + own)
        returns = _martingale(model, deviation, *(_noise(model, seed, names, part, len(sessions)) for part in _PARTS))
        frame = pd.DataFrame(deviation, index=sessions.rename("date"), columns=list(names))
        truth = VolatilityTruth(frame) if model.kind == "stochastic_volatility" else model.truth_of(frame * 0.0)

    factor = tuple(normals(seed, (_INDEX,), part, len(sessions)) for part in _PARTS)
    sector = tuple(
        _SECTOR_CORRELATION * f + np.sqrt(1 - _SECTOR_CORRELATION**2) * normals(seed, (_SECTOR,), part, len(sessions))
        for f, part in zip(factor, _PARTS, strict=True)
    )
    market_sd = model.daily_volatility * np.sqrt(max(model.correlation, _LEAST_COMMON_SHARE)) * np.exp(common)
    # Gaps of a planted drift are signals, each symbol's own: what is common to all happens after the open.
    index_model = replace(model, overnight_share=0.0) if model.kind == "planted_drift" else model
    return Market(
        model,
        seed,
        calendar,
        {name: _bars_of(sessions, returns, number, seed, name) for number, name in enumerate(names)},
        _bars_of(sessions, _martingale(index_model, market_sd, *factor), 0, seed, _INDEX),
        _bars_of(sessions, _martingale(index_model, market_sd, *sector), 0, seed, _SECTOR),
        _implied_volatility(sessions, market_sd[:, 0], seed),
        truth,
        {name: make_facts(name, sessions, seed, calendar) for name in names} if with_facts else {},
    )


_PARTS = ("overnight", "intraday")


def _noise(model: MarketModel, seed: int, names: tuple[str, ...], part: str, sessions: int) -> np.ndarray:
    """Standard normal (sessions, n), correlated by the common factor."""
    own, common = normals(seed, names, part, sessions), normals(seed, (_INDEX,), part, sessions)
    return np.sqrt(model.correlation) * common + np.sqrt(1 - model.correlation) * own


def _log_volatility(model: MarketModel, seed: int, names: tuple[str, ...], purpose: str, sessions: int) -> np.ndarray:
    """The common or own part of log volatility (sessions, n), centred so that the mean variance is as stated."""
    spread = 0.0
    if model.kind == "stochastic_volatility":
        spread = model.common_log_volatility if names == (_INDEX,) else model.own_log_volatility
    state = autoregression(normals(seed, names, purpose, sessions), model.volatility_persistence)
    return spread * state - spread**2


def _martingale(model: MarketModel, deviation: np.ndarray, night: np.ndarray, day: np.ndarray) -> _Returns:
    """Returns without drift: a log return of variance V has the mean -V/2, in both parts of a session."""
    overnight_sd = deviation * np.sqrt(model.overnight_share)
    intraday_sd = deviation * np.sqrt(1 - model.overnight_share)
    return _Returns(overnight_sd * night - overnight_sd**2 / 2, intraday_sd * day - intraday_sd**2 / 2, intraday_sd)


def _planted_returns(model: MarketModel, truth: NormalTruth, seed: int, names: tuple[str, ...]) -> _Returns:
    signal = truth.signal.to_numpy()
    before = np.vstack([np.zeros((1, len(names))), signal[:-1]])
    noise = truth.noise * _noise(model, seed, names, "intraday", len(signal))
    deviation = truth.daily_volatility
    return _Returns(
        deviation * truth.gap_loading * signal,
        deviation * (truth.drift_loading * before + noise) - deviation**2 / 2,
        np.full(signal.shape, deviation * truth.noise),
    )


def _bars_of(sessions: pd.DatetimeIndex, returns: _Returns, number: int, seed: int, name: str) -> pd.DataFrame:
    return make_bars(
        sessions,
        returns.overnight[:, number],
        returns.intraday[:, number],
        returns.intraday_sd[:, number],
        seed,
        name,
    )


def _implied_volatility(sessions: pd.DatetimeIndex, market_sd: np.ndarray, seed: int) -> pd.DataFrame:
    noise = autoregression(normals(seed, (_IMPLIED,), "level", len(sessions)), _IMPLIED_PERSISTENCE)[:, 0]
    level = 100 * market_sd * np.sqrt(SESSIONS_PER_YEAR) * np.exp(_IMPLIED_NOISE * noise)
    moves = np.diff(np.log(level), prepend=np.log(level[0]))
    bars = make_bars(
        sessions, np.zeros(len(sessions)), moves, np.full(len(sessions), _IMPLIED_SESSION_SD), seed, _IMPLIED
    )
    scale = level[0] / bars["close"].iloc[0]
    return bars.assign(**{name: bars[name] * scale for name in ("open", "high", "low", "close")}, volume=0.0)
