"""Processes make what threads make, whatever happens to them."""

import pytest
from msgspec.structs import replace

from mergepipe.codecs.registry import codec_named
from mergepipe.dtypes import BF16
from mergepipe.engine.replay import replay
from mergepipe.errors import NoSpace, UsageError
from mergepipe.executors.choosing import PROCESSES_FROM, Choice, parse
from mergepipe.executors.processes import ProcessExecutor
from mergepipe.executors.segments import WorkersLost
from mergepipe.executors.threads import ThreadExecutor
from mergepipe.failpoints import VARIABLE
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.reader import pack_key
from tests.engine.merging import EXPERTS, tensors_of
from tests.executors.family import (
    SEGMENT_BYTES,
    Killing,
    block_packs,
    copied,
    family,
    leftovers,
    merged,
)


@pytest.fixture
def repo(tmp_path):
    with family(tmp_path) as repo:
        yield repo


@pytest.fixture
def other(repo, tmp_path):
    with copied(repo, tmp_path / "other") as other:
        yield other


def test_processes_make_the_ids_and_packs_that_threads_make(repo, other):
    threads, _ = merged(repo, "threads")
    with ProcessExecutor(2) as executor:
        processes, result = merged(other, executor)
        pids = executor.pids
        again, _ = merged(other, executor)
        assert executor.pids == pids  # who was started once goes on
    assert processes == threads
    assert len(threads.packs) > 6
    assert result.costs.attempts == ()
    # What is here already is left out of packs that others wrote, and nothing is left of them.
    assert again.snapshot == threads.snapshot and not again.packs
    assert not leftovers(repo) and not leftovers(other)


def test_blocks_that_are_here_are_left_out_alike(repo, other):
    for one in (repo, other):
        with one.on("threads"):
            part = one.plan(experts=list(EXPERTS[:2]), base="base", method="linear")
            one.merge(part, branch="half")
    threads, _ = merged(repo, "threads")
    processes, _ = merged(other, "processes:2")
    assert processes == threads
    assert block_packs(repo) == block_packs(other)


def test_workers_that_are_killed_change_nothing(repo, other):
    threads, _ = merged(repo, "threads")
    with ProcessExecutor(2) as executor:
        killing = Killing(executor, {0, 2, "last"})
        processes, result = merged(other, killing)
    assert killing.killed and processes == threads
    assert result.costs.attempts
    assert other.fsck(read_data=True).ok
    assert not leftovers(other)


def test_a_piece_of_work_that_ends_every_worker_ends_the_merge(repo, monkeypatch):
    monkeypatch.setenv(VARIABLE, "file.sync@1=kill")
    tip = repo.resolve("base")
    with ProcessExecutor(1) as executor, pytest.raises(WorkersLost, match=r"layer\.00\.w.*SIGKILL"):
        merged(repo, executor)
    assert repo.resolve("base") == tip
    monkeypatch.delenv(VARIABLE)
    made, _ = merged(repo, "processes:1")
    assert made.packs and not leftovers(repo)


def test_our_own_errors_are_raised_at_once_and_not_tried_again(repo, monkeypatch):
    monkeypatch.setenv(VARIABLE, "file.sync@1=ENOSPC")
    with ProcessExecutor(1) as executor, pytest.raises(NoSpace):
        merged(repo, executor)
    assert not leftovers(repo)


def test_a_damaged_record_is_repaired_by_who_has_the_index(repo, other):
    """One record is damaged, and the block is there once more in another encoding."""
    threads, _ = merged(repo, "threads")
    tensor = tensors_of(other, EXPERTS[0])["model.safetensors", "layer.30.w"]
    block = other.objects.tensor(tensor).block_ids()[0]
    raw = bytes(other.blocks.read([block])[0])
    at = other.blocks.resolve([block])[block].layers[-1]
    with other.transactions.begin() as transaction:
        transaction.add_block(encode_block(block, raw, BF16, codec_named("raw")))
        transaction.publish()
    pack = other.local.path(pack_key(at.pack))
    data = bytearray(pack.read_bytes())
    data[at.offset + 300] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    with ProcessExecutor(2) as executor:
        processes, result = merged(other, executor)
    assert (processes.snapshot, processes.packs) == (threads.snapshot, threads.packs)
    assert len(result.costs.attempts) == 1


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("threads", Choice("threads")),
        ("processes", Choice("processes")),
        ("processes:3", Choice("processes", 3)),
        ("ray", Choice("ray")),
        ("ray:2", Choice("ray", 2)),
        ("ray://head:10001", Choice("ray", address="ray://head:10001")),
    ],
)
def test_who_works_is_said_in_a_word(text, choice):
    assert parse(text) == choice


@pytest.mark.parametrize(
    "text",
    ["", "thread", "threads:2", "processes:", "processes:0", "ray://", "ray:x"],
)
def test_other_words_are_refused(text):
    with pytest.raises(UsageError, match="--on"):
        parse(text)


def test_replay_is_done_by_others_too(repo):
    _, result = merged(repo, "threads")
    with ProcessExecutor(2) as executor, repo.on(executor):
        engine = replace(repo.merging.engine(), segment_bytes=SEGMENT_BYTES)
        assert replay(engine, result.manifest_id).same
        assert len(executor.pids) == 2
    assert not leftovers(repo)


def test_a_lone_segment_starts_no_process(repo):
    with ProcessExecutor(2) as executor, repo.on(executor):
        assert repo.fsck(read_data=True).ok
        assert executor.pids == []


def test_without_a_word_processes_work_where_there_are_many_cores():
    assert isinstance(parse("auto").executor(PROCESSES_FROM - 1), ThreadExecutor)
    assert isinstance(parse("auto").executor(PROCESSES_FROM), ProcessExecutor)


def test_who_finds_the_processes_at_work_does_it_by_threads(repo, other):
    threads, _ = merged(repo, "threads")
    with ProcessExecutor(1) as executor:

        class Twice(Killing):
            """While segments of one merge are given out, another is made."""

            def _after(self, number):
                if number == 1:
                    assert merged(other, executor)[0].snapshot == threads.snapshot

        again, _ = merged(repo, Twice(executor, set()))
    assert again.snapshot == threads.snapshot
