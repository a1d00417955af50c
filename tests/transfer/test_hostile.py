"""What is not as it should be is refused, pushed or fetched alike, and nothing of it stays."""

import itertools
import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from repository.checkpoints import WHO

from mergepipe.api import Repository
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, MergepipeError, MissingObject, RemoteRefused
from mergepipe.ids import ObjectId, PackId, block_id, object_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Blob, FileEntry, Safetensors, Snapshot, Tensor, TensorEntry
from mergepipe.packs.format import MAX_BLOCK_BYTES
from mergepipe.transfer.fetch import fetch

from .forging import (
    BLOCK,
    Forge,
    fetched,
    noise,
    pushed,
    quarantined,
    remote_of,
    visible,
)
from .remotes import Interposed

RAW = noise(3 * BLOCK + 100)
Case = Callable[[Forge], tuple[ObjectId, bytes]]
CASES: dict[str, Case] = {}


def case(make: Case) -> Case:
    """Note a way to be wrong: returns a commit, and the id that the message has to name."""
    CASES[make.__name__] = make
    return make


@case
def a_block_that_is_another_one(forge: Forge) -> tuple[ObjectId, bytes]:
    real = noise(BLOCK)
    forge.block(noise(BLOCK), id=block_id(real))
    return forge.commit(forge.tensor_of(block_id(real), BLOCK), BLOCK), block_id(real)


@case
def a_block_that_does_not_decode(forge: Forge) -> tuple[ObjectId, bytes]:
    real = noise(BLOCK)
    forge.block(noise(99), id=block_id(real), codec=1, raw_length=BLOCK)
    return forge.commit(forge.tensor_of(block_id(real), BLOCK), BLOCK), block_id(real)


@case
def a_codec_that_nobody_has(forge: Forge) -> tuple[ObjectId, bytes]:
    real = noise(BLOCK)
    forge.block(real, codec=77)
    return forge.commit(forge.tensor_of(block_id(real), BLOCK), BLOCK), block_id(real)


@case
def a_block_of_another_length(forge: Forge) -> tuple[ObjectId, bytes]:
    block = forge.block(noise(BLOCK - 1))
    return forge.commit(forge.tensor_of(block, BLOCK), BLOCK), block


@case
def a_raw_block_whose_payload_is_shorter(forge: Forge) -> tuple[ObjectId, bytes]:
    real = noise(BLOCK)
    forge.block(real[:-1], id=block_id(real), raw_length=BLOCK)
    return forge.commit(forge.tensor_of(block_id(real), BLOCK), BLOCK), block_id(real)


@case
def a_block_with_two_lengths(forge: Forge) -> tuple[ObjectId, bytes]:
    block = forge.block(noise(BLOCK))
    tensors = (
        forge.tensor_of(block, BLOCK),
        forge.tensor_of(block, 100),
    )
    files = tuple(
        FileEntry(f"{n}.bin", False, size, Blob(tensor))
        for n, (tensor, size) in enumerate(zip(tensors, (BLOCK, 100), strict=True))
    )
    return forge.commit_of(forge.put(Snapshot(files))), block


@case
def blocks_that_lean_on_each_other(forge: Forge) -> tuple[ObjectId, bytes]:
    one, other = noise(BLOCK), noise(BLOCK)
    forge.block(noise(50), id=block_id(one), base=block_id(other), codec=2, raw_length=BLOCK)
    forge.block(noise(50), id=block_id(other), base=block_id(one), codec=2, raw_length=BLOCK)
    return forge.commit(forge.tensor_of(block_id(one), BLOCK), BLOCK), block_id(one)


