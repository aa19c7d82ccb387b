from datetime import date

import numpy as np
import pandas as pd
import pytest

from signals_core.errors import BundleError, DataError, MissingPrerequisite
from signals_core.ml.calibration import ConfidenceCalibrator
from signals_core.ml.prediction_log import PredictionLog
from signals_core.strategy.base import OHLCV, SignalDirection, to_ohlcv
from signals_core.strategy.engine import StrategyEngine
from signals_core.strategy.ml_strategy import (
    MLSignalStrategy,
    SessionSignals,
    SignalStore,
    is_current,
    served_tickers,
    session_signals,
)
from tests.core.ml.helpers import FEATURES, LAST_SESSION, constant_calibrator, flip_byte, make_bundle


def serve(workspace, version_id, probabilities, scope="UNIVERSE", **options) -> None:
    """Put a model into service that always says these probabilities."""
    calibrator = constant_calibrator(probabilities)
    make_bundle(workspace.models, version_id, scope, calibrator=calibrator, columns=FEATURES, **options)
    workspace.registry.register(version_id, workspace.models / version_id, {})
    workspace.registry.promote(version_id)


@pytest.fixture
def workspace(validated, open_workspace):
    """No model in service."""
    return open_workspace(validated)


@pytest.mark.parametrize(
    ("probabilities", "direction", "reason"),
    [
        ((0.1, 0.2, 0.7), "LONG", ""),
        ((0.7, 0.2, 0.1), "SHORT", ""),
        ((0.1, 0.7, 0.2), "", "FLAT is the likeliest class"),
        ((0.2, 0.3, 0.5), "", "UP is the likeliest class, below the threshold of 0.55"),
        ((0.5, 0.3, 0.2), "", "DOWN is the likeliest class, below the threshold of 0.55"),
        ((0.02, 0.42, 0.56), "LONG", ""),
    ],
)
def test_a_signal_needs_up_or_down_to_be_the_likeliest_and_above_the_threshold(
    workspace, probabilities, direction, reason
):
    serve(workspace, "v1", probabilities)
    frame = session_signals(workspace, "UNIVERSE", LAST_SESSION).frame
    assert frame["symbol"].tolist() == ["AAA", "BBB"]
    assert set(frame["direction"]) == {direction}
    assert set(frame["reason"]) == {reason}
    assert set(frame["model_version"]) == {"v1"}
    assert frame["date"].tolist() == [pd.Timestamp("2022-07-01")] * 2
    assert frame[["p_down", "p_flat", "p_up"]].to_numpy() == pytest.approx(np.array([probabilities] * 2))
    assert frame["strength"].to_numpy() == pytest.approx([max(probabilities)] * 2)


def test_a_probability_of_exactly_the_threshold_is_no_signal(validated, open_workspace, workspace):
    serve(workspace, "v1", (0.1, 0.2, 0.7))
    strength = session_signals(workspace, "UNIVERSE", LAST_SESSION).frame["strength"][0]
    for threshold, directions in ((strength, {""}), (np.nextafter(strength, 0), {"LONG"})):
        at = open_workspace(validated, SA_ML__CONFIDENCE_THRESHOLD=repr(float(threshold)))
        assert set(session_signals(at, "UNIVERSE", LAST_SESSION).frame["direction"]) == directions


def test_only_long_and_short_rows_become_signals(workspace):
    serve(workspace, "v1", (0.7, 0.2, 0.1))
    signals = session_signals(workspace, "UNIVERSE", LAST_SESSION).signals()
    assert [(s.symbol, s.direction, s.strategy_name) for s in signals] == [
        ("AAA", SignalDirection.SHORT, "ml_signal"),
        ("BBB", SignalDirection.SHORT, "ml_signal"),
    ]
    assert signals[0].strength == pytest.approx(0.7)
    assert signals[0].timestamp.date() == LAST_SESSION
    assert signals[0].metadata["model_version"] == "v1"
    assert signals[0].metadata["weight"] == pytest.approx(0.1)  # sizing.max_weight
    assert signals[0].metadata["expected_return"] == pytest.approx(-0.018, abs=1e-6)
    serve(workspace, "v2", (0.1, 0.8, 0.1))
    assert session_signals(workspace, "UNIVERSE", LAST_SESSION).signals() == []


