"""The journal alone: what is refused, what is tolerated, and who served when."""

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from signals_core.errors import BundleError
from signals_core.ml.journal import (
    Event,
    active_at,
    active_on_disk,
    append_event,
    fold,
    load_journal,
    read_journal,
    serving_stack,
)

FIELDS = {"created_at": "2022-07-03T06:00:00+00:00", "digest": "d", "inputs": "i", "metrics": {"log_loss": 1.05}}


def happened(action: str, version: str, evidence: dict, at: datetime | None = None) -> Event:
    moment = (at or datetime.now(UTC)).isoformat()
    return Event(action, version, "UNIVERSE", moment, "test", "a reason", evidence)


def write(folder: Path, *events: tuple[str, str]) -> None:
    for action, version in events:
        evidence = {"model_path": version, **FIELDS} if action == "registered" else {"z": 2.5}
        append_event(folder, happened(action, version, evidence))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, ("registered", "v1"), ("promoted", "v1"), ("registered", "v2"), ("promoted", "v2"))
    return tmp_path


def test_what_is_appended_is_read(folder):
    events = read_journal(folder)
    assert [(e.action, e.version_id) for e in events] == [
        ("registered", "v1"),
        ("promoted", "v1"),
        ("registered", "v2"),
        ("promoted", "v2"),
    ]
    assert events[1].evidence == {"z": 2.5}


def test_every_byte_of_every_line_that_is_changed_is_refused_by_the_number_of_its_line(folder):
    path = folder / "journal.jsonl"
    content = path.read_bytes()
    for position, byte in enumerate(content):
        number = content[:position].count(b"\n") + 1
        for other in {byte ^ 0x01, byte ^ 0x20, 0x0A, 0x20} - {byte}:
            path.write_bytes(content[:position] + bytes([other]) + content[position + 1 :])
            with pytest.raises(BundleError, match=f"journal.jsonl line {number} "):
                read_journal(folder)


def test_a_line_that_went_is_noticed_and_so_is_one_that_changed_its_place(folder):
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for altered in (lines[:1] + lines[2:], [lines[0], lines[2], lines[1], lines[3]], lines[1:]):
        path.write_bytes(b"".join(altered))
        with pytest.raises(BundleError, match="its check does not fit"):
            read_journal(folder)


def test_wherever_the_last_line_is_cut_the_next_one_does_not_stick_to_it(folder):
    path = folder / "journal.jsonl"
    content = path.read_bytes()
    start = content[:-1].rindex(b"\n") + 1
    before = read_journal(folder)[:3]
    for cut in range(start, len(content)):
        path.write_bytes(content[:cut])
        assert read_journal(folder) == before
        append_event(folder, happened("rejected", "v2", {}))
        assert [e.action for e in read_journal(folder)] == ["registered", "promoted", "registered", "rejected"]


def test_zeros_after_a_power_failure_are_no_line(folder):
    path = folder / "journal.jsonl"
    before = read_journal(folder)
    path.write_bytes(path.read_bytes() + bytes(512))
    assert read_journal(folder) == before
    write(folder, ("registered", "v3"))
    assert len(read_journal(folder)) == 5


def old_lines(folder: Path) -> bytes:
    """The same journal as it was written before lines had checks."""
    return b"".join(json.dumps(asdict(event), sort_keys=True).encode() + b"\n" for event in read_journal(folder))


def test_lines_without_a_check_are_read_and_the_next_one_covers_them_all(folder):
    path = folder / "journal.jsonl"
    before = read_journal(folder)
    path.write_bytes(old_lines(folder))
    assert read_journal(folder) == before
    assert "check" not in path.read_text()
    write(folder, ("registered", "v3"), ("registered", "v4"))
    assert read_journal(folder)[:4] == before
    content = path.read_bytes()
    for number in range(4):
        lines = content.splitlines(keepends=True)
        lines[number] = lines[number].replace(b"a reason", b"b reason")
        path.write_bytes(b"".join(lines))
        with pytest.raises(BundleError, match=r"line 5 .*its check does not fit"):
            read_journal(folder)


