"""A filer's list of filings at the SEC, and the moment each was accepted.

`acceptanceDateTime` always ends in Z, but of some filers it is New York's clock. The convention is the
filer's, not the filing's: it is decided from all filings, by what EDGAR's hours make impossible.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

import numpy as np
import pandas as pd

from signals_core.calendar import DATE_UNIT
from signals_core.errors import ProviderError

_NEW_YORK = "America/New_York"
# EDGAR takes filings from 06:00 to 22:00 of New York; the last may be stamped some minutes later.
_OPENS, _CLOSES = time(6), time(22, 5)
_NEXT_DAY_AFTER = time(17, 30)
"""A filing accepted later has the next business day's date, of the forms below. A minute is left either side."""
_NEXT_DAY_FORMS = frozenset({"10-K", "10-K/A", "10-Q", "10-Q/A", "8-K", "8-K/A", "20-F", "40-F", "6-K", "DEF 14A"})
_WRITTEN_BY_THE_SEC = frozenset(
    {"UPLOAD", "CORRESP", "LETTER", "EFFECT", "NO ACT", "REVOKED", "CERT", "SEC STAFF LETTER"}
)
_MUCH_RARER = 5
_COLUMNS = ("accessionNumber", "filingDate", "acceptanceDateTime", "form", "primaryDocument", "reportDate")


@dataclass(frozen=True)
class Submission:
    """One filing in the list."""

    accession: str
    form: str
    filing_date: date
    report_date: str
    primary_document: str
    stamp: datetime | None
    """The acceptance as written, without its Z."""


def read_page(page: Mapping[str, Any], where: str) -> list[Submission]:
    """The filings of `filings.recent`, or of one of the older pages.

    Raises:
        ProviderError: a column is missing, or a date cannot be read.
    """
    try:
        columns = [page[name] for name in _COLUMNS]
        return [
            Submission(accession, form, date.fromisoformat(filed), report_date or "", document or "", _stamp(accepted))
            for accession, filed, accepted, form, document, report_date in zip(*columns, strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ProviderError(f"{where} is not in the format of SEC submissions: {error!r}") from error


def _stamp(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.removesuffix("Z")) if text else None


def acceptance_moments(submissions: Iterable[Submission]) -> dict[str, pd.Timestamp]:
    """The tz-naive UTC moment at which each filing of one filer was accepted, by accession number.

    Stamps are UTC if New York's clock is contradicted and UTC is not, or far less often. Otherwise they are
    taken as New York's clock, which is later: a filing is never known before it was.
    """
    stamped = [filing for filing in submissions if filing.stamp is not None]
    stamps = pd.DatetimeIndex([filing.stamp for filing in stamped]).as_unit(DATE_UNIT)
    if stamps.empty:
        return {}
    as_utc = stamps.tz_localize("UTC")
    # In the hour that occurs twice, the second; it is a Sunday's, when nothing is filed.
    as_new_york = stamps.tz_localize(_NEW_YORK, ambiguous=np.zeros(len(stamps), bool), nonexistent="shift_forward")
    against_utc = _impossible(stamped, as_utc.tz_convert(_NEW_YORK))
    against_new_york = _impossible(stamped, as_new_york)
    is_utc = against_new_york > _MUCH_RARER * against_utc
    moments = (as_utc if is_utc else as_new_york).tz_convert("UTC").tz_localize(None)
    return {filing.accession: moment for filing, moment in zip(stamped, moments, strict=True)}


def _impossible(filings: list[Submission], local: pd.DatetimeIndex) -> int:
    """How many filings could not have been accepted at these times of New York."""
    return sum(_contradicts(filing, moment) for filing, moment in zip(filings, local, strict=True))


def _contradicts(filing: Submission, accepted: pd.Timestamp) -> bool:
    if filing.form in _WRITTEN_BY_THE_SEC:
        return False
    clock = accepted.time()
    if not _OPENS <= clock <= _CLOSES or accepted.weekday() >= 5 or filing.filing_date < accepted.date():
        return True
    if filing.form not in _NEXT_DAY_FORMS:
        return False
    minutes_late = (clock.hour - _NEXT_DAY_AFTER.hour) * 60 + clock.minute - _NEXT_DAY_AFTER.minute
    same_day = filing.filing_date == accepted.date()
    return (minutes_late > 1 and same_day) or (minutes_late < -1 and not same_day)
