import io
import json
from dataclasses import asdict
from datetime import date

import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from signals_core.errors import DataError, MissingPrerequisite
from signals_core.ml import tuning, windows
from signals_core.ml.bundle import manifest_text, read_manifest
from signals_core.ml.journal import read_journal
from signals_core.ml.overfitting import judge_search, pool_searches
from signals_core.ml.training import train_model
from signals_core.ml.windows import (
    all_windows,
    audit_window,
    compute_windows,
    current_windows,
    stale_windows,
    window_of,
)
from signals_core.report import read_report
from signals_core.report_text import render
from tests.core.ml.helpers import AS_OF, flip_byte

KEYS = ["2021-01-01", "2021-04-01", "2021-07-01", "2021-10-01", "2022-01-01"]


@pytest.fixture
def no_fit(monkeypatch):
    """Computing any window is an error."""

    def refuse(*_):
        raise AssertionError("a window was computed")

    monkeypatch.setattr(windows.WalkForwardValidator, "run_window", refuse)


def test_the_windows_of_the_project_start_on_these_dates(validated, open_workspace):
    settings = open_workspace(validated).settings
    assert [w.key for w in all_windows(settings, date(2022, 7, 2))] == KEYS
    assert [w.key for w in all_windows(settings, date(2022, 6, 30))] == KEYS[:-1]
    assert window_of(settings, "2021-04-01").test_end == date(2021, 10, 1)


@pytest.mark.parametrize("key", ["2021-02-01", "2020-10-01", "2021-04-02"])
def test_a_key_off_the_grid_is_refused_by_name(validated, open_workspace, key):
    with pytest.raises(MissingPrerequisite, match=f"{key} is not the test start"):
        window_of(open_workspace(validated).settings, key)


def test_a_second_call_computes_nothing_and_returns_the_same(validated, open_workspace, no_fit):
    workspace = open_workspace(validated)
    wanted = [(scope, key) for scope in ("UNIVERSE", "AAA") for key in KEYS]
    outcomes = compute_windows(workspace, wanted)
    assert [(o.scope, o.key) for o in outcomes] == wanted
    assert not any(o.computed for o in outcomes)
    assert stale_windows(workspace, "UNIVERSE") == []
    first = outcomes[0].result
    # 2020 without 60 sessions of history and without the five purged ones, in two symbols
    assert (first.train_rows, first.test_rows, first.purged_rows) == (2 * (253 - 60 - 5), 2 * 119, 2 * 5)


