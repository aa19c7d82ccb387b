import numpy as np
import pandas as pd

from signals_core.strategy.covariance import COVARIANCE_SESSIONS, covariance_of

DAYS = pd.bdate_range("2022-01-03", periods=100)


def closes() -> pd.DataFrame:
    random = np.random.default_rng(0)
    steps = random.normal(0, [0.01, 0.02, 0.03], (len(DAYS), 3))
    return pd.DataFrame(100 * np.exp(steps.cumsum(axis=0)), DAYS, ["AAA", "BBB", "CCC"])


def test_it_is_of_the_last_sessions_up_to_the_day():
    table = closes()
    returns = table.pct_change().loc[: DAYS[80]].tail(COVARIANCE_SESSIONS)
    found = covariance_of(table, ["CCC", "AAA"], DAYS[80])
    np.testing.assert_allclose(found, returns[["CCC", "AAA"]].cov().to_numpy(), rtol=1e-12)
    later = table.copy()
    later.iloc[81:] *= 7
    np.testing.assert_array_equal(covariance_of(later, ["CCC", "AAA"], DAYS[80]), found)


def test_a_symbol_of_which_too_little_is_known_is_not_taken_for_riskless():
    table = closes()
    table.loc[DAYS[:79], "AAA"] = np.nan
    found = covariance_of(table, list(table.columns), DAYS[80])
    assert found[0, 0] == found[2, 2] == found.max()
    assert (found[0, 1:] == 0).all()
    assert (covariance_of(table[["AAA"]], ["AAA"], DAYS[80]) == 0).all(), "nothing is known at all"
