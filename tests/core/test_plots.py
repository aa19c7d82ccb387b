import struct

import pytest

from signals_core import plots
from signals_core.ml.reliability import ReliabilityBin, reliability
from signals_core.ml.target import CLASSES
from tests.core.ml.forecasts import true_forecasts


def size_of(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_a_reliability_diagram_is_a_picture_whatever_the_number_of_groups():
    made = true_forecasts(60, 4, seed=0)
    for bins in (1, 5, 8):
        groups = reliability(made.probabilities, made.labels, CLASSES, 5, bins, made.index)
        assert size_of(plots.reliability_diagram(groups, "title", "a note under it"))[0] > 800


@pytest.mark.parametrize("bins", [[], [ReliabilityBin("UP", 5, 0.3, 0.2, 0.05, 0.6)]])
def test_few_or_no_groups_do_not_stop_it(bins):
    assert size_of(plots.reliability_diagram(bins, "title"))[1] > 300


def test_the_same_groups_give_the_same_bytes():
    made = true_forecasts(60, 4, seed=1)
    groups = reliability(made.probabilities, made.labels, CLASSES, 5, 8, made.index)
    assert plots.reliability_diagram(groups, "title") == plots.reliability_diagram(groups, "title")
