from datetime import date
from pathlib import Path

import pytest

from signals_core.ml.champion import champion_before, load_champion
from signals_core.ml.registry import Event
from tests.core.ml.helpers import flip_byte, make_bundle, tiny_pipeline

NEW_YORK = "America/New_York"


def event(action: str, version: str, at: str, scope: str = "UNIVERSE") -> Event:
    evidence = {"model_path": f"{version}-folder"} if action == "registered" else {}
    return Event(action, version, scope, at, "test", "a reason", evidence)


JOURNAL = [
    event("registered", "v1", "2021-01-03T07:00:00+00:00"),
    event("promoted", "v1", "2021-01-03T07:00:01+00:00"),
    event("registered", "own", "2021-01-04T07:00:00+00:00", "AAA"),
    event("promoted", "own", "2021-01-04T07:00:01+00:00", "AAA"),
    event("registered", "v2", "2021-03-07T07:00:00+00:00"),
    event("rejected", "v2", "2021-03-07T07:00:01+00:00"),
    event("registered", "v3", "2021-04-01T03:59:58+00:00"),
    event("promoted", "v3", "2021-04-01T03:59:59+00:00"),
    event("rolled_back", "v1", "2021-05-02T07:00:00+00:00"),
]


@pytest.mark.parametrize(
    ("day", "served"),
    [
        (date(2021, 1, 1), None),
        (date(2021, 1, 3), None),  # promoted in the course of that day
        (date(2021, 1, 4), "v1-folder"),
        (date(2021, 3, 31), "v1-folder"),  # v2 was rejected
        (date(2021, 4, 1), "v3-folder"),  # one second before midnight in New York
        (date(2021, 5, 2), "v3-folder"),
        (date(2021, 7, 1), "v1-folder"),  # rolled back to
    ],
)
def test_the_journal_says_which_model_served_when_a_day_began(day, served):
    assert champion_before(JOURNAL, "UNIVERSE", day, NEW_YORK) == served


def test_each_scope_has_its_own_champion():
    assert champion_before(JOURNAL, "AAA", date(2021, 7, 1), NEW_YORK) == "own-folder"
    assert champion_before(JOURNAL, "BBB", date(2021, 7, 1), NEW_YORK) is None


def test_what_happens_later_does_not_change_who_served_then():
    for length in range(4, len(JOURNAL) + 1):
        assert champion_before(JOURNAL[:length], "UNIVERSE", date(2021, 3, 1), NEW_YORK) == "v1-folder"


def test_a_champion_gives_its_calibrated_probabilities(tmp_path: Path):
    folder = make_bundle(tmp_path, "v1", as_of=date(2021, 1, 3))
    model = load_champion(folder, date(2021, 4, 1))
    _, frame = tiny_pipeline()
    assert model.version_id == "v1"
    assert model.predict_proba(frame).sum(axis=1) == pytest.approx(1)


def test_a_model_that_knows_the_tested_dates_is_no_champion(tmp_path: Path):
    folder = make_bundle(tmp_path, "v1", as_of=date(2021, 4, 4))
    assert load_champion(folder, date(2021, 4, 1)) is None
    assert load_champion(folder, date(2021, 4, 4)) is not None


def test_a_damaged_champion_is_not_scored(tmp_path: Path):
    folder = make_bundle(tmp_path, "v1", as_of=date(2021, 1, 3))
    flip_byte(folder / "booster.ubj")
    assert load_champion(folder, date(2021, 4, 1)) is None
