import json
import shutil
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from signals_core import steps
from signals_core.errors import MissingPrerequisite
from signals_core.features.catalog import CATEGORIES
from signals_core.ml import tuning
from signals_core.ml.bundle import load_bundle, read_frame, read_manifest
from signals_core.ml.calibration import calibrator_of
from signals_core.ml.forward_calibration import CALIBRATED_COLUMNS, calibrate_forward, row_losses
from signals_core.ml.judging import judge, proven_version
from signals_core.ml.registry import ModelRegistry
from signals_core.ml.training import as_of_sunday, is_current, trade_returns, train_model, training_rows
from signals_core.ml.windows import all_windows, compute_windows
from signals_core.workspace import Panel
from tests.core.ml.helpers import AS_OF, flip_byte, make_bundle


@pytest.mark.parametrize(
    ("moment", "sunday"),
    [
        (datetime(2022, 7, 3, 2, tzinfo=UTC), date(2022, 7, 3)),
        (datetime(2022, 7, 2, 23, tzinfo=UTC), date(2022, 6, 26)),
        (datetime(2022, 7, 4, tzinfo=UTC), date(2022, 7, 3)),
    ],
)
def test_a_model_belongs_to_the_sunday_on_or_before(moment, sunday):
    assert as_of_sunday(moment) == sunday


def pooled(keys=("2021-01-01", "2021-04-01", "2021-07-01"), seed=0) -> pd.DataFrame:
    """Out-of-fold rows of three quarters; labels end seven days later; the model is twice too sure."""
    random = np.random.default_rng(seed)
    parts = []
    for key in keys:
        dates = pd.bdate_range(key, periods=60, name="date")
        index = pd.MultiIndex.from_product([["AAA", "BBB", "CCC"], dates], names=["symbol", "date"])
        truth = random.dirichlet([6, 8, 6], len(index))
        sure = truth**2 / (truth**2).sum(axis=1, keepdims=True)
        frame = pd.DataFrame(sure, index=index, columns=["p_down", "p_flat", "p_up"])
        frame["label"] = [random.choice(3, p=p) for p in truth]
        frame["label_end"] = index.get_level_values("date") + pd.Timedelta(days=7)
        parts.append(frame.assign(window=key, prior_down=0.3, prior_flat=0.4, prior_up=0.3))
    return pd.concat(parts).sort_index()


def test_the_first_window_stays_uncalibrated_and_the_later_ones_are_calibrated():
    frame = calibrate_forward(pooled(), min_rows=100, horizon=5)
    calibrated = frame[CALIBRATED_COLUMNS].notna().all(axis=1).groupby(frame["window"]).mean()
    assert calibrated.to_dict() == {"2021-01-01": 0.0, "2021-04-01": 1.0, "2021-07-01": 1.0}
    assert frame[CALIBRATED_COLUMNS].sum(axis=1)[frame["window"] > "2021-02"].to_numpy() == pytest.approx(1)
    losses = row_losses(frame)
    assert len(losses) == 2 * 180
    assert losses["model"].mean() < losses["raw"].mean()


def test_calibration_never_uses_rows_whose_label_was_not_known_before_the_window():
    frame = pooled()
    later = frame["label_end"] >= pd.Timestamp("2021-04-01")
    turned = frame.copy()
    turned.loc[later, "label"] = (turned.loc[later, "label"] + 1) % 3
    mine = frame["window"] == "2021-04-01"
    assert (later & (frame["window"] == "2021-01-01")).sum() == 3  # of 25 March: known at the close of 1 April
    before, after = calibrate_forward(frame, 100, horizon=5), calibrate_forward(turned, 100, horizon=5)
    assert before.loc[mine, CALIBRATED_COLUMNS].equals(after.loc[mine, CALIBRATED_COLUMNS])
    assert not before[CALIBRATED_COLUMNS].equals(after[CALIBRATED_COLUMNS])  # the third window does use them


def test_a_label_that_ends_on_the_first_test_date_is_not_known_before_it():
    frame = pooled()
    first = frame["window"] == "2021-01-01"
    mine = frame["window"] == "2021-04-01"
    day_before, same_day = frame.copy(), frame.copy()
    rows = frame.index[first][-3:]
    for copy, end in ((day_before, "2021-03-31"), (same_day, "2021-04-01")):
        copy.loc[rows, "label_end"] = pd.Timestamp(end)
        copy.loc[rows, "label"] = 0
        copy.loc[rows, ["p_down", "p_flat", "p_up"]] = [0.01, 0.01, 0.98]
    without = frame.drop(rows)
    expected = calibrate_forward(without, 100, horizon=5).loc[mine[mine].index, CALIBRATED_COLUMNS]
    assert calibrate_forward(same_day, 100, horizon=5).loc[mine, CALIBRATED_COLUMNS].equals(expected)
    assert not calibrate_forward(day_before, 100, horizon=5).loc[mine, CALIBRATED_COLUMNS].equals(expected)


