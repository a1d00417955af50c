"""Checking data and making profiles, by processes, finds what threads find."""

from dataclasses import replace

import pytest

from mergepipe.codecs.registry import codec_named
from mergepipe.dtypes import BF16
from mergepipe.executors.processes import ProcessExecutor
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.reader import pack_key
from tests.engine.merging import EXPERTS, tensors_of
from tests.executors.family import Killing, copied, family, leftovers

SMALL_BYTES = 200 << 10


@pytest.fixture
def repo(tmp_path, monkeypatch):
    with family(tmp_path) as repo:
        small_segments(monkeypatch, repo)
        yield repo


def small_segments(monkeypatch, repo):
    """Work in several segments, though the models are small."""
    whole = type(repo).workforce.fget
    monkeypatch.setattr(
        type(repo),
        "workforce",
        property(lambda one: replace(whole(one), segment_bytes=SMALL_BYTES)),
    )


def damage(repo, branch, tensor, copy=False):
    """Flip a bit of the record of a tensor's block; `copy`: the block is there once more, whole."""
    identity = tensors_of(repo, branch)["model.safetensors", tensor]
    block = repo.objects.tensor(identity).block_ids()[0]
    raw = bytes(repo.blocks.read([block])[0])
    at = repo.blocks.resolve([block])[block].layers[-1]
    if copy:
        with repo.transactions.begin() as transaction:
            transaction.add_block(encode_block(block, raw, BF16, codec_named("raw")))
            transaction.publish()
    pack = repo.local.path(pack_key(at.pack))
    data = bytearray(pack.read_bytes())
    data[at.offset + 300] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)


def checked(repo, executor):
    """What fsck finds in all data, and how often it was told how far it is."""
    with repo.on(executor):
        report = repo.fsck(read_data=True)
    return sorted((one.kind, one.id, one.detail) for one in report.problems)


def test_processes_check_all_data(repo):
    with ProcessExecutor(2) as executor:
        assert checked(repo, executor) == []
        killing = Killing(executor, {0, 3, "last"})
        assert checked(repo, killing) == []
        assert killing.killed
    assert not leftovers(repo)


def test_processes_find_the_damage_that_threads_find(repo, tmp_path):
    damage(repo, EXPERTS[0], "layer.30.w")
    damage(repo, EXPERTS[1], "layer.07.w", copy=True)
    damage(repo, "base", "layer.45.w")
    with copied(repo, tmp_path / "other") as other:
        found = checked(other, "processes:2")
        assert found == checked(repo, "threads")
        assert len(found) > 3


def test_processes_make_the_profile_that_threads_make(repo, tmp_path):
    with copied(repo, tmp_path / "other") as other:
        with repo.on("threads"):
            profile = repo.analyze(EXPERTS[0], EXPERTS[1])
        with ProcessExecutor(2) as executor, other.on(Killing(executor, {1})):
            assert other.analyze(EXPERTS[0], EXPERTS[1]) == profile
        assert other.profile_bytes >= repo.profile_bytes > SMALL_BYTES


def test_a_profile_is_made_of_the_copy_that_is_whole(repo, tmp_path):
    with repo.on("threads"):
        profile = repo.analyze(EXPERTS[0], EXPERTS[1])
    with copied(repo, tmp_path / "other") as other:
        other.storage.index.uncache(lambda key, value: key.startswith(b"p/"))
        damage(other, EXPERTS[1], "layer.07.w", copy=True)
        with other.on("processes:2"):
            assert other.analyze(EXPERTS[0], EXPERTS[1]) == profile
