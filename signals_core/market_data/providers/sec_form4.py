"""Transactions of insiders from SEC Form 4 documents."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import pandas as pd

from signals_core.calendar import DATE_UNIT
from signals_core.errors import ProviderError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

COLUMNS = (
    "available_at",
    "document",
    "line",
    "insider",
    "transaction_date",
    "code",
    "shares",
    "price",
    "shares_after",
)
_ISO_DATE_LENGTH = 10


@dataclass(frozen=True)
class Transaction:
    """One row of a form's table of shares; options and other derivatives have a table of their own."""

    line: int
    insider: str
    transaction_date: date
    code: str
    shares: float
    """Acquired positive, disposed of negative."""
    price: float | None
    """None where the form has none, or only a footnote."""
    shares_after: float | None

    @property
    def content(self) -> tuple[object, ...]:
        """What an amendment repeats: who, when, how, how many and at what price."""
        return self.insider, self.transaction_date, self.code, self.shares, self.price


@dataclass(frozen=True)
class Form4:
    """A form as accepted, of the issuer with this CIK."""

    accession: str
    available_at: pd.Timestamp
    is_amendment: bool
    issuer: int
    transactions: tuple[Transaction, ...]


def read_form4(content: bytes, accession: str, available_at: pd.Timestamp, is_amendment: bool = False) -> Form4:
    """Parse a form's XML.

    Raises:
        ProviderError: it is no well-formed ownershipDocument, has a DOCTYPE, or a figure cannot be read.
    """
    root = _parse(content, accession)
    if root.tag != "ownershipDocument":
        raise ProviderError(f"Form 4 {accession}: the document is a {root.tag}, not an ownershipDocument")
    insider = _text(root, "reportingOwner/reportingOwnerId/rptOwnerName")
    rows = root.findall("nonDerivativeTable/nonDerivativeTransaction")
    try:
        issuer = int(_text(root, "issuer/issuerCik"))
        transactions = tuple(_transaction(row, line, insider) for line, row in enumerate(rows))
    except ValueError as error:
        raise ProviderError(f"Form 4 {accession}: cannot be read: {error}") from error
    return Form4(accession, available_at, is_amendment, issuer, transactions)


def transactions_frame(forms: Iterable[Form4], since: pd.Timestamp | None = None) -> pd.DataFrame:
    """The transactions of all forms, without those that an amendment repeats from earlier forms.

    Args:
        forms: in order of availability.
        since: forms before it are compared with, but left out.

    Returns:
        One row a transaction: `COLUMNS`, available_at and transaction_date as datetime64[us].
    """
    # An amendment that lists three equal lots repeats three at most.
    reported: Counter[tuple[object, ...]] = Counter()
    rows = []
    for form in forms:
        repeatable = reported.copy() if form.is_amendment else Counter()
        for transaction in form.transactions:
            if repeatable[transaction.content] > 0:
                repeatable[transaction.content] -= 1
                continue
            reported[transaction.content] += 1
            if since is None or form.available_at >= since:
                rows.append(_row(form, transaction))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in ("available_at", "transaction_date"):
        frame[name] = pd.to_datetime(frame[name]).astype(f"datetime64[{DATE_UNIT}]")
    return frame.astype({"line": "int64", "shares": "float64", "price": "float64", "shares_after": "float64"})


def _row(form: Form4, transaction: Transaction) -> tuple[object, ...]:
    return (
        form.available_at,
        form.accession,
        transaction.line,
        transaction.insider,
        transaction.transaction_date,
        transaction.code,
        transaction.shares,
        transaction.price,
        transaction.shares_after,
    )


def _parse(content: bytes, accession: str) -> "Element":
    from xml.etree.ElementTree import ParseError, TreeBuilder, XMLParser

    class WithoutDoctype(TreeBuilder):
        def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
            # Called before any entity it declares could be expanded.
            raise ProviderError(f"Form 4 {accession}: the document has a DOCTYPE, which no form has; not read")

    parser = XMLParser(target=WithoutDoctype())
    try:
        parser.feed(content)
        return parser.close()
    except (ParseError, LookupError, ValueError) as error:  # the latter two: an encoding it does not know
        raise ProviderError(f"Form 4 {accession}: malformed XML: {error}") from error


def _transaction(row: "Element", line: int, insider: str) -> Transaction:
    shares = _number(row, "transactionAmounts/transactionShares/value")
    direction = _text(row, "transactionAmounts/transactionAcquiredDisposedCode/value")
    if shares is None or direction not in ("A", "D"):
        raise ValueError(f"transaction {line} lacks its number of shares, or whether they were acquired")
    return Transaction(
        line=line,
        insider=insider,
        # Some have a time zone after the date.
        transaction_date=date.fromisoformat(_text(row, "transactionDate/value")[:_ISO_DATE_LENGTH]),
        code=_text(row, "transactionCoding/transactionCode"),
        shares=shares if direction == "A" else -shares,
        price=_number(row, "transactionAmounts/transactionPricePerShare/value"),
        shares_after=_number(row, "postTransactionAmounts/sharesOwnedFollowingTransaction/value"),
    )


def _text(element: "Element", path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(row: "Element", path: str) -> float | None:
    text = _text(row, path)
    if not text:
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{path} is {text}")
    return value
