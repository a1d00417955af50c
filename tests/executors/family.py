"""A family large enough for several segments, and what a merge of it gives."""

import os
import shutil
import signal
from dataclasses import dataclass, field

from msgspec.structs import replace

from mergepipe.api import Repository
from mergepipe.executors.processes import ProcessExecutor
from mergepipe.executors.ray_cluster import RayExecutor
from mergepipe.packs.format import Content
from mergepipe.packs.reader import pack_ids, pack_key, read_content
from tests.engine.merging import EXPERTS, WHO, random_model, repository, write_model

SHAPES = {f"layer.{number:02}.w": (96, 64) for number in range(60)} | {"norm": (64,)}
SEGMENT_BYTES = 100 << 10  # a work of 32 blocks each: six or so in all


def family(path, *, codec="auto"):
    """A repository with a base and three experts."""
    repo = repository(path / "repo", block_size=4096, codec=codec)
    base = random_model(0, shapes=SHAPES)
    repo.commit(write_model(path / "base", base), branch="base", message="base")
    for index, name in enumerate(EXPERTS):
        values = random_model(index + 1, near=base, shapes=SHAPES, share=0.8)
        repo.commit(write_model(path / name, values), branch=name, base="base")
    return repo


@dataclass(frozen=True)
class Made:
    """What may not differ between executors."""

    snapshot: bytes
    manifest: bytes
    plan: bytes
    packs: tuple
    expert_bytes: int
    base_bytes: int


def merged(repo, executor):
    """Merge with small segments; what came of it, and the result."""
    before = set(pack_ids(repo.local))
    with repo.on(executor):
        planned = repo.plan(experts=list(EXPERTS), base="base", method="ties", densities=[0.5] * 3)
        engine = replace(repo.merging.engine(), segment_bytes=SEGMENT_BYTES)
        result = engine.execute(planned.plan, reuse=False)
    made = Made(
        result.snapshot,
        result.manifest_id,
        result.plan_id,
        tuple(sorted(pack for pack in block_packs(repo) if pack not in before)),
        result.expert_bytes_read,
        result.base_bytes_read,
    )
    return made, result


def block_packs(repo):
    """The packs that hold blocks."""
    packs = pack_ids(repo.local)
    return [pack for pack in packs if read_content(repo.local, pack_key(pack)) is Content.BLOCKS]


def copied(repo, path):
    """The same repository in another place."""
    ignored = shutil.ignore_patterns(f"{os.getpid()}-*")  # the session of the open repository
    shutil.copytree(repo.directory, path / ".mergepipe", ignore=ignored)
    return Repository.open(path, who=WHO)


def leftovers(repo):
    """What lies in tmp/ once the repository is closed."""
    repo.close()
    return [path.name for path in (repo.directory / "tmp").iterdir()]


def runs_left(repo):
    """What is kept of merges that are not done."""
    return [path.name for path in (repo.directory / "unfinished").glob("*/*")]


@dataclass
class Killing:
    """An executor of whose workers one is killed after it was given each of the segments `at`."""

    executor: ProcessExecutor | RayExecutor
    at: set
    killed: list = field(default_factory=list)
    is_elsewhere = True

    def results(self, segments, spec, home):
        def watched():
            last = -1
            for segment in segments:
                self._after(last)
                last = segment.number
                yield segment
            self._after(last)
            self._after("last")

        return self.executor.results(watched(), spec, home)

    def close(self):
        """The executor is its owner's."""

    def _after(self, number):
        if number in self.at:
            self.at.discard(number)
            for pid in self.executor.pids[:1]:
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
