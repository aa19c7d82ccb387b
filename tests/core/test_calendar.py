"""The New York Stock Exchange's sessions, against dates anyone can look up."""

from datetime import UTC, date, datetime, timedelta, timezone

import pandas as pd
import pytest

from signals_core.calendar import is_month_end, last_closed_session, sessions_between, to_sessions


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (date(2001, 9, 10), date(2001, 9, 18), ["2001-09-10", "2001-09-17"]),
        (date(2012, 10, 26), date(2012, 11, 1), ["2012-10-26", "2012-10-31"]),
        (date(2007, 1, 1), date(2007, 1, 4), ["2007-01-03"]),
        (date(2013, 3, 29), date(2013, 4, 1), []),
    ],
    ids=["11 September", "hurricane Sandy", "President Ford's mourning", "Good Friday; the end is excluded"],
)
def test_days_on_which_the_exchange_was_closed_are_no_sessions(start: date, end: date, expected: list[str]) -> None:
    assert list(sessions_between("XNYS", start, end).strftime("%Y-%m-%d")) == expected


def test_a_year_has_its_known_number_of_sessions() -> None:
    assert len(sessions_between("XNYS", date(2012, 1, 1), date(2013, 1, 1))) == 250
    assert len(sessions_between("XNYS", date(2020, 1, 1), date(2021, 1, 1))) == 253


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2012, 7, 24, 20, 0, tzinfo=UTC), date(2012, 7, 24)),
        (datetime(2012, 7, 24, 19, 59, 59, tzinfo=UTC), date(2012, 7, 23)),
        (datetime(2012, 1, 24, 20, 59, tzinfo=UTC), date(2012, 1, 23)),
        (datetime(2012, 1, 24, 16, 0, tzinfo=timezone(timedelta(hours=-5))), date(2012, 1, 24)),
        (datetime(2012, 11, 23, 18, 0, tzinfo=UTC), date(2012, 11, 23)),
        (datetime(2013, 3, 31, 12, 0, tzinfo=UTC), date(2013, 3, 28)),
    ],
    ids=["at the close", "a second before", "winter time", "another offset", "closes at 13:00", "Easter Sunday"],
)
def test_a_session_counts_from_its_close(moment: datetime, expected: date) -> None:
    assert last_closed_session("XNYS", moment) == expected


def test_a_moment_without_time_zone_is_refused() -> None:
    with pytest.raises(TypeError):
        last_closed_session("XNYS", datetime(2012, 7, 24, 20))


def test_month_ends_follow_the_exchange_and_not_the_calendar() -> None:
    sessions = sessions_between("XNYS", date(2013, 1, 1), date(2014, 1, 1))
    ends = sessions[is_month_end("XNYS", sessions)]
    assert list(ends.strftime("%m-%d")) == [
        "01-31", "02-28", "03-28", "04-30", "05-31", "06-28", "07-31", "08-30", "09-30", "10-31", "11-29", "12-31",
    ]  # fmt: skip


def test_a_month_without_its_last_bar_yet_has_no_month_end() -> None:
    sessions = sessions_between("XNYS", date(2013, 3, 1), date(2013, 3, 28))
    assert not is_month_end("XNYS", sessions).any()


def test_dates_of_any_kind_become_midnights_of_one_unit() -> None:
    expected = pd.DatetimeIndex(["2012-07-24"]).as_unit("us")
    for given in (["2012-07-24"], [date(2012, 7, 24)], [pd.Timestamp("2012-07-24 16:00")]):
        found = to_sessions(given)
        assert found.dtype == "datetime64[us]"
        assert found.equals(expected)


def test_dates_with_a_time_zone_are_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        to_sessions(pd.DatetimeIndex(["2012-07-24"], tz="UTC"))
