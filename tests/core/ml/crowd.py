"""Many processes that promote and read at once: run by `test_registry_trust`.

    python -m tests.core.ml.crowd MODELS REDIS_URL PROCESSES SECONDS stay|wipe

Every process reads all the time and promotes now and then; with `wipe` another one sends FLUSHALL. Prints how many
promotions changed something, how many reads there were and how often Redis was wiped, as JSON.
"""

import json
import os
import random
import sys
import time
import traceback
from pathlib import Path

import xgboost  # noqa: F401 - once, before the processes part

from signals_core.ml.registry import ModelRegistry, connect_redis

NAMES = [f"v{number}" for number in range(5)]
_READS_A_TURN = 20


def member(number: int, models: Path, url: str, seconds: float) -> tuple[int, int]:
    """Promotions that were this process's own, and reads."""
    registry = ModelRegistry(models, connect_redis(url))
    chosen, until = random.Random(number), time.monotonic() + seconds
    reads = 0
    while time.monotonic() < until:
        registry.promote(chosen.choice(NAMES), f"process {number}")
        for _ in range(_READS_A_TURN):
            listed = [version for version in registry.list_versions() if version.active]
            assert len(listed) == 1, f"{len(listed)} are active"
            found = registry.get_active()
            assert found is not None
            assert found.active
            reads += 2
    own = sum(e.action == "promoted" and e.reason == f"process {number}" for e in registry.journal())
    return own, reads


def wiper(url: str, seconds: float) -> tuple[int, int]:
    client, until, wipes = connect_redis(url), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        client.flushall()
        wipes += 1
        time.sleep(0.05)
    return 0, wipes


def main() -> int:
    models, url, processes, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    works = [lambda n=n: member(n, models, url, seconds) for n in range(processes)]
    if sys.argv[5] == "wipe":
        works.append(lambda: wiper(url, seconds))
    children = []
    for work in works:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writing, json.dumps(work()).encode())
            except BaseException:  # noqa: BLE001 - a forked child reports whatever it was, and ends
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(writing)
        children.append((child, reading))
    found, failed = [], 0
    for child, reading in children:
        told = os.read(reading, 1000)
        failed += os.waitpid(child, 0)[1] != 0
        found.append(json.loads(told) if told else [0, 0])
    members, rest = found[:processes], found[processes:]
    print(
        json.dumps(
            {
                "promotions": sum(own for own, _ in members),
                "reads": sum(reads for _, reads in members),
                "wipes": sum(wipes for _, wipes in rest),
            }
        )
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
