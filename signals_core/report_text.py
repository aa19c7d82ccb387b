"""The report of the main job in a terminal."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from signals_core.features.catalog import catalog
from signals_core.ml.comparison import PRIOR, earned_its_place
from signals_core.ml.target import CLASSES
from signals_core.ml.validation import LOGISTIC
from signals_core.ml.wording import judgement_lines
from signals_core.report import MainReport, ScopeReport

_DRIFT_ROWS = 8
_RELIABILITY_BINS = 5


class Timed(Protocol):
    """A part of the main job and how long it took."""

    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def outcome(self) -> str: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102


def render(report: MainReport, console: Console, parts: Sequence[Timed] = ()) -> None:
    """Print the report."""
    console.print(Panel(Text(report.disclaimer, justify="left"), title="signals", box=box.ROUNDED, style="yellow"))
    _render_data(report, console)
    for number, scope in enumerate(report.scopes):
        _render_windows(scope, console, whole=number == 0)
    for scope in report.scopes:
        _render_model(scope, console)
    _render_signals(report, console)
    _render_drift(report, console)
    if parts:
        table = _table("How long each part took", "part", "seconds>", "what was done~")
        for part in parts:
            table.add_row(part.title, f"{part.seconds:.1f}", part.outcome)
        console.print(table)
    console.print(_NEXT)


_NEXT = Text.from_markup(
    "\n[bold]What next[/bold]\n"
    "  make ui                        the same in Dagster: graph, partitions, pictures (http://127.0.0.1:3000)\n"
    "  .venv/bin/signals report       this report again\n"
    "  .venv/bin/signals models list  versions, and which is in service\n"
    "  README.md                      your own data in twenty lines; PostgreSQL and Redis by URL\n"
)


def _render_data(report: MainReport, console: Console) -> None:
    table = _table("Bars and labels", "symbol", "sessions>", "first", "last", "rejected>", *(f"{c}>" for c in CLASSES))
    for row in report.symbols:
        shares = [f"{row[name]:.1%}" for name in CLASSES]
        table.add_row(row["symbol"], f"{row['sessions']:,}", row["first"], row["last"], str(row["rejected"]), *shares)
    for row in report.reference:
        if "sessions" in row:
            table.add_row(f"{row['symbol']} [dim]({row['role']})", f"{row['sessions']:,}", row["first"], row["last"])
        else:
            table.add_row(f"{row['symbol']} [dim]({row['role']})", "[red]none", "[red]missing")
    console.print(table)
    absent = sorted(
        {name for scope in report.scopes for name in scope.features_without_data}, key=list(catalog()).index
    )
    if absent:
        by_category: dict[str, list[str]] = {}
        for name in absent:
            by_category.setdefault(catalog()[name].category, []).append(name)
        console.print(f"{len(absent)} of {len(catalog())} features have no data here; they are missing, not filled:")
        for category, names in by_category.items():
            console.print(f"  [dim]{category}:[/dim] {', '.join(names)}", highlight=False)


def _render_windows(scope: ScopeReport, console: Console, whole: bool) -> None:
    if not scope.windows:
        console.print(f"{scope.scope}: no validation windows yet")
        return
    title = f"Walk-forward windows, {scope.scope} (before calibration)"
    table = _table(
        title,
        "test",
        "rows>",
        "purged>",
        "accuracy>",
        "log-loss>",
        "class prior>",
        "gain ± s.e. (nats)>",
        "Sharpe>",
        "overfit>",
    )
    for window in scope.windows if whole else []:
        gain = f"{window.gain:+.4f} ± {window.gain_error:.4f}"
        table.add_row(
            f"{window.start} … {window.end}",
            f"{window.test_rows:,}",
            str(window.purged_rows),
            f"{window.accuracy:.3f}",
            f"{window.log_loss:.4f}",
            f"{window.prior_log_loss:.4f}",
            f"[{_colour(window.gain, window.gain_error)}]{gain}",
            f"{window.sharpe_ratio:+.2f}",
            "" if window.overfitting.probability is None else f"{window.overfitting.probability:.2f}",
        )
    better = sum(w.gain > 0 for w in scope.windows)
    table.add_row(
        f"[bold]mean of {len(scope.windows)}",
        f"{sum(w.test_rows for w in scope.windows):,}",
        "",
        *(
            f"[bold]{np.mean([getattr(w, f) for w in scope.windows]):.4f}"
            for f in ("accuracy", "log_loss", "prior_log_loss")
        ),
        f"[bold]{np.mean([w.gain for w in scope.windows]):+.4f}, better in {better}",
        f"[bold]{np.mean([w.sharpe_ratio for w in scope.windows]):+.2f}",
        "" if scope.overfitting.probability is None else f"[bold]{scope.overfitting.probability:.2f}",
    )
    console.print(table)
    console.print(f"{scope.scope}: {scope.overfitting}", highlight=False)
    _render_challengers(scope, console)


def _render_challengers(scope: ScopeReport, console: Console) -> None:
    """Whether XGBoost earned its place."""
    if not scope.challenges:
        return
    names = " and ".join(name for name in (PRIOR, LOGISTIC) if name in scope.challenges)
    earned = (
        f"[green]XGBoost earned its place: it is better than {names} by more than its uncertainty"
        if earned_its_place(scope.challenges)
        else f"[yellow]XGBoost has not shown that it is better than both {names}"
    )
    console.print(f"{scope.scope}: {earned}")
    for found in scope.challenges.values():
        console.print(f"  {found}", highlight=False)


def _render_model(scope: ScopeReport, console: Console) -> None:
    version = scope.newest
    if version is None:
        console.print(f"{scope.scope}: no model yet")
        return
    m = version.metrics
    verdict = "[green]in service" if version.active else "[yellow]not in service"
    console.print(f"\n[bold]Model {scope.scope}[/bold] {version.version_id}: {verdict}", highlight=False)
    console.print(f"  {version.decision}", highlight=False)
    if scope.active is not None and not version.active:
        console.print(f"  {scope.active.version_id} stays in service", highlight=False)
    console.print(
        f"  trained on {m['train_rows']:,} rows; judged out of sample on {m['rows']:,} rows of {m['dates']:,} dates: "
        f"log-loss {m['log_loss']:.4f} calibrated, {m['raw_log_loss']:.4f} raw, {m['prior_log_loss']:.4f} class prior; "
        f"accuracy {m['accuracy']:.3f}",
        highlight=False,
    )
    parts = (("FLAT or move", "gain_flat_or_move"), ("UP or DOWN", "gain_direction"))
    shown = "; ".join(f"{name} {m[key]:+.4f} ± {m[key + '_error']:.4f}" for name, key in parts)
    console.print(f"  of the gain over the class prior: {shown}", highlight=False)
    for line in judgement_lines(m):
        console.print(f"  {line}", highlight=False)
    table = _table(
        f"Reliability out of sample, {scope.scope}: forecast → observed (95 % interval)",
        "class",
        *(f"fifth {i}>" for i in range(1, _RELIABILITY_BINS + 1)),
    )
    for name in CLASSES:
        cells = [
            f"{b.forecast:.2f} → [{'green' if b.low <= b.forecast <= b.high else 'red'}]{b.observed:.2f}[/] "
            f"[dim]({b.low:.2f}-{b.high:.2f})"
            for b in scope.reliability
            if b.class_name == name
        ]
        table.add_row(name, *cells)
    console.print(table)


def _render_signals(report: MainReport, console: Console) -> None:
    table = _table(
        f"Signals at the close of {report.session}",
        "symbol",
        "scope",
        "P(DOWN)>",
        "P(FLAT)>",
        "P(UP)>",
        "signal",
        "weight>",
        "",
    )
    for scope in report.scopes:
        if scope.signals is None:
            continue
        for row in scope.signals.itertuples(index=False):
            shown = [f"{p:.3f}" if p == p else "" for p in (row.p_down, row.p_flat, row.p_up)]
            signal = f"[bold]{row.direction}" if row.direction else "none"
            weight = f"{row.weight:+.1%}" if row.weight else ""
            why = row.reason or (f"{row.binding} binds" if row.binding else "")
            table.add_row(row.symbol, scope.scope, *shown, signal, weight, f"[dim]{why}")
    console.print(table)


def _render_drift(report: MainReport, console: Console) -> None:
    for scope in report.scopes:
        if scope.drift is None:
            continue
        console.print(f"\n[bold]Drift {scope.scope}, {scope.drift.day}[/bold]: {scope.drift.verdict}", highlight=False)
        if scope.drift.rolling_accuracy is None:
            console.print("  realised accuracy: no prediction has matured yet")
        else:
            console.print(
                f"  realised accuracy of the last {scope.drift.matured_predictions} matured predictions: "
                f"{scope.drift.rolling_accuracy:.3f}"
            )
        known = sorted((f for f in scope.drift.features if f.psi is not None), key=lambda f: -(f.psi or 0))
        if not known:
            continue
        table = _table("", "feature", "PSI>", "own past's largest>", "level", "alarm")
        for f in known[:_DRIFT_ROWS]:
            table.add_row(f.feature, f"{f.psi:.2f}", f"{f.own_history:.2f}", f.status, "[red]yes" if f.alarm else "no")
        console.print(table)
        console.print(
            f"  [dim]the {min(_DRIFT_ROWS, len(known))} largest of {len(known)}; "
            "slow features exceed .2 on a healthy market too"
        )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:  # ">" aligns right, "~" wraps
        table.add_column(
            column.rstrip(">~"),
            justify="right" if column.endswith(">") else "left",
            no_wrap=bool(column) and not column.endswith("~"),
        )
    return table


def _colour(gain: float, error: float) -> str:
    if abs(gain) < 2 * error:
        return "default"
    return "green" if gain > 0 else "red"
