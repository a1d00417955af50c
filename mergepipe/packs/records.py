"""Records where they are, and how they make up the encodings of a block."""

from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct

from mergepipe.codecs.registry import SUCCESSORS
from mergepipe.ids import NO_ID, BlockId, PackId
from mergepipe.packs.format import EncodingKey, RecordHeader, plausible_lengths

Place: TypeAlias = tuple[PackId, int]
"""A pack, and an offset in it."""

_FARTHEST = 1 << 62  # past it, an offset is damage, and no file system takes it


class Location(Struct, frozen=True, gc=False):
    """One record in one pack: what its header says, and the offset at which it begins."""

    header: RecordHeader
    pack: PackId
    offset: int

    @property
    def id(self) -> bytes:
        """The block or object that the record is of."""
        return self.header.id

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.pack, self.offset

    @property
    def stored_bytes(self) -> int:
        """Length of the whole record: what reading it costs."""
        return self.header.stored_bytes

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.header.stored_bytes

    @property
    def is_plausible(self) -> bool:
        """Whether it may be read; asked before anything is allocated."""
        header = self.header
        return self.offset <= _FARTHEST and plausible_lengths(
            header.kind, header.raw_length, header.encoded_length
        )


class Encoding(Struct, frozen=True, gc=False):
    """One complete way a block is stored: a record for each layer, in order."""

    base: BlockId | None
    layers: tuple[Location, ...]

    @property
    def header(self) -> RecordHeader:
        """The header of its first layer: id, codec and raw length are those of all."""
        return self.layers[0].header

    @property
    def places(self) -> tuple[Place, ...]:
        """Where its layers are."""
        return tuple(at.place for at in self.layers)

    @property
    def follows(self) -> bool:
        """Whether its layer 0 says how the coarse layer of its base became this block's."""
        return self.layers[0].header.codec in SUCCESSORS

    @property
    def exact(self) -> tuple[Location, ...]:
        """The layers that reading the whole block takes."""
        return self.layers[-1:] if self.follows else self.layers

    @property
    def exact_bytes(self) -> int:
        """What reading those costs, without the base."""
        return sum(at.header.stored_bytes for at in self.exact)

    @property
    def stored_bytes(self) -> int:
        """What all layers take, without the base."""
        return sum(at.header.stored_bytes for at in self.layers)

    @property
    def raw_length(self) -> int:
        """Length of the block in bytes."""
        return self.layers[0].header.raw_length


def encodings(
    locations: Sequence[Location], avoid: Collection[Place] = frozenset()
) -> list[Encoding]:
    """The complete encodings among the records of one block; ones without a base first.

    Of several copies of a record the first counts whose place is not one to `avoid`.
    """
    if not avoid and _is_one_encoding(locations):
        return [_encoding(locations[0].header.base, locations)]  # nearly always
    groups: dict[EncodingKey, dict[int, Location]] = {}
    for at in locations:
        if at.place not in avoid:
            groups.setdefault(at.header.encoding, {}).setdefault(at.header.layer, at)
    complete = [
        _encoding(key.base, [layers[layer] for layer in range(key.layers)])
        for key, layers in groups.items()
        if len(layers) == key.layers
    ]
    return sorted(complete, key=lambda encoding: (encoding.base is not None, encoding.stored_bytes))


def complete_encodings(headers: Iterable[RecordHeader]) -> set[EncodingKey]:
    """The encodings all of whose layers are among some records."""
    layers: dict[EncodingKey, set[int]] = {}
    for header in headers:
        layers.setdefault(header.encoding, set()).add(header.layer)
    return {key for key, numbers in layers.items() if len(numbers) == key.layers}


def _is_one_encoding(locations: Sequence[Location]) -> bool:
    if not locations or len(locations) != locations[0].header.layers:
        return False
    first = locations[0].header
    if first.layer != 0:
        return False
    for layer in range(1, len(locations)):
        header = locations[layer].header
        if header.layer != layer or not header.is_beside(first):
            return False
    return True


def _encoding(base: bytes, layers: Sequence[Location]) -> Encoding:
    return Encoding(None if base == NO_ID else BlockId(base), tuple(layers))
