import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from signals_core.embedded_redis import EmbeddedRedis
from signals_core.errors import BundleError, MissingPrerequisite, PromotionConflict, ServiceDown
from signals_core.ml.journal import active_at
from signals_core.ml.registry import ModelRegistry, connect_redis, fold
from tests.core.ml.helpers import flip_byte, make_bundle

REPOSITORY = Path(__file__).parents[3]
VERSIONS = ("v1", "v2", "v3")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for seed, version in enumerate(VERSIONS):
        make_bundle(folder, version, seed=seed)
    make_bundle(folder, "own", "AAA")
    return folder


@pytest.fixture
def models(bundles: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles, tmp_path / "models"))


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.services)])
def redis(request, tmp_path: Path) -> Iterator:
    if request.param == "embedded":
        embedded = EmbeddedRedis(tmp_path / "redis")
        yield embedded.connect()
        embedded.close()
        return
    url = os.environ.get("SIGNALS_TEST_REDIS_URL")
    if not url:
        pytest.skip("SIGNALS_TEST_REDIS_URL is not set: no Redis server to test against")
    client = connect_redis(url)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def registry(models: Path, redis) -> ModelRegistry:
    """All four versions registered, none in service."""
    opened = ModelRegistry(models, redis)
    for version in (*VERSIONS, "own"):
        opened.register(version, models / version, {"log_loss": 1.05})
    return opened


def state(registry: ModelRegistry) -> tuple:
    active = [registry.get_active(scope) for scope in ("UNIVERSE", "AAA")]
    return registry.list_versions(), active


def redis_content(redis) -> dict:
    read = {"hash": redis.hgetall, "set": redis.smembers, "string": redis.get}
    return {key: read[redis.type(key)](key) for key in redis.scan_iter("ml:*")}


def test_a_registered_version_is_not_in_service(registry):
    version = registry.get("v1")
    assert (version.scope, version.decision, version.active, version.model_path) == (
        "UNIVERSE",
        "registered",
        False,
        "v1",
    )
    assert registry.get_active() is None


def test_registering_twice_changes_nothing(registry, models):
    before, journal = state(registry), registry.journal()
    assert registry.register("v1", models / "v1", {"log_loss": 9.0}) == registry.get("v1")
    assert state(registry) == before
    assert registry.journal() == journal


def test_a_folder_that_holds_another_version_is_refused(registry, models):
    with pytest.raises(BundleError, match="holds v1, not v9"):
        registry.register("v9", models / "v1", {})


def test_a_folder_without_a_manifest_is_refused(registry, models):
    (models / "empty").mkdir()
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        registry.register("empty", models / "empty", {})


def test_a_bundle_outside_the_registry_s_folder_is_refused_when_it_is_registered(registry, tmp_path):
    elsewhere = make_bundle(tmp_path / "elsewhere", "v7")
    with pytest.raises(BundleError):
        registry.register("v7", elsewhere, {})


def test_redis_holds_a_hash_a_version_and_the_active_one_a_scope(registry, redis):
    registry.promote("v2")
    assert redis.hget("ml:models:v2", "scope") == "UNIVERSE"
    assert json.loads(redis.hget("ml:models:v2", "metrics")) == {"log_loss": 1.05}
    assert redis.get("ml:active:UNIVERSE") == "v2"


def test_promoting_leaves_exactly_one_active_a_scope(registry):
    for version in ("v1", "v3", "own", "v2"):
        assert registry.promote(version, "better").active
        actives = [v.version_id for v in registry.list_versions("UNIVERSE") if v.active]
        assert len(actives) == (1 if registry.get_active() else 0)
    assert {v.version_id for v in registry.list_versions() if v.active} == {"own", "v2"}
    assert registry.get_active("AAA").version_id == "own"
    assert registry.get("v2").decision == "promoted: better"


def test_promoting_what_is_in_service_adds_no_event(registry):
    registry.promote("v1")
    count = len(registry.journal())
    registry.promote("v1")
    assert len(registry.journal()) == count


