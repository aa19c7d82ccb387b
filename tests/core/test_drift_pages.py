"""The drift report's pages and pictures: what a person reads first, and that a page needs nothing but itself."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from signals_core import drift_pages, plots
from signals_core.ml.drift_store import DriftReport, DriftStore, FeatureDrift, SignalTest
from signals_core.settings import MonitoringSettings
from tests.core.test_plots import size_of

SETTINGS = MonitoringSettings()
TEST = SignalTest(12, 3.2, 8.0, 0.0041, 0.0121, [("2022-06-17", 1.5), ("2022-06-24", 3.2)])


def feature(name: str, psi: float | None = 0.1, own: float = 0.2, **changes: object) -> FeatureDrift:
    return replace(FeatureDrift(name, psi, own, 0.0, "minor", alarm=False), **changes)


def report(*features: FeatureDrift, day: str = "2022-07-01", **changes: object) -> DriftReport:
    plain = DriftReport("UNIVERSE", day, "v1", 400, 9000, list(features), False, None, 0, None, False, "all is well")
    return replace(plain, **changes)


HEALTHY = report(feature("rsi_14"), feature("roc_5", 0.3, 0.4))
BROKEN = report(
    feature("rsi_14", 0.9, 0.2, alarm=True),
    feature("roc_5", 0.8, 0.2),
    feature("pe_ratio", 2.0, 0.2, fault="unit", fault_text="100 times the values of the reference"),
    feature("gap_pct", None, None, status="missing", fault="missing", fault_text="no value <at all>"),
    feed_faults=["feed fundamentals", "pe_ratio (unit): 100 times the values of the reference"],
    signal_test=TEST,
    rolling_accuracy=0.41,
    matured_predictions=100,
    performance_alarm=True,
)


def states(of: DriftReport) -> dict[str, tuple[str, str]]:
    return {question: (answer, state) for question, answer, state in drift_pages.states(of, SETTINGS)}


def test_a_healthy_report_says_so_and_what_is_not_known_yet():
    found = states(HEALTHY)
    assert found["Feeds"] == ("none found", "good")
    assert found["Drift"] == ("0 of 2 features beyond their own past", "good")
    assert found["Signal"] == found["Accuracy"] == ("no prediction has matured yet", "unknown")


def test_a_broken_feed_is_first_and_low_accuracy_is_no_alarm_by_itself():
    found = states(BROKEN)
    assert found["Feeds"][1] == "bad"
    assert found["Drift"] == ("1 of 2 features beyond their own past", "good")
    assert found["Signal"][1] == "good"
    assert "gained +0.0041 nats where +0.0121 was promised, over 12 periods" in found["Signal"][0]
    assert found["Accuracy"][1] == "unknown"
    assert states(replace(BROKEN, signal_dead=True))["Signal"][1] == "bad"
    assert states(replace(HEALTHY, retrain=True))["Drift"][1] == "bad"


def test_the_list_begins_with_faults_then_alarms_and_tells_what_is_not_confirmed():
    rows = [(f.feature, said) for f, _, _, said in drift_pages.listed(BROKEN, SETTINGS)]
    assert rows == [
        ("pe_ratio", "unit: 100 times the values of the reference"),
        ("gap_pct", "missing: no value <at all>"),
        ("rsi_14", "beyond its own past"),
        ("roc_5", "beyond its own past, but not 5 sessions ago"),
    ]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_but_itself_and_escapes_what_it_is_told():
    page = drift_pages.page(BROKEN, SETTINGS, plots.psi_heat_map([BROKEN], "title", 2))
    tags = _Tags()
    tags.feed(page)
    assert len(tags.addresses) == 2
    assert all(address.startswith("data:image/png;base64,") for address in tags.addresses)
    assert not re.search(r"https?:|<script|url\(", page)
    assert "no value <at all>" in tags.text
    assert "no value <at all>" not in page


def test_the_markdown_says_the_same():
    text = drift_pages.markdown(BROKEN, SETTINGS, "2022-07-01.png")
    assert "![PSI by feature and week](2022-07-01.png)" in text
    for _, answer, _ in drift_pages.states(BROKEN, SETTINGS):
        assert answer in text
    assert len(text.splitlines()) < 50, "a page"


@pytest.mark.parametrize("weeks", [0, 1, 2, 26, 60])
def test_a_heat_map_is_a_picture_whatever_there_is_to_show(weeks):
    reports = [replace(BROKEN, day=f"week {n}", model_version=f"v{n // 5}") for n in range(weeks)]
    assert size_of(plots.psi_heat_map(reports, "title", 2))[0] > 600
    if weeks:
        assert plots.psi_heat_map(reports, "title", 2) == plots.psi_heat_map(reports, "title", 2)


def test_a_feature_that_a_later_model_no_longer_has_stays_in_the_map_as_not_judged():
    shares, faults = plots._shares_of_limit([HEALTHY, report(feature("rsi_14", 0.6, 0.2), day="2022-07-08")], 2)
    assert shares["rsi_14"] == pytest.approx([0.25, 1.5])
    assert shares["roc_5"][0] == pytest.approx(0.375)
    assert shares["roc_5"][1] != shares["roc_5"][1]
    assert faults == {"rsi_14": [], "roc_5": []}


def test_a_week_is_shown_by_its_last_report_up_to_the_day(tmp_path):
    store = DriftStore(tmp_path)
    for day in ("2021-12-31", "2022-06-20", "2022-06-24", "2022-06-27", "2022-07-01", "2022-07-05"):
        store.save(report(feature("rsi_14"), day=day))
    assert [r.day for r in store.weekly("UNIVERSE", "2022-07-01", 3)] == ["2021-12-31", "2022-06-24", "2022-07-01"]
    assert [r.day for r in store.weekly("UNIVERSE", "2022-06-30", 2)] == ["2022-06-24", "2022-06-27"]
    assert store.weekly("AAA", "2022-07-01", 3) == []


def test_a_report_with_all_its_parts_comes_back_as_it_was_and_an_older_one_is_read(tmp_path):
    import json

    store = DriftStore(tmp_path)
    store.save(BROKEN)
    assert store.load("UNIVERSE", "2022-07-01") == BROKEN
    path = tmp_path / "scope=UNIVERSE" / "2022-07-01.json"
    content = json.loads(path.read_text())
    for name in ("feed_faults", "signal_dead", "signal_test"):
        del content[name]
    for item in content["features"]:
        del item["fault"], item["fault_text"]
    path.write_text(json.dumps(content))
    assert store.load("UNIVERSE", "2022-07-01").feed_faults == []
