"""What flowed in a quarter or a year: stated, or the difference of two longer spans.

Flows of a quarter are taken from a fact of about three months, else they are the difference of two facts
with the same start, as nine months from a whole year. A difference is taken once, when the longer fact is
first filed, within one reporting cycle: a restated year less nine months as first filed is no quarter. It
is of one tag; or of two, if the filer changed tags within the year and both last meant the same figure.
"""

from collections import defaultdict

from signals_core.market_data.providers.sec_filings import Fact, Filing
from signals_core.market_data.providers.sec_fiscal_periods import LONGEST_YEAR, is_quarter, is_year
from signals_core.market_data.providers.sec_share_basis import DECIMALS, Version, in_shares
from signals_core.market_data.providers.sec_tags import AVERAGE_SHARES, FLOW_TAGS, PER_SHARE, RENAMED

_CYCLE_DAYS = 200


class Flows:
    """The latest version of each flow in the filings so far, by tag."""

    def __init__(self) -> None:
        self.quarters: dict[str, dict[int, Version]] = defaultdict(dict)
        """By tag and end."""
        self.years: dict[str, dict[int, Version]] = defaultdict(dict)
        """By tag and end."""
        self._spans: dict[str, dict[tuple[int, int], Version]] = defaultdict(dict)
        self._stated_quarters: set[tuple[str, int]] = set()

    def latest(self, fact: Fact) -> Version | None:
        """What was last filed for a fact's tag and span."""
        return None if fact.start is None else self._spans[fact.tag].get((fact.start, fact.end))

    def learn(self, filing: Filing, basis: float) -> None:
        """Take up a filing's flows, which are in shares of `basis`."""
        first_filed = []
        for fact in filing.facts:
            if fact.tag not in FLOW_TAGS or fact.start is None:
                continue
            if (fact.start, fact.end) not in self._spans[fact.tag]:
                first_filed.append((fact, fact.start))
            self._take(fact, fact.start, filing, basis)
        for fact, start in first_filed:
            self._take_difference(fact, start, filing, basis)

    def _take(self, fact: Fact, start: int, filing: Filing, basis: float) -> None:
        version = Version(fact.value, filing.filed, basis)
        days = fact.end - start + 1
        self._spans[fact.tag][start, fact.end] = version
        if is_quarter(days):
            self.quarters[fact.tag][fact.end] = version
            self._stated_quarters.add((fact.tag, fact.end))
        if is_year(days, filing.form):
            self.years[fact.tag][fact.end] = version

    def _take_difference(self, fact: Fact, start: int, filing: Filing, basis: float) -> None:
        """The last quarter of a span first filed now, less the span to the quarter before."""
        if (fact.tag, fact.end) in self._stated_quarters or fact.tag in AVERAGE_SHARES:
            return
        if fact.end - start + 1 > LONGEST_YEAR:
            return
        before = self._span_before(fact.tag, start, fact.end, filing)
        if before is None:
            before = self._renamed_span_before(fact.tag, start, fact.end, filing)
        if before is not None:
            value = fact.value - in_shares(before, fact.tag, basis)
            value = round(value, DECIMALS) if fact.tag in PER_SHARE else value
            self.quarters[fact.tag][fact.end] = Version(value, filing.filed, basis)

    def _span_before(self, tag: str, start: int, end: int, filing: Filing) -> Version | None:
        """What `tag` was from `start` to the quarter before `end`, filed in the same cycle."""
        shorter = [
            (candidate, version)
            for (begin, candidate), version in self._spans[tag].items()
            if begin == start and is_quarter(end - candidate) and filing.filed - version.filed <= _CYCLE_DAYS
        ]
        return max(shorter, key=lambda found: found[0])[1] if shorter else None

    def _renamed_span_before(self, tag: str, start: int, end: int, filing: Filing) -> Version | None:
        for tags in RENAMED:
            if tag in tags and not any(end in self.quarters[other] for other in tags):
                for other in tags:
                    before = self._span_before(other, start, end, filing)
                    if before is not None and self._mean_the_same(tag, other):
                        return before
        return None

    def _mean_the_same(self, tag: str, other: str) -> bool:
        """Whether two tags have the same value in the last span that both are known of."""
        common = self._spans[tag].keys() & self._spans[other].keys()
        if not common:
            return False
        last = max(common, key=lambda span: (span[1], -span[0]))
        return self._spans[tag][last].value == self._spans[other][last].value