@pytest.mark.parametrize(("trained", "direction"), [("2022-06-17", "LONG"), ("2022-06-16", "")])
def test_a_scope_not_trained_for_more_than_fourteen_days_gives_no_signal(workspace, trained, direction):
    serve(workspace, "v1", (0.1, 0.2, 0.7), created_at=f"{trained}T06:00:00+00:00")
    frame = session_signals(workspace, "UNIVERSE", LAST_SESSION).frame
    assert set(frame["direction"]) == {direction}
    old = "the model was last judged 15 days ago, the limit is 14"
    assert set(frame["reason"]) == {"" if direction else old}
    assert frame["p_up"].to_numpy() == pytest.approx([0.7, 0.7])  # what it would have said is kept


def test_a_champion_that_a_recent_challenger_did_not_beat_goes_on_giving_signals(workspace):
    serve(workspace, "v1", (0.1, 0.2, 0.7), created_at="2022-05-01T06:00:00+00:00")
    make_bundle(workspace.models, "v2", created_at="2022-06-26T06:00:00+00:00")
    workspace.registry.register("v2", workspace.models / "v2", {})
    workspace.registry.reject("v2", "no new evidence")
    frame = session_signals(workspace, "UNIVERSE", LAST_SESSION).frame
    assert set(frame["direction"]) == {"LONG"}
    assert set(frame["model_version"]) == {"v1"}


@pytest.mark.parametrize(("as_of", "knows"), [(date(2022, 7, 5), False), (date(2022, 7, 6), True)])
def test_a_model_that_knows_what_came_after_a_session_does_not_predict_it(validated, open_workspace, as_of, knows):
    # The next session after Friday is Tuesday: what was trained before it closed has seen nothing later.
    workspace = open_workspace(validated)
    serve(workspace, "v1", (0.1, 0.2, 0.7), as_of=as_of)
    frame = session_signals(workspace, "UNIVERSE", LAST_SESSION).frame
    assert set(frame["p_up"].isna()) == {knows}
    reason = "the model was trained as of 2022-07-06 and knows what came after this session"
    assert set(frame["reason"]) == {reason if knows else ""}


def test_a_ticker_with_its_own_model_is_served_by_that_one_and_the_others_by_the_pooled_one(workspace):
    serve(workspace, "pooled", (0.1, 0.2, 0.7))
    assert served_tickers(workspace, "UNIVERSE") == ["AAA", "BBB"]
    serve(workspace, "own", (0.7, 0.2, 0.1), scope="AAA")
    assert served_tickers(workspace, "UNIVERSE") == ["BBB"]
    assert served_tickers(workspace, "AAA") == ["AAA"]
    pooled = session_signals(workspace, "UNIVERSE", LAST_SESSION).frame
    own = session_signals(workspace, "AAA", LAST_SESSION).frame
    columns = ["symbol", "direction", "model_version"]
    assert pooled[columns].to_numpy().tolist() == [["BBB", "LONG", "pooled"]]
    assert own[columns].to_numpy().tolist() == [["AAA", "SHORT", "own"]]


def test_a_pooled_model_whose_tickers_all_have_their_own_gives_no_rows(validated, open_workspace):
    workspace = open_workspace(validated, SA_ML__SCOPES='["UNIVERSE", "AAA", "BBB"]')
    serve(workspace, "pooled", (0.1, 0.2, 0.7))
    for ticker in ("AAA", "BBB"):
        serve(workspace, f"own-{ticker}", (0.7, 0.2, 0.1), scope=ticker)
    result = session_signals(workspace, "UNIVERSE", LAST_SESSION)
    assert result.frame.empty
    assert result.signals() == []
    assert SignalStore(workspace.data / "signals").load("UNIVERSE", LAST_SESSION).empty


