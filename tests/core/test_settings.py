"""Layers, overrides and refusals of the settings."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from signals_core import clock
from signals_core.errors import SettingsError
from signals_core.settings import Settings
from signals_core.settings_loading import LoadedSettings, load_settings


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_later_layers_win_and_every_value_names_its_origin(project: Path) -> None:
    write(project / "overlay.yaml", "validation: {cost_bps: 9}\nml: {up_threshold: 0.02}\n")
    environ = {"SIGNALS_CONFIG": "overlay.yaml", "SA_ML__UP_THRESHOLD": "0.03"}

    loaded = load_settings(project, environ=environ)

    assert loaded.settings.validation.cost_bps == 9
    assert loaded.settings.ml.up_threshold == 0.03
    assert loaded.settings.validation.train_months == 12
    origins = {key: origin for key, _, origin in loaded.items()}
    assert origins["ml.up_threshold"] == "environment SA_ML__UP_THRESHOLD"
    assert origins["validation.cost_bps"] == "overlay.yaml"
    assert origins["validation.train_months"] == "config/settings.yaml"
    assert origins["universe.tickers"] == "config/universe.yaml"
    assert origins["tuning.seed"] == "built-in default"


def test_environment_reaches_nested_keys_and_lists(project: Path) -> None:
    environ = {
        "SA_ML__XGB_PARAMS__MAX_DEPTH": "3",
        "SA_ML__SCOPES": '["UNIVERSE"]',
        "sa_universe__tickers": '["IBM", "BRK.B"]',
        "SA_CLOCK__AS_OF": "2013-03-03T02:00:00-05:00",
    }

    settings = load_settings(project, environ=environ).settings

    assert settings.ml.xgb_params.max_depth == 3
    assert settings.universe.tickers == ("IBM", "BRK.B")
    assert settings.scope_tickers("UNIVERSE") == ("IBM", "BRK.B")
    assert settings.scope_tickers("IBM") == ("IBM",)
    assert clock.now(settings) == datetime(2013, 3, 3, 7, tzinfo=UTC)
    assert clock.now(settings).utcoffset().total_seconds() == -5 * 3600


def test_yaml_dates_and_offsets_survive(loaded: LoadedSettings) -> None:
    assert loaded.settings.clock.as_of == datetime(2022, 7, 3, 6, tzinfo=UTC)
    assert loaded.settings.partitions.start == date(2020, 1, 1)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SA_ML__PREDICTION_HORIZN": "3"}, ["ml.prediction_horizn", "did you mean prediction_horizon?"]),
        ({"SA_ML__PREDICTION_HORIZON": "0"}, ["ml.prediction_horizon", "SA_ML__PREDICTION_HORIZON", "'0'"]),
        ({"SA_MLL__PREDICTION_HORIZON": "3"}, ["SA_MLL__PREDICTION_HORIZON", "SA_<SECTION>__<KEY>", "universe"]),
        ({"SA_ML": "{}"}, ["SA_ML", "names no setting"]),
        ({"SA_UNIVERSE__TICKERS": "AAPL,IBM"}, ["SA_UNIVERSE__TICKERS", "JSON"]),
        ({"SA_UNIVERSE__TICKERS": '["AAA", "BBB", "AAA"]'}, ["universe.tickers", "AAA named more than once"]),
        ({"SA_UNIVERSE__TICKERS": '["AAA", "UNIVERSE"]'}, ["pooled scope"]),
        ({"SA_UNIVERSE__TICKERS": '["../AAA"]'}, ["universe.tickers", "../AAA"]),
        ({"SA_ML__SCOPES": '["ZZZ"]'}, ["ZZZ is neither UNIVERSE nor one of universe.tickers"]),
        ({"SA_ML__SCOPES": '["AAA", "AAA"]'}, ["ml.scopes", "each named once"]),
        ({"SA_CLOCK__AS_OF": "2013-03-03T02:00:00"}, ["clock.as_of", "UTC offset"]),
        ({"SA_VALIDATION__TEST_MONTHS": "5"}, ["test_months (5)", "multiple of step_months (3)"]),
        ({"SIGNALS_CONFIG": "nowhere.yaml"}, ["nowhere.yaml", "does not exist"]),
    ],
)
def test_a_wrong_value_is_refused_by_name(project: Path, environ: dict[str, str], expected: list[str]) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(project, environ=environ)
    for text in expected:
        assert text in str(refused.value)


def test_an_unknown_key_in_a_file_names_the_file(project: Path) -> None:
    overlay = write(project / "overlay.yaml", "gate: {max_zz: 2}\n")
    with pytest.raises(SettingsError, match=r"gate\.max_zz \(from overlay\.yaml\).*did you mean max_z\?"):
        load_settings(project, overlay, environ={})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a\n- b\n", "must hold sections with keys, not a list"),
        ("ml: [1\n", "is not valid YAML"),
        ("ml: 3\n", r"ml \(from overlay.yaml\)"),
    ],
)
def test_a_malformed_file_is_refused(project: Path, text: str, problem: str) -> None:
    overlay = write(project / "overlay.yaml", text)
    with pytest.raises(SettingsError, match=problem):
        load_settings(project, overlay, environ={})


def test_a_missing_project_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"settings\.yaml does not exist.*SIGNALS_HOME"):
        load_settings(tmp_path, environ={})


def test_provider_options_are_replaced_whole(project: Path) -> None:
    overlay = write(project / "overlay.yaml", "market_data: {provider: demo, options: {}}\n")
    loaded = load_settings(project, overlay, environ={})
    assert loaded.settings.market_data.options == {}
    assert ("market_data.options", {}, "overlay.yaml") in loaded.items()


def test_settings_cannot_be_changed_after_loading(loaded: LoadedSettings) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        loaded.settings.ml.up_threshold = 0.5  # type: ignore[misc]


def test_the_environment_does_not_slip_past_load_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SA_TUNING__TRIALS", "55")
    assert Settings(universe={"tickers": ["AAA"]}).tuning.trials == 100
    monkeypatch.setenv("SA_TUNING__TRIALS", "nonsense")
    assert Settings(universe={"tickers": ["AAA"]}).tuning.trials == 100


@pytest.mark.parametrize(
    ("variable", "url", "printable"),
    [
        ("SA_STORES__MARKET_URL", "postgresql+psycopg2://me:a%40b@host:1/db", "postgresql+psycopg2://me:***@host:1/db"),
        ("SA_STORES__REDIS_URL", "redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("SA_STORES__REDIS_URL", "redis://host:6379/0", "redis://host:6379/0"),
        ("SA_STORES__MARKET_URL", "null", None),
    ],
)
def test_passwords_are_not_printed(project: Path, variable: str, url: str, printable: str | None) -> None:
    loaded = load_settings(project, environ={variable: url})
    key = variable.removeprefix("SA_").lower().replace("__", ".")
    assert {name: value for name, value, _ in loaded.printable_items()}[key] == printable
    others = [item for item in loaded.items() if item[0] != key]
    assert [item for item in loaded.printable_items() if item[0] != key] == others
    assert {name: value for name, value, _ in loaded.items()}[key] == (None if url == "null" else url)


def test_the_projects_own_configuration_loads() -> None:
    root = Path(__file__).parents[2]
    shipped = load_settings(root, environ={})
    assert shipped.settings.ml.prediction_horizon == 5
    assert shipped.settings.validation.train_months == 24
    demo = load_settings(root, Path("config/demo.yaml"), environ={})
    assert demo.settings.market_data.provider == "demo"
