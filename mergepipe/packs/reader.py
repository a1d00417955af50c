"""Reading packs without an index: their footers, or record by record where a footer is lost."""

from collections.abc import Iterator

from blake3 import blake3

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption, NewerFormat, RemoteRefused
from mergepipe.ids import PackId, digest
from mergepipe.packs import format as pack_format
from mergepipe.packs.format import (
    PACK_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    RECORD_MAGIC,
    TRAILER_BYTES,
    Content,
    RecordHeader,
    RecordKind,
)

PREFIX = "packs/"
SUFFIX = ".pack"
_HEX = frozenset("0123456789abcdef")
_CHUNK_BYTES = 1 << 20
# The end of a far pack that is read at first: the footer of some 480 records fits.
_FAR_TAIL_BYTES = 64 << 10
# The end of a near one: as much costs no more than less would.
_NEAR_TAIL_BYTES = 4 << 10
_LARGEST_FAR_FOOTER_BYTES = 64 << 20
_RECORD_KIND = {Content.BLOCKS: RecordKind.BLOCK, Content.OBJECTS: RecordKind.OBJECT}


def pack_key(pack: PackId) -> str:
    """The key of a pack in a byte store."""
    return f"{PREFIX}{pack.hex()}{SUFFIX}"


def parse_pack_key(key: str) -> PackId | None:
    """The pack of a key (`packs/<64 hex>.pack`), or None for any other."""
    return parse_pack_name(key.removeprefix(PREFIX)) if key.startswith(PREFIX) else None


def parse_pack_name(name: str) -> PackId | None:
    """The pack of a file name (`<64 hex>.pack`), or None for any other."""
    stem = name.removesuffix(SUFFIX)
    if stem == name or len(stem) != 64 or not set(stem) <= _HEX:
        return None
    return PackId(bytes.fromhex(stem))


def pack_ids(store: ByteStore) -> list[PackId]:
    """Every pack the store lists, sorted."""
    packs = (parse_pack_key(key) for key in store.list(PREFIX))
    return [pack for pack in packs if pack is not None]  # None: a stray file in packs/


def read_exactly(store: ByteStore, key: str, offset: int, length: int) -> bytearray:
    """`length` bytes at `offset`. Raises Corruption if the value ends before."""
    if length > _CHUNK_BYTES and offset + length > (store.size(key) or 0):
        # Before allocating: a damaged length may be anything.
        raise Corruption(f"{key} is cut short: wanted {length} bytes at {offset}")
    data = bytearray(length)
    if store.read_into(key, offset, memoryview(data)) != length:
        raise Corruption(f"{key} is cut short: wanted {length} bytes at {offset}")
    return data


def read_footer(
    store: ByteStore, pack: PackId, key: str = ""
) -> tuple[Content, list[tuple[RecordHeader, int]]]:
    """What a pack holds and every record's header and offset, from its verified footer.

    `key` says where it lies, if not among the packs. Raises Corruption if header, trailer or
    footer are not what the pack's name says, NewerFormat for a pack of a later release, and
    FileNotFoundError if there is no such pack.
    """
    key = key or pack_key(pack)
    content, footer = read_frame(store, pack, key)
    return content, check_frame(content, footer, store.size(key) or 0, key)


def read_frame(store: ByteStore, pack: PackId, key: str = "") -> tuple[Content, bytes]:
    """What a pack holds, and its footer, whose records need not fill it (`check_frame`)."""
    key = key or pack_key(pack)
    try:
        content = read_content(store, key)
    except NewerFormat as newer:
        # Nothing vouches for the version. A footer of ours, of this very name, shows that it is
        # the header that is damaged, and not we who are too old.
        try:
            read_footer_bytes(store, pack, key)
        except Corruption:
            raise newer from None
        raise Corruption(f"{key}: its header is damaged") from newer
    return content, read_footer_bytes(store, pack, key)


def read_content(store: ByteStore, key: str) -> Content:
    """What a pack says that it holds. Raises Corruption, NewerFormat, FileNotFoundError."""
    size = store.size(key)
    if size is None:
        raise FileNotFoundError(key)
    if size < PACK_HEADER_BYTES + TRAILER_BYTES:
        raise Corruption(f"{key} is cut short: {size} bytes")
    return pack_format.parse_pack_header(read_exactly(store, key, 0, PACK_HEADER_BYTES), key)


