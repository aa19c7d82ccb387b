"""The sectors file, what is typical of a sector on a day, and the instruments that stand for it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals_core.errors import SettingsError
from signals_core.features.sectors import SECTORS, chain_link, read_sectors, sector_medians, sector_of
from signals_core.market_data.store import MarketStore
from signals_core.settings_loading import load_settings
from signals_core.workspace import Workspace
from tests.core.whole_market import CLASSIFICATION, MOVED, SESSIONS, bars_of, provider_of, sectors


def write(folder: Path, text: str) -> Path:
    path = folder / "sectors.csv"
    path.write_text(text)
    return path


def dates(*days: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(days, dtype="datetime64[us]", name="date")


# -- the file ----------------------------------------------------------------------------------------------


def test_names_are_read_in_any_case_and_a_symbol_may_move(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "symbol,sector,start\nMETA,Communication Services,2018-09-24\nMETA, information-technology ,\n"
        "XOM,ENERGY,\n\nT,Real  Estate,2020-01-02\n",
    )
    found = read_sectors(path)
    assert sorted(found) == ["META", "T", "XOM"]
    days = dates("1995-01-03", "2018-09-21", "2018-09-24", "2024-01-02")
    assert [SECTORS[n] for n in sector_of(found["META"], days)] == [
        "information_technology", "information_technology", "communication_services", "communication_services",
    ]  # fmt: skip
    assert sector_of(found["T"], dates("2020-01-01", "2020-01-02")).tolist() == [-1, SECTORS.index("real_estate")]
    assert found["XOM"].index.dtype == "datetime64[us]"


def test_a_file_without_dates_holds_for_ever(tmp_path: Path) -> None:
    found = read_sectors(write(tmp_path, "sector,symbol\nEnergy,XOM\n"))
    assert sector_of(found["XOM"], dates("1990-01-02")).tolist() == [SECTORS.index("energy")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("symbol,kind\nXOM,Energy\n", "sectors.csv has no column sector; it is a CSV of symbol, sector, start"),
        ("XOM,Energy\n", "sectors.csv has no column symbol, sector; it is a CSV of symbol, sector, start"),
        ("", "sectors.csv is empty or no CSV"),
        ("symbol,sector\nXOM,Energy,1,2\nCVX,Energy,3,4,5\n", "sectors.csv is empty or no CSV"),
        (
            "symbol,sector\nXOM,Energy\nIBM,Tech\n",
            "sectors.csv row 3: 'Tech' is no GICS sector: communication_services",
        ),
        ("symbol,sector\nXOM,Energy\n\n\nIBM,Tech\n", "sectors.csv row 5: 'Tech' is no GICS sector"),
        ("symbol,sector\nXOM,\n", "sectors.csv row 2: '' is no GICS sector"),
        ("symbol,sector\n ,Energy\n", "sectors.csv row 2: it names no symbol"),
        ("symbol,sector,start\nXOM,Energy,2020-13-01\n", "sectors.csv row 2: '2020-13-01' is no date YYYY-MM-DD"),
        ("symbol,sector,start\nXOM,Energy,\nA,Energy,03/04/2020\n", "sectors.csv row 3: '03/04/2020' is no date"),
        ("symbol,sector,start\nXOM,Energy,2020-01-02 10:00\n", "row 2: '2020-01-02 10:00' is no date YYYY-MM-DD"),
        ("symbol,sector\nXOM,Energy\nA,Energy\nXOM,Utilities\n", "row 4: XOM stands twice.* start"),
        ("symbol,sector,start\nXOM,Energy,2020-01-02\nXOM,Utilities,2020-01-02\n", "row 3: XOM stands twice.* start"),
    ],
)
def test_what_is_wrong_names_its_row_and_what_to_do(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match="universe.sectors: .*" + problem):
        read_sectors(write(tmp_path, text))


def test_a_file_that_is_not_there_is_an_error_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"sectors\.csv does not exist; it is a CSV of symbol, sector, start"):
        read_sectors(tmp_path / "sectors.csv")


# -- medians -----------------------------------------------------------------------------------------------

VALUE = st.one_of(st.just(np.nan), st.floats(-50, 50))
OF_ONE = st.tuples(st.lists(VALUE, min_size=6, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6),
                   st.integers(0, 5))  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(symbols=st.lists(OF_ONE, min_size=1, max_size=7))
def test_a_median_counts_the_members_with_a_value_and_at_least_three(
    symbols: list[tuple[list[float], list[bool], int]],
) -> None:
    index = SESSIONS[:6]
    values = {
        f"S{n}": pd.DataFrame({"x": own[listed:]}, index=index[listed:]) for n, (own, _, listed) in enumerate(symbols)
    }
    members = {f"S{n}": np.array(member[listed:]) for n, (_, member, listed) in enumerate(symbols)}
    found = sector_medians(values, members, ["x"])["x"]
    for row, day in enumerate(index):
        counted = [
            own[row] for own, member, listed in symbols if row >= listed and member[row] and not np.isnan(own[row])
        ]
        if day in found.index:
            expected = np.median(counted) if len(counted) >= 3 else np.nan
            np.testing.assert_allclose(found[day], expected, rtol=1e-15)
        else:
            assert all(row < listed for _, _, listed in symbols)


def test_a_symbol_is_compared_with_the_sector_it_was_in_that_day(market: MarketStore) -> None:
    """AA was alone in its first sector, so there was nothing to compare with; then it moved to the others'."""
    medians = provider_of(market).inputs("AA").sector_fundamentals
    assert medians is not None
    assert medians.loc[: MOVED - pd.Timedelta(1, "D")].isna().all(axis=None)
    assert medians.loc[MOVED:, "pb_ratio"].notna().sum() > 200
    others = provider_of(market).inputs("BB").sector_fundamentals
    assert others is not None
    pd.testing.assert_frame_equal(medians.loc[MOVED:], others.loc[MOVED:])


