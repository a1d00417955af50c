"""SIGKILL at random moments of merges, commits and imports that others do, on files and on S3.

Threads, processes and actors of a Ray that lives on; in the repository itself, in a directory that
a lazy clone shares, and in a bucket. The same command again gives the same ids and the packs that
were planned; nothing is left. The long form kills a hundred times (FAULTS: hundreds). Merges on
files alone: test_killed_executors.py, too.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.api.cloning import clone
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.packs.format import Content
from mergepipe.packs.reader import pack_ids, pack_key, read_content
from mergepipe.transfer.push_refs import PushOptions
from tests.engine.merging import WHO, repository
from tests.executors.family import copied, family, leftovers, runs_left
from tests.executors.incoming import incoming
from tests.executors.ray_sessions import nothing_left
from tests.executors.test_shared_store import lazy, own
from tests.torture.handing import VERBS, opened

ROOT = Path(__file__).parents[2]
SEGMENTS = 6
MOST_DELAY_S = 0.5
EVERYTHING = PushOptions(all_branches=True)
# What is done, and where its packs go.
CASES = (
    ("commit", "files"),
    ("import", "files"),
    ("merge", "files"),
    ("merge", "directory"),
    ("merge", "bucket"),
)


@dataclass(frozen=True)
class Undisturbed:
    """Where each verb begins, and what it gives when nobody is killed: ids, and new packs."""

    files: Path
    roots: dict
    ids: dict
    packs: dict


def block_packs_of(store):
    """The packs of blocks in any store."""
    packs = pack_ids(store)
    return {pack for pack in packs if read_content(store, pack_key(pack)) is Content.BLOCKS}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed")
    files = incoming(path / "files")
    roots = {verb: path / verb / "repo" for verb in VERBS}
    with family(path / "merge"):
        pass
    repository(roots["import"], block_size=4096, codec="auto").close()
    repository(roots["commit"], block_size=4096, codec="auto").close()
    with opened(roots["commit"]) as repo:
        repo.commit(files / "base", branch="base", message="base")
    ids, packs = {}, {}
    for verb, work in VERBS.items():
        with copied(Repository.open(roots[verb], who=WHO), path / f"{verb}-made"):
            pass
        with opened(path / f"{verb}-made") as repo:
            before = block_packs_of(repo.local)
            ids[verb] = work(repo, "threads", files)
            packs[verb] = block_packs_of(repo.local) - before
    return Undisturbed(files, roots, ids, packs)


@pytest.fixture(scope="module")
def buckets():
    """Makes buckets of a real S3 server."""
    pytest.importorskip("moto")
    pytest.importorskip("obstore")
    from tests.bytestore import s3

    with s3.serving() as make, pytest.MonkeyPatch.context() as patch:
        for name, value in make().environment().items():
            patch.setenv(name, value)
        yield make


@pytest.fixture(scope="module")
def ray_address():
    """Where a Ray of its own answers, which outlives the coordinators that use it."""
    pytest.importorskip("ray")
    script = (
        "import ray, sys; ray.init(address='local', num_cpus=2, include_dashboard=False,"
        " object_store_memory=100 << 20, log_to_driver=False);"
        "print(ray.get_runtime_context().gcs_address, flush=True); sys.stdin.read(); ray.shutdown()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Ray gives a session of its own a token, which those who come to it would have to be given.
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        text=True,
    )
    with nothing_left(), process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


@contextlib.contextmanager
def place(undisturbed, verb, where, path, buckets):
    """A folder to work in, and the store that its packs go to."""
    with copied(Repository.open(undisturbed.roots[verb], who=WHO), path / "repo"):
        pass
    if where == "files":
        yield path / "repo", LocalByteStore(path / "repo" / ".mergepipe")
        return
    if where == "directory":
        url = str(path / "repo")
        store = LocalByteStore(path / "repo" / ".mergepipe")
    else:
        bucket = buckets()
        url, store = f"s3://{bucket.name}/models/llama", bucket.store()
        with Repository.open(path / "repo", who=WHO) as repo:
            repo.push(url, EVERYTHING, credentials=own(None))
    with lazy(url, path / "clone"):
        pass
    yield path / "clone", store


def kill_one(verb, root, files, kind, chance, environment):
    """Work in another process, one of whose processes is killed: who it was, how it ended."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.torture.handing", verb, str(root), str(files), kind],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        cwd=ROOT,
        text=True,
    )
    pids = []
    with child:
        assert child.stdout is not None
        for _ in range(chance.randint(1, SEGMENTS)):
            if not (line := child.stdout.readline()):
                break
            pids = json.loads(line)
        time.sleep(chance.uniform(0, MOST_DELAY_S))
        # The coordinator as often as all workers together.
        victim = chance.choice(pids) if pids and chance.random() < 0.5 else child.pid
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            victim = 0
        child.stdout.read()
    code = child.returncode
    who = "nobody" if not victim else "coordinator" if victim == child.pid else "worker"
    assert code == (-signal.SIGKILL if who == "coordinator" and code else 0)
    return who, code


