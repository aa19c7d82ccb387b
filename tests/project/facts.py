"""A source of facts for the tests: frames that a test has put into a folder, as the twenty lines a user writes."""

from pathlib import Path

import pandas as pd


class FolderOfFacts:
    name = "folder"

    def __init__(self, root: Path, folder: str = "data/facts") -> None:
        self._folder = root / folder

    def fetch_fundamentals(self, symbol: str, since=None) -> pd.DataFrame | None:  # type: ignore[no-untyped-def]
        return self._read("fundamentals", symbol)

    def fetch_insider_transactions(self, symbol: str, since=None) -> pd.DataFrame | None:  # type: ignore[no-untyped-def]
        return self._read("insider_transactions", symbol)

    def fetch_short_interest(self, symbol: str, since=None) -> pd.DataFrame | None:  # type: ignore[no-untyped-def]
        return self._read("short_interest", symbol)

    def _read(self, dataset: str, symbol: str) -> pd.DataFrame | None:
        path = self._folder / f"{dataset}_{symbol}.csv"
        return pd.read_csv(path, keep_default_na=False) if path.exists() else None


SETTINGS = """
market_data:
  fundamentals: {provider: "tests.project.facts:FolderOfFacts"}
  insider_transactions: {provider: "tests.project.facts:FolderOfFacts"}
  short_interest: {provider: "tests.project.facts:FolderOfFacts"}
"""


def write_facts(home: Path, dataset: str, symbol: str, rows: list[dict[str, object]]) -> None:
    """Put rows where `FolderOfFacts` finds them, and name it in the project's universe.yaml."""
    folder = home / "data" / "facts"
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / f"{dataset}_{symbol}.csv", index=False)
    universe = home / "config" / "universe.yaml"
    if "FolderOfFacts" not in universe.read_text():
        universe.write_text(universe.read_text() + SETTINGS)


def quarter(available_at: str, period_end: str, period: str, revenue: float, **values: float) -> dict[str, object]:
    """A quarter's filing with figures that make every ratio defined."""
    rest = {"net_income": revenue / 10, "ebitda": revenue / 5, "total_equity": 500.0, "total_debt": 100.0, "cash": 50.0,
            "current_assets": 80.0, "current_liabilities": 40.0, "shares_outstanding": 10.0, "eps": revenue / 100,
            "dividends_per_share": 0.1}  # fmt: skip
    return {
        "available_at": available_at, "period_end": period_end, "fiscal_period": period, "revenue": revenue,
        **rest, **values,
    }  # fmt: skip
