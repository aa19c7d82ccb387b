from datetime import date

import numpy as np
import pandas as pd
import pytest

from signals_core.calendar import sessions_between
from signals_core.errors import MissingPrerequisite
from signals_core.features.catalog import catalog
from signals_core.ml.feature_groups import distinct_groups, earns_its_place, group_columns, market_wide_columns


def panel(symbols: int = 3) -> pd.DataFrame:
    dates = sessions_between("XNYS", date(2021, 1, 4), date(2021, 3, 1)).rename("date")
    index = pd.MultiIndex.from_product([[f"S{n}" for n in range(symbols)], dates], names=["symbol", "date"])
    random = np.random.default_rng(0)
    market = np.tile(random.normal(size=len(dates)), symbols)
    frame = pd.DataFrame({"own": random.normal(size=len(index)), "market": market, "vix_level": market}, index=index)
    frame["mixed"] = market
    frame.loc[("S0", dates[20]), "mixed"] += 1e-6
    return frame


def test_a_column_that_is_the_same_for_all_symbols_on_every_date_is_market_wide():
    assert market_wide_columns(panel()) == ["market", "vix_level"]
    assert group_columns(panel(), "symbol_level") == ["own", "mixed"]
    assert group_columns(panel(), "all") == ["own", "market", "vix_level", "mixed"]


def test_gaps_and_late_listings_hide_nothing():
    frame = panel()
    frame.iloc[5:9, 1] = np.nan  # a gap of one symbol
    late = frame.drop(index=frame.index[(frame.index.get_level_values("symbol") == "S2")][:30])
    assert market_wide_columns(late.sample(frac=1, random_state=1)) == ["market", "vix_level"]


def test_with_one_symbol_the_catalogue_decides():
    assert market_wide_columns(panel(symbols=1)) == ["vix_level"]


def test_a_column_that_only_one_symbol_has_is_its_own():
    frame = panel()
    frame.loc[frame.index.get_level_values("symbol") != "S0", "market"] = np.nan
    assert market_wide_columns(frame) == ["vix_level"]


def test_the_catalogue_names_vix_and_the_calendar():
    flagged = {name for name, feature in catalog().items() if feature.market_wide}
    assert {"vix_level", "vix_change_5", "day_of_week", "day_of_year", "month"} <= flagged
    assert "rsi_14" not in flagged


def test_groups_with_the_same_columns_are_one_and_the_smaller_comes_first():
    frame = panel()
    assert list(distinct_groups(frame, ("all", "symbol_level"))) == ["symbol_level", "all"]
    assert len(distinct_groups(frame[["own", "mixed"]], ("all", "symbol_level"))) == 1
    assert list(distinct_groups(frame[["market"]], ("all", "symbol_level"))) == ["all"]


def test_a_panel_of_market_wide_columns_only_is_refused_where_they_may_not_be_used():
    with pytest.raises(MissingPrerequisite, match="every feature is market-wide"):
        distinct_groups(panel()[["market"]], ("symbol_level",))


@pytest.mark.parametrize(("better", "expected"), [(0.0, False), (0.01, False), (0.1, True), (-0.1, False)])
def test_more_columns_must_be_better_by_more_than_the_uncertainty_of_dates_not_rows(better, expected):
    index = panel(symbols=50).index
    random = np.random.default_rng(4)
    by_date = pd.Series(random.normal(0, 0.1, len(index.unique("date"))), index=index.unique("date"))
    # All fifty symbols share the luck of a date: by rows, .01 would seem certain.
    difference = by_date.reindex(index.get_level_values("date")).to_numpy() - by_date.mean() + better
    rival = pd.Series(1.0, index=index)
    assert earns_its_place(rival + difference, rival, horizon=5) is expected
