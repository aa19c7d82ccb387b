"""Kill a process at each of its write steps in turn, and see what it leaves: run by `test_registry_trust`.

    python -m tests.core.ml.kill_walk OPERATION TEMPLATE FOLDER REDIS_URL

TEMPLATE is a registry's folder, FOLDER a place for copies of it. A child repeats the operation and is killed
(SIGKILL) before its n-th step, for n = 1, 2, … until it is not killed any more. A step is a file opened for writing,
made, flushed, cut, renamed or removed, or something sent to Redis. Prints the number of steps, and after how many of
them the new state was found.
"""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import redis.connection
import xgboost  # noqa: F401 - once, before the processes part

from signals_core.files import sweep_temporaries
from signals_core.ml.bundle import content_digest, load_bundle, write_bundle
from signals_core.ml.calibration import ConfidenceCalibrator
from signals_core.ml.registry import ModelRegistry, connect_redis, fold, read_journal
from tests.core.ml.helpers import out_of_fold_frame, tiny_pipeline

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "shutil.rmtree"}
PIPELINE, FRAME = tiny_pipeline(seed=9)
CALIBRATOR = ConfidenceCalibrator(np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.0, -0.1]), 500)


def register(registry: ModelRegistry) -> None:
    folder = registry.folder / "new"
    if not folder.exists():
        manifest = {
            "scope": "UNIVERSE",
            "cause": "person",
            "created_at": "2022-07-03T06:00:00+00:00",
            "as_of": "2022-07-03",
            "inputs": "inputs-new",
            "digest": content_digest(PIPELINE, CALIBRATOR),
        }
        write_bundle(folder, PIPELINE, CALIBRATOR, out_of_fold_frame(FRAME.index), FRAME, manifest)
    registry.register("new", folder, {"log_loss": 1.0})


OPERATIONS = {
    "register": register,
    "promote": lambda registry: registry.promote("v3", "better"),
    "rollback": lambda registry: registry.rollback(),
    "prune": lambda registry: registry.prune(2),
}


def kill_before(step: int) -> None:
    """From now on this process lives for `step` - 1 more steps."""
    left = [step]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in _CHANGES:
            count()

    sys.addaudithook(hook)
    sync, send = os.fsync, redis.connection.AbstractConnection.send_packed_command

    def counted_sync(descriptor: int) -> None:
        count()
        sync(descriptor)
        count()

    def counted_send(self: Any, *arguments: Any, **options: Any) -> None:
        count()
        send(self, *arguments, **options)
        count()

    os.fsync = counted_sync
    redis.connection.AbstractConnection.send_packed_command = counted_send  # type: ignore[method-assign]


def copy_of(template: Path, folder: Path) -> Path:
    """Bundles are never changed in place, so their files may be shared; the journal is."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, copy_function=os.link)
    (folder / "journal.jsonl").unlink()
    shutil.copy(template / "journal.jsonl", folder)
    return folder


def state(registry: ModelRegistry) -> tuple[Any, ...]:
    """Everything a reader can ask; what Redis says must be what the journal says."""
    versions, active = fold(read_journal(registry.folder))
    listed = registry.list_versions()
    assert listed == list(versions.values()), "Redis and journal differ"
    assert [v.version_id for v in listed if v.active] == list(active.values())
    found = registry.get_active()
    assert found is not None
    assert found.version_id == active["UNIVERSE"] == registry.load_active().version_id
    return tuple((v.version_id, v.decision, v.active, v.retired) for v in listed)


def walk(operation: str, template: Path, folder: Path, url: str) -> tuple[int, int]:
    client = connect_redis(url)

    def fresh() -> ModelRegistry:
        client.flushdb()
        return ModelRegistry(copy_of(template, folder), connect_redis(url))

    old = state(fresh())
    done = fresh()
    OPERATIONS[operation](done)
    new = state(done)
    assert old != new
    step = after = 0
    while True:
        step += 1
        reader = fresh()  # is open while the other dies
        child = os.fork()
        if child == 0:
            kill_before(step)
            OPERATIONS[operation](ModelRegistry(folder, connect_redis(url)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        assert killed or os.WEXITSTATUS(status) == 0, f"step {step}: the operation failed"

        where = f"{operation}, killed before step {step}"
        seen, served = reader.get_active(), reader.load_active().version_id
        allowed = {name for found in (old, new) for name, _, active, _ in found if active}
        assert seen is not None, where
        assert {seen.version_id, served} <= allowed, where
        actives = [v.version_id for v in reader.list_versions() if v.active]
        assert len(actives) == 1, where

        repaired = state(ModelRegistry(folder, connect_redis(url)))
        assert repaired in (old, new), f"{where}: {repaired}"
        after += repaired == new
        for name, _, _, retired in repaired:
            if not retired:
                load_bundle(folder / name)
        if operation != "rollback" or repaired == old:  # another rollback would go one further back
            OPERATIONS[operation](ModelRegistry(folder, connect_redis(url)))
        assert state(ModelRegistry(folder, connect_redis(url))) == new, f"{where}: done again, it is not done"
        sweep_temporaries(folder, older_than_seconds=0)
        assert not [path.name for path in folder.glob(".*.tmp")], where
        for name, _, _, retired in new:
            assert (folder / name).is_dir() != retired, f"{where}: {name}"
        if not killed:
            return step - 1, after - 1


if __name__ == "__main__":
    chosen, given, copies, address = sys.argv[1:]
    print(*walk(chosen, Path(given), Path(copies), address))
