"""The example of docs/strategies.md runs as it stands."""

import re
from pathlib import Path

from tests.core.strategy.test_engine import full_bars

DOCUMENT = Path(__file__).parents[3] / "docs" / "strategies.md"


def test_the_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names = {"bars": full_bars(3, 200, 0)}
    exec(compile(example, str(DOCUMENT), "exec"), names)
    assert capsys.readouterr().out.startswith("Sharpe ratio between")
    assert len(names["run"].backtest.trades) > 3
