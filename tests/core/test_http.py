"""The HTTP client against a server on this machine; time is a clock that the test moves."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from signals_core.errors import ProviderError
from signals_core.http import HttpClient
from tests.core.fake_time import START, FakeTime
from tests.core.loopback import Loopback, Reply, json_reply, serving


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving() as loopback:
        yield loopback


@pytest.fixture
def fake() -> FakeTime:
    return FakeTime()


def client(fake: FakeTime, requests_per_second: float = 1e6, **options: Any) -> HttpClient:
    return HttpClient("Tester t@example.org", requests_per_second, sleep=fake.sleep, clock=fake.clock, **options)


def waits(fake: FakeTime) -> list[float]:
    """Without the pauses of the pace, which are microseconds here."""
    return [seconds for seconds in fake.slept if seconds > 1e-3]


def test_a_page_is_got_with_its_query_and_the_user_agent(server: Loopback, fake: FakeTime) -> None:
    server.script("/a", json_reply({"x": [1, 2]}))
    assert client(fake).get_json(f"{server.url}/a", {"page": 3, "name": "B R"}) == {"x": [1, 2]}
    assert client(fake).get(f"{server.url}/a") == b'{"x": [1, 2]}'
    assert server.asked[0].query == {"page": ["3"], "name": ["B R"]}
    assert {request.headers["user-agent"] for request in server.asked} == {"Tester t@example.org"}
    assert waits(fake) == []


def test_a_user_agent_need_not_be_latin(server: Loopback, fake: FakeTime) -> None:
    server.script("/a", Reply(body=b"1"))
    assert HttpClient("Łukasz l@example.org", 100).get(f"{server.url}/a") == b"1"


def test_a_body_is_posted_and_the_headers_come_back(server: Loopback, fake: FakeTime) -> None:
    server.script("/q", json_reply([{"a": 1}], headers={"Record-Total": "7"}), Reply(204))
    rows, headers = client(fake).post_json(f"{server.url}/q", {"limit": 1})
    assert (rows, headers["record-total"]) == ([{"a": 1}], "7")
    assert (server.asked[0].method, server.asked[0].body) == ("POST", b'{"limit": 1}')
    assert server.asked[0].headers["content-type"] == "application/json"
    assert client(fake).post_json(f"{server.url}/q", {})[0] is None


def test_gzip_is_unpacked(server: Loopback, fake: FakeTime) -> None:
    server.script("/a", Reply(body=b"plain " * 1000, gzipped=True))
    assert client(fake).get(f"{server.url}/a") == b"plain " * 1000


def test_retry_after_in_seconds_is_obeyed_up_to_the_longest_wait(server: Loopback, fake: FakeTime) -> None:
    refused = [Reply(429, headers={"Retry-After": seconds}) for seconds in ("7", "86400", "-3", "0")]
    server.script("/a", *refused, Reply(body=b"ok"))
    assert client(fake).get(f"{server.url}/a") == b"ok"
    assert waits(fake) == [7.0, 60.0]


def test_retry_after_as_a_date_is_obeyed(server: Loopback, fake: FakeTime) -> None:
    moment = format_datetime(datetime.fromtimestamp(START + 12, UTC), usegmt=True)
    server.script("/a", Reply(503, headers={"Retry-After": moment}), Reply(body=b"ok"))
    assert client(fake).get(f"{server.url}/a") == b"ok"
    assert waits(fake) == [pytest.approx(12, abs=0.01)]


@pytest.mark.parametrize("header", ["soon", "nan", "inf", ""])
def test_a_retry_after_that_says_nothing_is_ignored(server: Loopback, fake: FakeTime, header: str) -> None:
    server.script("/a", Reply(429, headers={"Retry-After": header}), Reply(body=b"ok"))
    assert client(fake).get(f"{server.url}/a") == b"ok"
    assert 1 <= waits(fake)[0] <= 2


def test_waits_double_until_the_source_recovers(server: Loopback, fake: FakeTime) -> None:
    server.script("/a", Reply(503), Reply(500), Reply(502), Reply(body=b"ok"))
    assert client(fake).get(f"{server.url}/a") == b"ok"
    first, second, third = waits(fake)
    assert 1 <= first <= 2 <= second <= 3
    assert 4 <= third <= 5


def test_a_source_that_stays_down_is_an_error_after_the_last_attempt(server: Loopback, fake: FakeTime) -> None:
    server.script("/a", Reply(503))
    with pytest.raises(ProviderError, match=r"^GET .*/a: status 503, 3 attempts; .*try again later") as caught:
        client(fake, attempts=3).get(f"{server.url}/a", {"token": "hidden"})
    assert len(server.asked) == 3
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_body_cut_short_is_asked_for_again(server: Loopback, fake: FakeTime, gzipped: bool) -> None:
    whole = b"date,close\n" * 5000
    cut = Reply(body=whole, gzipped=gzipped, missing_bytes=100)
    server.script("/a", cut, Reply(body=whole, gzipped=gzipped))
    assert client(fake).get(f"{server.url}/a") == whole
    server.script("/a", cut)
    with pytest.raises(ProviderError, match="cut short or damaged, 2 attempts"):
        client(fake, attempts=2).get(f"{server.url}/a")


def test_damaged_gzip_is_asked_for_again(server: Loopback, fake: FakeTime) -> None:
    damaged = Reply(body=b"no gzip at all", headers={"Content-Encoding": "gzip"})
    server.script("/a", damaged, Reply(body=b"ok"))
    assert client(fake).get(f"{server.url}/a") == b"ok"


def test_json_that_does_not_parse_is_asked_for_again(server: Loopback, fake: FakeTime) -> None:
    server.script("/a", Reply(body=b'{"x": ['), json_reply({"x": 1}))
    assert client(fake).get_json(f"{server.url}/a") == {"x": 1}
    server.script("/a", Reply(body=b"<html>maintenance</html>"))
    with pytest.raises(ProviderError, match="the answer is no JSON, 2 attempts"):
        client(fake, attempts=2).get_json(f"{server.url}/a")


def test_a_page_that_is_not_there_is_none_but_not_for_a_post(server: Loopback, fake: FakeTime) -> None:
    assert client(fake).get(f"{server.url}/none") is None
    assert client(fake).get_json(f"{server.url}/none") is None
    with pytest.raises(ProviderError, match=r"POST .*/none: status 404"):
        client(fake).post_json(f"{server.url}/none", {})
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 410, 304])
def test_a_refused_request_is_not_repeated(server: Loopback, fake: FakeTime, status: int) -> None:
    server.script("/a", Reply(status))
    with pytest.raises(ProviderError, match=f"GET .*/a: status {status}"):
        client(fake).get(f"{server.url}/a")
    assert len(server.asked) == 1


def test_no_connection_names_the_address_without_secrets(fake: FakeTime) -> None:
    with serving() as gone:
        url = gone.url.replace("//", "//user:hidden@")
    with pytest.raises(ProviderError, match="no connection, 2 attempts; check the network") as caught:
        client(fake, attempts=2).get(f"{url}/a?key=hidden", {"token": "hidden"})
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(ProviderError, match="InvalidSchema"):
        client(fake).get("nothing://example.org/a")


def test_redirects_are_followed_on_the_same_host_only(server: Loopback, fake: FakeTime) -> None:
    server.script("/old", Reply(301, headers={"Location": "/new?page=2"}))
    server.script("/new", Reply(body=b"moved"))
    assert client(fake).get(f"{server.url}/old", {"page": 1}) == b"moved"
    assert server.asked[-1].query == {"page": ["2"]}
    with serving() as other:
        server.script("/old", Reply(302, headers={"Location": f"{other.url}/new"}))
        with pytest.raises(ProviderError, match=r"redirected to .*/new, which is not followed"):
            client(fake).get(f"{server.url}/old")
        assert other.asked == []
    server.script("/old", Reply(302, headers={"Location": "/old"}))
    with pytest.raises(ProviderError, match="more than 5 redirects"):
        client(fake).get(f"{server.url}/old")


def test_requests_are_spaced_by_the_rate(server: Loopback, fake: FakeTime) -> None:
    server.script("/a", Reply(body=b"ok"))
    paced = client(fake, requests_per_second=4)
    for _ in range(3):
        paced.get(f"{server.url}/a")
    assert fake.slept == [pytest.approx(0.25)] * 2
    fake.now += 100
    paced.get(f"{server.url}/a")
    assert len(fake.slept) == 2


def test_retries_keep_the_rate_too(server: Loopback, fake: FakeTime) -> None:
    server.script("/a", Reply(503, headers={"Retry-After": "0"}), Reply(body=b"ok"))
    client(fake, requests_per_second=0.5).get(f"{server.url}/a")
    assert sum(fake.slept) == pytest.approx(2)


def test_clients_that_share_a_pace_file_share_the_rate(server: Loopback, fake: FakeTime, tmp_path: Path) -> None:
    server.script("/a", Reply(body=b"ok"))
    file = tmp_path / "http" / "pace"
    one, two = (client(fake, requests_per_second=2, pace_file=file) for _ in range(2))
    for paced in (one, two, one):
        paced.get(f"{server.url}/a")
    assert fake.slept == [pytest.approx(0.5)] * 2


@pytest.mark.parametrize("left_over", [f"{START + 1e6}", "17", "", "1.7e"])
def test_a_pace_file_of_another_clock_or_half_written_costs_one_interval_at_most(
    server: Loopback, fake: FakeTime, tmp_path: Path, left_over: str
) -> None:
    server.script("/a", Reply(body=b"ok"))
    file = tmp_path / "pace"
    file.write_text(left_over)
    client(fake, requests_per_second=0.1, pace_file=file).get(f"{server.url}/a")
    assert sum(fake.slept) <= 10


def test_processes_that_share_a_pace_file_share_the_rate(server: Loopback, tmp_path: Path) -> None:
    server.script("/a", Reply(body=b"ok"))
    code = (
        "import sys; from pathlib import Path; from signals_core.http import HttpClient\n"
        "client = HttpClient('t', 20, pace_file=Path(sys.argv[1]))\n"
        "for _ in range(5): client.get(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "pace"), f"{server.url}/a"]
    arrivals: list[float] = []
    answer = server.answer
    server.answer = lambda request: arrivals.append(time.monotonic()) or answer(request)  # type: ignore[func-returns-value,method-assign]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert len(arrivals) == 10
    # Nine intervals of 50 ms, were the first request not slower to arrive than the last; each alone needs four.
    assert max(arrivals) - min(arrivals) >= 6 * 0.05