def test_a_line_cannot_shed_its_check(folder):
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], old_lines(folder).splitlines(keepends=True)[2], lines[3]]))
    with pytest.raises(BundleError, match="line 3 has lost its check"):
        read_journal(folder)


def test_the_head_stands_for_the_whole_journal(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    assert load_journal(other).head == ""
    heads = [load_journal(folder).head]
    write(folder, ("registered", "v3"))
    heads.append(load_journal(folder).head)
    write(other, *[("registered", f"v{n}") for n in range(5)])
    heads.append(load_journal(other).head)  # as many events
    assert len(set(heads)) == 3


def test_what_an_append_returns_is_what_is_read_back(folder):
    returned = append_event(folder, happened("rejected", "v2", {"pair": (1, 2)}))
    assert returned == load_journal(folder)


@pytest.mark.parametrize("back", [timedelta(0), timedelta(hours=1)])
def test_moments_never_run_backwards_and_none_is_given_twice(folder, back):
    last = datetime.fromisoformat(read_journal(folder)[-1].at)
    append_event(folder, happened("rolled_back", "v1", {}, last - back))
    events = read_journal(folder)
    assert datetime.fromisoformat(events[-1].at) == last + timedelta(microseconds=1)
    assert active_at(events, "UNIVERSE", last).version_id == "v2"
    assert active_at(events, "UNIVERSE", None).version_id == "v1"


def test_a_moment_is_kept_in_utc_and_needs_a_time_zone(tmp_path):
    evidence = {"model_path": "v1", **FIELDS}
    now = datetime(2021, 10, 3, 2, tzinfo=timezone(timedelta(hours=-4)))
    append_event(tmp_path, happened("registered", "v1", evidence, now))
    assert read_journal(tmp_path)[-1].at == "2021-10-03T06:00:00+00:00"
    with pytest.raises(ValueError, match="needs a time zone"):
        append_event(tmp_path, happened("promoted", "v1", {}, datetime(2021, 10, 3)))


def test_the_active_version_is_found_on_disk_alone(folder, tmp_path_factory):
    found = active_on_disk(folder, "UNIVERSE")
    assert (found.version_id, found.active, found.model_path) == ("v2", True, "v2")
    assert active_on_disk(folder, "AAA") is None
    assert active_on_disk(tmp_path_factory.mktemp("empty"), "UNIVERSE") is None


def event(action: str, version: str, second: int, scope: str = "UNIVERSE") -> Event:
    evidence = {"model_path": version, **FIELDS} if action == "registered" else {}
    return Event(
        action, version, scope, datetime(2026, 3, 2, 17, 0, second, tzinfo=UTC).isoformat(), "t", "r", evidence
    )


EVENTS = [
    event("registered", "v1", 0),
    event("promoted", "v1", 1),
    event("registered", "v2", 2),
    event("registered", "v3", 3),
    event("promoted", "v2", 4),
    event("promoted", "v3", 5),
    event("rolled_back", "v2", 6),
    event("retired", "v3", 7),
]


@pytest.mark.parametrize(
    ("second", "served"),
    [(0, None), (1, "v1"), (3, "v1"), (4, "v2"), (5, "v3"), (6, "v2"), (59, "v2")],
)
def test_who_served_at_a_moment(second, served):
    found = active_at(EVENTS, "UNIVERSE", datetime(2026, 3, 2, 17, 0, second, tzinfo=UTC))
    assert (found.version_id if found else None) == served
    assert active_at(EVENTS, "AAA", datetime(2027, 1, 1, tzinfo=UTC)) is None


def test_the_fold_marks_the_one_in_service_and_what_was_retired():
    versions, active = fold(EVENTS)
    assert active == {"UNIVERSE": "v2"}
    assert [name for name, version in versions.items() if version.active] == ["v2"]
    assert [name for name, version in versions.items() if version.retired] == ["v3"]
    assert versions["v3"].decision == "retired: r"
    assert serving_stack(EVENTS, "UNIVERSE") == ["v1", "v2"]
