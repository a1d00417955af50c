"""Blocks looked at while they come in, so that little is left to do once all is there.

What can be decoded as it arrives, because all that it leans on is at hand, is: admission then knows
those records. It decides all the same, and decodes what could not be looked at before.
"""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import Corruption
from mergepipe.ids import NO_ID, BlockId, block_id
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.decoding import decode_block
from mergepipe.packs.format import RECORD_HEADER_BYTES, RecordHeader, RecordKind
from mergepipe.packs.reader import pack_key, read_exactly
from mergepipe.packs.records import Location, Place
from mergepipe.packs.storage import Storage
from mergepipe.packs.view import View
from mergepipe.parallel import Scratch

_KEPT_BYTES = 128 << 20
_PIECE_BYTES = 4 << 20

Places = tuple[Place, ...]


class Inspected:
    """Which quarantined encodings were decoded and compared with their ids, in this process.

    By the places of all their records: one record may be right with this layer and wrong with
    another. Keeps the bytes of blocks that others lean on, up to `kept_bytes`: those that came
    first, for models come one after the other, and each leans on the first again.
    """

    def __init__(self, kept_bytes: int = _KEPT_BYTES) -> None:
        self._places: set[Places] = set()
        self._raws: dict[BlockId, bytes] = {}
        self._room = kept_bytes
        self._kept_bytes = kept_bytes
        self._lock = threading.Lock()

    def note(self, places: Places) -> None:
        """Remember an encoding that was right."""
        self._places.add(places)

    def __contains__(self, places: object) -> bool:
        return places in self._places

    def keep(self, block: BlockId, raw: memoryview) -> None:
        """Keep a block's bytes for what leans on it, if there is room."""
        with self._lock:
            if block not in self._raws and len(raw) <= self._room:
                self._raws[block] = bytes(raw)
                self._room -= len(raw)

    def raw(self, block: BlockId) -> memoryview | None:
        """A block's bytes, if they were kept."""
        found = self._raws.get(block)
        return None if found is None else memoryview(found)

    def forget(self, *, everything: bool) -> None:
        """Let go of the bytes that are kept, or of `everything`."""
        with self._lock:
            if everything:
                self._places.clear()
            self._raws.clear()
            self._room = self._kept_bytes


class Arrived(Struct, frozen=True):
    """A record at hand, its checksum verified."""

    header: RecordHeader
    payload: memoryview


class Inspector:
    """Decodes what arrives. `here` reads what was there before, quarantine included.

    `leaned_on` tells whose bytes to keep. May be used from several threads.
    """

    def __init__(
        self, here: Storage, inspected: Inspected, leaned_on: Callable[[RecordHeader], bool]
    ) -> None:
        self._here = here
        self._reader = BlockReader(here)
        self._inspected = inspected
        self._leaned_on = leaned_on
        self._scratch = Scratch()
        self._workspace = Workspace()

    def inspect(self, arrived: Sequence[Arrived]) -> list[Places | None]:
        """Decode records that complete a block, where layers and base are at hand.

        For each record, the places of the layers before it if its block was right; None if nothing
        can be told yet. Raises Corruption naming a block that is another one. Memory: a few MiB,
        a block and its base at least.
        """
        places: list[Places | None] = []
        for piece in _cut(arrived):
            places += self._inspect(piece)
        return places

    def _inspect(self, arrived: Sequence[Arrived]) -> list[Places | None]:
        self._scratch.reset()
        last = [
            one.header
            for one in arrived
            if one.header.kind is RecordKind.BLOCK and one.header.is_last_layer
        ]
        layers = self._here.ask(functools.partial(_layers_before, headers=last))
        bases = self._bases(last, {BlockId(header.id) for header in last})
        raws: dict[BlockId, memoryview] = {}
        places: list[Places | None] = []
        for one in arrived:
            header = one.header
            before = layers.get(header.checksum)
            base = None
            if header.base != NO_ID:
                base = raws.get(BlockId(header.base)) or bases.get(BlockId(header.base))
            if before is None or (base is None) != (header.base == NO_ID):
                places.append(None)
                continue
            payloads = [self._payload(at) for at in before]
            raw = decode_block(
                header, [*payloads, one.payload], base, self._scratch.take, self._workspace
            )
            if block_id(raw) != header.id:
                raise Corruption(f"block {header.id.hex()} is not what its id says")
            raws[BlockId(header.id)] = raw
            if self._leaned_on(header):
                self._inspected.keep(BlockId(header.id), raw)
            places.append(tuple(at.place for at in before))
        return places

    def _bases(
        self, headers: Sequence[RecordHeader], coming: set[BlockId]
    ) -> dict[BlockId, memoryview]:
        """The bytes of bases that are at hand, kept or readable."""
        raws: dict[BlockId, memoryview] = {}
        wanted: list[BlockId] = []
        for base in dict.fromkeys(
            BlockId(header.base) for header in headers if header.base != NO_ID
        ):
            raw = self._inspected.raw(base)
            if raw is not None:
                raws[base] = raw
            elif base not in coming:
                wanted.append(base)
        whole = self._here.ask(lambda view: [one for one in wanted if view.has_block(one)])
        try:
            read = self._reader.read(whole)
        except Corruption:
            return raws  # of a base in quarantine: admission will say of which
        raws.update((base, raw) for base, raw in zip(whole, read, strict=True))
        return raws

    def _payload(self, at: Location) -> memoryview:
        begin = at.offset + RECORD_HEADER_BYTES
        return memoryview(
            read_exactly(self._here.store, pack_key(at.pack), begin, at.header.encoded_length)
        )


def _cut(arrived: Sequence[Arrived]) -> Iterator[Sequence[Arrived]]:
    """Records whose blocks take a few MiB, decoded: a small payload may become a large block."""
    first, size = 0, 0
    for number, one in enumerate(arrived):
        if number > first and size + one.header.raw_length > _PIECE_BYTES:
            yield arrived[first:number]
            first, size = number, 0
        size += one.header.raw_length
    yield arrived[first:]


def _layers_before(view: View, headers: Sequence[RecordHeader]) -> dict[bytes, list[Location]]:
    """For records by checksum, where the layers before each are; left out if one is missing."""
    locations: dict[bytes, list[Location]] = {}
    for header in headers:
        layers: dict[int, Location] = {}
        if header.layers > 1:
            for at in view.block(BlockId(header.id)):
                if at.header.encoding == header.encoding:
                    layers.setdefault(at.header.layer, at)
        before = [layers[number] for number in range(header.layer) if number in layers]
        if len(before) == header.layer:
            locations[header.checksum] = before
    return locations
