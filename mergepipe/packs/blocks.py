"""Reading blocks: resolve, sort, join neighbours, decode through bases, compare the hash."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from mergepipe.codecs.registry import codec_tagged
from mergepipe.errors import CodecError, Corruption, MissingObject
from mergepipe.ids import NO_ID, BlockId, block_id
from mergepipe.packs.format import RECORD_HEADER_BYTES, RecordHeader, parse_record
from mergepipe.packs.index import Location, View
from mergepipe.packs.reader import pack_key
from mergepipe.packs.storage import Storage

# Chains are short by rule (store.max_chain); this only stops a hostile cycle.
_DEEPEST_CHAIN = 16
_LARGEST_READ = 16 << 20


@dataclass(frozen=True, slots=True)
class Encoding:
    """One complete way a block is stored: a record for each layer, in order."""

    base: BlockId | None
    layers: tuple[Location, ...]

    @property
    def stored_bytes(self) -> int:
        """What reading all layers costs, without the base."""
        return sum(location.stored_bytes for location in self.layers)

    @property
    def raw_length(self) -> int:
        """Length of the block in bytes."""
        return self.layers[0].raw_length


def encodings(locations: Iterable[Location]) -> list[Encoding]:
    """The complete encodings among the records of one block; ones without a base first."""
    groups: dict[tuple[bytes, int, int], list[Location]] = {}
    for location in locations:
        groups.setdefault((location.base, location.codec, location.version), []).append(location)
    found = [
        Encoding(None if base == NO_ID else BlockId(base), tuple(layers))
        for (base, _, _), layers in groups.items()
        if [location.layer for location in layers] == list(range(layers[0].layers))
    ]
    return sorted(found, key=lambda encoding: (encoding.base is not None, encoding.stored_bytes))


class BlockReader:
    """Reads whole blocks, verified. May be used from any thread."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def resolve(self, blocks: Iterable[BlockId]) -> dict[BlockId, Encoding]:
        """The encoding to read for each block, and for every base they lean on.

        Raises MissingObject naming the first block that is in no pack.
        """
        chosen: dict[BlockId, Encoding] = {}
        wanted = list(dict.fromkeys(blocks))
        for _ in range(_DEEPEST_CHAIN):
            found = self._choose(wanted)
            chosen.update(found)
            wanted = [
                encoding.base
                for encoding in found.values()
                if encoding.base is not None and encoding.base not in chosen
            ]
            if not wanted:
                return chosen
        raise Corruption(f"block {wanted[0].hex()[:12]}: its bases never end")

    def read(self, blocks: Sequence[BlockId]) -> list[memoryview]:
        """The raw bytes of each block, in order, each compared with its id.

        Memory: the encoded and raw bytes of all of them and of their bases; callers read a few
        MiB at a time. Raises MissingObject and Corruption naming the block.
        """
        chosen = self.resolve(blocks)
        payloads = self._fetch(chosen.values())
        raws: dict[BlockId, memoryview] = {}
        for block in blocks:
            if block not in raws:
                raw = self._decode(block, chosen, payloads, raws, 0)
                if block_id(raw) != block:
                    raise self._blame(block, chosen, raws)
                raws[block] = raw
        return [raws[block] for block in blocks]

    def _choose(self, blocks: Iterable[BlockId]) -> dict[BlockId, Encoding]:
        with self._storage.view() as view:
            found = {block: encodings(view.block(block)) for block in blocks}
        for block, options in found.items():
            if not options:
                options = self._storage.look_up(partial(_complete, block)) or []
                found[block] = options
            if not options:
                raise MissingObject(
                    f"block {block.hex()} is in no pack",
                    "mp fsck tells what else is missing; mp fetch may bring it back",
                )
        return {block: options[0] for block, options in found.items()}

    def _fetch(self, chosen: Iterable[Encoding]) -> dict[tuple[bytes, int], memoryview]:
        """Payloads by (pack, offset), read with few large calls."""
        locations = sorted(
            {(at.pack, at.offset): at for encoding in chosen for at in encoding.layers}.values(),
            key=lambda at: (at.pack, at.offset),
        )
        payloads: dict[tuple[bytes, int], memoryview] = {}
        first = 0
        while first < len(locations):
            last = first
            start = locations[first].offset
            end = start + locations[first].stored_bytes
            while (
                last + 1 < len(locations)
                and locations[last + 1].pack == locations[first].pack
                and locations[last + 1].offset == end
                and end + locations[last + 1].stored_bytes - start <= _LARGEST_READ
            ):
                last += 1
                end += locations[last].stored_bytes
            span = self._read_span(locations[first], start, end - start)
            for at in locations[first : last + 1]:
                payloads[at.pack, at.offset] = _payload(span, at, at.offset - start)
            first = last + 1
        return payloads

    def _read_span(self, at: Location, offset: int, length: int) -> memoryview:
        key = pack_key(at.pack)
        span = memoryview(bytearray(length))
        try:
            count = self._storage.store.read_into(key, offset, span)
        except FileNotFoundError:
            raise MissingObject(
                f"{key} is gone", "mp fsck tells which models need it; mp fetch may bring it back"
            ) from None
        if count != length:
            raise Corruption(f"{key} is cut short: wanted {length} bytes at {offset}")
        return span

    def _decode(
        self,
        block: BlockId,
        chosen: dict[BlockId, Encoding],
        payloads: dict[tuple[bytes, int], memoryview],
        raws: dict[BlockId, memoryview],
        depth: int,
    ) -> memoryview:
        known = raws.get(block)
        if known is not None:
            return known
        if depth > _DEEPEST_CHAIN:
            raise Corruption(f"block {block.hex()[:12]}: its bases never end")
        encoding = chosen[block]
        base = None
        if encoding.base is not None:
            base = self._decode(encoding.base, chosen, payloads, raws, depth + 1)
            raws[encoding.base] = base
            if len(base) != encoding.raw_length:
                raise Corruption(f"block {block.hex()[:12]} and its base differ in length")
        layers = [payloads[at.pack, at.offset] for at in encoding.layers]
        first = encoding.layers[0]
        if first.codec == _RAW_TAG:
            if len(layers[0]) != encoding.raw_length:
                raise Corruption(f"block {block.hex()[:12]}: a raw record of the wrong length")
            return layers[0]
        out = memoryview(bytearray(encoding.raw_length))
        try:
            codec_tagged(first.codec, first.version).decode_into(layers, base, out)
        except CodecError as error:
            raise CodecError(f"block {block.hex()}: {error.message}", error.hint) from error
        return out

    def _blame(
        self, block: BlockId, chosen: dict[BlockId, Encoding], raws: dict[BlockId, memoryview]
    ) -> Corruption:
        """The error for a block that came out wrong: its deepest base that is wrong is to blame."""
        guilty = block
        base = chosen[block].base
        while base is not None:
            if base in raws and block_id(raws[base]) != base:
                guilty = base
            base = chosen[base].base
        at = chosen[guilty].layers[0]
        return Corruption(
            f"block {guilty.hex()} in {pack_key(at.pack)} is damaged: its bytes hash differently",
            "mp fsck --read-data tells which models need it; mp fetch may bring it back",
        )


def _complete(block: BlockId, view: View) -> list[Encoding] | None:
    return encodings(view.block(block)) or None


def _payload(span: memoryview, at: Location, start: int) -> memoryview:
    """The payload of the record at byte `start` of `span`, if it is the one the index meant."""
    header: RecordHeader = parse_record(span, pack_key(at.pack), start)
    if header.encoded_length != at.encoded_length or header.raw_length != at.raw_length:
        raise Corruption(f"{pack_key(at.pack)}: a record at {at.offset} is not the one indexed")
    begin = start + RECORD_HEADER_BYTES
    return span[begin : begin + at.encoded_length]


_RAW_TAG = 0