@pytest.mark.parametrize(("min_rows", "calibrated"), [(177, True), (178, False)])
def test_fewer_earlier_rows_than_the_minimum_leave_a_window_uncalibrated(min_rows, calibrated):
    frame = calibrate_forward(pooled(("2021-01-01", "2021-04-01")), min_rows, horizon=5)
    assert frame[CALIBRATED_COLUMNS].notna().any(axis=None) == calibrated


def test_training_end_to_end_from_bars_to_a_judged_version(workspace):
    tickers = workspace.settings.universe.tickers
    steps.ingest(workspace, [*tickers, "SPY", "XLK"])
    start, end = steps.data_span(workspace)
    for category in CATEGORIES:
        steps.build_category(workspace, category, tickers, start, end)
    steps.build_matrix(workspace, tickers, start, end)
    steps.build_target(workspace, tickers, start, end)
    compute_windows(workspace, [("AAA", key) for key in ("2021-01-01", "2021-07-01", "2022-01-01")])

    assert not is_current(workspace, "AAA", AS_OF)
    first = train_model(workspace, "AAA", AS_OF, "schedule", by="test")
    assert first.trained
    assert is_current(workspace, "AAA", AS_OF)
    manifest = load_bundle(workspace.models / first.version.model_path).manifest
    assert (manifest["train_start"], manifest["train_end"]) == ("2021-07-06", "2022-06-24")
    assert (manifest["scope"], manifest["cause"], manifest["symbols"]) == ("AAA", "schedule", ["AAA"])
    assert any("vix" in name for name in manifest["features_without_data"])
    assert first.version.metrics["windows"] == 3
    assert first.version.decision.split(":")[0] in ("promoted", "rejected")
    assert workspace.registry.journal()[0].action == "registered"
    assert sum(b.rows for b in first.reliability) == 3 * first.version.metrics["rows"]

    second = train_model(workspace, "AAA", AS_OF, "schedule")
    assert (second.trained, second.version) == (False, first.version)
    assert len(workspace.registry.journal()) == 2


def test_importance_is_the_share_of_each_feature_in_the_gain_the_largest_first(validated, open_workspace):
    few = {"SA_TUNING__TRIALS": "0", "SA_ML__XGB_PARAMS__N_ESTIMATORS": "5"}
    workspace = open_workspace(validated, **few)
    compute_windows(workspace, [("AAA", window.key) for window in all_windows(workspace.settings, AS_OF)])
    trained = train_model(workspace, "AAA", AS_OF, "person")
    shares = list(trained.importance.values())
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    model = load_bundle(workspace.models / trained.version.model_path)
    assert set(trained.importance) <= set(model.features)
    assert model.manifest["rounds"] == 5


@pytest.fixture
def ready(validated, open_workspace):
    return open_workspace(validated)


def test_a_model_uses_only_labels_known_before_its_sunday(ready):
    version = train_model(ready, "AAA", date(2022, 4, 3), "person").version
    manifest = load_bundle(ready.models / version.model_path).manifest
    # The label of 25 March ends on 1 April, the last session before Sunday 3 April.
    assert (manifest["train_start"], manifest["train_end"]) == ("2021-04-05", "2022-03-25")
    assert version.metrics["windows"] == 4
    assert read_frame(ready.models / version.model_path, "reference").index.get_level_values(
        "date"
    ).max() == pd.Timestamp("2022-03-25")


def test_the_stored_figures_are_those_of_the_stored_predictions(ready):
    version = train_model(ready, "UNIVERSE", AS_OF, "person").version
    losses = row_losses(read_frame(ready.models / version.model_path, "out_of_fold"))
    assert version.metrics["rows"] == len(losses)
    assert version.metrics["log_loss"] == pytest.approx(losses["model"].mean())
    assert version.metrics["raw_log_loss"] == pytest.approx(losses["raw"].mean())
    assert version.metrics["gain"] == pytest.approx(
        (losses["prior"] - losses["model"]).groupby(level="date").mean().mean()
    )


