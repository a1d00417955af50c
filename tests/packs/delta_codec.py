"""A small layered delta codec and a store to try it in: enough to test what packs promise.

It is registered for the test session only, under a tag that no release uses.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.codecs import registry
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import U8, DType
from mergepipe.errors import CodecError
from mergepipe.ids import BlockId, PackId, block_id
from mergepipe.packs.encoded_blocks import EncodedBlock, encode_block, seal_payloads
from mergepipe.packs.index import Index
from mergepipe.packs.reader import pack_ids, pack_key
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction


class Halves:
    """XOR with the base, run-length free: layer 0 is the first half, layer 1 the second."""

    name = "halves"
    tag = 250
    version = 1
    layers = 2
    needs_base = True

    def supports(self, dtype: DType) -> bool:
        return True

    def encode(
        self, raw: Buffer, base: Buffer | None, dtype: DType, workspace: Workspace
    ) -> tuple[Buffer, ...]:
        assert base is not None
        delta = xor(bytes(raw), bytes(base))
        middle = len(delta) // 2
        return tuple(half.rstrip(b"\0") for half in (delta[:middle], delta[middle:]))

    def decode_into(
        self,
        layers: Sequence[Buffer],
        base: Buffer | None,
        out: memoryview,
        workspace: Workspace,
    ) -> None:
        middle = len(out) // 2
        room = (middle, len(out) - middle)
        if base is None or len(layers) != 2 or len(base) != len(out):
            raise CodecError("halves needs two layers and a base")
        if any(len(layer) > most for layer, most in zip(layers, room, strict=True)):
            raise CodecError("halves: too long")
        halves = [bytes(layer).ljust(most, b"\0") for layer, most in zip(layers, room, strict=True)]
        out[:] = xor(b"".join(halves), bytes(base))


def xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "little") ^ int.from_bytes(b, "little")).to_bytes(len(a), "little")


HALVES = Halves()
_module = ModuleType("mergepipe.codecs.halves_for_tests")
_module.Halves = Halves  # type: ignore[attr-defined]
sys.modules[_module.__name__] = _module
registry._CODECS["halves"] = (250, "halves_for_tests", "Halves")
registry._NAME_OF_TAG[250] = "halves"


def open_storage(root: Path) -> Storage:
    return Storage(LocalByteStore(root), Index(root / "index"))


def raw_block(raw: bytes) -> EncodedBlock:
    return encode_block(block_id(raw), raw, U8, registry.codec_named("raw"))


def delta_block(raw: bytes, base: bytes) -> EncodedBlock:
    payloads = HALVES.encode(raw, base, U8, Workspace())
    return seal_payloads(block_id(raw), len(raw), HALVES, block_id(base), payloads)


def store_blocks(
    storage: Storage, *blocks: EncodedBlock, pack_bytes: int = 1 << 28
) -> list[BlockId]:
    with Transaction(storage, pack_bytes) as transaction:
        for block in blocks:
            transaction.add_block(block)
        transaction.publish()
    return [block.id for block in blocks]


def packs(storage: Storage) -> list[PackId]:
    return pack_ids(storage.store)


def pack_path(root: Path, pack: PackId) -> Path:
    return root / pack_key(pack)


def flip(path: Path, offset: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)
