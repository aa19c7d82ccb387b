"""The invented market as a source: the pipeline runs on it, knows that it is none, and its rows are the market's."""

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from signals_core import steps
from signals_core.errors import SettingsError
from signals_core.features.catalog import CATEGORIES
from signals_core.market_data.providers.base import open_provider
from signals_core.report import SYNTHETIC_DISCLAIMER, read_report
from signals_core.settings_loading import load_settings
from signals_core.synthetic import MarketModel, make_market
from signals_core.workspace import Workspace

OPTIONS = {"kind": "planted_drift", "seed": 3, "start": "2020-01-02", "end": "2022-07-02", "correlation": 0.4}
SETTINGS = """
market_data:
  provider: synthetic
  options: {kind: planted_drift, seed: 3, start: 2020-01-02, end: 2022-07-02, correlation: 0.4}
  fundamentals: {provider: synthetic, options: {seed: 3, start: 2020-01-02, end: 2022-07-02}}
  insider_transactions: {provider: synthetic, options: {seed: 3, start: 2020-01-02, end: 2022-07-02}}
  short_interest: {provider: synthetic, options: {seed: 3, start: 2020-01-02, end: 2022-07-02}}
"""


@pytest.fixture
def invented(project: Path) -> Path:
    """The tests' project on an invented market instead of its files."""
    (project / "config" / "synthetic.yaml").write_text(SETTINGS)
    return project


def opened(root: Path, **environ: str) -> Workspace:
    return Workspace(load_settings(root, root / "config" / "synthetic.yaml", environ))


def test_its_bars_are_those_of_the_market_one_symbol_at_a_time(tmp_path: Path) -> None:
    provider = open_provider("synthetic", OPTIONS, tmp_path)
    market = make_market(
        ["AAA", "BBB"], "2020-01-02", "2022-07-02", MarketModel("planted_drift", correlation=0.4), seed=3
    )
    expected = {**market.bars, "SPY": market.index_bars, "XLK": market.sector_bars}
    expected["^VIX"] = market.implied_volatility_bars
    for symbol, bars in expected.items():
        pd.testing.assert_frame_equal(provider.fetch_bars(symbol).set_index("date"), bars)


def test_only_the_symbols_that_it_is_given_exist(tmp_path: Path) -> None:
    provider = open_provider("synthetic", {**OPTIONS, "symbols": ["AAA"]}, tmp_path, "fetch_short_interest")
    assert provider.fetch_bars("BBB") is provider.fetch_fundamentals("BBB") is None
    assert provider.fetch_short_interest("SPY") is None
    assert len(provider.fetch_bars("AAA")) == len(provider.fetch_bars("SPY")) == 630
    assert len(provider.fetch_fundamentals("AAA")) > 10


def test_without_an_end_it_reaches_the_last_session_that_has_closed(tmp_path: Path) -> None:
    bars = open_provider("synthetic", {"start": "2024-01-02"}, tmp_path).fetch_bars("AAA")
    now = pd.Timestamp.now("America/New_York")
    assert bars["date"].iloc[-1].date() <= now.date()
    assert (now.date() - bars["date"].iloc[-1].date()).days <= 5
    earlier = open_provider("synthetic", {"start": "2024-01-02", "end": "2025-01-01"}, tmp_path).fetch_bars("AAA")
    pd.testing.assert_frame_equal(bars.iloc[: len(earlier)], earlier, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"kind": "bubble"}, "kind 'bubble' is none of"),
        ({"volatility": 0.2}, "there is no option volatility; there are annual_volatility"),
        ({"start": "yesteryear"}, "'yesteryear' is no date; write YYYY-MM-DD"),
    ],
)
def test_wrong_options_are_refused_by_name(tmp_path: Path, options: dict[str, object], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        open_provider("synthetic", options, tmp_path)


def test_it_goes_through_the_store_into_features_and_labels(invented: Path) -> None:
    with opened(invented) as workspace:
        tickers = workspace.settings.universe.tickers
        loaded = steps.ingest(workspace, [*tickers, *workspace.reference_symbols()])
        assert [(item.rows, item.rejected, item.problem) for item in loaded] == [(630, 0, None)] * 5
        for dataset in ("fundamentals", "insider_transactions", "short_interest"):
            for item in steps.ingest_dataset(workspace, dataset) or []:
                assert (item.rows > 0, item.rejected, item.problem) == (True, 0, None)
        start, end = steps.data_span(workspace)
        for category in CATEGORIES:
            steps.build_category(workspace, category, tickers, start, end)
        steps.build_matrix(workspace, tickers, start, end)
        steps.build_target(workspace, tickers, start, end)
        panel = workspace.panel("UNIVERSE", date(2021, 6, 1), end)
        of_sectors = [
            n for n, f in workspace.features.catalog.items() if {"sector_fundamentals", "sectors"} & set(f.needs)
        ]
        assert panel.features.drop(columns=of_sectors).iloc[-1].notna().all()
        assert (panel.target["label"] >= 0).sum() > 500
        # The stored features are those that the market itself computes: store, screening and joins change nothing.
        model = MarketModel("planted_drift", correlation=0.4)
        own = make_market(list(tickers), "2020-01-02", "2022-07-02", model, seed=3, with_facts=True)
        direct = own.panel(workspace.settings.ml, "complete").features
        pd.testing.assert_frame_equal(panel.features, direct.loc[panel.features.index], rtol=1e-4, atol=1e-5)
        again = steps.ingest(workspace, [*tickers, *workspace.reference_symbols()])
        assert [item.changed for item in again] == [0] * 5


def test_its_report_says_that_it_is_invented(invented: Path) -> None:
    with opened(invented) as workspace:
        steps.ingest(workspace, ["AAA"])
        assert read_report(workspace).disclaimer == SYNTHETIC_DISCLAIMER


def test_it_is_never_stored_beside_a_real_source(invented: Path) -> None:
    with opened(invented) as workspace:
        steps.ingest(workspace, ["AAA"])
    with (
        Workspace(load_settings(invented, environ={})) as files,
        pytest.raises(
            SettingsError, match=r"bars of files, .* holds bars of synthetic: keep synthetic apart.*make clean"
        ),
    ):
        steps.ingest(files, ["BBB"])
    with (
        opened(invented, SA_MARKET_DATA__OVERRIDES='{"BBB": {"provider": "files"}}') as mixed,
        pytest.raises(SettingsError, match="keep synthetic apart"),
    ):
        steps.ingest(mixed, ["AAA", "BBB"])


def test_the_configuration_that_ships_with_it_works(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    loaded = load_settings(root, root / "config" / "synthetic.yaml", {"SA_PATHS__DATA": str(tmp_path)})
    with Workspace(loaded) as workspace:
        last = workspace.last_session
        for item in steps.ingest(workspace, ["INV01", *workspace.reference_symbols()]):
            assert (item.rejected, item.problem) == (0, None)
        (coverage,) = workspace.market.coverage(["INV01"]).values()
        assert (coverage.first, coverage.last) == (date(2015, 1, 2), last) == (date(2015, 1, 2), date(2020, 1, 3))
        assert workspace.data == tmp_path
        for dataset in ("fundamentals", "insider_transactions", "short_interest"):
            assert workspace.fact_provider(dataset).name == "synthetic"
