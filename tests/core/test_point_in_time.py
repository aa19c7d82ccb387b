"""The as-of join and the trailing sum against the slow definition of each."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals_core.calendar import session_closes, to_sessions
from signals_core.features.point_in_time import as_of_join, trailing_sum

ORIGIN = pd.Timestamp("2012-01-03 21:00")
HOURS = st.integers(0, 400)
MOMENTS = st.lists(HOURS, max_size=25)
SESSIONS = st.lists(HOURS, min_size=1, max_size=25, unique=True).map(sorted)


def moments(hours: list[int]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex([ORIGIN + pd.Timedelta(hours=h) for h in hours], dtype="datetime64[us]")


@settings(max_examples=80, deadline=None)
@given(available=MOMENTS, sessions=SESSIONS)
def test_the_join_gives_the_last_row_not_after_each_close(available: list[int], sessions: list[int]) -> None:
    facts = pd.DataFrame({"available_at": moments(available), "value": np.arange(len(available), dtype="float64")})
    expected = []
    for close in sessions:
        known = [(hour, row) for row, hour in enumerate(available) if hour <= close]
        expected.append(float(max(known)[1]) if known else np.nan)  # of equal moments the later row

    found = as_of_join(moments(sessions), facts)

    np.testing.assert_array_equal(found["value"].to_numpy(dtype="float64"), expected)
    assert list(found.columns) == ["value"]


@settings(max_examples=80, deadline=None)
@given(available=MOMENTS, sessions=SESSIONS, days=st.integers(1, 10))
def test_the_trailing_sum_is_the_sum_over_the_window(available: list[int], sessions: list[int], days: int) -> None:
    amounts = [float(2**row) for row in range(len(available))]  # any two subsets have different sums
    expected = []
    for close in sessions:
        inside = [a for a, hour in zip(amounts, available, strict=True) if close - 24 * days < hour <= close]
        expected.append(sum(inside) if any(hour <= close for hour in available) else np.nan)

    found = trailing_sum(moments(sessions), pd.Series(moments(available)), pd.Series(amounts, dtype="float64"), days)

    np.testing.assert_array_equal(found, expected)


def test_of_facts_at_the_same_moment_the_last_wins() -> None:
    facts = pd.DataFrame({"available_at": moments([5, 5, 1]), "value": [1.0, 2.0, 3.0]})
    assert as_of_join(moments([4, 5]), facts)["value"].tolist() == [3.0, 2.0]


def test_a_fact_at_the_close_is_known_and_a_microsecond_later_it_is_not() -> None:
    close = moments([10])
    for delay, expected in ((0, [7.0]), (1, [np.nan])):
        facts = pd.DataFrame({"available_at": close + pd.Timedelta(microseconds=delay), "value": [7.0]})
        np.testing.assert_array_equal(as_of_join(close, facts)["value"], expected)


def test_an_amount_that_is_missing_does_not_erase_the_others() -> None:
    found = trailing_sum(moments([3]), pd.Series(moments([1, 2])), pd.Series([np.nan, 4.0]), 1)
    assert found.tolist() == [4.0]


def test_no_facts_give_missing_values_for_every_close() -> None:
    empty = pd.DataFrame({"available_at": moments([]), "value": np.array([], dtype="float64")})
    found = as_of_join(moments([1, 2]), empty)
    assert found["value"].isna().tolist() == [True, True]


@pytest.mark.parametrize(
    ("session", "close"),
    [
        ("2012-07-24", "2012-07-24 20:00"),
        ("2012-01-24", "2012-01-24 21:00"),
        ("2012-11-23", "2012-11-23 18:00"),
        ("2012-07-03", "2012-07-03 17:00"),
    ],
    ids=["summer time", "winter time", "day after Thanksgiving", "eve of Independence Day"],
)
def test_closes_are_those_of_the_exchange_in_utc(session: str, close: str) -> None:
    found = session_closes("XNYS", to_sessions([session]))
    assert found.tolist() == [pd.Timestamp(close)]
    assert found.dtype == "datetime64[us]"


def test_a_day_without_a_session_has_no_close() -> None:
    with pytest.raises(KeyError):
        session_closes("XNYS", to_sessions(["2012-10-29"]))


def test_a_filing_after_the_close_of_a_short_day_waits_for_the_next_session() -> None:
    sessions = to_sessions(["2012-11-21", "2012-11-23", "2012-11-26"])
    filing = pd.DataFrame({"available_at": [pd.Timestamp("2012-11-23 18:30")], "value": [1.0]})
    found = as_of_join(session_closes("XNYS", sessions), filing)
    assert found["value"].isna().tolist() == [True, True, False]


def test_a_filing_with_only_a_date_applies_from_that_dates_bar() -> None:
    sessions = to_sessions(["2012-07-23", "2012-07-24"])
    filing = pd.DataFrame({"available_at": [pd.Timestamp("2012-07-24")], "value": [1.0]})
    found = as_of_join(session_closes("XNYS", sessions), filing)
    assert found["value"].isna().tolist() == [True, False]


def test_every_column_of_a_fact_is_joined_whatever_its_type() -> None:
    facts = pd.DataFrame(
        {"available_at": moments([2, 6]), "value": [1.0, np.nan], "count": [3, 4], "filed": moments([2, 6])}
    )
    found = as_of_join(moments([1, 2, 7]), facts)
    assert found["value"].isna().tolist() == [True, False, True]
    assert found["count"].isna().tolist() == [True, False, False]
    assert found["count"].iloc[1:].tolist() == [3, 4]
    assert found["filed"].iloc[1:].tolist() == list(moments([2, 6]))
