"""Fundamentals and insider transactions from the SEC's EDGAR, each from the moment it was accepted."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from signals_core.calendar import DATE_UNIT
from signals_core.errors import ProviderError, SettingsError
from signals_core.http import HttpClient
from signals_core.market_data.availability import close_of_date
from signals_core.market_data.providers.sec_companyfacts import quarterly_fundamentals
from signals_core.market_data.providers.sec_form4 import Form4, read_form4, transactions_frame
from signals_core.market_data.providers.sec_submissions import Submission, acceptance_moments, read_page
from signals_core.progress import task

# The SEC allows ten.
_REQUESTS_PER_SECOND = 9
_INSIDER_FORMS = ("4", "4/A")


class SecEdgarProvider:
    """Asks data.sec.gov and the archives at www.sec.gov, at most nine times a second.

    Args:
        root: the project's folder.
        contact: your name and e-mail address; the SEC wants them in the User-Agent.
        base_url: of companyfacts and submissions.
        archives_url: of the list of tickers and of the forms.
        ciks: the SEC's number of a filer by symbol, where its list has none or another; a former ticker, say.
        calendar: of the exchange.
        date_only_lag_sessions: for a filing of which only the date is known, that many sessions after it.

    Raises:
        SettingsError: there is no contact, or a CIK is no number.
    """

    name = "sec_edgar"
    resumable = True

    def __init__(
        self, root: Path, contact: str = "", base_url: str = "https://data.sec.gov",
        archives_url: str = "https://www.sec.gov", ciks: Mapping[str, int] | None = None, calendar: str = "XNYS",
        date_only_lag_sessions: int = 0,
    ) -> None:  # fmt: skip
        if "@" not in contact or not contact.isprintable():
            raise SettingsError(
                "market_data.<dataset>.options.contact: SEC wants a name and an e-mail address in the User-Agent, "
                'such as "Jane Doe jane@example.org"'
            )
        self._base, self._archives = base_url.rstrip("/"), archives_url.rstrip("/")
        try:
            self._ciks = {_sec_ticker(symbol): int(cik) for symbol, cik in (ciks or {}).items()}
        except ValueError as error:
            raise SettingsError(f"market_data.<dataset>.options.ciks: {error}; a CIK is a number") from error
        self._listed: dict[str, int] | None = None
        self._calendar, self._lag_sessions = calendar, date_only_lag_sessions
        self._http = HttpClient(contact, _REQUESTS_PER_SECOND, root / "data" / "http" / "sec_edgar.pace")

    def fetch_fundamentals(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        """Every version of every quarter and year, see `quarterly_fundamentals`; None if there is no such filer."""
        cik = self._cik(symbol)
        if cik is None:
            return None
        address = f"{self._base}/api/xbrl/companyfacts/CIK{cik:010d}.json"
        document = self._http.get_json(address)
        if document is None:
            return None
        accepted = acceptance_moments(self._submissions(cik))
        try:
            frame = quarterly_fundamentals(document, accepted, self._calendar, self._lag_sessions)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ProviderError(f"{address} is not in the format of SEC companyfacts: {error!r}") from error
        return frame if since is None else frame[frame["available_at"] >= _naive_utc(since)].reset_index(drop=True)

    def fetch_insider_transactions(self, symbol: str, since: datetime | None = None) -> pd.DataFrame | None:
        """The transactions in shares on Forms 4 and 4/A of this issuer; None if there is no such filer.

        A form on paper or from before 2003 has no XML and is left out. So is a transaction that an
        amendment merely repeats; one that it corrects is a row beside the first.
        """
        cik = self._cik(symbol)
        if cik is None:
            return None
        start = None if since is None else _naive_utc(since)
        wanted = _with_amended(self._forms(cik), start)
        forms = []
        with task(f"forms 4 of {symbol}", len(wanted)) as done:
            for filing, moment in wanted:
                forms.append(self._form(cik, filing, moment))
                done(filing.accession)
        # An issuer's list has the forms it filed as an owner of others' shares too.
        own = [form for form in forms if form.issuer == cik]
        return transactions_frame(own, start)

    def _cik(self, symbol: str) -> int | None:
        ticker = _sec_ticker(symbol)
        if ticker in self._ciks:
            return self._ciks[ticker]
        if self._listed is None:
            self._listed = self._tickers()
        return self._listed.get(ticker)

    def _tickers(self) -> dict[str, int]:
        address = f"{self._archives}/files/company_tickers.json"
        rows = self._http.get_json(address)
        try:
            return {row["ticker"]: int(row["cik_str"]) for row in rows.values()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ProviderError(f"{address} is not in the format of the SEC's tickers: {error!r}") from error

    def _submissions(self, cik: int) -> list[Submission]:
        """Every filing of a filer, newest first, as the pages have them; none if it has no list."""
        return [filing for page, where in self._pages(cik) for filing in read_page(page, where)]

    def _pages(self, cik: int) -> Iterator[tuple[Mapping[str, Any], str]]:
        where = f"{self._base}/submissions/CIK{cik:010d}.json"
        content = self._http.get_json(where)
        if content is None:
            return
        try:
            recent, names = content["filings"]["recent"], [older["name"] for older in content["filings"]["files"]]
        except (KeyError, TypeError) as error:
            raise ProviderError(f"{where} is not in the format of SEC submissions: {error!r}") from error
        yield recent, where
        for name in names:
            where = f"{self._base}/submissions/{name}"
            page = self._http.get_json(where)
            if page is None:
                raise ProviderError(f"{where} is named by the filer's submissions but not there; try again later")
            yield page, where

    def _forms(self, cik: int) -> list[tuple[Submission, pd.Timestamp]]:
        """Forms 4 in XML with the moment each could be read, in order."""
        submissions = self._submissions(cik)
        accepted = acceptance_moments(submissions)
        forms = {
            filing.accession: filing
            for filing in submissions
            if filing.form in _INSIDER_FORMS and filing.primary_document.lower().endswith(".xml")
        }
        dated = [filing for filing in forms.values() if filing.accession not in accepted]
        closes = close_of_date([filing.filing_date for filing in dated], self._calendar, self._lag_sessions)
        moments = {**accepted, **{filing.accession: close for filing, close in zip(dated, closes, strict=True)}}
        found = [(filing, moments[filing.accession]) for filing in forms.values()]
        return sorted(found, key=lambda item: (item[1], item[0].accession))

    def _form(self, cik: int, filing: Submission, moment: pd.Timestamp) -> Form4:
        # The list names the page rendered by a style sheet, xslF345X05/form4.xml; the form itself is beside.
        name = filing.primary_document.rpartition("/")[2]
        address = f"{self._archives}/Archives/edgar/data/{cik}/{filing.accession.replace('-', '')}/{name}"
        content = self._http.get(address)
        if content is None:
            raise ProviderError(f"Form 4 {filing.accession}: there is no {address}; try again later")
        return read_form4(content, filing.accession, moment, filing.form == "4/A")


def _with_amended(
    forms: Sequence[tuple[Submission, pd.Timestamp]], since: pd.Timestamp | None
) -> list[tuple[Submission, pd.Timestamp]]:
    """Forms from `since` on, and the earlier ones that their amendments may repeat: of the same report date."""
    if since is None:
        return list(forms)
    amended = {filing.report_date for filing, moment in forms if moment >= since and filing.form == "4/A"}
    return [(filing, moment) for filing, moment in forms if moment >= since or filing.report_date in amended]


def _sec_ticker(symbol: str) -> str:
    """BRK.B as the SEC writes it, BRK-B."""
    return symbol.upper().replace(".", "-")


def _naive_utc(moment: datetime) -> pd.Timestamp:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return pd.Timestamp(aware).tz_convert("UTC").tz_localize(None).as_unit(DATE_UNIT)