def test_an_unknown_version_is_refused(registry):
    for ask in (registry.get, registry.promote, registry.rollback):
        with pytest.raises(MissingPrerequisite, match="no model version v9"):
            ask("v9")
    with pytest.raises(MissingPrerequisite, match="no model version v9"):
        registry.reject("v9", "no")


def test_rollback_returns_to_the_version_that_served_before(registry):
    registry.promote("v1")
    registry.promote("v2")
    assert registry.rollback(reason="wrong sign", by="person").version_id == "v1"
    assert registry.get_active().version_id == "v1"
    last = registry.journal()[-1]
    assert (last.action, last.by, last.reason, last.evidence) == (
        "rolled_back",
        "person",
        "wrong sign",
        {"replaced": "v2"},
    )


def test_rollback_to_a_named_version(registry):
    for version in VERSIONS:
        registry.promote(version)
    assert registry.rollback("v1").version_id == "v1"
    assert registry.get("v1").decision.startswith("rolled back")


def test_rollback_without_an_earlier_version_is_refused_and_the_present_one_stays(registry):
    registry.promote("v1")
    registry.promote("own")
    with pytest.raises(MissingPrerequisite, match="UNIVERSE: no version served before"):
        registry.rollback()
    assert registry.get_active().version_id == "v1"


def test_a_rejected_version_keeps_its_reason_and_does_not_serve(registry):
    registry.promote("v1")
    registry.reject("v2", "does not beat the champion", evidence={"z": 0.3})
    registry.reject("v2", "again")
    version = registry.get("v2")
    assert (version.decision, version.active) == ("rejected: does not beat the champion", False)
    assert registry.get_active().version_id == "v1"
    assert [e.evidence for e in registry.journal() if e.action == "rejected"] == [{"z": 0.3}]


def test_a_promotion_decided_against_another_champion_conflicts(registry):
    registry.promote("v1")
    with pytest.raises(PromotionConflict, match="v1 is in service by now, the decision was made against v3"):
        registry.promote("v2", expected_active="v3")
    with pytest.raises(PromotionConflict, match="against None"):
        registry.promote("v2", expected_active=None)
    assert registry.get_active().version_id == "v1"
    assert registry.promote("v2", expected_active="v1").active


def test_the_first_promotion_expects_nobody(registry):
    assert registry.promote("v1", expected_active=None).active


def test_a_damaged_bundle_is_not_promoted_and_the_present_one_stays(registry, models):
    registry.promote("v1")
    flip_byte(models / "v2" / "booster.ubj")
    with pytest.raises(BundleError, match=r"v2/booster\.ubj was altered"):
        registry.promote("v2")
    assert registry.get_active().version_id == "v1"
    assert registry.journal()[-1].version_id == "v1"


@pytest.fixture
def served(registry) -> ModelRegistry:
    registry.promote("v1", "first")
    registry.promote("own", "first")
    registry.promote("v2", "better", evidence={"z": 2.5})
    registry.reject("v3", "worse")
    return registry


def test_the_journal_tells_who_served_when(served):
    events = [(e.action, e.version_id, e.evidence.get("replaced")) for e in served.journal()]
    assert events[4:] == [
        ("promoted", "v1", None),
        ("promoted", "own", None),
        ("promoted", "v2", "v1"),
        ("rejected", "v3", None),
    ]
    assert fold(served.journal()[:5])[1] == {"UNIVERSE": "v1"}
    moments = [e.at for e in served.journal()]
    assert moments == sorted(moments)


def test_the_journal_goes_by_the_clock_that_the_registry_is_given(served, models, redis):
    ahead = datetime.now(UTC).replace(microsecond=0) + timedelta(days=400)
    ModelRegistry(models, redis, lambda: ahead).rollback("v1")
    served.promote("v2")  # by the wall clock, which lies behind
    moments = [datetime.fromisoformat(e.at) for e in served.journal()][-2:]
    assert moments == [ahead, ahead + timedelta(microseconds=1)]
    assert active_at(served.journal(), "UNIVERSE", ahead).version_id == "v1"


