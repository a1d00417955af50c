"""Which encoding of a block is read, and which records are read at once."""

from collections.abc import Sequence

from mergepipe.ids import NO_ID, BlockId, PackId
from mergepipe.packs.choice import DEEPEST_CHAIN, cheapest, unreadable_block
from mergepipe.packs.format import RECORD_HEADER_BYTES, RecordHeader, RecordKind
from mergepipe.packs.records import Encoding, Location, complete_encodings, encodings
from mergepipe.packs.runs import runs

PACK = PackId(bytes(32))


def block(number: int) -> BlockId:
    return BlockId(bytes([number]) * 32)


def record(
    of: int, length: int, *, base: int | None = None, codec: int = 0, layer: int = 0,
    layers: int = 1, offset: int = 0, pack: PackId = PACK,
) -> Location:  # fmt: skip
    header = RecordHeader(
        RecordKind.BLOCK, codec, 1, layer, layers, 1000, length, block(of),
        NO_ID if base is None else block(base),
    )  # fmt: skip
    return Location(header, pack, offset)


def stored(*records: Location) -> dict[BlockId, list[Encoding]]:
    options: dict[BlockId, list[Encoding]] = {}
    for at in records:
        options.setdefault(BlockId(at.id), []).extend(encodings([at]))
    return options


def lengths(chosen: dict[BlockId, Encoding]) -> dict[int, int]:
    return {key[0]: way.stored_bytes - RECORD_HEADER_BYTES for key, way in chosen.items()}


def test_the_fewest_bytes_are_read_whatever_the_length_of_the_chain() -> None:
    options = stored(record(1, 1000), record(1, 100, base=2), record(2, 500))
    assert lengths(cheapest([block(1)], options)) == {1: 100, 2: 500}
    options = stored(record(1, 1000), record(1, 600, base=2), record(2, 500))
    assert lengths(cheapest([block(1)], options))[1] == 1000
    # A base that is in hand costs nothing.
    assert lengths(cheapest([block(1)], options, {block(2)})) == {1: 600}


def test_ties_go_to_the_shorter_chain_then_to_the_smaller_codec() -> None:
    whole = record(1, 300 + RECORD_HEADER_BYTES, codec=5)
    options = stored(record(1, 100, base=2, codec=1), whole, record(2, 200))
    assert cheapest([block(1)], options)[block(1)].layers == (whole,)
    options = stored(record(1, 100, codec=2), record(1, 100, codec=1))
    assert cheapest([block(1)], options)[block(1)].header.codec == 1


def test_bases_without_an_end_are_not_read() -> None:
    options = stored(record(1, 10, base=2), record(2, 10, base=1))
    assert cheapest([block(1), block(2)], options) == {}
    assert "never end" in unreadable_block(block(1), options).message
    # One that leads round is no reason against another.
    options = stored(record(1, 10, base=2), record(2, 10, base=1), record(1, 900))
    assert lengths(cheapest([block(2)], options)) == {1: 900, 2: 10}
    chain = [record(number, 10, base=number + 1) for number in range(DEEPEST_CHAIN + 2)]
    options = stored(*chain, record(DEEPEST_CHAIN + 2, 10))
    assert block(0) not in cheapest([block(0)], options)


def test_an_encoding_is_whole_with_all_its_layers() -> None:
    layers = [record(1, 10, layer=layer, layers=2, offset=200 * layer) for layer in range(2)]
    copy = record(1, 10, layer=1, layers=2, offset=900)
    assert encodings(layers[:1]) == []
    assert [way.layers for way in encodings([*layers, copy])] == [tuple(layers)]
    avoided = encodings([*layers, copy], {layers[1].place})
    assert [way.layers for way in avoided] == [(layers[0], copy)]
    assert complete_encodings(at.header for at in layers) == {layers[0].header.encoding}
    assert complete_encodings([layers[1].header]) == set()


def test_neighbours_are_read_at_once_within_bounds() -> None:
    def cut(records: Sequence[Location], largest: int, gap: int = 0) -> list[int]:
        return [len(run) for run in runs(records, largest, gap)]

    size = 100 + RECORD_HEADER_BYTES
    side_by_side = [record(1, 100, offset=size * number) for number in range(4)]
    assert cut(side_by_side, 10 * size) == [4]
    assert cut(side_by_side, 2 * size) == [2, 2]
    assert cut(side_by_side, 1) == [1, 1, 1, 1]  # what is longer alone is read alone
    apart = [record(1, 100), record(1, 100, offset=size + 50)]
    assert cut(apart, 10 * size) == [1, 1]
    assert cut(apart, 10 * size, 50) == [2]
    assert cut([record(1, 100), record(1, 100, offset=size, pack=PackId(b"x" * 32))], size * 9) == [
        1,
        1,
    ]
    assert cut([], 1) == []
