"""Features against pandas, merge_asof and pyarrow's defaults: CPU time, one thread, 500 symbols × 2,520 sessions.

Run with `make bench`. The sides run in turn in one process, and their outputs are checked equal before any time is
believed. The whole pipeline (store to matrix and labels) runs in a process of its own, whose memory is measured.
"""

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench_market_store import synthetic
from benchmarks.measuring import Measured, alternate, headings, line, worked
from benchmarks.pandas_technical import technical_with_pandas
from signals_core.calendar import session_closes, sessions_between
from signals_core.checked_parquet import write_parquet
from signals_core.features.inputs import FeatureInputs, bar_values
from signals_core.features.point_in_time import as_of_positions, take_known
from signals_core.features.technical import TechnicalFeatureCalculator, technical_values
from signals_core.frame_store import FrameStore, months_of
from signals_core.market_data.schemas import FUNDAMENTAL_VALUES

SYMBOLS, SESSIONS, FILINGS, VALUES = 500, 2520, 44, 12
SAMPLE = 40
"""Symbols that pandas computes; its cost is proportional to their number."""
REPEATS, WIDTH = 5, 70
FEAST = "SIGNALS_BENCH_FEAST"
REQUIRED = {"technical": 15.0, "append": 100.0, "as-of join": 40.0, "write": 3.0}
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def panel(symbols: int = SYMBOLS) -> dict[str, pd.DataFrame]:
    """Bars by symbol, as features read them."""
    rows = synthetic(symbols, SESSIONS)
    columns = ["open", "high", "low", "close", "volume"]
    return {str(symbol): own.set_index("date")[columns] for symbol, own in rows.groupby("symbol")}


def bench_technical(bars: dict[str, pd.DataFrame]) -> float:
    """All technical features of all history."""
    calculator, sample = TechnicalFeatureCalculator(), list(bars.values())[:SAMPLE]
    for own in sample[:3]:
        found = calculator.calculate(FeatureInputs(own))
        pd.testing.assert_frame_equal(
            found, technical_with_pandas(own)[found.columns], rtol=1e-8, atol=1e-10, check_freq=False
        )
    measured = alternate(
        REPEATS,
        ours=lambda _: worked(lambda: [calculator.calculate(FeatureInputs(own)) for own in bars.values()]),
        pandas=lambda _: worked(lambda: [technical_with_pandas(own) for own in sample]) * len(bars) / SAMPLE,
    )
    print(line(f"technical set of all history | pandas ({SAMPLE} symbols, scaled)", WIDTH, *measured.values()))
    return measured["pandas"].median / measured["ours"].median


def bench_append(bars: dict[str, pd.DataFrame]) -> float:
    """A new session: the technical set of every symbol's last row, from as many bars as float32 can tell."""
    near = TechnicalFeatureCalculator.lookback + 1
    panels = [bar_values(own) for own in bars.values()]

    def ours() -> np.ndarray:
        return np.array([technical_values(own[:, -near:], last=1)[:, 0] for own in panels])

    names = [feature.name for feature in TechnicalFeatureCalculator.features]
    sample = list(bars.values())[:SAMPLE]
    whole = np.array([technical_with_pandas(own)[names].to_numpy()[-1] for own in sample])
    # Equal as stored: relative to a tenth of the column's own size, what float32 resolves.
    np.testing.assert_allclose(ours()[:SAMPLE], whole, rtol=1e-6, atol=1e-7)
    measured = alternate(
        REPEATS,
        ours=lambda _: worked(ours),
        pandas=lambda _: worked(lambda: [technical_with_pandas(own) for own in sample]) * len(bars) / SAMPLE,
    )
    print(line("technical set of one new session | pandas, all history", WIDTH, *measured.values()))
    return measured["pandas"].median / measured["ours"].median