def test_without_a_row_or_in_a_sector_of_two_there_is_no_median(market: MarketStore) -> None:
    provider = provider_of(market, classification={k: CLASSIFICATION[k] for k in ("BB", "DD")})
    assert provider.inputs("CC").sector_fundamentals is None
    assert provider.inputs("CC").sectors is None
    found = provider.inputs("BB").sector_fundamentals
    assert found is not None
    assert found.isna().all(axis=None)


# -- instruments -------------------------------------------------------------------------------------------


def gross(bars: pd.DataFrame | None) -> pd.Series:
    assert bars is not None
    return (bars["close"] / bars["close"].shift(1)).iloc[1:]


def test_instruments_are_linked_by_their_returns() -> None:
    xlk, xle = bars_of("XLK"), bars_of("XLE")
    found = chain_link([(pd.Timestamp("1900-01-01"), xlk), (MOVED, xle)])
    assert found is not None
    assert found["close"].iloc[0] == xlk["close"].iloc[0]
    expected = gross(xlk).where(gross(xlk).index < MOVED, gross(xle))
    np.testing.assert_allclose(gross(found), expected, rtol=1e-12)


def test_a_link_that_begins_to_trade_later_goes_on_at_the_level() -> None:
    xlk, xle = bars_of("XLK"), bars_of("XLE")
    listed = SESSIONS[300]
    found = chain_link([(pd.Timestamp("1900-01-01"), xlk), (MOVED, xle.loc[listed:])])
    assert found is not None
    before = found.loc[: MOVED - pd.Timedelta(1, "D"), "close"]
    np.testing.assert_allclose(before, xlk["close"].loc[before.index], rtol=1e-12)
    first = max(listed, MOVED)
    np.testing.assert_allclose(gross(found).loc[first + pd.Timedelta(1, "D") :],
                               gross(xle).loc[first + pd.Timedelta(1, "D") :], rtol=1e-12)  # fmt: skip


def test_one_instrument_is_itself_and_none_is_none() -> None:
    xle = bars_of("XLE")
    assert chain_link([(pd.Timestamp("1900-01-01"), xle)]) is xle
    assert chain_link([(pd.Timestamp("1900-01-01"), None), (MOVED, None)]) is None
    outside = chain_link([(pd.Timestamp("1900-01-01"), None), (MOVED, xle)])
    assert outside is not None
    assert outside.index[0] == MOVED


def test_each_symbol_has_the_instrument_of_its_sector_in_its_time(market: MarketStore) -> None:
    classified = {
        **CLASSIFICATION,
        "CC": sectors(("1900-01-01", "utilities")),
        "DD": sectors((str(MOVED.date()), "energy")),
    }
    provider = provider_of(market, classification=classified)
    xlk, xle = bars_of("XLK"), bars_of("XLE")
    pd.testing.assert_series_equal(provider.inputs("BB").sector_bars["close"], xle["close"])  # type: ignore[index]
    assert provider.inputs("CC").sector_bars is None  # utilities have no instrument here
    switching = gross(xlk).where(gross(xlk).index < MOVED, gross(xle))
    for symbol in ("AA", "DD"):  # moved there; first classified then, until which the general one stands
        np.testing.assert_allclose(gross(provider.inputs(symbol).sector_bars), switching, rtol=1e-12)
    without = provider_of(market, classification={}).inputs("BB").sector_bars
    pd.testing.assert_series_equal(without["close"], xlk["close"])  # type: ignore[index]


@pytest.mark.parametrize("named", [True, False])
def test_instruments_of_sectors_are_fetched_if_there_are_sectors(project: Path, named: bool) -> None:
    universe = project / "config" / "universe.yaml"
    write(project / "config", "symbol,sector\nAAA,Energy\n")
    text = universe.read_text().replace("vix: ^VIX}", "vix: ^VIX, sectors: {energy: XLE, utilities: XLK}}")
    universe.write_text(text + ("  sectors: config/sectors.csv\n" if named else ""))
    with Workspace(load_settings(project)) as workspace:
        expected = ("SPY", "XLK", "^VIX", "XLE") if named else ("SPY", "XLK", "^VIX")
        assert tuple(workspace.reference_symbols()) == expected
        assert workspace.all_symbols() == ["AAA", "BBB", *expected]
        assert set(workspace.classification) == ({"AAA"} if named else set())
