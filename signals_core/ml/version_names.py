"""Names of model versions: moment of creation, scope, digest. They sort by time and are never given twice."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from signals_core.ml.journal import Version
from signals_core.settings import Scope


def version_name(created: datetime, scope: Scope, mark: str, versions: Iterable[Version], folder: Path) -> str:
    """The name of a model made at `created` (UTC) whose content and inputs have the digest `mark`.

    Where another model has that moment already, as happens when `clock.as_of` stands still, the next free
    microsecond is taken, so that names sort in the order of training. The same model made again at the same moment
    keeps its name, unless its version was retired.
    """
    known = {version.version_id: version for version in versions}
    names = {*known, *(path.name for path in folder.glob("[!.]*Z-*"))}
    stamps = {name.partition("-")[0] for name in names}
    moment = created
    while True:
        stamp = f"{moment:%Y%m%dT%H%M%S%f}Z"
        name = f"{stamp}-{scope}-{mark}"
        if name in names and not (name in known and known[name].retired):
            return name
        if stamp not in stamps:
            return name
        moment += timedelta(microseconds=1)
