"""The prediction log: first wins, nothing is lost, nothing is rewritten."""

import multiprocessing
import os
import signal
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signals_core import files
from signals_core.errors import DataError
from signals_core.ml import prediction_log
from signals_core.ml.prediction_log import COLUMNS, Appended, PredictionLog

DAY, NEXT = date(2022, 6, 30), date(2022, 7, 1)
NOON = datetime(2022, 6, 30, 12, tzinfo=UTC)


def predictions(symbols: str = "AB", model: str = "v1", up: float = 0.5) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "symbol": list(symbols),
            "model_version": model,
            "p_down": 0.3,
            "p_flat": 0.7 - up,
            "p_up": up,
            "direction": "",
        }
    )


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    return PredictionLog(tmp_path / "predictions")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


def test_an_empty_log_has_no_rows_and_the_columns(log):
    assert log.load("UNIVERSE").columns.tolist() == COLUMNS
    assert log.served("UNIVERSE").empty


def test_what_was_said_comes_back_with_its_moment_in_utc(log):
    said = predictions().assign(p_up=[0.1234567890123456, 0.2])
    assert log.append("UNIVERSE", DAY, said, datetime.fromisoformat("2022-06-30T18:00:00-04:00")) == Appended(2, 0, [])
    found = log.load("UNIVERSE")
    assert found["p_up"].tolist() == [0.1234567890123456, 0.2]
    assert found["symbol"].tolist() == ["A", "B"]
    assert (found["date"] == pd.Timestamp(DAY)).all()
    assert (found["made_at"] == pd.Timestamp("2022-06-30 22:00")).all()


def test_the_same_again_writes_nothing(log, tmp_path):
    log.append("UNIVERSE", DAY, predictions(), NOON)
    before = contents(tmp_path)
    assert log.append("UNIVERSE", DAY, predictions(), datetime(2022, 7, 5, tzinfo=UTC)) == Appended(0, 2, [])
    assert contents(tmp_path) == before
    assert (log.load("UNIVERSE")["made_at"] == pd.Timestamp("2022-06-30 12:00")).all()


def test_what_was_said_first_stands_and_the_contradiction_is_named(log, tmp_path):
    log.append("UNIVERSE", DAY, predictions(up=0.5), NOON)
    before = contents(tmp_path)
    changed = predictions("ABC", up=0.5).assign(p_up=[0.5, 0.6, 0.4])
    outcome = log.append("UNIVERSE", DAY, changed, NOON)
    assert outcome == Appended(1, 1, ["B"])
    assert "what was said first of B" in str(outcome)
    assert log.load("UNIVERSE").set_index("symbol")["p_up"].to_dict() == {"A": 0.5, "B": 0.5, "C": 0.4}
    assert before.items() <= contents(tmp_path).items(), "no part was rewritten"


def test_another_model_adds_and_the_last_made_is_what_was_served(log):
    log.append("UNIVERSE", DAY, predictions("A", "old", 0.5), NOON)
    log.append("UNIVERSE", DAY, predictions("AB", "new", 0.6), datetime(2022, 7, 1, tzinfo=UTC))
    log.append("UNIVERSE", DAY, predictions("C", "old", 0.5), datetime(2022, 7, 2, tzinfo=UTC))
    assert len(log.load("UNIVERSE")) == 4
    served = log.served("UNIVERSE")
    assert served.index.is_unique
    assert served["model_version"].tolist() == ["new", "new", "old"]


def test_sessions_and_scopes_are_kept_apart(log):
    log.append("UNIVERSE", DAY, predictions(), NOON)
    log.append("UNIVERSE", NEXT, predictions(), NOON)
    log.append("A", DAY, predictions("A", "own"), NOON)
    assert len(log.load("UNIVERSE")) == 4
    assert len(log.load("UNIVERSE", until=DAY)) == 2
    assert log.load("A")["model_version"].tolist() == ["own"]


def test_refused_symbols_are_not_predictions(log):
    said = predictions().assign(p_up=[np.nan, 0.5])
    assert log.append("UNIVERSE", DAY, said, NOON).added == 1
    assert log.append("UNIVERSE", NEXT, said.iloc[:1], NOON) == Appended(0, 0, [])


def test_a_moment_without_a_zone_and_a_symbol_named_twice_are_refused(log):
    with pytest.raises(ValueError, match="time zone"):
        log.append("UNIVERSE", DAY, predictions(), datetime(2022, 6, 30))
    with pytest.raises(ValueError, match="twice"):
        log.append("UNIVERSE", DAY, predictions("AA"), NOON)


def test_a_damaged_part_is_refused_by_name_and_not_appended_to(log, tmp_path):
    log.append("UNIVERSE", DAY, predictions(), NOON)
    part = next((tmp_path / "predictions").rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    for attempt in (lambda: log.load("UNIVERSE"), lambda: log.append("UNIVERSE", DAY, predictions("C"), NOON)):
        with pytest.raises(DataError, match=r"0000\.parquet is damaged"):
            attempt()


def _append_many(folder: Path, model: str) -> None:
    log = PredictionLog(folder)
    for number in range(10):
        log.append("UNIVERSE", DAY, predictions("ABCD"[number % 4], model), NOON)
        log.append("UNIVERSE", DAY, predictions("ABCD", "shared"), NOON)


def test_processes_that_append_at_once_lose_and_double_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(tmp_path, f"v{n}")) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    rows = PredictionLog(tmp_path).load("UNIVERSE")
    assert not rows.duplicated(["model_version", "symbol", "date"]).any()
    assert rows["model_version"].value_counts().to_dict() == {"shared": 4, **{f"v{n}": 4 for n in range(4)}}


@pytest.mark.parametrize("step", ["before writing", "half written", "before the rename"])
def test_a_writer_that_is_killed_leaves_the_log_as_it_was(log, tmp_path, step):
    log.append("UNIVERSE", DAY, predictions(), NOON)
    before = contents(tmp_path)

    def killed() -> None:
        def die(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def half(_: object, path: Path) -> None:
            path.write_bytes(b"PAR1half")
            die()

        if step == "before writing":
            prediction_log.write_atomic = die
        elif step == "half written":
            prediction_log.pq.write_table = half
        else:
            files._sync = die
        log.append("UNIVERSE", DAY, predictions("C"), NOON)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert contents(tmp_path) == before
    assert log.append("UNIVERSE", DAY, predictions("C"), NOON).added == 1, "the lock went with its holder"
