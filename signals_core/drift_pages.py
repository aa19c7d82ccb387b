"""The drift report as a page for people: Markdown and self-contained HTML with its pictures inside."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from signals_core import page as html_page
from signals_core import plots
from signals_core.files import write_bytes_atomic
from signals_core.ml.drift_store import DriftReport, DriftStore, FeatureDrift
from signals_core.settings import MonitoringSettings

if TYPE_CHECKING:
    from signals_core.workspace import Workspace

WEEKS = 26
"""Shown in the heat map."""
_LISTED = 12


@dataclass(frozen=True)
class Pages:
    """Where a report was written."""

    markdown: Path
    html: Path
    heat_map: Path


def write_pages(workspace: "Workspace", report: DriftReport) -> Pages:
    """Write `data/reports/drift/scope=<scope>/<day>.{md,html}` and its heat map of the last weeks."""
    settings = workspace.settings.monitoring
    weekly = DriftStore(workspace.data / "drift").weekly(report.scope, report.day, WEEKS)
    folder = workspace.data / "reports" / "drift" / f"scope={report.scope}"
    pages = Pages(*(folder / f"{report.day}{ending}" for ending in (".md", ".html", ".png")))
    heat_map = heat_map_of(weekly, report, settings)
    write_bytes_atomic(pages.heat_map, heat_map)
    write_bytes_atomic(pages.markdown, markdown(report, settings, pages.heat_map.name).encode())
    write_bytes_atomic(pages.html, page(report, settings, heat_map).encode())
    return pages


def heat_map_of(weekly: list[DriftReport], report: DriftReport, settings: MonitoringSettings) -> bytes:
    """PNG of PSI by feature and week."""
    title = f"Drift by feature and week, {report.scope}, up to {report.day}"
    return plots.psi_heat_map(weekly, title, settings.own_history_factor)


def states(report: DriftReport, settings: MonitoringSettings) -> list[tuple[str, str, str]]:
    """What a reader wants first, as (question, answer, good, bad or unknown)."""
    broken = len([f for f in report.features if f.fault])
    feeds = (
        ("; ".join(report.feed_faults[:3]) + ("; …" if len(report.feed_faults) > 3 else ""), "bad")
        if report.feed_faults
        else ("none found", "good")
    )
    judged = [f for f in report.features if f.psi is not None and not f.fault]
    alarms = [f for f in judged if f.alarm]
    drift = ("not enough rows to judge", "unknown")
    if judged:
        share = f"{len(alarms)} of {len(judged)} features beyond their own past"
        drift = (f"{share}; a retrain is asked for", "bad") if report.retrain else (share, "good")
    elif broken:
        drift = ("every feature comes from a broken feed", "bad")
    return [
        ("Feeds", *feeds),
        ("Drift", *drift),
        ("Signal", *_signal_state(report)),
        ("Accuracy", *_accuracy_state(report, settings)),
    ]


def _signal_state(report: DriftReport) -> tuple[str, str]:
    test = report.signal_test
    if test is None:
        return "no prediction has matured yet", "unknown"
    gains = (
        f"gained {test.realised_gain:+.4f} nats where {test.expected_gain:+.4f} was promised, over "
        f"{test.periods} periods; statistic {test.statistic:.1f}, limit {test.limit:g}"
    )
    return (f"dead: {gains}", "bad") if report.signal_dead else (gains, "good")


def _accuracy_state(report: DriftReport, settings: MonitoringSettings) -> tuple[str, str]:
    if report.rolling_accuracy is None:
        return "no prediction has matured yet", "unknown"
    text = f"{report.rolling_accuracy:.3f} over the last {report.matured_predictions} matured predictions"
    if report.performance_alarm:
        text += (
            f", below {settings.accuracy_threshold:g}. Honest probabilities of daily returns are there most of the "
            "time: the test of the signal is what counts"
        )
    return text, "unknown" if report.performance_alarm else "good"


def listed(report: DriftReport, settings: MonitoringSettings) -> list[tuple[FeatureDrift, str, str, str]]:
    """The features worth a look, faulty ones first: with PSI, level of alarm and what is said of each."""

    def level(f: FeatureDrift) -> float:
        return max(settings.own_history_factor * (f.own_history or 0), settings.psi_major)

    ranked = sorted(report.features, key=lambda f: (not f.fault, not f.alarm, -(f.psi or 0) / level(f)))
    rows = []
    for f in [f for f in ranked if f.fault or f.psi is not None][:_LISTED]:
        known = f.psi is not None
        if f.fault:
            said = f"{f.fault}: {f.fault_text}"
        elif f.alarm:
            said = "beyond its own past"
        elif (f.psi or 0) > level(f):
            said = f"beyond its own past, but not {settings.confirm_sessions} sessions ago"
        else:
            said = "as in its own past"
        rows.append((f, f"{f.psi:.2f}" if known else "–", f"{level(f):.2f}" if known else "–", said))
    return rows


def markdown(report: DriftReport, settings: MonitoringSettings, heat_map: str) -> str:
    """The page as Markdown; `heat_map` is the picture's file name."""
    lines = [
        f"# Drift, {report.scope}, {report.day}",
        "",
        f"{_sentence(report.verdict)}",
        "",
        f"Model {report.model_version}; {report.rows:,} rows of {settings.window_sessions} sessions against "
        f"{report.reference_rows:,} training rows.",
        "",
        *(f"- **{question}**: {answer}" for question, answer, _ in states(report, settings)),
        "",
        f"![PSI by feature and week]({heat_map})",
        "",
        "| feature | PSI | alarm level | fixed level | |",
        "|---|---:|---:|---|---|",
        *(
            f"| {f.feature} | {psi} | {level} | {f.status} | {said} |"
            for f, psi, level, said in listed(report, settings)
        ),
        "",
        _explained(settings),
        "",
    ]
    return "\n".join(lines)