def read_footer_bytes(store: ByteStore, pack: PackId, key: str = "", *, far: bool = False) -> bytes:
    """A pack's footer; its hash is the pack's name, and every line of it makes sense.

    `far`: the store is another machine's. A short footer then takes one exchange, and an absurd
    one is refused. Raises Corruption, FileNotFoundError, RemoteRefused.
    """
    key = key or pack_key(pack)
    size = store.size(key)
    if size is None:
        raise FileNotFoundError(key)
    if size < PACK_HEADER_BYTES + TRAILER_BYTES:
        raise Corruption(f"{key} is cut short: {size} bytes")
    # Near, no more than is needed: what lies before it may be records that are not here yet.
    tail_bytes = min(size, _FAR_TAIL_BYTES if far else TRAILER_BYTES)
    tail = bytes(read_exactly(store, key, size - tail_bytes, tail_bytes))
    length, identity = pack_format.parse_trailer(tail[-TRAILER_BYTES:], key)
    if length > size - PACK_HEADER_BYTES - TRAILER_BYTES:
        raise Corruption(f"{key}: its footer is longer than the file")
    if far and length > _LARGEST_FAR_FOOTER_BYTES:
        raise RemoteRefused(f"{key} of the remote has a footer of {length} bytes")
    footer = tail[-TRAILER_BYTES - length : -TRAILER_BYTES] if length else b""
    if len(footer) < length:
        begin = size - TRAILER_BYTES - length
        footer = bytes(read_exactly(store, key, begin, length - len(footer))) + footer
    if digest(footer) != identity or identity != pack:
        raise Corruption(f"{key}: its footer does not match its name")
    pack_format.parse_footer(footer, key)
    return footer


def raw_footer(store: ByteStore, pack: PackId) -> bytes | None:
    """What stands where a pack's footer is, unread; None if it is not there, or as long as none is.

    For somebody else, who compares its hash with the pack's name.
    """
    key = pack_key(pack)
    size = store.size(key) or 0
    if size < PACK_HEADER_BYTES + TRAILER_BYTES:
        return None
    tail_bytes = min(size, _NEAR_TAIL_BYTES)
    try:
        tail = bytes(read_exactly(store, key, size - tail_bytes, tail_bytes))
        length, _ = pack_format.parse_trailer(tail[-TRAILER_BYTES:], key)
        if length > min(size - PACK_HEADER_BYTES - TRAILER_BYTES, _LARGEST_FAR_FOOTER_BYTES):
            return None
        if length + TRAILER_BYTES > tail_bytes:
            return bytes(read_exactly(store, key, size - TRAILER_BYTES - length, length))
    except (Corruption, FileNotFoundError):
        return None
    return tail[tail_bytes - TRAILER_BYTES - length : tail_bytes - TRAILER_BYTES]


def check_frame(
    content: Content, footer: bytes, size: int, key: str
) -> list[tuple[RecordHeader, int]]:
    """The records that a footer lists, which fill a pack of this size. Raises Corruption."""
    records = pack_format.parse_footer(footer, key)
    end = PACK_HEADER_BYTES
    for record, offset in records:
        if offset != end:
            raise Corruption(f"{key}: records do not follow each other")
        # The name vouches for the records, and they for the one header field it does not cover.
        if record.kind is not _RECORD_KIND[content]:
            raise Corruption(f"{key}: its header says {content.name.lower()}, its records do not")
        end += record.stored_bytes
    if end != size - TRAILER_BYTES - len(footer):
        raise Corruption(f"{key}: its records do not end where its footer begins")
    return records


def salvage_records(store: ByteStore, pack: PackId) -> Iterator[tuple[RecordHeader, int]]:
    """Every whole record of a damaged pack, in file order: those whose checksum holds.

    Reads the whole pack. Where no record begins, the next one is looked for: damage to one record
    costs that record. A footer repeats record headers, which is why nothing counts unchecked.
    """
    key = pack_key(pack)
    size = store.size(key) or 0
    offset = PACK_HEADER_BYTES
    while offset + RECORD_HEADER_BYTES <= size:
        header = whole_record(store, key, offset, size)
        if header is not None:
            yield header, offset
            offset += header.stored_bytes
        else:
            offset = _next_magic(store, key, offset + 1, size)


def whole_record(store: ByteStore, key: str, offset: int, size: int) -> RecordHeader | None:
    """The record at `offset` of a value of `size` bytes, if it is there whole."""
    try:
        header = pack_format.parse_record(
            read_exactly(store, key, offset, RECORD_HEADER_BYTES), key
        )
    except Corruption:
        return None
    end = offset + header.stored_bytes
    if end > size:
        return None
    payload = blake3()
    for start in range(offset + RECORD_HEADER_BYTES, end, _CHUNK_BYTES):
        payload.update(read_exactly(store, key, start, min(_CHUNK_BYTES, end - start)))
    sealed = header.sealed(payload.digest())
    return header if sealed.endswith(header.checksum) else None


def _next_magic(store: ByteStore, key: str, offset: int, size: int) -> int:
    """Where the next record may begin, from `offset` on; `size` if nowhere."""
    while offset < size:
        window = read_exactly(store, key, offset, min(_CHUNK_BYTES, size - offset))
        place = window.find(RECORD_MAGIC)
        if place >= 0:
            return offset + place
        # A magic may lie across two windows.
        offset += max(1, len(window) - len(RECORD_MAGIC) + 1)
    return size
