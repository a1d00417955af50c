"""Work that others do, in a process of its own, to be killed: `python -m tests.torture.handing`.

Arguments: what is done, the folder it is done in, who does it. Whenever a segment is asked for, a
line says which processes are at work.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mergepipe.api import Repository
from mergepipe.checkpoints import layout
from mergepipe.executors.choosing import parse
from mergepipe.ids import ObjectId
from tests.engine.merging import EXPERTS, WHO
from tests.executors.family import merged
from tests.executors.incoming import small_segments
from tests.executors.test_shared_store import own

LIST = """
[[model]]
path = "base"
branch = "base"

[[model]]
path = "e0"
branch = "e0"
base = "base"
"""


@dataclass
class Telling:
    """An executor that tells who works whenever a segment is asked for."""

    executor: Any
    tell: Callable[[list[int]], None]
    _known: list[int] = field(default_factory=list)

    is_elsewhere = property(lambda self: self.executor.is_elsewhere)

    def results(self, segments, spec, home):
        def told():
            for segment in segments:
                with suppress(Exception):  # one of them is dead, which the executor will notice
                    self._known = getattr(self.executor, "pids", [])
                self.tell(self._known)
                yield segment

        return self.executor.results(told(), spec, home)

    def close(self):
        self.executor.close()


@contextmanager
def opened(root: Path) -> Iterator[Repository]:
    """A repository whose ingest hands out small segments, of small pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "PIECE_BYTES", 64 << 10)
        with Repository.open(root, who=WHO, credentials=own) as repo:
            small_segments(patch, repo)
            yield repo


def merge(repo: Repository, executor: Any, files: Path) -> tuple[ObjectId, ...]:
    """Merge; the ids that may not depend on anything."""
    made, _ = merged(repo, executor)
    return ObjectId(made.snapshot), ObjectId(made.manifest), ObjectId(made.plan)


def commit(repo: Repository, executor: Any, files: Path) -> tuple[ObjectId, ...]:
    """Commit a model that was tuned from one that is there."""
    with repo.on(executor):
        result = repo.commit(files / EXPERTS[0], branch=EXPERTS[0], base="base", message="e0")
    return (result.snapshot,)


def import_list(repo: Repository, executor: Any, files: Path) -> tuple[ObjectId, ...]:
    """Import a base and what was tuned from it."""
    (files / "family.toml").write_text(LIST)
    with repo.on(executor):
        return tuple(each.result.snapshot for each in repo.import_list(files / "family.toml"))


VERBS = {"merge": merge, "commit": commit, "import": import_list}


def main(verb: str, root: str, files: str, kind: str) -> None:
    """Do it, telling."""

    def tell(pids: list[int]) -> None:
        print(json.dumps(pids), flush=True)

    with opened(Path(root)) as repo, closing(parse(kind).executor(2)) as executor:
        VERBS[verb](repo, Telling(executor, tell), Path(files))


if __name__ == "__main__":
    main(*sys.argv[1:])