def test_the_active_version_survives_a_flushed_redis(served, redis):
    before = redis_content(redis)
    redis.flushdb()
    assert served.get_active().version_id == "v2"
    assert redis_content(redis) == before


@pytest.mark.parametrize("ask", ["list_versions", "get", "find"])
def test_every_reader_survives_a_flushed_redis(served, redis, ask):
    asked = {
        "list_versions": served.list_versions,
        "get": lambda: served.get("v1"),
        "find": lambda: served.find("UNIVERSE", "inputs-v1"),
    }[ask]
    before = asked()
    redis.flushdb()
    assert asked() == before


def test_a_new_registry_brings_a_wiped_or_stale_redis_up_to_date(served, models, redis):
    before = state(served)
    content = redis_content(redis)
    redis.flushdb()
    assert state(ModelRegistry(models, redis)) == before
    assert redis_content(redis) == content

    redis.set("ml:active:UNIVERSE", "v1")  # a writer was killed after the journal and before Redis
    redis.set("ml:journal:applied", len(served.journal()) - 2)
    assert state(ModelRegistry(models, redis)) == before
    assert redis_content(redis) == content


def test_rebuild_writes_redis_anew_and_leaves_nothing_stale(served, redis):
    before = redis_content(redis)
    redis.set("ml:active:GONE", "v1")
    redis.hset("ml:models:v1", "scope", "WRONG")
    assert served.rebuild() == 8
    assert redis_content(redis) == before


def test_get_active_answers_from_redis_without_reading_the_journal(served, models):
    (models / "journal.jsonl").rename(models / "journal.away")
    assert served.get_active().version_id == "v2"


def test_a_last_line_cut_short_was_never_acknowledged_and_is_left_out(served, models, redis):
    path = models / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1][:40])
    again = ModelRegistry(models, redis)
    assert state(again) == state(served)
    again.promote("v3", "after the power failure")
    assert again.get_active().version_id == "v3"
    assert len(again.journal()) == 9
    redis.flushdb()
    assert ModelRegistry(models, redis).get_active().version_id == "v3"


def test_a_line_cut_short_after_a_brace_does_not_lock_the_registry_for_ever(served, models, redis):
    path = models / "journal.jsonl"
    whole = path.read_bytes()
    line = whole.splitlines()[-1]
    path.write_bytes(whole + line[: line.index(b"}") + 1])
    ModelRegistry(models, redis).promote("v3", "after the power failure")
    assert ModelRegistry(models, redis).get_active().version_id == "v3"


@pytest.mark.parametrize("number", [1, 5, 7])
def test_a_damaged_middle_line_is_refused_by_its_number(served, models, redis, number):
    path = models / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = b"{" + lines[number - 1][10:]
    path.write_bytes(b"".join(lines))
    with pytest.raises(BundleError, match=f"journal.jsonl line {number} cannot be read"):
        ModelRegistry(models, redis)


def test_a_damaged_last_line_that_was_acknowledged_is_refused(served, models, redis):
    served.promote("v3")
    path = models / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-1], b"{" + lines[-1][10:]]))
    with pytest.raises(BundleError):
        ModelRegistry(models, redis)


def test_a_middle_line_damaged_at_its_end_is_refused(served, models, redis):
    path = models / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[6] = lines[6][:-2] + b"|\n"  # the promotion of v2
    path.write_bytes(b"".join(lines))
    with pytest.raises(BundleError):
        ModelRegistry(models, redis)


def test_the_model_in_service_is_loaded(served):
    model = served.load_active()
    assert model.version_id == "v2"
    assert "serves_instead_of" not in model.manifest
    assert served.load_active("AAA").version_id == "own"