def test_the_manifest_says_how_it_was_calibrated_and_its_figures_are_plain_json(ready):
    version = train_model(ready, "UNIVERSE", AS_OF, "person").version
    manifest = read_manifest(ready.models / version.model_path)
    assert (manifest["calibration"]["method"], manifest["calibration"]["asked"]) == ("nested", "nested")
    gain = manifest["calibration"]["gain_over_raw"]["nested"]
    assert gain["mean"] == pytest.approx(version.metrics["gain_over_raw"])
    assert gain["dates"] == version.metrics["dates"]
    json.dumps(version.metrics, allow_nan=False)
    figures = version.metrics
    parts = figures["brier_reliability"] - figures["brier_resolution"] + figures["brier_uncertainty"]
    assert parts == pytest.approx(figures["brier"])
    assert 0 <= figures["deflated_sharpe"] <= figures["probabilistic_sharpe"] <= 1
    assert figures["trials"] == figures["windows"] * max(ready.settings.tuning.trials, 1)


def test_a_single_ticker_has_a_rank_correlation_over_time_and_a_pool_across_symbols(ready):
    single, pool = (train_model(ready, scope, AS_OF, "person").version.metrics for scope in ("AAA", "UNIVERSE"))
    assert single["information_coefficient_across_symbols"] is False
    assert pool["information_coefficient_across_symbols"] is True


def test_the_stored_trade_returns_are_those_of_the_target(ready):
    version = train_model(ready, "AAA", AS_OF, "person").version
    stored = read_frame(ready.models / version.model_path, "out_of_fold")["trade_return"]
    start, end = stored.index.get_level_values("date").min().date(), AS_OF
    target = ready.targets.load("AAA", start, end, ["trade_return"])["trade_return"]
    assert stored.droplevel("symbol").to_numpy() == pytest.approx(target.loc[stored.index.unique("date")].to_numpy())


@pytest.mark.parametrize(("horizon", "known"), [("1", 9), ("2", 10), ("5", 10)])
def test_a_trade_that_ends_after_its_label_is_not_known_yet(validated, open_workspace, horizon, known):
    """Entered at the next open and valued at the one after: a label of one session is known a session earlier."""
    workspace = open_workspace(validated, SA_ML__PREDICTION_HORIZON=horizon)
    target = workspace.targets.load("AAA", date(2022, 1, 3), date(2022, 1, 15), ["trade_return"])
    index = pd.MultiIndex.from_product([["AAA"], target.index], names=["symbol", "date"])
    assert len(index) == 10
    assert trade_returns(workspace, index).notna().sum() == known


def test_automatic_calibration_trains_a_model_that_serves(validated, open_workspace):
    workspace = open_workspace(validated, SA_CALIBRATION__METHOD="auto", SA_GATE__MAX_Z="10")
    version = train_model(workspace, "UNIVERSE", AS_OF, "person").version
    model = load_bundle(workspace.models / version.model_path)
    choice = model.manifest["calibration"]
    assert (choice["asked"], set(choice["gain_over_raw"])) == (
        "auto",
        {"sigmoid", "nested", "temperature", "dirichlet"},
    )
    assert type(model.calibrator) is type(calibrator_of(choice["method"], overlap=5))
    assert version.active


@pytest.mark.parametrize("method", ["temperature", "dirichlet"])
def test_a_model_is_calibrated_by_the_method_of_the_settings(validated, open_workspace, method):
    workspace = open_workspace(validated, SA_CALIBRATION__METHOD=method)
    version = train_model(workspace, "AAA", AS_OF, "person").version
    assert load_bundle(workspace.models / version.model_path).calibrator.to_dict()["method"] == method


def test_the_same_inputs_train_the_same_model(ready):
    first = train_model(ready, "AAA", AS_OF, "person").version
    shutil.rmtree(ready.models / first.model_path)
    again = train_model(ready, "AAA", AS_OF, "person")
    assert again.trained
    assert again.version.digest == first.digest


def test_a_changed_setting_trains_anew(ready, validated, open_workspace):
    first = train_model(ready, "AAA", AS_OF, "person").version
    other = open_workspace(validated, SA_ML__TRAIN_MONTHS="11")
    assert not is_current(other, "AAA", AS_OF)
    assert train_model(other, "AAA", AS_OF, "person").version.version_id != first.version_id
    threshold = open_workspace(validated, SA_ML__CONFIDENCE_THRESHOLD="0.7")
    assert is_current(threshold, "AAA", AS_OF)


