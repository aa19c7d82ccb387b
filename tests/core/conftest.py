"""The whole market, saved once for all tests that only read it."""

from collections.abc import Iterator

import pytest

from signals_core.market_data.store import MarketStore
from tests.core.whole_market import opened


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MarketStore]:
    store = opened(tmp_path_factory.mktemp("whole_market"))
    yield store
    store.close()