def bench_as_of(symbols: int = SYMBOLS) -> float:
    """22,000 filings of 12 values onto 1.26 million bars."""
    random = np.random.default_rng(5)
    days = sessions_between("XNYS", date(2014, 1, 1), date(2025, 1, 1))[-SESSIONS:]
    closes = session_closes("XNYS", days).to_numpy()
    filed = np.sort(random.choice(np.arange(closes[0], closes[-1], 1_000_000), (symbols, FILINGS)), axis=1)
    values = random.normal(size=(symbols * FILINGS, VALUES))
    names = [f"v{n}" for n in range(VALUES)]
    symbol = pd.Categorical([f"S{n:04d}" for n in range(symbols)])
    bars = pd.DataFrame({"symbol": symbol.repeat(SESSIONS), "close": np.tile(closes, symbols)})
    facts = pd.DataFrame(values, columns=names).assign(symbol=symbol.repeat(FILINGS), available_at=filed.ravel())

    def ours() -> np.ndarray:
        codes = [frame["symbol"].cat.codes.to_numpy() for frame in (bars, facts)]
        offsets = [np.searchsorted(own, np.arange(symbols + 1, dtype=own.dtype)) for own in codes]
        known = as_of_positions(bars["close"], facts["available_at"], *offsets)
        return take_known(facts[names].to_numpy(), known)

    def merge_asof() -> pd.DataFrame:
        by_symbol = dict(list(facts.groupby("symbol", observed=True)))
        return pd.concat(
            [
                pd.merge_asof(own, by_symbol[name], left_on="close", right_on="available_at")
                for name, own in bars.groupby("symbol", observed=True)
            ]
        )

    np.testing.assert_array_equal(ours(), merge_asof()[names].to_numpy())
    measured = alternate(REPEATS + 2, ours=lambda _: worked(ours), merge_asof=lambda _: worked(merge_asof))
    what = f"as-of join of {len(values):,} × {VALUES} onto {len(bars):,} | merge_asof"
    print(line(what, WIDTH, *measured.values()))
    feast = os.environ.get(FEAST)
    if feast is None:
        print(f"Feast is left out: {FEAST} names no Python that has it")
    else:
        bench_feast(feast, bars, facts, names, ours(), measured["ours"])
    return measured["merge_asof"].median / measured["ours"].median