def test_a_retrain_costs_one_fit_by_the_recipe_of_the_newest_window(ready, monkeypatch):
    import xgboost as xgb

    matrices, real = [], xgb.QuantileDMatrix
    monkeypatch.setattr(xgb, "QuantileDMatrix", lambda *args, **more: matrices.append(args) or real(*args, **more))
    monkeypatch.setattr(tuning, "_try", lambda *_: pytest.fail("a trial was run"))
    version = train_model(ready, "UNIVERSE", AS_OF, "schedule").version
    newest = ready.windows.load("UNIVERSE", "2022-01-01")
    manifest = read_manifest(ready.models / version.model_path)
    assert len(matrices) == 1  # every fit, of a trial too, bins its rows first
    assert (manifest["params"], manifest["rounds"]) == (newest.params, newest.rounds)
    assert (manifest["feature_group"], manifest["tuned_by_window"]) == (newest.feature_group, "2022-01-01")


def test_an_orphan_bundle_is_adopted_and_not_trained_again(ready, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ModelRegistry, "register", killed)
        with pytest.raises(KeyboardInterrupt):
            train_model(ready, "AAA", AS_OF, "person")
    (orphan,) = (path.parent for path in ready.models.glob("*/manifest.json"))
    assert ready.registry.list_versions() == []
    assert not is_current(ready, "AAA", AS_OF)

    adopted = train_model(ready, "AAA", AS_OF, "person")
    assert (adopted.trained, adopted.version.version_id) == (False, orphan.name)
    assert adopted.version.decision != "registered"
    assert len(list(ready.models.glob("*/manifest.json"))) == 1
    assert is_current(ready, "AAA", AS_OF)


