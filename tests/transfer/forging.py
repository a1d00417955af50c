"""Packs of one's own making, true ones and any other, and remotes that offer them."""

import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mergepipe.api import Repository
from mergepipe.bytestore.memory import MemoryByteStore, MemoryWriter
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.codecs.registry import codec_named
from mergepipe.dtypes import U8
from mergepipe.ids import NO_ID, BlockId, ObjectId, PackId, block_id, object_id
from mergepipe.objects.encoding import unchecked
from mergepipe.objects.records import Blob, Commit, Content, FileEntry, Record, Snapshot, Tensor
from mergepipe.packs import format as pack_format
from mergepipe.packs.encoded_blocks import encode_block, encode_object
from mergepipe.packs.format import RecordHeader, RecordKind
from mergepipe.packs.reader import pack_key
from mergepipe.packs.writer import PackWriter
from mergepipe.transfer.fetch import Fetched, FetchOptions, fetch
from mergepipe.transfer.receiving import ReceivingStore

BLOCK = 4096
CHANCE = np.random.default_rng(3)


def noise(size: int) -> bytes:
    return CHANCE.bytes(size)


@dataclass
class Forge:
    """Records on their way into two packs, one of blocks and one of objects."""

    blocks: list[tuple[RecordHeader, bytes]] = field(default_factory=list)
    objects: list[tuple[RecordHeader, bytes]] = field(default_factory=list)

    def block(self, raw: bytes, **lies: object) -> BlockId:
        """A block, stored raw; `lies` replace fields of its record's header."""
        fields: dict[str, object] = {
            "kind": RecordKind.BLOCK,
            "codec": 0,
            "version": 1,
            "layer": 0,
            "layers": 1,
            "raw_length": len(raw),
            "encoded_length": len(raw),
            "id": block_id(raw),
            "base": NO_ID,
        }
        header = RecordHeader(**(fields | lies))  # type: ignore[arg-type]
        self.blocks.append((header, raw))
        return BlockId(header.id)

    def delta(self, raw: bytes, base: bytes) -> BlockId:
        """A block stored as its difference from another."""
        encoded = encode_block(block_id(raw), raw, U8, codec_named("bitx"), (block_id(base), base))
        assert encoded.records[0].header.base == block_id(base)
        self.blocks += [(one.header, bytes(one.payload)) for one in encoded.records]
        return encoded.id

    def put(self, record: Record | bytes, **lies: object) -> ObjectId:
        """An object; `lies` replace fields of its record's header."""
        canonical = record if isinstance(record, bytes) else unchecked(record)
        header, payload = encode_object(canonical)
        fields = {
            name: getattr(header, name) for name in header.__struct_fields__ if name != "checksum"
        }
        self.objects.append((RecordHeader(**(fields | lies)), payload))
        return ObjectId(self.objects[-1][0].id)

    def tensor(self, raw: bytes, **lies: object) -> ObjectId:
        """A tensor of bytes, with its blocks."""
        blocks = b"".join(self.block(raw[at : at + BLOCK]) for at in range(0, len(raw), BLOCK))
        return self.tensor_of(blocks, len(raw), **lies)

    def tensor_of(self, blocks: bytes, size: int, **lies: object) -> ObjectId:
        fields: dict[str, object] = {
            "dtype": "U8",
            "shape": (size,),
            "block_bytes": BLOCK,
            "blocks": blocks,
        }
        return self.put(Tensor(**(fields | lies)))  # type: ignore[arg-type]

    def commit(
        self,
        tensor: ObjectId,
        size: int,
        *,
        path: str = "weights.bin",
        parents: Sequence[ObjectId] = (),
        content: Content | None = None,
        **lies: object,
    ) -> ObjectId:
        """A commit of one file."""
        file = FileEntry(path, False, size, content or Blob(tensor))
        return self.commit_of(self.put(Snapshot((file,))), parents, **lies)

    def commit_of(
        self, snapshot: ObjectId, parents: Sequence[ObjectId] = (), **lies: object
    ) -> ObjectId:
        fields: dict[str, object] = {
            "snapshot": snapshot,
            "parents": tuple(parents),
            "leans_on": None,
            "author": "Eve",
            "time": 1_700_000_000,
            "utc_offset": 0,
            "message": "",
        }
        return self.put(Commit(**(fields | lies)))  # type: ignore[arg-type]

    def model(self, raw: bytes, **more: object) -> ObjectId:
        """A commit of one honest file."""
        return self.commit(self.tensor(raw), len(raw), **more)  # type: ignore[arg-type]

    def packs(self) -> dict[PackId, bytes]:
        """The packs, blocks first."""
        made = (
            pack_of(content, records)
            for content, records in (
                (pack_format.Content.BLOCKS, self.blocks),
                (pack_format.Content.OBJECTS, self.objects),
            )
            if records
        )
        return dict(made)


def pack_of(
    content: pack_format.Content, records: Sequence[tuple[RecordHeader, bytes]]
) -> tuple[PackId, bytes]:
    """A pack of records as they are given: framed and sealed as it should be."""
    writer = PackWriter(MemoryByteStore(), content)
    for header, payload in records:
        writer.add(header, payload)
    entry, value = writer.finish()
    assert isinstance(value, MemoryWriter)
    return entry.id, bytes(value._data)


def send(store: ByteStore, pack: PackId, data: bytes) -> None:
    """One pack, as a pusher sends it."""
    writer = store.create()
    try:
        writer.write(data)
        writer.sync()
        store.publish([(writer, pack_key(pack))])
    finally:
        writer.abort()


def line(commit: ObjectId | None) -> bytes | None:
    return None if commit is None else commit.hex().encode() + b"\n"


def pushed(
    repo: Repository, packs: Mapping[PackId, bytes], commit: ObjectId, branch: str = "main"
) -> bool:
    """Send packs, and let a branch follow."""
    with ReceivingStore(repo) as store:
        for pack, data in packs.items():
            send(store, pack, data)
        return store.compare_and_swap(f"refs/heads/{branch}", None, line(commit))


def remote_of(packs: Mapping[PackId, bytes], branches: Mapping[str, ObjectId]) -> MemoryByteStore:
    """A bucket that offers packs and branches."""
    store = MemoryByteStore()
    for pack, data in packs.items():
        store.put(pack_key(pack), data)
    for name, commit in branches.items():
        store.put(f"refs/heads/{name}", line(commit) or b"")
    store.put("HEAD", b"ref: refs/heads/main\n")
    return store


def fetched(
    repo: Repository, packs: Mapping[PackId, bytes], commit: ObjectId, branch: str = "main"
) -> Fetched:
    """Fetch a branch from a remote that offers these packs."""
    return fetch(repo, "origin", remote_of(packs, {branch: commit}), FetchOptions((branch,)))


def visible(repo: Repository) -> dict[str, bytes]:
    """All that a repository shows and keeps, quarantine and indexes aside."""
    folders = ("packs", "refs", "logs")
    return {
        path.relative_to(repo.directory).as_posix(): path.read_bytes()
        for folder in folders
        for path in sorted((repo.directory / folder).rglob("*"))
        if path.is_file()
    }


def quarantined(repo: Repository) -> list[PackId]:
    return [PackId(bytes.fromhex(path.stem)) for path in incoming(repo.directory)]


def incoming(directory: Path) -> Iterator[Path]:
    return iter(sorted((directory / "incoming").glob("*.pack")))


def wrong_id(raw: bytes) -> bytes:
    return object_id(raw + b"!")


@contextmanager
def bounded(most: int = 128 << 20) -> Iterator[None]:
    """No more memory than this is allocated inside."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