def test_each_symbol_gets_the_probabilities_of_its_own_row(trained, open_workspace):
    workspace = open_workspace(trained, SA_ML__SCOPES='["UNIVERSE"]')
    columns = ("cci_20", "aroonosc_25", "macd_pct")  # of both signs, as the rows the trees were made from
    calibrator = ConfidenceCalibrator(np.ones(3), np.zeros(3), 500)
    make_bundle(workspace.models, "v1", calibrator=calibrator, columns=columns, as_of=date(2022, 6, 1))
    workspace.registry.register("v1", workspace.models / "v1", {})
    workspace.registry.promote("v1")
    model = workspace.registry.load_active()
    days = [date(2022, 6, day) for day in (1, 6, 10, 15, 22, 24, 28)]
    differ = 0
    for day in days:
        frame = session_signals(workspace, "UNIVERSE", day).frame
        features = workspace.panel("UNIVERSE", date(2022, 6, 1), date(2022, 7, 1)).features
        for _, row in frame.iterrows():
            one = features.loc[[(row["symbol"], pd.Timestamp(day))]]
            assert row[["p_down", "p_flat", "p_up"]].astype(float).to_numpy() == pytest.approx(
                model.predict_proba(one)[0]
            )
        differ += frame["p_up"].nunique() == 2
    assert differ > 0  # else rows could be exchanged unnoticed


def test_the_second_call_computes_nothing_and_returns_the_same(workspace):
    serve(workspace, "v1", (0.1, 0.2, 0.7))
    assert not is_current(workspace, "UNIVERSE", LAST_SESSION)
    first = session_signals(workspace, "UNIVERSE", LAST_SESSION)
    second = session_signals(workspace, "UNIVERSE", LAST_SESSION)
    assert (first.computed, second.computed) == (True, False)
    pd.testing.assert_frame_equal(first.frame, second.frame, check_dtype=False)
    assert first.signals() == second.signals()
    assert is_current(workspace, "UNIVERSE", LAST_SESSION)


def test_another_model_or_rule_makes_signals_anew(validated, open_workspace, workspace):
    serve(workspace, "v1", (0.1, 0.2, 0.7))
    session_signals(workspace, "UNIVERSE", LAST_SESSION)
    stricter = open_workspace(validated, SA_ML__CONFIDENCE_THRESHOLD="0.8")
    assert session_signals(stricter, "UNIVERSE", LAST_SESSION).computed
    serve(stricter, "v2", (0.05, 0.05, 0.9))
    again = session_signals(stricter, "UNIVERSE", LAST_SESSION)
    assert again.computed
    assert set(again.frame["model_version"]) == {"v2"}


def test_the_last_good_model_serves_while_the_active_one_is_damaged(workspace):
    serve(workspace, "v1", (0.7, 0.2, 0.1))
    serve(workspace, "v2", (0.1, 0.2, 0.7))
    flip_byte(workspace.models / "v2" / "booster.ubj")
    frame = session_signals(workspace, "UNIVERSE", LAST_SESSION).frame
    assert set(frame["model_version"]) == {"v1"}
    assert set(frame["direction"]) == {"SHORT"}
    flip_byte(workspace.models / "v1" / "booster.ubj")
    with pytest.raises(BundleError, match="no sound model"):
        session_signals(workspace, "UNIVERSE", LAST_SESSION)


def test_a_symbol_without_features_that_day_says_so(validated, open_workspace):
    workspace = open_workspace(validated, SA_UNIVERSE__TICKERS='["AAA", "CCC", "BBB"]')  # nobody has bars of CCC
    serve(workspace, "v1", (0.1, 0.2, 0.7))
    frame = session_signals(workspace, "UNIVERSE", LAST_SESSION).frame.set_index("symbol")
    assert frame["direction"].to_dict() == {"AAA": "LONG", "CCC": "", "BBB": "LONG"}
    assert frame.loc["CCC", "reason"] == "no features of this session"
    assert frame.loc["CCC", ["p_down", "p_flat", "p_up", "strength"]].isna().all()