@case
def a_base_of_another_length(forge: Forge) -> tuple[ObjectId, bytes]:
    base = forge.block(noise(BLOCK // 2))
    block = block_id(noise(BLOCK))
    forge.block(noise(50), id=block, base=base, codec=2, raw_length=BLOCK)
    return forge.commit(forge.tensor_of(block, BLOCK), BLOCK), block


@case
def a_chain_without_an_end(forge: Forge) -> tuple[ObjectId, bytes]:
    end = noise(BLOCK)
    ids = [*(block_id(noise(BLOCK)) for _ in range(40)), block_id(end)]
    for block, base in itertools.pairwise(ids):
        forge.block(noise(50), id=block, base=base, codec=2, raw_length=BLOCK)
    forge.block(end)
    return forge.commit(forge.tensor_of(ids[0], BLOCK), BLOCK), ids[0]


@case
def a_difference_from_nothing(forge: Forge) -> tuple[ObjectId, bytes]:
    real = noise(BLOCK)
    forge.block(noise(50), id=block_id(real), codec=2, raw_length=BLOCK)
    return forge.commit(forge.tensor_of(block_id(real), BLOCK), BLOCK), block_id(real)


@case
def an_object_that_is_another_one(forge: Forge) -> tuple[ObjectId, bytes]:
    real = encode(Tensor("U8", (0,), BLOCK, b""))
    forge.put(Tensor("I8", (0,), BLOCK, b""), id=object_id(real))
    return forge.commit(object_id(real), 0), object_id(real)


@case
def an_object_that_is_not_canonical(forge: Forge) -> tuple[ObjectId, bytes]:
    canonical = encode(Tensor("U8", (5,), BLOCK, forge.block(b"12345")))
    longer = canonical.replace(b"\x91\x05", b"\x91\xcc\x05", 1)
    assert longer != canonical
    tensor = forge.put(longer)
    return forge.commit(tensor, 5), tensor


@case
def an_object_of_garbage(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.put(b"tensor 1\n" + noise(50))
    return forge.commit(tensor, 5), tensor


@case
def a_tensor_where_a_snapshot_should_be(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor(RAW)
    return forge.commit_of(tensor), tensor


@case
def a_branch_that_is_no_commit(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor(RAW)
    return tensor, tensor


@case
def a_profile_that_is_none(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor(RAW)
    snapshot = forge.put(Snapshot((FileEntry("w", False, len(RAW), Blob(tensor)),)))
    return forge.commit_of(snapshot, profile=tensor), tensor


@case
def too_few_blocks(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor_of(forge.block(noise(BLOCK)), 2 * BLOCK)
    return forge.commit(tensor, 2 * BLOCK), tensor


@case
def blocks_cut_in_the_middle_of_an_id(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor_of(forge.block(noise(BLOCK))[:-1], BLOCK)
    return forge.commit(tensor, BLOCK), tensor


@case
def a_tensor_of_absurd_shape(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor_of(b"", 0, shape=(1 << 62,) * 60, block_bytes=1)
    return forge.commit(tensor, 1 << 62), tensor


@case
def a_tensor_of_very_many_dimensions(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor_of(b"", 0, shape=(1 << 62,) * 100_000)
    return forge.commit(tensor, 0), tensor


@case
def a_dtype_that_nobody_has(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor_of(b"", 0, dtype="F7")
    return forge.commit(tensor, 0), tensor


@case
def bits_that_fill_no_byte(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor_of(forge.block(b"1"), 1, dtype="F4", shape=(1,))
    return forge.commit(tensor, 1), tensor


@case
def a_file_of_another_size(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor(RAW)
    file = FileEntry("w.safetensors", False, 9, Safetensors(tensor, (TensorEntry("w", tensor),)))
    snapshot = forge.put(Snapshot((file,)))
    return forge.commit_of(snapshot), snapshot


@case
def a_file_that_is_there_twice(forge: Forge) -> tuple[ObjectId, bytes]:
    file = FileEntry("w", False, len(RAW), Blob(forge.tensor(RAW)))
    snapshot = forge.put(Snapshot((file, file)))
    return forge.commit_of(snapshot), snapshot


def path_case(name: str, path: str) -> None:
    def make(forge: Forge) -> tuple[ObjectId, bytes]:
        file = FileEntry(path, False, len(RAW), Blob(forge.tensor(RAW)))
        snapshot = forge.put(Snapshot((file,)))
        return forge.commit_of(snapshot), snapshot

    CASES[f"a_path_{name}"] = make


path_case("outside", "../../etc/cron.d/x")
path_case("from_the_root", "/etc/passwd")
path_case("into_the_repository", ".mergepipe/hooks/post-merge")
path_case("into_git", "x/.GIT/hooks/post-checkout")
path_case("with_a_nul", "a\0b")
path_case("with_a_newline", "a\nb")
path_case("with_a_backslash", "a\\..\\b")
path_case("that_is_empty", "")
path_case("without_an_end", "a/" * 3000 + "b")


@case
def paths_that_are_one_elsewhere(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor(RAW)
    files = tuple(FileEntry(path, False, len(RAW), Blob(tensor)) for path in ("A", "a"))
    snapshot = forge.put(Snapshot(files))
    return forge.commit_of(snapshot), snapshot


@pytest.fixture(params=["pushed", "fetched"])
def take(request: pytest.FixtureRequest) -> Callable[..., object]:
    return pushed if request.param == "pushed" else fetched


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "repo", who=WHO) as opened:
        yield opened


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_lie(name: str, take: Callable[..., object], repo: Repository) -> None:
    forge = Forge()
    pushed(repo, _packs(forge, lambda: forge.model(b"what was there before")), _last(forge))
    before = visible(repo)
    forge = Forge()
    commit, guilty = CASES[name](forge)
    packs = forge.packs()
    with bounded(), pytest.raises((Corruption, RemoteRefused)) as caught:
        take(repo, packs, commit, "wrong")
    assert guilty.hex()[:12] in caught.value.message
    assert visible(repo) == before
    assert repo.fsck(read_data=True).ok
    # Who means it well gets through afterwards, in the same way.
    honest = Forge()
    good = honest.model(noise(2 * BLOCK))
    take(repo, honest.packs(), good, "right")
    assert repo.fsck(read_data=True).ok
    assert repo.objects.commit(good).author == "Eve"


def _packs(forge: Forge, make: Callable[[], object]) -> dict[PackId, bytes]:
    make()
    return forge.packs()


def _last(forge: Forge) -> ObjectId:
    return ObjectId(forge.objects[-1][0].id)


def test_an_object_that_would_fill_memory(repo: Repository) -> None:
    forge = Forge()
    tensor = forge.put(Tensor("U8", (0,), BLOCK, b""), raw_length=1 << 30)
    commit = forge.commit(tensor, 0)
    with bounded(), pytest.raises(RemoteRefused, match=tensor.hex()):
        pushed(repo, forge.packs(), commit)
    with bounded(), pytest.raises(MissingObject, match=tensor.hex()):
        fetched(repo, forge.packs(), commit)
    assert quarantined(repo) == []


@pytest.mark.parametrize("kind", ["object", "block"])
def test_a_frame_that_would_fill_memory(
    kind: str, take: Callable[..., object], repo: Repository
) -> None:
    bomb = zstandard.compress(bytes(1 << 30))
    forge = Forge()
    if kind == "object":
        tensor = forge.put(Tensor("U8", (0,), BLOCK, b""))
        header, _ = forge.objects.pop()
        fields: dict[str, Any] = {"codec": 1, "encoded_length": len(bomb), "raw_length": len(bomb)}
        forge.objects.append((replace(header, **fields), bomb))
        commit, guilty = forge.commit(tensor, 0), tensor
    else:
        real = noise(len(bomb))
        forge.block(bomb, id=block_id(real), codec=1)
        tensor = forge.tensor_of(block_id(real), len(bomb), block_bytes=len(bomb))
        commit, guilty = forge.commit(tensor, len(bomb)), ObjectId(block_id(real))
    with bounded(), pytest.raises(Corruption, match=guilty.hex()):
        take(repo, forge.packs(), commit)
    assert visible(repo) == {}


def test_a_block_larger_than_any(take: Callable[..., object], repo: Repository) -> None:
    forge = Forge()
    block = forge.block(noise(10), codec=1, raw_length=MAX_BLOCK_BYTES + 1)
    size = MAX_BLOCK_BYTES + 1
    commit = forge.commit(forge.tensor_of(block, size, block_bytes=size), size)
    with bounded(), pytest.raises(Corruption):
        take(repo, forge.packs(), commit)
    assert visible(repo) == {}


def test_what_comes_along_does_not_get_in(take: Callable[..., object], repo: Repository) -> None:
    """A pack with what is needed, and with other ways to read blocks that are here, all lies."""
    first = Forge()
    here = noise(BLOCK)
    pushed(repo, _packs(first, lambda: first.model(here)), _last(first))
    forge = Forge()
    new = noise(BLOCK)
    commit = forge.model(new)
    # Nobody can tell yet what these are: a layer and a base are missing.
    forge.block(noise(20), id=block_id(here), layer=0, layers=2, raw_length=BLOCK)
    lie = forge.block(
        noise(20), id=block_id(here), codec=2, raw_length=BLOCK, base=block_id(noise(1))
    )
    stray = forge.put(Tensor("U8", (0,), BLOCK, b""), id=object_id(b"tensor of nobody"))
    take(repo, forge.packs(), commit, "new")
    with repo.storage.view() as view:
        assert len(view.block(lie)) == 1
        assert view.object(stray) is None
    assert [bytes(raw) for raw in repo.blocks.read([lie, block_id(new)])] == [here, new]
    assert repo.fsck(read_data=True).ok


def test_a_lie_beside_what_is_needed(take: Callable[..., object], repo: Repository) -> None:
    """A wrong block that no tensor names: not sent, or not taken."""
    forge = Forge()
    commit = forge.model(noise(BLOCK))
    lie = forge.block(noise(BLOCK), id=block_id(noise(BLOCK)))
    if take is pushed:
        with pytest.raises(Corruption, match=lie.hex()):
            take(repo, forge.packs(), commit)
        assert quarantined(repo) == []
    else:
        take(repo, forge.packs(), commit)
    with repo.storage.view() as view:
        assert view.block(lie) == []


@pytest.mark.parametrize(
    ("rounds", "seed"), [(30, 17), pytest.param(500, 18, marks=pytest.mark.slow)]
)
def test_bytes_that_changed_on_the_way(
    repo: Repository, tmp_path: Path, rounds: int, seed: int
) -> None:
    """Wherever a byte is another one, it is refused or makes no difference."""
    forge = Forge()
    base = noise(2 * BLOCK)
    raw = bytes(a ^ (b & 1) for a, b in zip(base, noise(len(base)), strict=True))
    for at in (0, BLOCK):
        forge.delta(raw[at : at + BLOCK], base[at : at + BLOCK])
    first = forge.model(base)
    ids = b"".join(block_id(raw[at : at + BLOCK]) for at in (0, BLOCK))
    commit = forge.commit(forge.tensor_of(ids, len(raw)), len(raw), parents=[first])
    honest = forge.packs()
    chance = random.Random(seed)
    refused = 0
    for number in range(rounds):
        packs = dict(honest)
        which = chance.choice(sorted(packs))
        data = bytearray(packs[which])
        for _ in range(chance.choice((1, 1, 1, 8))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        packs[which] = bytes(data)
        take = pushed if number % 2 else fetched
        with Repository.init(tmp_path / f"r{number}", who=WHO) as other:
            try:
                take(other, packs, commit)
            except MergepipeError:
                refused += 1
                assert visible(other) == {}
            assert other.fsck(read_data=True).ok
    assert refused > 0.9 * rounds
    assert pushed(repo, honest, commit)


class Liar(Interposed):
    """A remote that answers as it likes."""

    def __init__(self, inner: ByteStore, **lies: Callable[..., object]) -> None:
        super().__init__(inner)
        self._lies = lies
        self.asked = 0

    def __getattribute__(self, name: str) -> object:
        lies: dict[str, Callable[..., object]] = object.__getattribute__(self, "__dict__").get(
            "_lies", {}
        )
        if name in lies:
            self.asked += 1
            return lies[name]
        return object.__getattribute__(self, name)


def endless_packs(prefix: str) -> Iterator[str]:
    return (f"packs/{number:064x}.pack" for number in itertools.count())


def zeros(key: str, offset: int, out: memoryview) -> int:
    return len(out)


def nothing(key: str, offset: int, out: memoryview) -> int:
    return 0


def too_much(key: str, offset: int, out: memoryview) -> int:
    return len(out) + 1000


def gone(key: str, offset: int, out: memoryview) -> int:
    raise FileNotFoundError(key)


def noisy(key: str, offset: int, out: memoryview) -> int:
    out[:] = noise(len(out))
    return len(out)


A_COMMIT = b"0" * 64 + b"\n"
LIES: dict[str, dict[str, Callable[..., object]]] = {
    "too many refs": {
        "values": lambda prefix: {f"refs/heads/b{n}": A_COMMIT for n in range(150_000)}
    },
    "a name that is a path": {"values": lambda prefix: {"refs/heads/../../x": A_COMMIT}},
    "a name with control characters": {"values": lambda prefix: {"refs/heads/\x1b[2J": A_COMMIT}},
    "a name that is an option": {"values": lambda prefix: {"refs/heads/--force": A_COMMIT}},
    "a value that is no id": {"values": lambda prefix: {"refs/heads/main": b"ref: refs/heads/x"}},
    "packs without end": {"list": endless_packs},
    "all bytes zero": {"read_into": zeros},
    "no bytes": {"read_into": nothing},
    "more bytes than asked for": {"read_into": too_much},
    "packs that are never there": {"read_into": gone},
    "noise": {"read_into": noisy},
    "packs of absurd size": {"size": lambda key: 1 << 62},
    "packs of no size": {"size": lambda key: 0},
    "packs of negative size": {"size": lambda key: -1},
}


@pytest.mark.parametrize("name", sorted(LIES))
def test_a_remote_that_lies(name: str, repo: Repository) -> None:
    forge = Forge()
    commit = forge.model(RAW)
    honest = remote_of(forge.packs(), {"main": commit})
    with bounded(200 << 20), pytest.raises((RemoteRefused, Corruption)):
        fetch(repo, "origin", Liar(honest, **LIES[name]))
    assert visible(repo) == {}
    fetch(repo, "origin", honest)
    assert repo.refs.read("refs/remotes/origin/main") == commit
    assert repo.fsck(read_data=True).ok


def test_a_remote_that_lies_once_it_is_believed(repo: Repository) -> None:
    """Footers and objects are true, the blocks are not."""
    forge = Forge()
    commit = forge.model(noise(400 * BLOCK))
    honest = remote_of(forge.packs(), {"main": commit})
    largest = max(honest.list("packs/"), key=lambda key: honest.size(key) or 0)

    def read_into(key: str, offset: int, out: memoryview) -> int:
        count = honest.read_into(key, offset, out)
        if key == largest and offset < 100 * BLOCK and len(out) > 1000:
            out[:1000] = bytes(1000)
        return count

    with pytest.raises(Corruption):
        fetch(repo, "origin", Liar(honest, read_into=read_into))
    assert visible(repo) == {}
    fetch(repo, "origin", honest)
    assert repo.fsck(read_data=True).ok


@contextmanager
def bounded(most: int = 128 << 20) -> Iterator[None]:
    """No more memory than this is allocated inside."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
