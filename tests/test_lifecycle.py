"""What weeks of use bring: new days, late listings, delistings, corrections, other settings, a mistaken folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from signals_core import steps
from signals_core.errors import MissingPrerequisite, SettingsError
from signals_core.features.catalog import CATEGORIES
from signals_core.ml.training import train_model
from signals_core.ml.windows import all_windows, compute_windows
from signals_core.settings_loading import load_settings
from signals_core.strategy.ml_strategy import session_signals
from signals_core.workspace import Workspace

THREE = '["AAA", "BBB", "CCC"]'


def opened(home: Path, **environment: str) -> Workspace:
    return Workspace(load_settings(home, environ=environment))


def build(workspace: Workspace) -> None:
    settings = workspace.settings
    steps.ingest(workspace, [*settings.universe.tickers, *workspace.reference_symbols()])
    start, end = steps.data_span(workspace)
    tickers = workspace.covered(settings.universe.tickers)
    for category in CATEGORIES:
        steps.build_category(workspace, category, tickers, start, end)
    steps.build_matrix(workspace, tickers, start, end)
    steps.build_target(workspace, tickers, start, end)


def validate(workspace: Workspace, scopes: tuple[str, ...] = ("UNIVERSE",)) -> list:
    keys = [w.key for w in all_windows(workspace.settings, steps.known_until(workspace))]
    return compute_windows(workspace, [(scope, key) for scope in scopes for key in keys])


def bars_of(home: Path, symbol: str) -> pd.DataFrame:
    return pd.read_csv(home / "data" / "bars" / f"{symbol}.csv")


def give(home: Path, symbol: str, bars: pd.DataFrame) -> None:
    bars.to_csv(home / "data" / "bars" / f"{symbol}.csv", index=False)


@pytest.fixture
def ready(project: Path) -> Iterator[Workspace]:
    """Features and windows of UNIVERSE, no model."""
    with opened(project) as workspace:
        build(workspace)
        validate(workspace)
        yield workspace


def test_a_retrain_within_the_week_uses_the_days_since_sunday(project: Path, ready: Workspace):
    sunday = train_model(ready, "UNIVERSE", steps.known_until(ready), "schedule")
    friday = "2022-06-24T20:00:00-04:00"
    with opened(project, SA_CLOCK__AS_OF="2022-06-22T20:00:00-04:00") as wednesday:
        build(wednesday)
        validate(wednesday)
        first = train_model(wednesday, "UNIVERSE", steps.known_until(wednesday), "drift")
    with opened(project, SA_CLOCK__AS_OF=friday) as later:
        build(later)
        second = train_model(later, "UNIVERSE", steps.known_until(later), "drift")
    assert first.trained
    assert second.trained
    assert len({sunday.version.inputs, first.version.inputs, second.version.inputs}) == 3


def test_an_unbeaten_champion_still_gives_signals_four_sundays_later(project: Path, ready: Workspace):
    first = train_model(ready, "UNIVERSE", steps.known_until(ready), "schedule")
    assert first.version.active
    # A shorter training period each week makes another model of the same windows.
    for months, day in ((11, "07-10"), (10, "07-17"), (9, "07-24"), (8, "07-31")):
        week = {"SA_CLOCK__AS_OF": f"2022-{day}T02:00:00-04:00", "SA_ML__TRAIN_MONTHS": str(months)}
        with opened(project, **week) as workspace:
            challenger = train_model(workspace, "UNIVERSE", steps.known_until(workspace), "schedule").version
            assert (challenger.active, challenger.decision[:26]) == (False, "rejected: no new evidence:")
            session = steps.data_span(workspace)[1] - pd.Timedelta(days=1)
            frame = session_signals(workspace, "UNIVERSE", session).frame
            assert not frame["reason"].str.contains("judged").any()
            assert set(frame["model_version"]) == {first.version.version_id}


def test_a_delisted_ticker_does_not_stop_the_others(project: Path):
    bars = bars_of(project, "BBB").assign(volume=1e6)
    give(project, "CCC", bars[bars["date"] < "2020-12-01"])
    with opened(project, SA_UNIVERSE__TICKERS=THREE) as workspace:
        build(workspace)
        validate(workspace)
        trained = train_model(workspace, "UNIVERSE", steps.known_until(workspace), "schedule").version
        workspace.registry.promote(trained.version_id)
        frame = session_signals(workspace, "UNIVERSE", workspace.last_session).frame.set_index("symbol")
    assert frame.loc["CCC", "reason"] == "no features of this session"
    assert frame.loc[["AAA", "BBB"], "p_up"].notna().all()


def test_a_ticker_with_too_little_history_is_not_predicted(project: Path):
    give(project, "CCC", bars_of(project, "BBB").tail(32))
    with opened(project, SA_UNIVERSE__TICKERS=THREE) as workspace:
        build(workspace)
        validate(workspace)
        trained = train_model(workspace, "UNIVERSE", steps.known_until(workspace), "schedule").version
        workspace.registry.promote(trained.version_id)
        frame = session_signals(workspace, "UNIVERSE", workspace.last_session).frame.set_index("symbol")
    assert pd.isna(frame.loc["CCC", "p_up"])


def test_a_scope_without_rows_is_refused_window_by_window_and_the_other_is_computed(project: Path):
    give(project, "CCC", bars_of(project, "BBB").tail(32))
    with opened(project, SA_UNIVERSE__TICKERS=THREE, SA_ML__SCOPES='["UNIVERSE", "CCC"]') as workspace:
        build(workspace)
        outcomes = validate(workspace, ("UNIVERSE", "CCC"))
    assert {o.scope for o in outcomes if o.refusal} == {"CCC"}
    assert {o.scope for o in outcomes if o.computed} == {"UNIVERSE"}


def test_training_on_windows_of_another_horizon_is_refused(project: Path, ready: Workspace):
    with opened(project, SA_ML__PREDICTION_HORIZON="3") as workspace:
        build(workspace)
        with pytest.raises(MissingPrerequisite, match="was made from other inputs or settings"):
            train_model(workspace, "UNIVERSE", steps.known_until(workspace), "schedule")


def test_a_bar_that_the_source_withdraws_leaves_the_store(project: Path):
    bars = bars_of(project, "AAA")
    with opened(project) as workspace:
        steps.ingest(workspace, ["AAA"])
        give(project, "AAA", bars[bars["date"] != "2021-03-01"])
        (loaded,) = steps.ingest(workspace, ["AAA"])
        assert loaded.changed == 1
        assert pd.Timestamp("2021-03-01") not in workspace.market.load_bars("AAA").index
        assert len(workspace.market.load_bars("AAA")) == len(bars) - 1


def test_the_demo_s_bars_and_a_user_s_are_not_mixed_in_one_store(project: Path):
    with opened(project) as workspace:
        steps.ingest(workspace, ["AAA"])
    with (
        opened(project, SA_MARKET_DATA__PROVIDER="demo", SA_MARKET_DATA__OPTIONS="{}") as workspace,
        pytest.raises(SettingsError, match=r"holds bars of files.*make clean"),
    ):
        steps.ingest(workspace, ["AAPL"])


def test_a_corrected_bar_is_seen_by_the_next_main_job(project: Path):
    environment = {**os.environ, "SIGNALS_HOME": str(project), "SA_ML__SCOPES": '["UNIVERSE"]'}
    command = [sys.executable, "-m", "signals_core.cli", "demo", "--json"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    bars = bars_of(project, "AAA")
    bars.loc[bars["date"] == "2022-06-30", "close"] = bars.loc[bars["date"] == "2022-06-30", "low"]
    give(project, "AAA", bars)
    subprocess.run(command, env=environment, check=True, capture_output=True)
    with opened(project) as workspace:
        corrected = workspace.features.load("AAA", *steps.data_span(workspace)).loc[
            "2022-06-30", "close_location_value"
        ]
    assert corrected == -1


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("SA_STORES__REDIS_URL", "localhost:6379", "stores.redis_url .*redis://host:port/number"),
        ("SA_STORES__MARKET_URL", "postgres://h/d", r"stores.market_url .*postgresql\+psycopg2://"),
        ("SA_EXCHANGE__TIMEZONE", "Mars/City", "exchange.timezone .*IANA"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_its_variable(project: Path, variable: str, value: str, text: str):
    with pytest.raises(SettingsError, match=text):
        load_settings(project, environ={variable: value})


def test_null_in_the_environment_is_null(project: Path):
    settings = load_settings(project, environ={"SA_PARTITIONS__END": "null", "SA_STORES__REDIS_URL": "null"}).settings
    assert (settings.partitions.end, settings.stores.redis_url) == (None, None)
