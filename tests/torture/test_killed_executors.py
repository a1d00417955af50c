"""SIGKILL at random moments of merges that several processes do, of any one of them.

The same merge again gives the same ids and packs, and nothing is left. `make torture` kills a
hundred times, or FAULTS hundreds; a handful is killed with every run of the tests.
"""

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from mergepipe.api import Repository
from mergepipe.executors.choosing import parse
from tests.engine.merging import WHO
from tests.executors.family import block_packs, copied, family, leftovers, merged, runs_left
from tests.torture.models import finish, in_child

SEGMENTS = 7
KINDS = ("threads", "processes:1", "processes:2")
# Long enough for a few works of a segment, as a rule.
MOST_DELAY_S = 0.3


@dataclass
class Telling:
    """An executor that tells, through a pipe, who works, whenever a segment is asked for."""

    executor: Any
    pipe: int

    is_elsewhere = property(lambda self: self.executor.is_elsewhere)

    def results(self, segments, spec, home):
        def told():
            for segment in segments:
                pids = getattr(self.executor, "pids", [])
                os.write(self.pipe, json.dumps(pids).encode() + b"\n")
                yield segment

        return self.executor.results(told(), spec, home)

    def close(self):
        self.executor.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A repository to copy, what threads make of it, and the packs that there are then."""
    path = tmp_path_factory.mktemp("family")
    with family(path) as repo:
        with copied(repo, path / "threads") as other:
            made, _ = merged(other, "threads")
            packs = sorted(block_packs(other))
        yield repo, made, packs


def merge_and_tell(root, kind, pipe):
    with Repository.open(root, who=WHO) as repo, closing(parse(kind).executor(2)) as executor:
        merged(repo, Telling(executor, pipe))


def kill_one(root, chance):
    """A merge in another process, one of whose processes is killed; which, and how it ended."""
    kind = chance.choice(KINDS)
    heard, told = os.pipe()
    child = in_child(lambda: merge_and_tell(root, kind, told))
    os.close(told)
    pids = []
    with os.fdopen(heard) as lines:
        for _ in range(chance.randint(1, SEGMENTS)):
            if not (line := lines.readline()):
                break
            pids = json.loads(line)
        time.sleep(chance.uniform(0, MOST_DELAY_S))
        victim = chance.choice([child, *pids])
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            victim = 0
        code = finish(child)
    return kind, "nobody" if not victim else "itself" if victim == child else "a worker", code


def one_run(model, path, chance):
    """Kill, do it again where that ended the merge, and look at everything."""
    origin, threads, packs = model
    root = path / "killed"
    copied(origin, root).close()
    kind, victim, code = kill_one(root, chance)
    ended = "went on" if code == 0 else "died"
    assert code == (-signal.SIGKILL if victim == "itself" and code else 0)
    with Repository.open(root, who=WHO) as repo:
        if code:
            made, result = merged(repo, "threads")
            assert (made.snapshot, made.manifest, made.plan) == (
                threads.snapshot,
                threads.manifest,
                threads.plan,
            )
            ended = "gone on with" if result.costs.resumed else "begun anew"
        else:
            tip = repo.objects.commit(repo.resolve("HEAD"))
            assert (tip.snapshot, tip.manifest) == (threads.snapshot, threads.manifest)
        assert sorted(block_packs(repo)) == packs
        assert repo.fsck(read_data=True).ok
        assert not runs_left(repo)
        await_workers(repo)
        assert not leftovers(repo)
    return f"{kind}: {victim}: {ended}"


def await_workers(repo):
    """Until the workers of a coordinator that is gone have noticed it, and are gone as well."""
    while True:
        repo.local.remove_dead_sessions()
        if len(list((repo.directory / "tmp").iterdir())) <= 1:
            return
        time.sleep(0.05)


def test_a_handful_of_kills(model, tmp_path):
    for number in range(3):
        one_run(model, tmp_path / str(number), random.Random(number))


@pytest.mark.slow
def test_kills_at_random(model, tmp_path):
    chance = random.Random()
    counts: Counter[str] = Counter()
    for number in range(int(os.environ.get("FAULTS", "1")) * 100):
        counts[one_run(model, tmp_path / str(number), chance)] += 1
        shutil.rmtree(tmp_path / str(number))
    for what, count in sorted(counts.items()):
        print(f"{count:4} {what}")