def page(report: DriftReport, settings: MonitoringSettings, heat_map: bytes) -> str:
    """The page as HTML that needs nothing but itself."""
    worth = listed(report, settings)
    rows = [(f.feature, psi, level, str(f.status), said) for f, psi, level, said in worth]
    test, signal = report.signal_test, ""
    if test is not None and test.path:
        title = f"Realised against promised gain, {report.scope}"
        drawn = plots.signal_path(test.path, test.limit, title)
        signal = html_page.heading("Is the signal alive?") + html_page.image(drawn, title)
    return html_page.document(
        f"Drift, {report.scope}, {report.day}",
        _sentence(report.verdict),
        html_page.paragraph(
            f"Model {report.model_version}; {report.rows:,} rows of {settings.window_sessions} sessions against "
            f"{report.reference_rows:,} training rows."
        ),
        html_page.cards(states(report, settings)),
        html_page.image(heat_map, "PSI by feature and week"),
        signal,
        html_page.heading("Features worth a look"),
        html_page.table(
            ("feature", "PSI", "alarm level", "fixed level", ""),
            rows,
            [bool(f.fault or f.alarm) for f, *_ in worth],
        ),
        html_page.paragraph(_explained(settings), small=True),
    )


def _sentence(verdict: str) -> str:
    return verdict[:1].upper() + verdict[1:] + "."


def _explained(settings: MonitoringSettings) -> str:
    return (
        f"PSI is the population stability index over ten deciles of the training rows; the fixed levels are "
        f"{settings.psi_minor:g} (minor) and {settings.psi_major:g} (major). Slow features exceed them on a healthy "
        f"market, so a feature alarms only above {settings.own_history_factor:g} times the largest block of "
        f"{settings.window_sessions} sessions of its own training rows, now and {settings.confirm_sessions} sessions "
        f"ago. {settings.retrain_share:.0%} of the features in alarm ask for a retrain, unless a feed is broken."
    )
