"""What Redis holds of the registry: an index of its journal, read in one round trip and changed in one transaction.

A hash `ml:models:{version_id}` a version, `ml:active:{scope}` the one in service, `ml:models` the names of all,
`ml:journal:applied` and `ml:journal:head` the number of events it stands for and the check of the last of them.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from signals_core.errors import ServiceDown
from signals_core.ml.journal import Journal, Version, fold
from signals_core.settings import Scope

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline
    from redis.commands.core import Script

_VERSIONS, _ACTIVE = "ml:models", "ml:active"
_APPLIED, _HEAD = "ml:journal:applied", "ml:journal:head"

# A script runs alone: nobody promotes between its reads. Each answers nil where Redis was wiped.
_READ_ACTIVE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
local name = redis.call('GET', ARGV[2] .. ':' .. ARGV[3])
if not name then return {} end
return {redis.call('HGETALL', ARGV[1] .. ':' .. name), name}
"""
_READ_VERSION = """
if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
local key = ARGV[1] .. ':' .. ARGV[3]
local scope = redis.call('HGET', key, 'scope')
if not scope then return {} end
return {redis.call('HGETALL', key), redis.call('GET', ARGV[2] .. ':' .. scope) or ''}
"""
_READ_ALL = """
if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
local found = {}
for _, name in ipairs(redis.call('SMEMBERS', ARGV[1])) do
  local key = ARGV[1] .. ':' .. name
  local active = redis.call('GET', ARGV[2] .. ':' .. redis.call('HGET', key, 'scope')) or ''
  found[#found + 1] = {redis.call('HGETALL', key), active}
end
return found
"""


class Wiped(Exception):
    """Redis holds nothing of the registry; it is to be written anew from the journal."""


def connect_redis(url: str) -> "Redis":
    """A client of the server at `url`.

    Raises:
        ServiceDown: it does not answer.
    """
    from redis import Redis
    from redis.exceptions import RedisError

    client = Redis.from_url(url, decode_responses=True, socket_timeout=10, socket_connect_timeout=3)
    try:
        client.ping()
    except RedisError as error:
        asked = client.connection_pool.connection_kwargs
        host = asked.get("host") or asked.get("path", "?")
        raise ServiceDown(f"Redis at {host} does not answer ({error}): start it or set stores.redis_url") from None
    return client


class RegistryIndex:
    """The registry's state in Redis; `connect` is called when it is first used.

    Every method raises `ServiceDown` if Redis does not answer, and the reading ones `Wiped` if it is empty.
    """

    def __init__(self, connect: "Callable[[], Redis]") -> None:
        self._connect = connect
        self._client: Redis | None = None
        self._scripts: dict[str, Script] = {}

    def read_active(self, scope: Scope) -> Version | None:
        """The version in service for a scope; None before the first promotion."""
        found = self._run(_READ_ACTIVE, scope)
        return _version(*found) if found else None

    def read_version(self, version_id: str) -> Version | None:
        """A version by its name; None if it is not registered."""
        found = self._run(_READ_VERSION, version_id)
        return _version(*found) if found else None

    def read_all(self) -> list[Version]:
        """Every version, oldest first."""
        found = self._run(_READ_ALL)
        return sorted((_version(*item) for item in found), key=lambda version: version.sequence)

    def stands_for(self, journal: Journal) -> bool:
        """Whether Redis holds the fold of exactly these events."""
        with _answering():
            return list(self._redis.mget(_APPLIED, _HEAD)) == _mark(journal)

    def write_all(self, journal: Journal) -> None:
        """Make Redis the fold of the journal, in one transaction."""
        versions, active = fold(journal.events)
        with _answering():
            known = self._redis.smembers(_VERSIONS)
            scopes = set(self._redis.scan_iter(f"{_ACTIVE}:*"))
            transaction = self._redis.pipeline(transaction=True)
            for stale in (*(f"{_VERSIONS}:{name}" for name in known), *scopes, _VERSIONS):
                transaction.delete(stale)
            _write(transaction, versions, active, journal)
            transaction.execute()

    def write_change(self, before: Journal, after: Journal) -> None:
        """Write what differs between two states, in one transaction; all of it if Redis does not hold the first."""
        from redis.exceptions import WatchError

        with _answering(), self._redis.pipeline(transaction=True) as transaction:
            # Whoever wipes Redis from here on makes the transaction fail, not half a registry.
            transaction.watch(_APPLIED, _HEAD)
            if list(transaction.mget(_APPLIED, _HEAD)) == _mark(before):
                old_versions, old_active = fold(before.events)
                versions, active = fold(after.events)
                transaction.multi()
                _write(
                    transaction,
                    {name: version for name, version in versions.items() if version != old_versions.get(name)},
                    {scope: name for scope, name in active.items() if name != old_active.get(scope)},
                    after,
                )
                try:
                    transaction.execute()
                except WatchError:
                    pass  # it was wiped just now: written anew below
                else:
                    return
        self.write_all(after)

    @property
    def _redis(self) -> "Redis":
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _run(self, script: str, *arguments: str) -> Any:
        with _answering():
            if script not in self._scripts:
                self._scripts[script] = self._redis.register_script(script)
            found = self._scripts[script](keys=[_APPLIED], args=[_VERSIONS, _ACTIVE, *arguments])
        if found is None:
            raise Wiped
        return found


def _mark(journal: Journal) -> list[str | None]:
    return [str(len(journal.events)), journal.head]


def _write(transaction: "Pipeline", versions: dict[str, Version], active: dict[Scope, str], journal: Journal) -> None:
    for version in versions.values():
        fields = {k: v for k, v in asdict(version).items() if k not in ("metrics", "active", "retired")}
        metrics = json.dumps(version.metrics, sort_keys=True)
        mapping = {**fields, "metrics": metrics, "retired": int(version.retired)}
        transaction.hset(f"{_VERSIONS}:{version.version_id}", mapping=mapping)
        transaction.sadd(_VERSIONS, version.version_id)
    for scope, version_id in active.items():
        transaction.set(f"{_ACTIVE}:{scope}", version_id)
    transaction.set(_APPLIED, len(journal.events))
    transaction.set(_HEAD, journal.head)


def _version(flat: list[str], active: str) -> Version:
    """A version from HGETALL's names and values in turn, and the name of the one in service for its scope."""
    stored: dict[str, Any] = dict(zip(flat[::2], flat[1::2], strict=True))
    return Version(
        **{
            **stored,
            "sequence": int(stored["sequence"]),
            "metrics": json.loads(stored["metrics"]),
            "retired": stored["retired"] == "1",
        },
        active=active == stored["version_id"],
    )


@contextmanager
def _answering() -> Iterator[None]:
    from redis.exceptions import RedisError

    try:
        yield
    except RedisError as error:
        raise ServiceDown(f"Redis does not answer ({error}): start it or check stores.redis_url") from error