def test_without_a_model_there_are_no_signals(workspace):
    with pytest.raises(MissingPrerequisite, match="UNIVERSE: no model is in service"):
        session_signals(workspace, "UNIVERSE", LAST_SESSION)


@pytest.mark.parametrize(
    ("day", "problem"),
    [
        (date(2022, 6, 20), "2022-06-20 is no session of XNYS"),
        (date(2022, 7, 5), "the session of 2022-07-05 has not closed yet: the last is 2022-07-01"),
    ],
)
def test_a_day_that_is_no_closed_session_is_refused(workspace, day, problem):
    serve(workspace, "v1", (0.1, 0.2, 0.7))
    with pytest.raises(MissingPrerequisite, match=problem):
        session_signals(workspace, "UNIVERSE", day)


def test_what_was_said_of_a_past_session_stays_whatever_serves_by_now(workspace):
    day, trained = date(2022, 6, 29), date(2022, 6, 26)
    serve(workspace, "v1", (0.1, 0.2, 0.7), as_of=trained)
    said = session_signals(workspace, "UNIVERSE", day)
    assert said.computed
    serve(workspace, "v2", (0.7, 0.2, 0.1), as_of=trained)
    again = session_signals(workspace, "UNIVERSE", day)
    assert not again.computed
    pd.testing.assert_frame_equal(again.frame, said.frame)
    assert is_current(workspace, "UNIVERSE", day)
    (workspace.data / "signals" / "scope=UNIVERSE" / f"date={day}.parquet").unlink()
    assert session_signals(workspace, "UNIVERSE", day).frame["model_version"].unique() == ["v2"]


def test_a_scope_without_a_bar_today_says_so_and_stops_nobody(validated, open_workspace):
    workspace = open_workspace(validated, SA_CLOCK__AS_OF="2022-07-05T20:00:00-04:00")
    assert workspace.last_session == date(2022, 7, 5)
    serve(workspace, "v1", (0.1, 0.2, 0.7), scope="AAA")
    signals = session_signals(workspace, "AAA", date(2022, 7, 5))
    assert signals.frame["reason"].tolist() == ["no features of this session"]
    assert signals.frame["p_up"].isna().all()
    assert signals.signals() == []
    assert is_current(workspace, "AAA", date(2022, 7, 5))


def test_what_serves_when_the_next_session_opens_is_what_was_acted_on(validated, open_workspace):
    log = PredictionLog(validated / "data" / "predictions")

    def at(moment: str, version: str, probabilities) -> SessionSignals:
        workspace = open_workspace(validated, SA_CLOCK__AS_OF=moment)
        serve(workspace, version, probabilities)
        return session_signals(workspace, "UNIVERSE", LAST_SESSION)

    assert at("2022-07-03T02:00:00-04:00", "v1", (0.1, 0.2, 0.7)).logged.added == 2
    again = session_signals(open_workspace(validated), "UNIVERSE", LAST_SESSION)
    assert again.logged is None, "nothing was predicted"
    # Monday is a holiday: promoted before Tuesday's open it is what Tuesday trades on, afterwards it is not.
    assert at("2022-07-05T09:29:00-04:00", "v2", (0.7, 0.2, 0.1)).logged.added == 2
    late = at("2022-07-05T09:31:00-04:00", "v3", (0.2, 0.7, 0.1))
    assert (late.computed, late.logged) == (False, None)
    assert late.frame["model_version"].unique() == ["v2"]
    assert log.load("UNIVERSE")["model_version"].tolist() == ["v1", "v1", "v2", "v2"]
    served = log.served("UNIVERSE")
    assert served["model_version"].unique() == ["v2"]
    assert served["p_down"].to_numpy() == pytest.approx([0.7, 0.7])