def test_the_last_good_model_serves_while_the_active_bundle_is_damaged(served, models):
    flip_byte(models / "v2" / "calibrator.json")
    model = served.load_active()
    assert model.version_id == "v1"
    assert ["v2/calibrator.json" in text for text in model.manifest["serves_instead_of"]] == [True]


def test_a_version_that_never_served_does_not_stand_in(served, models):
    for version in ("v1", "v2"):
        shutil.rmtree(models / version)
    with pytest.raises(BundleError, match=r"UNIVERSE: no sound model: .*v2.*v1"):
        served.load_active()


def test_the_last_good_model_serves_while_the_active_manifest_lacks_a_key(served, models):
    path = models / "v2" / "manifest.json"
    path.write_text(path.read_text().replace('"prior"', '"pqior"'))
    assert served.load_active().version_id == "v1"


def test_before_the_first_promotion_there_is_nothing_to_load(registry):
    with pytest.raises(MissingPrerequisite, match="UNIVERSE: no model is in service"):
        registry.load_active()


def test_versions_are_found_by_what_they_were_made_from_while_their_folder_exists(served, models):
    assert served.find("UNIVERSE", "inputs-v2").version_id == "v2"
    assert served.find("AAA", "inputs-v2") is None
    shutil.rmtree(models / "v2")
    assert served.find("UNIVERSE", "inputs-v2") is None


def test_a_registry_by_folder_alone_starts_its_own_redis_and_keeps_its_state(models):
    first = ModelRegistry(models)
    first.register("v1", models / "v1", {})
    first.promote("v1")
    first.close()
    second = ModelRegistry(models)
    assert second.get_active().version_id == "v1"
    second.close()


def test_a_redis_that_is_gone_is_reported_as_a_service_that_is_down(models, tmp_path):
    embedded = EmbeddedRedis(tmp_path / "redis")
    registry = ModelRegistry(models, embedded.connect())
    embedded.close()
    with pytest.raises(ServiceDown, match="Redis does not answer"):
        registry.get_active()


def test_a_server_that_does_not_answer_is_named():
    with pytest.raises(ServiceDown, match=r"Redis at 127\.0\.0\.1 does not answer"):
        connect_redis("redis://127.0.0.1:1/0")


PROMOTE_TEN_TIMES_IN_FOUR_PROCESSES = """
import os, sys
import xgboost  # once, before the processes part
from signals_core.ml.registry import ModelRegistry, connect_redis
models, url = sys.argv[1:]

def promote(number):
    registry = ModelRegistry(models, connect_redis(url))
    for i in range(10):
        registry.promote(("v1", "v2", "v3")[(i + number) % 3], f"process {number}, turn {i}")

children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        try:
            promote(number)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def test_four_processes_promoting_at_once_leave_journal_and_redis_in_agreement(registry, models, redis):
    arguments = redis.connection_pool.connection_kwargs
    url = f"unix://{arguments['path']}?protocol=2" if "path" in arguments else os.environ["SIGNALS_TEST_REDIS_URL"]
    command = [sys.executable, "-c", PROMOTE_TEN_TIMES_IN_FOUR_PROCESSES, str(models), url]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr

    events = registry.journal()
    assert len((models / "journal.jsonl").read_text().splitlines()) == len(events)
    promotions = [e for e in events if e.action == "promoted"]
    assert 10 <= len(promotions) <= 40
    assert {e.reason.split(",")[0] for e in promotions} == {f"process {n}" for n in range(4)}
    for before, after in itertools.pairwise(promotions):
        assert after.evidence["replaced"] == before.version_id  # nobody promoted over a state it had not seen
    versions, active = fold(events)
    assert redis.get("ml:active:UNIVERSE") == active["UNIVERSE"] == promotions[-1].version_id
    assert int(redis.get("ml:journal:applied")) == len(events)
    assert {v.version_id: v.decision for v in registry.list_versions()} == {k: v.decision for k, v in versions.items()}
    assert [v.version_id for v in registry.list_versions("UNIVERSE") if v.active] == [active["UNIVERSE"]]
