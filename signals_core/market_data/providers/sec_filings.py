"""Which facts each filing states: a companyfacts document taken apart, in order of availability."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pandas as pd

from signals_core.market_data.availability import close_of_date
from signals_core.market_data.providers.sec_tags import BALANCE_TAGS, COVER_SHARES, FLOW_TAGS

ANNUAL_FORMS = frozenset({"10-K", "10-K/A", "10-KT", "10-KT/A", "20-F", "20-F/A", "40-F", "40-F/A"})
FORMS = ANNUAL_FORMS | {"10-Q", "10-Q/A", "10-QT", "10-QT/A"}

_UNITS = ("USD", "USD/shares", "shares")


@dataclass(frozen=True)
class Fact:
    """The value of a tag in the span from `start` to `end`, or at `end` if there is no start."""

    tag: str
    start: int | None
    end: int
    """Dates are proleptic ordinals."""
    value: float


@dataclass
class Filing:
    """One document: its accession number, its form, the ordinal of its filing date, and the facts in it."""

    document: str
    form: str
    filed: int
    available_at: pd.Timestamp
    facts: list[Fact] = field(default_factory=list)


def filings_of(
    companyfacts: Mapping[str, Any], accepted: Mapping[str, pd.Timestamp], calendar: str, lag_sessions: int
) -> list[Filing]:
    """The filings of a companyfacts document in order of availability, with the facts of the known tags.

    Args:
        companyfacts: the parsed JSON.
        accepted: tz-naive UTC moment of acceptance by accession number; a filing that is not there counts
            as available at the close of the session of its filing date.
        calendar: of the exchange.
        lag_sessions: that many sessions later, for filings not in `accepted`.
    """
    found: dict[str, Filing] = {}
    for tag, fact in _facts(companyfacts):
        filing = found.get(fact["accn"])
        if filing is None:
            filed = date.fromisoformat(fact["filed"]).toordinal()
            filing = found[fact["accn"]] = Filing(fact["accn"], fact["form"], filed, pd.NaT)
        start = date.fromisoformat(fact["start"]).toordinal() if "start" in fact else None
        end = date.fromisoformat(fact["end"]).toordinal()
        # A period that has not ended when it is filed is a slip of the pen.
        if end <= filing.filed:
            filing.facts.append(Fact(tag, start, end, float(fact["val"])))
    dated = [filing for filing in found.values() if filing.document not in accepted]
    closes = close_of_date([date.fromordinal(filing.filed) for filing in dated], calendar, lag_sessions)
    for filing, close in zip(dated, closes, strict=True):
        filing.available_at = close
    for filing in found.values():
        if filing.document in accepted:
            filing.available_at = accepted[filing.document]
    return sorted(found.values(), key=lambda filing: (filing.available_at, filing.document))


def _facts(companyfacts: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    everything = companyfacts.get("facts", {})
    wanted = {"us-gaap": FLOW_TAGS | BALANCE_TAGS, "dei": {COVER_SHARES}}
    for taxonomy, tags in wanted.items():
        for tag, content in everything.get(taxonomy, {}).items():
            if tag not in tags:
                continue
            for unit in _UNITS:
                for fact in content["units"].get(unit, ()):
                    if fact["form"] in FORMS and fact["val"] is not None:
                        yield tag, fact