def test_a_version_registered_but_not_judged_is_judged_the_next_time(ready, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("signals_core.ml.training._judge", killed)
        with pytest.raises(KeyboardInterrupt):
            train_model(ready, "AAA", AS_OF, "person")
    assert [v.decision for v in ready.registry.list_versions()] == ["registered"]
    assert not is_current(ready, "AAA", AS_OF)
    finished = train_model(ready, "AAA", AS_OF, "person")
    assert not finished.trained
    assert finished.version.decision.split(":")[0] in ("promoted", "rejected")


def test_a_first_model_that_is_not_worse_than_the_prior_is_promoted_by_training(validated, open_workspace):
    lenient = open_workspace(validated, SA_GATE__MAX_Z="10")
    trained = train_model(lenient, "AAA", AS_OF, "person").version
    assert trained.active
    assert trained.decision.startswith("promoted: first model")
    assert lenient.registry.get_active("AAA") == trained
    assert lenient.registry.journal()[-1].evidence["replaced"] is None


def test_a_retrained_model_is_compared_with_the_champion_and_does_not_replace_it_for_nothing(validated, open_workspace):
    first = train_model(open_workspace(validated, SA_GATE__MAX_Z="10"), "AAA", date(2022, 1, 2), "person").version
    workspace = open_workspace(validated, SA_GATE__MAX_Z="10", SA_GATE__REFRESH_AFTER_DAYS="183")
    second = train_model(workspace, "AAA", AS_OF, "drift").version
    assert second.version_id != first.version_id
    assert second.decision.startswith(
        "rejected: does not beat the champion by more than its uncertainty: log-loss gain "
    )
    evidence = workspace.registry.journal()[-1].evidence
    # On the champion's out-of-fold dates that no later window has tested again both say the same; later ones it
    # predicts itself.
    assert first.metrics["dates"] > evidence["recipe_gain_over_champion"]["dates"] == 64
    assert evidence["recipe_gain_over_champion"]["mean"] == evidence["recipe_gain_over_champion"]["standard_error"] == 0
    assert evidence["gain_over_champion"] == evidence["gain_since_champion"]
    assert evidence["gain_over_champion"]["dates"] == 119
    assert evidence["fitted_gain"] > 0
    assert workspace.registry.get_active("AAA").version_id == first.version_id


def test_a_fresher_model_replaces_an_old_one_and_the_last_that_proved_itself_is_remembered(validated, open_workspace):
    lenient = {"SA_GATE__MAX_Z": "10", "SA_GATE__REFRESH_AFTER_DAYS": "91"}
    versions = [
        train_model(open_workspace(validated, **lenient), "AAA", as_of, "schedule").version
        for as_of in (date(2022, 1, 2), date(2022, 4, 3), AS_OF)
    ]
    assert [version.active for version in versions] == [True] * 3
    journal = open_workspace(validated).registry.journal()
    promoted = [event.evidence for event in journal if event.action == "promoted"]
    assert [evidence["basis"] for evidence in promoted] == ["first", "refresh", "refresh"]
    assert "gain_over_proven" not in promoted[1], "the champion is the proven one"
    # No window has begun since the second was trained and ended; one has since the first.
    assert promoted[2]["gain_over_champion"]["dates"] == 0
    assert promoted[2]["gain_over_proven"]["dates"] == promoted[2]["gain_since_proven"]["dates"] == 119
    assert proven_version(journal, "AAA") == versions[0].version_id
    assert proven_version(journal, "UNIVERSE") is None
    assert versions[2].decision.startswith("promoted: 91 days fresher than the champion, and not worse: ")


def test_a_fit_that_does_not_know_its_own_rows_is_seen(trained, open_workspace):
    workspace = open_workspace(trained)
    version = workspace.registry.get_active("AAA")
    rows = training_rows(workspace, "AAA", AS_OF, workspace.settings.ml.train_months)
    swapped = Panel(rows.features, rows.target.assign(label=2 - rows.target["label"]))
    gains = [judge(workspace, version, None, panel).evidence["fitted_gain"] for panel in (rows, swapped)]
    assert gains[0] > 0.01
    assert gains[1] < -0.01
    assert "fitted_gain" not in judge(workspace, version, None).evidence


def test_a_champion_whose_out_of_fold_table_is_damaged_still_serves_and_is_not_passed_by(validated, open_workspace):
    first = train_model(open_workspace(validated, SA_GATE__MAX_Z="10"), "AAA", date(2022, 4, 3), "person").version
    flip_byte(validated / "models" / first.model_path / "out_of_fold.parquet")
    workspace = open_workspace(validated, SA_GATE__MAX_Z="10")
    assert workspace.registry.load_active("AAA").version_id == first.version_id
    second = train_model(workspace, "AAA", AS_OF, "schedule").version
    assert second.decision == "rejected: only 0 dates in common with the champion, which stays"


def test_a_rollback_is_not_undone_by_the_next_retrain(validated, open_workspace):
    lenient = {"SA_GATE__MAX_Z": "10"}
    first, second = (
        train_model(open_workspace(validated, **lenient), "AAA", as_of, "schedule").version
        for as_of in (date(2022, 1, 2), date(2022, 4, 3))
    )
    assert second.active
    workspace = open_workspace(validated, **lenient)
    workspace.registry.rollback(scope="AAA", reason="it lost money", by="a person")
    third = train_model(workspace, "AAA", AS_OF, "schedule").version
    assert third.decision.startswith("rejected: ")
    assert workspace.registry.get_active("AAA").version_id == first.version_id
    assert workspace.registry.journal()[-1].evidence["champion_age_days"] == 0


def test_training_without_windows_is_refused_with_the_command(ready):
    with pytest.raises(MissingPrerequisite, match=r"AAA: no validation window ended by 2021-06-30.*signals validate"):
        train_model(ready, "AAA", date(2021, 6, 30), "person")


def test_too_little_to_calibrate_on_is_refused(validated, open_workspace):
    workspace = open_workspace(validated, SA_CALIBRATION__MIN_ROWS="5000")
    with pytest.raises(MissingPrerequisite, match=r"lower calibration\.min_rows"):
        train_model(workspace, "AAA", AS_OF, "person")
    assert list(workspace.models.glob("*/manifest.json")) == []


def test_a_damaged_champion_does_not_stop_a_retrain(trained, open_workspace):
    workspace = open_workspace(trained, SA_ML__TRAIN_MONTHS="11")
    champion = workspace.registry.get_active("AAA")
    flip_byte(workspace.models / champion.model_path / "booster.ubj")
    assert train_model(workspace, "AAA", AS_OF, "person").version.decision != "registered"


def test_a_damaged_version_is_trained_again_when_asked_for(trained, open_workspace):
    workspace = open_workspace(trained)
    version = workspace.registry.get_active("AAA")
    (workspace.models / version.model_path / "booster.ubj").unlink()
    retrained = train_model(workspace, "AAA", AS_OF, "person")
    load_bundle(workspace.models / retrained.version.model_path)


def test_a_damaged_manifest_of_an_old_version_does_not_stop_training(ready):
    old = make_bundle(ready.models, "20200101T000000000000Z-AAA-00000000", "AAA")
    (old / "manifest.json").write_text("{")
    assert train_model(ready, "AAA", AS_OF, "person").trained
