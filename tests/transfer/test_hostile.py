"""What is not as it should be is refused, pushed or fetched alike, and nothing of it stays."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from msgspec.structs import replace

from mergepipe.api import Repository
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.errors import Corruption, MergepipeError, MissingObject, RemoteRefused
from mergepipe.ids import ObjectId, PackId, block_id, object_id
from mergepipe.objects.records import Tensor
from mergepipe.packs.format import MAX_BLOCK_BYTES
from mergepipe.packs.index import Index
from mergepipe.packs.reader import read_footer_bytes
from mergepipe.transfer import remote_packs, remote_refs
from mergepipe.transfer.fetch import fetch
from tests.packs.test_packs import write_pack
from tests.repository.checkpoints import WHO

from .forged_models import CASES, RAW
from .forging import (
    BLOCK,
    Forge,
    bounded,
    fetched,
    noise,
    pushed,
    quarantined,
    remote_of,
    visible,
)
from .lying_remotes import LIES, Liar


@pytest.fixture(params=["pushed", "fetched"])
def take(request: pytest.FixtureRequest) -> Callable[..., object]:
    return pushed if request.param == "pushed" else fetched


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


@pytest.mark.parametrize("name", sorted(LIES))
def test_a_remote_that_lies(name: str, repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_refs, "MOST_REFS", 100_000)
    monkeypatch.setattr(remote_packs, "MOST_PACKS", 200_000)
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


def test_a_footer_of_another_pack_says_nothing(tmp_path: Path) -> None:
    """Else what is in that one would be sought in this one, and not be found."""

    class Mistaken(MemoryByteStore):
        def locate(self, ids: Sequence[bytes]) -> list[PackId]:
            return [own]

        def footers(self, packs: Sequence[PackId]) -> list[bytes | None]:
            return [read_footer_bytes(self, other) for _ in packs]

    store = Mistaken()
    raw = [noise(BLOCK), noise(2 * BLOCK)]
    own, other = (write_pack(store, [each]) for each in raw)
    (tmp_path / "index").mkdir()
    storage = remote_packs.RemoteStorage(store, Index(tmp_path / "index"))
    try:
        storage.seek([block_id(raw[1])])
        assert storage.packs_of([block_id(raw[1])]) == []
    finally:
        storage.close()