def test_what_is_said_for_the_first_time_after_the_next_open_is_not_logged(workspace):
    serve(workspace, "v1", (0.1, 0.2, 0.7), as_of=date(2022, 6, 26))
    late = session_signals(workspace, "UNIVERSE", date(2022, 6, 29))
    assert (late.computed, late.logged) == (True, None)
    assert PredictionLog(workspace.data / "predictions").load("UNIVERSE").empty


def test_a_damaged_signal_file_is_refused_by_name_and_computed_again(workspace):
    serve(workspace, "v1", (0.1, 0.2, 0.7))
    first = session_signals(workspace, "UNIVERSE", LAST_SESSION)
    path = workspace.data / "signals" / "scope=UNIVERSE" / "date=2022-07-01.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    store = SignalStore(workspace.data / "signals")
    with pytest.raises(DataError, match=r"date=2022-07-01\.parquet is damaged"):
        store.load("UNIVERSE", LAST_SESSION)
    with pytest.raises(MissingPrerequisite, match="signals predict"):
        store.load("UNIVERSE", date(2022, 6, 30))
    again = session_signals(workspace, "UNIVERSE", LAST_SESSION)
    assert again.computed
    pd.testing.assert_frame_equal(again.frame, first.frame)


def bars_until(workspace, day: date) -> dict[str, list[OHLCV]]:
    return {ticker: to_ohlcv(workspace.bars(ticker).loc[: pd.Timestamp(day)]) for ticker in ("AAA", "BBB")}


def test_the_strategy_says_of_bars_what_the_stored_signals_say_of_the_session(workspace):
    make_bundle(workspace.models, "v1", columns=FEATURES)
    workspace.registry.register("v1", workspace.models / "v1", {})
    workspace.registry.promote("v1")
    stored = session_signals(workspace, "UNIVERSE", LAST_SESSION)
    strategy = MLSignalStrategy(workspace)
    assert (strategy.name, strategy.min_hold_days) == ("ml_signal", 3)
    assert strategy.generate_signals(bars_until(workspace, LAST_SESSION)) == stored.signals()
    reasons = stored.frame.set_index("symbol").query("direction == ''")["reason"].to_dict()
    assert strategy.refusals == reasons


def test_the_strategy_refuses_symbol_by_symbol(workspace):
    serve(workspace, "v1", (0.1, 0.2, 0.7))
    strategy = MLSignalStrategy(workspace)
    bars = bars_until(workspace, LAST_SESSION)
    found = strategy.generate_signals(
        {"AAA": bars["AAA"], "BBB": bars["BBB"][:-1], "CCC": [], "DDD": bars["BBB"][-60:]}
    )
    assert [(s.symbol, s.direction) for s in found] == [("AAA", SignalDirection.LONG)]
    assert strategy.refusals == {
        "BBB": "no bar of 2022-07-01",
        "CCC": "no bar of 2022-07-01",
        "DDD": "60 bars, features.min_history_sessions asks for more than 60",
    }
    assert strategy.generate_signals({}) == []


def test_the_strategy_without_a_model_in_service_says_so_of_every_symbol(workspace):
    strategy = MLSignalStrategy(workspace)
    assert strategy.generate_signals(bars_until(workspace, LAST_SESSION)) == []
    assert set(strategy.refusals) == {"AAA", "BBB"}
    assert "no model is in service" in strategy.refusals["AAA"]


def test_a_backtest_of_the_model_in_service_does_not_trade_on_sessions_before_its_training(workspace):
    serve(workspace, "v1", (0.1, 0.2, 0.7), as_of=date(2022, 6, 26))
    bars = {ticker: workspace.bars(ticker)[["open", "high", "low", "close", "volume"]] for ticker in ("AAA", "BBB")}
    run = StrategyEngine().run_backtest(MLSignalStrategy(workspace), bars, start=date(2022, 6, 20))
    assert run.signals["date"].min() == pd.Timestamp("2022-06-24"), "its Friday, traded on Monday"
    assert set(run.signals["weight"].round(6)) == {0.1}
