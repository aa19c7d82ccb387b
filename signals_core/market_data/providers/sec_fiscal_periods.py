"""Which quarter or year of a filer ends when: fiscal periods by the spans of its income statements."""

from signals_core.market_data.providers.sec_filings import ANNUAL_FORMS, Fact, Filing
from signals_core.market_data.providers.sec_tags import PERIOD_TAGS

# Days. A quarter has 12 to 17 weeks: some years are cut into 12, 12, 12 and 16 or 17.
_QUARTER, _HALF, _NINE_MONTHS, _YEAR = (80, 119), (160, 215), (240, 300), (350, 380)
LONGEST_YEAR = _YEAR[1]
_DAYS_A_QUARTER = 365.25 / 4


def is_quarter(days: int) -> bool:
    """Whether a span is as long as a quarter."""
    return _within(days, _QUARTER)


def is_year(days: int, form: str) -> bool:
    """Whether a span is a fiscal year: in a 10-Q, a year is one up to that quarter, as utilities report it."""
    return _within(days, _YEAR) and form in ANNUAL_FORMS


class FiscalPeriods:
    """The ends of the quarters and years in the filings so far, as proleptic ordinals."""

    def __init__(self) -> None:
        self._longest: dict[int, int] = {}
        """End of each fiscal period to the longest duration seen, up to a year."""
        self._year_ends: set[int] = set()

    def learn(self, filing: Filing) -> None:
        """Take up the periods that a filing has income statements of."""
        for fact in filing.facts:
            if fact.tag in PERIOD_TAGS and fact.start is not None:
                self._learn(fact, fact.end - fact.start + 1, filing.form)

    def _learn(self, fact: Fact, days: int, form: str) -> None:
        whole_year = is_year(days, form)
        if whole_year:
            self._year_ends.add(fact.end)
        if whole_year or any(_within(days, span) for span in (_QUARTER, _HALF, _NINE_MONTHS)):
            self._longest[fact.end] = max(days, self._longest.get(fact.end, 0))

    def among(self, ends: set[int]) -> list[int]:
        """Those of `ends` that are ends of fiscal periods, in order."""
        return sorted(ends & self._longest.keys())

    def is_year_end(self, end: int) -> bool:
        """Whether a fiscal year ends then."""
        return end in self._year_ends

    def quarter(self, end: int) -> str:
        """Q1 … Q4: the quarter that ends then, counted from the nearest year end, or from the longest span."""
        if self._year_ends:
            year_end = min(self._year_ends, key=lambda candidate: (abs(candidate - end), candidate))
            before = round((year_end - end) / _DAYS_A_QUARTER) % 4
            return f"Q{4 - before}"
        return f"Q{min(max(round(self._longest[end] / _DAYS_A_QUARTER), 1), 4)}"

    def own_end(self, filing: Filing) -> int | None:
        """The end of the period a filing is about: the last it has flows of, else the last known when it was filed."""
        flows = {fact.end for fact in filing.facts if fact.tag in PERIOD_TAGS} & self._longest.keys()
        return max(flows or (end for end in self._longest if end <= filing.filed), default=None)


def _within(days: int, span: tuple[int, int]) -> bool:
    return span[0] <= days <= span[1]
