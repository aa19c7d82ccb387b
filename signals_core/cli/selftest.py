"""`signals selftest`: the whole pipeline on markets of known truth."""

from typing import Annotated

import typer


def selftest_command(
    seed: Annotated[int, typer.Option(help="Of the invented markets.")] = 1,
    symbols: Annotated[int, typer.Option(min=10, help="Of each market.")] = 50,
    trials: Annotated[int, typer.Option(min=1, help="Optuna trials a window.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")] = False,
) -> None:
    """Can this installation be trusted? The pipeline on markets of known truth; minutes. Exit code 3 if not."""
    from dataclasses import asdict

    from rich.console import Console

    from signals_core.progress import reporting_to
    from signals_core.selftest import selftest
    from signals_core.terminal import TerminalProgress, out, print_json, print_table

    with TerminalProgress(Console(stderr=True)) as reporter, reporting_to(reporter):
        findings = selftest(seed, symbols, trials, workers)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = []
        for f in findings:
            verdict = "[green]passed" if f.passed else "[red]FAILED"
            rows.append((f.name, verdict, f"{f.figure:.4g}", f"{f.rule} {f.threshold:.4g}", f.detail))
        print_table(("what", "", "figure", "limit", ""), rows)
        failed = sum(not finding.passed for finding in findings)
        out().print(
            f"[red]{failed} of {len(findings)} failed: do not trust this installation"
            if failed
            else f"[green]all {len(findings)} passed: on invented markets it finds what is there, and no more",
            highlight=False,
        )
    if not all(finding.passed for finding in findings):
        raise typer.Exit(3)
