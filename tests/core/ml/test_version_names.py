from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from signals_core.ml.journal import Version
from signals_core.ml.version_names import version_name

MOMENT = datetime(2026, 3, 1, 7, 0, 0, tzinfo=UTC)


def version(name: str) -> Version:
    return Version(name, "UNIVERSE", name, MOMENT.isoformat(), "d", "i", {})


def test_models_of_one_moment_have_names_that_sort_in_the_order_of_training(tmp_path: Path):
    versions: list[Version] = []
    for number in range(40):
        mark = f"{(number * 7919) % 1000:08x}"  # digests are in no order
        scope = ("UNIVERSE", "AAA", "ZZZ")[number % 3]
        versions.append(version(version_name(MOMENT, scope, mark, versions, tmp_path)))
    names = [v.version_id for v in versions]
    assert names == sorted(names)
    assert len(set(names)) == 40
    assert names[0] == "20260301T070000000000Z-UNIVERSE-00000000"
    assert names[3].startswith("20260301T070000000003Z-UNIVERSE-")
    later = version_name(MOMENT.replace(second=1), "AAA", "0", versions, tmp_path)
    assert later > names[-1]


def test_the_same_model_made_again_keeps_its_name_unless_it_was_retired(tmp_path: Path):
    first = version(version_name(MOMENT, "AAA", "aa", [], tmp_path))
    second = version(version_name(MOMENT, "AAA", "bb", [first], tmp_path))
    assert version_name(MOMENT, "AAA", "aa", [first, second], tmp_path) == first.version_id
    assert version_name(MOMENT, "AAA", "bb", [first, second], tmp_path) == second.version_id
    retired = replace(first, retired=True)
    again = version_name(MOMENT, "AAA", "aa", [retired, second], tmp_path)
    assert again == "20260301T070000000002Z-AAA-aa"


def test_a_bundle_that_is_not_registered_yet_has_its_name_too(tmp_path: Path):
    (tmp_path / "20260301T070000000000Z-AAA-aa").mkdir()
    assert version_name(MOMENT, "AAA", "bb", [], tmp_path) == "20260301T070000000001Z-AAA-bb"
    assert version_name(MOMENT, "AAA", "aa", [], tmp_path) == "20260301T070000000000Z-AAA-aa"