def is_merged(repo):
    """Whether HEAD is a merge: a clone's is the branch of the base, where another would differ."""
    head = repo.refs.head().commit
    return head is not None and repo.objects.commit(head).manifest is not None


def one_run(undisturbed, path, chance, case, kind, buckets, environment):
    """Kill, do it again where that ended the work, and look at everything."""
    verb, where = case
    with place(undisturbed, verb, where, path, buckets) as (root, store), store:
        before = block_packs_of(store)
        who, code = kill_one(verb, root, undisturbed.files, kind, chance, environment)
        if code or where == "files":
            with opened(root) as repo:
                # Commits and imports that ended well find all there; a merge is made once.
                if verb != "merge" or not is_merged(repo):
                    ids = VERBS[verb](repo, "threads", undisturbed.files)
                    assert ids == undisturbed.ids[verb]
        with opened(root) as repo:
            if verb == "merge":
                tip = repo.objects.commit(repo.resolve("HEAD"))
                assert (tip.snapshot, tip.manifest) == undisturbed.ids[verb][:2]
                if where != "files":
                    assert repo.replay("HEAD").same
                    pushed = repo.push("origin", credentials=own(None)).pushed
                    assert pushed.blocks == 0
            assert repo.fsck(read_data=True).ok
            assert not runs_left(repo)
            await_workers(repo)
            assert not leftovers(repo)
        if where == "directory":
            with Repository.open(path / "repo", who=WHO) as repo:
                assert repo.fsck(read_data=True).ok
                await_workers(repo)
                assert not leftovers(repo)
        assert block_packs_of(store) - before == undisturbed.packs[verb]
    if where == "bucket":
        whole = path / "whole"
        clone(f"s3://{store.shown.removeprefix('s3://')}", whole, credentials=own(None), who=WHO)
        with Repository.open(whole, who=WHO) as repo:
            assert repo.fsck(read_data=True).ok
    return f"{verb} on {where} by {kind}: {who} killed, {'died' if code else 'went on'}"


def await_workers(repo):
    """Until the workers of a coordinator that is gone have noticed it, and are gone as well."""
    while True:
        repo.local.remove_dead_sessions()
        if len(list((repo.directory / "tmp").iterdir())) <= 1:
            return
        time.sleep(0.05)


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[4]], ids="-".join)
def test_a_kill_of_each(case, undisturbed, buckets, tmp_path):
    one_run(undisturbed, tmp_path, random.Random(str(case)), case, "processes:2", buckets, {})


@pytest.mark.slow
def test_kills_at_random(undisturbed, buckets, ray_address, tmp_path):
    chance = random.Random()
    counts: Counter[str] = Counter()
    kinds = ("threads", "processes:2", "ray:2")
    for number in range(int(os.environ.get("FAULTS", "1")) * 100):
        case, kind = CASES[number % len(CASES)], kinds[number // len(CASES) % len(kinds)]
        environment = {"RAY_ADDRESS": ray_address}
        path = tmp_path / str(number)
        what = one_run(undisturbed, path, chance, case, kind, buckets, environment)
        counts[what] += 1
        print(number, what, flush=True)
        shutil.rmtree(path)
    for what, count in sorted(counts.items()):
        print(f"{count:4} {what}")
