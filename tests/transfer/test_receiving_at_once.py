"""Many who push at once, beside gc, and one that is killed while it takes in."""

import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.errors import MissingObject
from mergepipe.ids import ObjectId, PackId
from mergepipe.transfer.receiving import ReceivingStore
from tests.repository.checkpoints import WHO
from tests.torture.models import finish, in_child
from tests.transfer.pushes import MAIN, a_model, deliver

from .forging import BLOCK, Forge, line, noise, quarantined


def test_packs_are_taken_in_in_parts(repo: Repository, store: ReceivingStore) -> None:
    """Two branches whose blocks share packs: each gets what it needs."""
    forge = Forge()
    commits = [forge.model(noise(3 * BLOCK)) for _ in range(3)]
    deliver(store, forge.packs())
    for number, commit in enumerate(commits):
        assert store.compare_and_swap(f"refs/heads/b{number}", None, line(commit))
        held = len(quarantined(repo))
        assert held == (2 if number < 2 else 0)
    assert repo.fsck(read_data=True).ok
    assert repo.gc(grace_s=0).packs_rewritten == 0


def test_many_pushers_of_one_branch(repo: Repository, store: ReceivingStore) -> None:
    models = [a_model(BLOCK) for _ in range(8)]
    won: list[ObjectId] = []

    def push(packs: dict[PackId, bytes], commit: ObjectId) -> None:
        deliver(store, packs)
        if store.compare_and_swap(MAIN, None, line(commit)):
            won.append(commit)

    together([partial(push, *model) for model in models])
    assert won == [repo.refs.read(MAIN)]
    assert repo.fsck(read_data=True).ok


def test_many_pushers_of_the_same(repo: Repository, tmp_path: Path) -> None:
    """Several processes' worth of stores over one repository, all with the same packs."""
    forge = Forge()
    commits = [forge.model(noise(2 * BLOCK)) for _ in range(4)]
    packs = forge.packs()

    def push(number: int) -> None:
        with (
            Repository.open(tmp_path / "repo", who=WHO) as mine,
            ReceivingStore(mine) as store,
        ):
            for attempt in range(20):
                deliver(store, packs)
                try:
                    key = f"refs/heads/b{number}"
                    assert store.compare_and_swap(key, None, line(commits[number]))
                    return
                except MissingObject:
                    # Another took the pack in, in parts, just when this one needed it.
                    assert attempt < 19

    together([partial(push, number) for number in range(4)])
    assert sorted(repo.refs.list().values()) == sorted(commits)
    assert repo.fsck(read_data=True).ok


def together(work: Sequence[partial[None]]) -> None:
    failures: list[BaseException] = []

    def run(one: partial[None]) -> None:
        try:
            one()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_gc_beside_pushes(repo: Repository, store: ReceivingStore, tmp_path: Path) -> None:
    stop = threading.Event()

    def collect() -> None:
        with Repository.open(tmp_path / "repo", who=WHO) as other:
            while not stop.wait(0.01):
                other.gc(grace_s=0)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for number in range(15):
            packs, commit = a_model(BLOCK)
            deliver(store, packs)
            assert store.compare_and_swap(f"refs/heads/b{number}", None, line(commit))
    finally:
        stop.set()
        collector.join()
    assert repo.fsck(read_data=True).ok


@pytest.mark.parametrize(
    ("rounds", "seed"), [(12, 1), pytest.param(200, 2, marks=pytest.mark.slow)]
)
def test_killed_while_it_takes_in(tmp_path: Path, rounds: int, seed: int) -> None:
    """SIGKILL at any time: the branch is where it was or where it should be; the next one works."""
    with Repository.init(tmp_path / "repo", who=WHO) as repo:
        chance = random.Random(seed)
        before: ObjectId | None = None
        for _ in range(rounds):
            forge = Forge()
            commit = forge.model(noise(20 * BLOCK), parents=[before] if before else [])
            packs = forge.packs()
            child = in_child(partial(push_in_child, tmp_path / "repo", packs, before, commit))
            time.sleep(chance.uniform(0, 0.1))
            os.kill(child, signal.SIGKILL)
            finish(child)
            assert repo.refs.read(MAIN) in (before, commit)
            assert repo.fsck(read_data=True).ok
            with ReceivingStore(repo) as store:
                deliver(store, packs)
                if repo.refs.read(MAIN) == before:
                    assert store.compare_and_swap(MAIN, line(before), line(commit))
            before = commit
        assert repo.fsck(read_data=True).ok


def push_in_child(
    root: Path, packs: dict[PackId, bytes], before: ObjectId | None, commit: ObjectId
) -> None:
    with Repository.open(root, who=WHO) as repo, ReceivingStore(repo) as store:
        deliver(store, packs)
        store.compare_and_swap(MAIN, line(before), line(commit))
        signal.pause()
