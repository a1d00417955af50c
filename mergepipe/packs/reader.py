"""Reading packs without an index: their footers, or record by record where a footer is lost."""

from collections.abc import Iterator

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption
from mergepipe.ids import PackId, digest
from mergepipe.packs import format as pack_format
from mergepipe.packs.format import (
    PACK_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    TRAILER_BYTES,
    Content,
    RecordHeader,
)

PREFIX = "packs/"
SUFFIX = ".pack"


def pack_key(pack: PackId) -> str:
    """The key of a pack in a byte store."""
    return f"{PREFIX}{pack.hex()}{SUFFIX}"


def pack_ids(store: ByteStore) -> list[PackId]:
    """Every pack the store lists, sorted."""
    found = []
    for key in store.list(PREFIX):
        name = key[len(PREFIX) : -len(SUFFIX)]
        if key.endswith(SUFFIX) and len(name) == 64:
            try:
                found.append(PackId(bytes.fromhex(name)))
            except ValueError:
                continue  # not ours: a stray file in packs/
    return found


def read_exactly(store: ByteStore, key: str, offset: int, length: int) -> bytearray:
    """`length` bytes at `offset`. Raises Corruption if the value ends before."""
    data = bytearray(length)
    if store.read_into(key, offset, memoryview(data)) != length:
        raise Corruption(f"{key} is cut short: wanted {length} bytes at {offset}")
    return data


def read_footer(store: ByteStore, pack: PackId) -> tuple[Content, list[tuple[RecordHeader, int]]]:
    """What a pack holds and every record's header and offset, from its verified footer.

    Raises Corruption if header, trailer or footer are not what the pack's name says, and
    FileNotFoundError if there is no such pack.
    """
    key = pack_key(pack)
    size = store.size(key)
    if size is None:
        raise FileNotFoundError(key)
    if size < PACK_HEADER_BYTES + TRAILER_BYTES:
        raise Corruption(f"{key} is cut short: {size} bytes")
    content = pack_format.parse_pack_header(read_exactly(store, key, 0, PACK_HEADER_BYTES), key)
    length, identity = pack_format.parse_trailer(
        read_exactly(store, key, size - TRAILER_BYTES, TRAILER_BYTES), key
    )
    if length > size - PACK_HEADER_BYTES - TRAILER_BYTES:
        raise Corruption(f"{key}: its footer is longer than the file")
    footer = read_exactly(store, key, size - TRAILER_BYTES - length, length)
    if digest(footer) != identity or identity != pack:
        raise Corruption(f"{key}: its footer does not match its name")
    records = pack_format.parse_footer(footer, key)
    end = PACK_HEADER_BYTES
    for header, offset in records:
        if offset != end:
            raise Corruption(f"{key}: records do not follow each other")
        end += header.stored_bytes
    if end != size - TRAILER_BYTES - length:
        raise Corruption(f"{key}: its records do not end where its footer begins")
    return content, records


def walk_records(store: ByteStore, pack: PackId) -> Iterator[tuple[RecordHeader, int]]:
    """Records as they stand in the file, up to the first that is not whole: for rescue and fsck."""
    key = pack_key(pack)
    size = store.size(key) or 0
    offset = PACK_HEADER_BYTES
    while offset + RECORD_HEADER_BYTES <= size:
        try:
            header = pack_format.parse_record(
                read_exactly(store, key, offset, RECORD_HEADER_BYTES), key
            )
        except Corruption:
            return
        if offset + header.stored_bytes > size:
            return
        yield header, offset
        offset += header.stored_bytes
