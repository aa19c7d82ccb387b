"""What a week of replayed history costs: retrain, judgement, daily predictions and monitoring of two scopes.

Run with `make bench`. The demo's market: six symbols and two indices as daily bars since 2000, the scopes UNIVERSE and
AAPL, six trials a window. The first week validates every window before it, the others what is new. A replay that is
done is read again and checked to say the same. CPU seconds: other processes do not count.
"""

import platform
import shutil
import statistics
import sys
import tempfile
from datetime import date
from pathlib import Path

from benchmarks.measuring import worked
from signals_core import steps
from signals_core.replay import Replay, Week
from signals_core.settings_loading import load_settings
from signals_core.workspace import Workspace

START, END = date(2012, 1, 1), date(2012, 2, 26)
CONFIG = Path(__file__).parents[1] / "config"


def main() -> int:
    """Print the costs."""
    print(f"{platform.processor() or platform.machine()}; one thread")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(CONFIG, Path(folder) / "config")
        one_process = {"SA_COMPUTE__WORKERS": "1"}
        loaded = load_settings(Path(folder), Path(folder) / "config" / "demo.yaml", environ=one_process)
        with Workspace(loaded) as workspace:
            steps.ingest(workspace, workspace.all_symbols())
        weeks: list[Week] = []
        running = Replay(loaded, START, END).run()
        costs = [worked(lambda: weeks.append(next(running))) for _ in Replay(loaded, START, END).sundays]
        running.close()  # lets go of the folder
        again: list[Week] = []
        read = worked(lambda: again.extend(Replay(loaded, START, END).run()))
        assert again == weeks
        sessions = sum(len(week.sessions) for week in weeks[1:])
    print(f"the first week, with {len(weeks[0].sessions)} reports and every window before it: {costs[0]:.1f} s")
    print(f"each of the {len(costs) - 1} others: {statistics.median(costs[1:]):.1f} s in the median, "
          f"{sum(costs[1:]) / sessions:.2f} s a session and scope")  # fmt: skip
    print(f"read again: {read / len(weeks) * 1000:.0f} ms a week, with the same words")
    return 0


if __name__ == "__main__":
    sys.exit(main())
