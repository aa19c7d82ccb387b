"""What a figure of ours is, given what is known of each tag: by the first tag that states it, or from its parts."""

from collections.abc import Iterable, Mapping

from signals_core.market_data.providers import sec_tags as tags
from signals_core.market_data.providers.sec_share_basis import Version, in_shares

Table = Mapping[str, Mapping[int, Version]]
"""Versions by tag and end."""
Values = tuple[float | None, ...]


def flow_values(table: Table, end: int, basis: float | None) -> Values:
    """In the order of `FUNDAMENTAL_FLOWS`, in shares of `basis` or as filed."""
    income = _first(table, tags.OPERATING_INCOME, end)
    consumed = _first(table, tags.DEPRECIATION_AND_AMORTISATION, end)
    if consumed is None:
        depreciation = _first(table, tags.DEPRECIATION, end)
        amortisation = _first(table, tags.AMORTISATION, end)
        consumed = None if depreciation is None else depreciation + (amortisation or 0)
    return (
        _first(table, tags.REVENUE, end),
        _first(table, tags.NET_INCOME, end),
        None if income is None or consumed is None else income + consumed,
        _first(table, tags.DIVIDENDS, end, basis),
        _first(table, tags.EPS, end, basis),
    )


def balance_values(balances: Table, end: int) -> Values:
    """In the order of `FUNDAMENTAL_BALANCES`, but for the last, which is `shares_outstanding`."""
    return (
        _first(balances, tags.EQUITY, end),
        _debt(balances, end),
        _first(balances, tags.CASH, end),
        _first(balances, tags.CURRENT_ASSETS, end),
        _first(balances, tags.CURRENT_LIABILITIES, end),
    )


def shares_outstanding(
    cover: Mapping[int, Version], balances: Table, averages: Iterable[Table], end: int, basis: float | None
) -> float | None:
    """Of the filing's cover, else of the balance sheet, else the first average there is: a quarter's or a year's."""
    if end in cover:
        return in_shares(cover[end], tags.COVER_SHARES, basis)
    sources = ((balances, tags.SHARES), *((table, tags.AVERAGE_SHARES) for table in averages))
    counts = (_first(table, names, end, basis) for table, names in sources)
    return next((count for count in counts if count), None)


def _debt(balances: Table, end: int) -> float | None:
    """Long-term debt and short-term borrowings, each part once."""

    def at(names: Iterable[str]) -> float | None:
        return _first(balances, names, end)

    noncurrent, maturities, total = at(tags.NONCURRENT_DEBT), at(tags.CURRENT_MATURITIES), at(tags.LONG_TERM_DEBT)
    if noncurrent is None and total is None:
        noncurrent, total = at(tags.NONCURRENT_WITH_LEASES), at(tags.WITH_LEASES)
        with_leases = at(tags.CURRENT_MATURITIES_WITH_LEASES)
        maturities = maturities if with_leases is None else with_leases
    current, short_term = at(tags.CURRENT_DEBT), at(tags.SHORT_TERM_DEBT)
    if noncurrent is None and total is not None and maturities is not None:
        noncurrent = total - maturities
    if noncurrent is not None and current is not None:
        return noncurrent + current
    if noncurrent is not None and (maturities is not None or total is None):
        return noncurrent + (maturities or 0) + (short_term or 0)
    if total is not None:
        return total + (short_term or 0)
    return current if current is not None else _sum(maturities, short_term)


def _first(table: Table, names: Iterable[str], end: int, basis: float | None = None) -> float | None:
    for name in names:
        if name in table and end in table[name]:
            return in_shares(table[name][end], name, basis)
    return None


def _sum(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None
