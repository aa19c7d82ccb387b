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
    """Can this installation be trusted? The pipeline on markets of known truth; a minute or two. Exit code 3 if not."""
    from dataclasses import asdict

    from rich.console import Console

    from signals_core.progress import reporting_to
    from signals_core.selftest import selftest
    from signals_core.terminal import TerminalProgress, out, print_json, print_table

    with TerminalProgress(Console(stderr=True)) as reporter, reporting_to(reporter):
        result = selftest(seed, symbols, trials, workers)
    if as_json:
        print_json(
            {
                "trusted": result.trusted,
                "verdict": result.verdict,
                "seed": result.seed,
                "findings": [asdict(finding) for finding in result.findings],
            }
        )
    else:
        for market in dict.fromkeys(finding.market for finding in result.findings):
            out().print(f"[bold]{market}", highlight=False)
            rows = []
            for f in result.findings:
                if f.market == market:
                    verdict = "[green]passed" if f.passed else "[red]FAILED"
                    rows.append((f.name, verdict, f"{f.figure:.4g}", f"{f.rule} {f.threshold:.4g}", f.detail))
            print_table(("what", "", "figure", "limit", ""), rows)
        out().print(f"[{'green' if result.trusted else 'red'}]{result.verdict}", highlight=False)
    if not result.trusted:
        raise typer.Exit(3)
