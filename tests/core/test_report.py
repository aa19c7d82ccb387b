"""The report of the main job, as text."""

import io
from dataclasses import dataclass

from rich.console import Console

from signals_core.report import DEMO_DISCLAIMER, DISCLAIMER, MainReport, read_report
from signals_core.report_text import render
from signals_core.settings_loading import load_settings
from signals_core.workspace import Workspace


@dataclass(frozen=True)
class Part:
    title: str
    outcome: str
    seconds: float


def rendered(report: MainReport, *parts: Part) -> str:
    console = Console(width=140, file=io.StringIO())
    render(report, console, parts)
    return console.file.getvalue()


def test_a_long_outcome_leaves_the_seconds_of_a_part_readable():
    report = MainReport([], [], "2022-07-01", [], DISCLAIMER)
    long = "; ".join(f"files has no bars of S{n}" for n in range(12))
    text = rendered(report, Part("validation windows", long, 26.14))
    assert "validation windows" in text
    assert "26.1" in text
    assert "S11" in text


def test_only_the_demo_s_report_speaks_of_the_demo(project):
    from signals_core import steps

    with Workspace(load_settings(project)) as workspace:
        steps.ingest(workspace, ["AAA", "BBB", "SPY"])
        report = read_report(workspace)
        text = rendered(report)
    assert report.disclaimer == DISCLAIMER != DEMO_DISCLAIMER
    assert DISCLAIMER[:40] in text
    assert "^VIX (vix)" in text
    assert "missing" in text


def test_before_there_is_a_model_the_report_says_so(project):
    from signals_core import steps

    with Workspace(load_settings(project)) as workspace:
        steps.ingest(workspace, ["AAA"])
        text = rendered(read_report(workspace))
    assert "UNIVERSE: no validation windows yet" in text
    assert "AAA: no model yet" in text