def bench_feast(
    python: str, bars: pd.DataFrame, facts: pd.DataFrame, names: list[str], joined: np.ndarray, ours: Measured
) -> None:
    """The same join by Feast's offline store, on a tenth of the symbols and scaled, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        some = [f"S{n:04d}" for n in range(SYMBOLS // 10)]
        rows, filed = (frame[frame["symbol"].isin(some)].astype({"symbol": object}) for frame in (bars, facts))
        entities = rows.rename(columns={"close": "event_timestamp"})
        entities["event_timestamp"] = entities["event_timestamp"].dt.tz_localize("UTC")
        entities.to_parquet(Path(folder) / "bars.parquet", index=False)
        filed.assign(available_at=filed["available_at"].dt.tz_localize("UTC")).to_parquet(
            Path(folder) / "facts.parquet", index=False
        )
        script = Path(__file__).with_name("feast_join.py")
        shown = subprocess.run([python, script, folder], check=True, capture_output=True, text=True).stdout
        found = pd.read_parquet(Path(folder) / "joined.parquet")
    by_symbol = found.sort_values(["symbol", "event_timestamp"])[names].to_numpy()
    expected = joined[: len(rows)]
    np.testing.assert_array_equal(by_symbol, expected[~np.isnan(expected).any(axis=1)])  # it drops the other rows
    scaled = Measured("feast", [float(shown.split()[-1]) * SYMBOLS / len(some)])
    print(
        line(f"the same | Feast's offline store ({len(some)} symbols, with its reading, scaled)", WIDTH, ours, scaled)
    )


def bench_write(bars: dict[str, pd.DataFrame], folder: Path) -> float:
    """The technical features of some symbols, a file a symbol and year."""
    calculator = TechnicalFeatureCalculator()
    frames = {symbol: calculator.calculate(FeatureInputs(own)) for symbol, own in list(bars.items())[:SAMPLE]}
    years = [own for frame in frames.values() for _, own in frame.groupby(frame.index.year)]
    store = FrameStore(folder / "store")
    digests = {symbol: dict.fromkeys(months_of(frame.index), "0") for symbol, frame in frames.items()}

    def ours() -> None:
        for number, own in enumerate(years):
            write_parquet(folder / f"ours-{number}.parquet", own, {})

    def pyarrow() -> None:
        for number, own in enumerate(years):
            pq.write_table(pa.Table.from_pandas(own), folder / f"pyarrow-{number}.parquet")

    measured = alternate(REPEATS, ours=lambda _: worked(ours), pyarrow=lambda _: worked(pyarrow))
    for number in (0, len(years) - 1):
        written = pd.read_parquet(folder / f"ours-{number}.parquet").set_index("date")
        pd.testing.assert_frame_equal(written, years[number].astype("float32"), check_freq=False)
    print(line(f"write {len(years)} files of features | pyarrow's defaults", WIDTH, *measured.values()))

    def save(repeat: int) -> float:
        return worked(lambda: [store.save(f"{s}-{repeat}", frame, digests[s]) for s, frame in frames.items()])

    print(line("the same with locks, months and digests", WIDTH, *alternate(REPEATS, save=save).values()))
    size = {name: sum(p.stat().st_size for p in folder.glob(f"{name}-*.parquet")) for name in ("ours", "pyarrow")}
    print(f"{'':<{WIDTH}} {size['ours'] / 2**20:.1f} MiB against {size['pyarrow'] / 2**20:.1f} MiB")
    return measured["pyarrow"].median / measured["ours"].median


def whole_pipeline(folder: Path, symbols: int) -> None:
    """Bars and facts in SQLite to the matrix and labels of every symbol; then a new session. Run as a process."""
    from signals_core import steps
    from signals_core.settings_loading import load_settings
    from signals_core.workspace import Workspace

    (folder / "config").mkdir(parents=True)
    names = [f"S{number:04d}" for number in range(symbols)]
    sectors = ("energy", "financials", "health_care", "industrials", "utilities")
    (folder / "config" / "settings.yaml").write_text(
        "clock: {as_of: 2024-12-31T23:00:00-05:00}\npartitions: {start: 2014-01-01, end: 2025-01-01}\n"
    )
    (folder / "config" / "universe.yaml").write_text(
        "universe:\n  sectors: config/sectors.csv\n  reference: {spy: SPY, sector: XLK, vix: ^VIX}\n"
        f"  tickers: [{', '.join(names)}]\n"
    )
    lines = [f"{name},{sectors[n % len(sectors)]}" for n, name in enumerate(names)]
    (folder / "config" / "sectors.csv").write_text("symbol,sector\n" + "\n".join(lines) + "\n")
    with Workspace(load_settings(folder, environ={})) as workspace:
        rows = synthetic(symbols + 3, SESSIONS)
        rows["symbol"] = rows["symbol"].replace(
            dict(zip(sorted(rows["symbol"].unique())[-3:], ("SPY", "XLK", "^VIX"), strict=True))
        )
        workspace.market.save_many_bars(rows[rows["date"] < rows["date"].max()], NOW)
        for number, name in enumerate(names):
            workspace.market.save_facts("fundamentals", name, filings(number), NOW)
        for built in range(2):
            if built:
                workspace.market.save_many_bars(rows[rows["date"] == rows["date"].max()], NOW)
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of loading
            began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
            cells = sum(features.frame.size for features, _ in steps.build_features_and_target(workspace))
            after = resource.getrusage(resource.RUSAGE_SELF)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            what = "one new session" if built else f"{SESSIONS - 1:,} sessions"
            print(
                f"whole pipeline, {symbols} symbols × {what}: {time.perf_counter() - began:.1f} s, CPU {cpu:.1f} s, "
                f"peak memory {peak_mebibytes():.0f} MiB, {cells:,} cells",
                flush=True,
            )
            if not built:
                hours = cpu * 5000 / symbols * 2 / 3600
                print(
                    f"  extrapolated to 5,000 symbols × 20 years, if all is proportional: CPU {hours:.1f} h", flush=True
                )


def peak_mebibytes() -> float:
    """Of this process; `ru_maxrss` would be the parent's, where that was larger."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def filings(seed: int) -> pd.DataFrame:
    """Eleven years of quarters and one restatement."""
    ends = pd.date_range("2013-12-31", "2024-09-30", freq="QE").astype("datetime64[us]")
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.uniform(1, 9, (len(ends), len(FUNDAMENTAL_VALUES))), columns=list(FUNDAMENTAL_VALUES))
    frame = frame.assign(
        period_end=ends,
        fiscal_period=[f"Q{quarter}" for quarter in ends.quarter],
        document="10-Q",
        available_at=ends + pd.Timedelta(days=30, hours=21),
    )
    again = frame.iloc[[5]].assign(available_at=frame["available_at"].iloc[9], document="10-Q/A", revenue=99.0)
    return pd.concat([frame, again]).sort_values("available_at", ignore_index=True)


def main() -> int:
    """Print the table; 1 if a required ratio is missed."""
    if len(sys.argv) > 2:
        whole_pipeline(Path(sys.argv[1]), int(sys.argv[2]))
        return 0
    pa.set_cpu_count(1)
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, pandas {pd.__version__}, "
        f"pyarrow {pa.__version__}; CPU time, one thread; {SYMBOLS} symbols × {SESSIONS:,} sessions"
    )
    print(headings(WIDTH))
    bars = panel()
    with tempfile.TemporaryDirectory() as folder:
        ratios = {
            "technical": bench_technical(bars),
            "append": bench_append(bars),
            "as-of join": bench_as_of(),
            "write": bench_write(bars, Path(folder)),
        }
        for symbols in (SYMBOLS // 5, SYMBOLS):
            command = [
                sys.executable,
                "-m",
                "benchmarks.bench_features",
                str(Path(folder) / f"p{symbols}"),
                str(symbols),
            ]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    missed = {what: least for what, least in REQUIRED.items() if ratios[what] < least}
    for what, least in missed.items():
        print(f"missed: {what} is {ratios[what]:.1f}×, required {least:.0f}×")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