@pytest.mark.parametrize(
    "change",
    [
        {"SA_TUNING__SEED": "8"},
        {"SA_TUNING__TRIALS": "0"},
        {"SA_VALIDATION__COST_BPS": "50"},
        {"SA_VALIDATION__EMBARGO_SESSIONS": "3"},
        {"SA_ML__CLASS_WEIGHTING": "none"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_setting_makes_every_window_stale_and_recomputes(validated, open_workspace, change):
    workspace = open_workspace(validated, **change)
    assert stale_windows(workspace, "AAA") == KEYS
    before = workspace.windows.load("AAA", KEYS[0])
    (outcome,) = compute_windows(workspace, [("AAA", KEYS[0])])
    assert outcome.computed
    assert outcome.result.figures() != before.figures()
    assert stale_windows(workspace, "AAA") == KEYS[1:]


@pytest.mark.parametrize(
    "change",
    [{"SA_ML__CONFIDENCE_THRESHOLD": "0.7"}, {"SA_MONITORING__MIN_ROWS": "5"}, {"SA_GATE__MIN_DATES": "9"}],
    ids=lambda change: next(iter(change)),
)
def test_a_setting_that_no_window_reads_leaves_them_current(validated, open_workspace, change):
    assert stale_windows(open_workspace(validated, **change), "AAA") == []


def test_a_refused_window_has_its_reason_and_does_not_stop_the_others(validated, open_workspace):
    workspace = open_workspace(validated, SA_ML__MIN_TRAINING_SAMPLES="200")
    refused, computed = compute_windows(workspace, [("AAA", KEYS[0]), ("AAA", KEYS[1])])
    assert refused.refusal == "window 2021-01-01: 188 training rows, ml.min_training_samples asks for 200"
    assert (refused.result, refused.computed) == (None, False)
    assert (computed.refusal, computed.computed, computed.result.train_rows) == (None, True, 247)
    assert KEYS[0] in stale_windows(workspace, "AAA")
    assert KEYS[1] not in stale_windows(workspace, "AAA")


def test_two_processes_find_what_one_finds(validated, open_workspace):
    wanted = [("AAA", KEYS[0]), ("AAA", KEYS[1])]
    one = open_workspace(validated)
    stored = [one.windows.load(*item).figures() for item in wanted]
    for item in wanted:
        one.windows.remove(*item)
    outcomes = compute_windows(open_workspace(validated, SA_COMPUTE__WORKERS="2"), wanted)
    assert [o.computed for o in outcomes] == [True, True]
    assert [o.result.figures() for o in outcomes] == stored


def test_a_changed_label_makes_only_the_windows_that_use_it_stale(validated, open_workspace):
    workspace = open_workspace(validated)
    targets = workspace.targets
    labels = targets.load("AAA", date(2020, 1, 1), date(2021, 1, 1))
    labels.loc["2020-05-06", "label"] = (labels.loc["2020-05-06", "label"] + 1) % 3
    targets.save("AAA", labels, targets.digests("AAA", [2020]))
    # Trained on by the windows whose training begins in January or April 2020.
    assert stale_windows(workspace, "AAA") == ["2021-01-01", "2021-04-01"]
    assert stale_windows(workspace, "UNIVERSE") == ["2021-01-01", "2021-04-01"]


def test_a_damaged_footer_counts_as_absent_and_is_replaced(validated, open_workspace):
    path = validated / "data" / "validation" / "scope=AAA" / "window=2021-01-01.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    workspace = open_workspace(validated)
    with pytest.raises(DataError, match=r"window=2021-01-01\.parquet is absent or damaged"):
        workspace.windows.load("AAA", "2021-01-01")
    assert stale_windows(workspace, "AAA") == ["2021-01-01"]
    (outcome,) = compute_windows(workspace, [("AAA", "2021-01-01")])
    assert outcome.computed
    assert stale_windows(workspace, "AAA") == []


def test_a_damaged_body_is_refused_by_name_and_computed_again(validated, open_workspace):
    path = validated / "data" / "validation" / "scope=AAA" / "window=2021-01-01.parquet"
    for position in range(4, 60):
        flip_byte(path, position)
    workspace = open_workspace(validated)
    (outcome,) = compute_windows(workspace, [("AAA", "2021-01-01")])
    assert outcome.computed


def test_only_windows_that_ended_before_a_date_are_current_then(validated, open_workspace):
    workspace = open_workspace(validated)
    assert list(current_windows(workspace, "UNIVERSE", before=date(2022, 7, 3))) == KEYS
    assert list(current_windows(workspace, "UNIVERSE", before=date(2022, 4, 1))) == KEYS[:-1]
    assert list(current_windows(workspace, "UNIVERSE", before=date(2022, 3, 31))) == KEYS[:-2]


def test_windows_of_other_settings_are_not_taken_for_present_ones(validated, open_workspace):
    with pytest.raises(MissingPrerequisite, match="AAA: validation window 2021-01-01 was made from other inputs"):
        current_windows(open_workspace(validated, SA_TUNING__SEED="8"), "AAA", before=date(2022, 7, 3))


def test_a_window_that_is_refused_now_is_forgotten(validated, open_workspace):
    workspace = open_workspace(validated, SA_ML__MIN_TRAINING_SAMPLES="200")
    compute_windows(workspace, [("AAA", key) for key in KEYS])
    assert list(current_windows(workspace, "AAA", before=date(2022, 7, 3))) == KEYS[1:]


def test_a_stored_window_comes_back_whole(validated, open_workspace):
    workspace = open_workspace(validated)
    result = workspace.windows.load("UNIVERSE", "2021-07-01")
    rows = result.out_of_fold
    assert (result.start, result.end, len(rows)) == ("2021-07-01", "2022-01-01", result.test_rows)
    assert rows.index.names == ["symbol", "date"]
    assert str(rows["label_end"].dtype) == str(rows.index.levels[1].dtype) == "datetime64[us]"
    workspace.windows.save("BBB", result, "made from this")
    again = workspace.windows.load("BBB", "2021-07-01")
    assert again == result
    assert again.out_of_fold.equals(rows)
    assert workspace.windows.inputs("BBB", "2021-07-01") == "made from this"


def forget(workspace, scope, keys) -> None:
    for key in keys:
        workspace.windows.remove(scope, key)


WARM = {"SA_TUNING__WARM_START": "true", "SA_TUNING__TRIALS": "4"}


def test_warm_starts_do_not_depend_on_order_processes_or_what_was_asked_for(validated, open_workspace):
    found = []
    for workers, calls in (
        ("1", [KEYS]),
        ("2", [KEYS]),
        ("1", [[key] for key in reversed(KEYS)]),
        ("2", [[KEYS[4]], [KEYS[3], KEYS[0]], KEYS]),
    ):
        workspace = open_workspace(validated, **WARM, SA_COMPUTE__WORKERS=workers)
        forget(workspace, "UNIVERSE", KEYS)
        for keys in calls:
            compute_windows(workspace, [("UNIVERSE", key) for key in keys])
        assert stale_windows(workspace, "UNIVERSE") == []
        found.append([workspace.windows.load("UNIVERSE", key).figures() for key in KEYS])
    assert found[0] == found[1] == found[2] == found[3]
    assert [figures["warm_from"] for figures in found[0]] == [None, None, KEYS[0], KEYS[1], KEYS[2]]


def test_a_window_brings_those_it_starts_from_along_and_no_others(validated, open_workspace):
    workspace = open_workspace(validated, **WARM)
    forget(workspace, "UNIVERSE", KEYS)
    (outcome,) = compute_windows(workspace, [("UNIVERSE", KEYS[4])])
    assert outcome.computed
    assert workspace.windows.keys("UNIVERSE") == [KEYS[0], KEYS[2], KEYS[4]]


def test_a_window_starts_from_nothing_where_its_source_is_refused(validated, open_workspace):
    workspace = open_workspace(validated, **WARM, SA_ML__MIN_TRAINING_SAMPLES="200")
    outcomes = compute_windows(workspace, [("AAA", key) for key in KEYS])
    assert [o.refusal is None for o in outcomes] == [False, True, True, True, True]
    assert [o.result.warm_from for o in outcomes[1:]] == [None, None, KEYS[1], KEYS[2]]
    assert stale_windows(workspace, "AAA") == [KEYS[0]]
    assert not any(o.computed for o in compute_windows(workspace, [("AAA", key) for key in KEYS]))


def test_an_interrupted_search_goes_on_and_its_trials_are_forgotten_once_the_window_is_stored(
    validated, open_workspace, monkeypatch
):
    workspace = open_workspace(validated, SA_TUNING__TRIALS="6")
    forget(workspace, "AAA", KEYS)
    folder, tried, real = validated / "data" / "validation" / "scope=AAA", [], tuning._try

    def counting(*arguments):
        if len(tried) == 4:
            raise KeyboardInterrupt
        return tried.append(arguments) or real(*arguments)

    monkeypatch.setattr(tuning, "_try", counting)
    with pytest.raises(KeyboardInterrupt):
        compute_windows(workspace, [("AAA", KEYS[1])])
    assert [path.name for path in sorted(folder.glob("study*"))] == [
        f"study={KEYS[1]}-all",
        f"study={KEYS[1]}-symbol_level",
    ]
    tried.clear()
    (resumed,) = compute_windows(workspace, [("AAA", KEYS[1])])
    assert len(tried) == 2
    assert list(folder.glob("*study*")) == []
    monkeypatch.setattr(tuning, "_try", real)
    forget(workspace, "AAA", KEYS[1:2])
    (undisturbed,) = compute_windows(workspace, [("AAA", KEYS[1])])
    assert resumed.result.figures() == undisturbed.result.figures()


def test_the_model_that_served_before_a_window_is_scored_in_it(trained, open_workspace):
    """The journal is set back: the version in service was promoted on the first of March 2021."""
    journal = trained / "models" / "journal.jsonl"
    events = [asdict(event) for event in read_journal(trained / "models")]
    journal.write_text("".join(json.dumps({**e, "at": "2021-03-01T12:00:00+00:00"}) + "\n" for e in events))
    workspace = open_workspace(trained)
    assert stale_windows(workspace, "AAA") == KEYS[1:]  # no model served before the first
    outcomes = compute_windows(workspace, [("AAA", key) for key in KEYS])
    # Trained in July 2022, it knows what these windows test: it is named in their inputs, but not scored.
    assert [list(o.result.challengers) for o in outcomes] == [["logistic"]] * len(KEYS)
    folder = trained / "models" / next(e["evidence"]["model_path"] for e in events if e["scope"] == "AAA")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(manifest_text({**manifest, "as_of": "2021-02-28"}))
    forget(workspace, "AAA", KEYS[1:])
    outcomes = compute_windows(workspace, [("AAA", key) for key in KEYS])
    assert [list(o.result.challengers) for o in outcomes] == [["logistic"]] + [["logistic", "champion"]] * 4
    assert outcomes[1].result.challengers["champion"].detail == manifest["version_id"]
    assert stale_windows(workspace, "AAA") == []


def test_a_window_can_be_audited_by_name(validated, open_workspace):
    audit = audit_window(open_workspace(validated), "UNIVERSE", "2021-01-01")
    # Sixty sessions of history are left out of 2020; the label of 23 December ends on the 31st.
    assert audit.train_dates == (date(2020, 3, 30), date(2020, 12, 23))
    assert audit.test_dates == (date(2021, 1, 4), date(2021, 6, 23))
    assert audit.counts == {"train": 376, "test": 238, "purged": 10, "embargoed": 0, "unlabelled": 10}
    assert len(audit.left_out) == 20


def test_a_window_that_another_version_wrote_is_refused_by_name(validated, open_workspace):
    path = validated / "data" / "validation" / "scope=AAA" / "window=2021-01-01.parquet"
    table = pq.read_table(path, partitioning=None)
    content = json.loads(table.schema.metadata[b"signals"])
    del content["figures"]["challengers"]
    old = table.replace_schema_metadata({**table.schema.metadata, b"signals": json.dumps(content).encode()})
    pq.write_table(old, path, write_page_checksum=True)
    with pytest.raises(DataError, match=r"window=2021-01-01\.parquet was written by another version"):
        open_workspace(validated).windows.load("AAA", "2021-01-01")


def test_the_trials_of_a_stored_window_are_kept_beside_it(validated, open_workspace):
    workspace = open_workspace(validated, SA_TUNING__TRIALS="6")
    (outcome,) = compute_windows(workspace, [("AAA", KEYS[0])])
    computed, kept = outcome.result.trial_gains, workspace.windows.trial_gains("AAA", KEYS[0])
    pd.testing.assert_frame_equal(kept, computed.astype("float32"), check_freq=False)
    assert [len(kept.columns), kept.columns.names] == [6, ["group", "trial"]]
    assert workspace.windows.load("AAA", KEYS[0]).overfitting == outcome.result.overfitting
    overfitting = outcome.result.overfitting
    # A quarter of a year's dates is too few; the window says so in place of a figure.
    assert (overfitting.trials, overfitting.dates, overfitting.probability) == (3, len(kept), None)
    assert overfitting.reason == f"dates that score trials: {len(kept)}, at least 60 are needed"


def test_lost_trials_make_no_window_stale_and_are_refused_by_name(validated, open_workspace, no_fit):
    workspace = open_workspace(validated)
    path = validated / "data" / "validation" / "scope=AAA" / f"trials={KEYS[0]}.parquet"
    other = path.with_name(f"trials={KEYS[1]}.parquet")
    path.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match="not of the search of the stored window"):
        workspace.windows.trial_gains("AAA", KEYS[0])
    path.unlink()
    with pytest.raises(DataError, match="is absent or damaged"):
        workspace.windows.trial_gains("AAA", KEYS[0])
    assert stale_windows(workspace, "AAA") == []
    assert workspace.windows.keys("AAA") == KEYS
    workspace.windows.load("AAA", KEYS[0])


def test_a_window_that_goes_takes_its_trials_along(validated, open_workspace):
    workspace = open_workspace(validated)
    workspace.windows.remove("AAA", KEYS[0])
    assert list((validated / "data" / "validation" / "scope=AAA").glob(f"*={KEYS[0]}*")) == []


def test_a_search_with_enough_trials_and_dates_shows_how_likely_it_overfitted(validated, open_workspace):
    workspace = open_workspace(validated, SA_TUNING__TRIALS="6", SA_TUNING__VALIDATION_FRACTION="0.4")
    (outcome,) = compute_windows(workspace, [("UNIVERSE", KEYS[0])])
    found = outcome.result.overfitting
    assert found == judge_search(outcome.result.trial_gains[outcome.result.feature_group], 5)
    assert (found.trials, found.blocks, found.reason) == (3, 4, "")
    assert 0 <= found.probability <= 1


def test_the_report_and_the_manifest_show_it_by_window_and_pooled(validated, open_workspace):
    workspace = open_workspace(validated, SA_TUNING__TRIALS="6", SA_TUNING__VALIDATION_FRACTION="0.4")
    results = [o.result for o in compute_windows(workspace, [("UNIVERSE", key) for key in KEYS])]
    pooled = pool_searches([result.overfitting for result in results])
    assert pooled.windows == len(KEYS)
    trained = train_model(workspace, "UNIVERSE", AS_OF, "person")
    assert trained.version.metrics["overfitting_probability"] == pooled.probability
    manifest = read_manifest(workspace.models / trained.version.model_path)
    assert manifest["overfitting"] == {**asdict(pooled), "summary": str(pooled)}
    report = read_report(workspace)
    (scope,) = [s for s in report.to_dict()["scopes"] if s["scope"] == "UNIVERSE"]
    assert scope["overfitting"] == asdict(pooled)
    assert [w["overfitting"]["probability"] for w in scope["windows"]] == [r.overfitting.probability for r in results]
    console = Console(width=200, file=io.StringIO())
    render(report, console)
    text = " ".join(console.file.getvalue().split())
    assert f"UNIVERSE: {pooled}" in text
    assert f"probability that the searches for parameters overfitted {pooled.probability:.2f}" in text
