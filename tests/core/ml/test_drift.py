"""PSI of every feature at once, against sums written out, loops, and pandas."""

import numpy as np
import pandas as pd
import pytest

from signals_core.ml.drift import BINS, Reference

SYMBOLS = ["AAA", "BBB", "CCC", "DDD"]


def frame(sessions: int, seed: int = 0, columns: int = 4, start: str = "2019-01-01") -> pd.DataFrame:
    """Normal draws, with ties in the second column, holes in the third and two values in the fourth."""
    dates = pd.bdate_range(start, periods=sessions, name="date")
    index = pd.MultiIndex.from_product([SYMBOLS, dates], names=["symbol", "date"])
    random = np.random.default_rng(seed)
    values = random.normal(size=(len(index), columns))
    values[:, 1] = values[:, 1].round()
    values[random.random(len(index)) < 0.3, 2] = np.nan
    values[:, 3] = values[:, 3] > 0.8
    return pd.DataFrame(values, index=index, columns=list("abcd")[:columns])


def single(values: np.ndarray) -> Reference:
    index = pd.MultiIndex.from_product([["AAA"], pd.bdate_range("2019-01-01", periods=len(values))])
    return Reference.of(pd.DataFrame({"a": values}, index=index.set_names(["symbol", "date"])))


def plain_psi(reference: np.ndarray, sample: np.ndarray) -> float:
    """By the definition, one value after another."""
    reference, sample = reference[~np.isnan(reference)], sample[~np.isnan(sample)]
    ranked = np.sort(reference)
    places = [k * (len(ranked) - 1) / BINS for k in range(1, BINS)]  # exact where a decile is one of the values
    edges = np.unique(np.interp(places, np.arange(len(ranked)), ranked))
    total = 0.0
    for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True):
        p, q = (((v >= low) & (v < high)).sum() + 0.5 for v in (reference, sample))
        p, q = p / (len(reference) + 0.5 * (len(edges) + 1)), q / (len(sample) + 0.5 * (len(edges) + 1))
        total += (q - p) * np.log(q / p)
    return total


def test_psi_of_a_sample_in_the_lowest_tenth_equals_the_sum_by_hand():
    # Half a count is added to every bin: reference 100.5 / 1005 = .1 each, sample 200.5 / 205 and .5 / 205.
    full, empty = 200.5 / 205, 0.5 / 205
    expected = (full - 0.1) * np.log(full / 0.1) + 9 * (empty - 0.1) * np.log(empty / 0.1)
    assert single(np.arange(1000) / 1000).psi_of(np.full(200, 0.01), 0) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(5.2621, abs=1e-3)


def test_psi_of_the_reference_itself_is_zero():
    values = np.random.default_rng(0).normal(size=1000)
    assert single(values).psi_of(values, 0) == pytest.approx(0, abs=1e-12)


def test_psi_does_not_depend_on_a_monotone_change_of_units():
    random = np.random.default_rng(0)
    base, sample = random.normal(size=1000), random.normal(0.5, 1, 300)
    assert single(np.exp(base)).psi_of(np.exp(sample), 0) == pytest.approx(single(base).psi_of(sample, 0))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_psi_of_all_columns_equals_the_definition_one_at_a_time(dtype):
    base, sample = frame(250).astype(dtype), frame(30, seed=1, start="2022-01-03").astype(dtype)
    found = Reference.of(base)
    psi = found.psi(found.count(sample).bins.sum(axis=0))
    assert psi == pytest.approx([plain_psi(base[c].to_numpy(), sample[c].to_numpy()) for c in base], rel=1e-6)


def test_psi_by_group_equals_the_definition_symbol_by_symbol():
    base, sample = frame(250), frame(60, seed=1, start="2022-01-03")
    group = pd.factorize(sample.index.get_level_values("symbol"))[0]
    shuffled = np.random.default_rng(0).permutation(len(sample))
    found = Reference.of(base).psi_by_group(sample.to_numpy()[shuffled], group[shuffled])
    expected = [[plain_psi(base[c].to_numpy(), sample[c].to_numpy()[group == g]) for c in base] for g in range(4)]
    assert found == pytest.approx(np.array(expected))


def test_counts_of_a_session_are_those_of_its_rows_alone():
    base, sample = frame(250), frame(12, seed=1, start="2022-01-03")
    sample = sample.sample(frac=0.8, random_state=0)  # late listings and missing rows, in any order
    reference = Reference.of(base)
    counts = reference.count(sample)
    for number, (_, rows) in enumerate(sample.groupby(level="date")):
        alone = reference.count(rows)
        assert counts.rows[number] == alone.rows.sum() == len(rows)
        assert (counts.bins[number] == alone.bins.sum(axis=0)).all()
        assert (counts.missing[number] == rows.isna().sum().to_numpy()).all()


def test_changes_compare_a_row_with_the_same_symbol_s_row_before():
    dates = pd.bdate_range("2022-01-03", periods=4)
    index = pd.MultiIndex.from_product([["AAA", "BBB"], dates], names=["symbol", "date"])
    rows = pd.DataFrame({"a": [1.0, 1.0, 2.0, np.nan, 7.0, 8.0, 8.0, 8.0]}, index=index)
    counts = Reference.of(rows).count(rows)
    assert counts.chances[:, 0].tolist() == [0, 2, 2, 1]
    assert counts.changes[:, 0].tolist() == [0, 1, 1, 0]


def test_blocks_end_with_the_last_session_and_add_up():
    base = frame(47)
    counts = Reference.of(base).counts
    blocks = counts.blocks(20)
    assert len(blocks) == 2
    assert (blocks.rows == [80, 80]).all()
    assert (blocks.bins[1] == counts.bins[-20:].sum(axis=0)).all()
    assert (blocks.bins[0] == counts.bins[7:27].sum(axis=0)).all()


def test_the_largest_block_is_the_largest_of_the_definition():
    base = frame(60)
    dates = base.index.get_level_values("date")
    unique = dates.unique()
    blocks = [
        [plain_psi(base[c].to_numpy(), base[c][dates.isin(unique[i : i + 20])].to_numpy()) for c in base]
        for i in (0, 20, 40)
    ]
    assert Reference.of(base).largest_block(20) == pytest.approx(np.max(blocks, axis=0))
    assert (Reference.of(frame(19)).largest_block(20) == 0).all(), "no whole block"


def test_a_column_without_values_has_no_psi_to_speak_of():
    base = frame(60).assign(b=np.nan)
    found = Reference.of(base)
    assert found.valid.tolist()[1] == 0
    assert np.isfinite(found.psi(found.counts.bins.sum(axis=0))).all()
