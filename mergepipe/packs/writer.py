"""Writing one pack: records in, an unpublished value out."""

from mergepipe.bytestore.protocol import Buffer, ByteStore, ByteWriter
from mergepipe.ids import PackId, digest
from mergepipe.packs import format as pack_format
from mergepipe.packs.entries import PackEntry
from mergepipe.packs.format import RECORD_HEADER_BYTES, Content, RecordHeader


class PackWriter:
    """Appends records to one new pack. Not for use from several threads."""

    def __init__(self, store: ByteStore, content: Content) -> None:
        self.content = content
        self._writer = store.create()
        self._footer = bytearray()
        self.records: list[tuple[RecordHeader, int]] = []
        self._writer.write(pack_format.pack_header(content))

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._writer.size

    def add(self, header: RecordHeader, payload: Buffer, payload_digest: bytes = b"") -> int:
        """Append a record; returns its offset. `payload_digest` saves hashing a known payload."""
        sealed = header.sealed(payload_digest or digest(payload))
        return self.add_sealed(header, sealed, payload)

    def add_sealed(self, header: RecordHeader, sealed: bytes, payload: Buffer) -> int:
        """Append a record whose header was sealed elsewhere (on another core)."""
        offset = self._writer.size
        self._writer.write(sealed, payload)
        self._footer += pack_format.footer_entry(sealed, offset)
        self.records.append((header, offset))
        return offset

    def add_copy(self, header: RecordHeader, record: Buffer) -> int:
        """Append a record byte for byte as it stands in another pack, checked by the caller."""
        record = memoryview(record)
        sealed, payload = record[:RECORD_HEADER_BYTES], record[RECORD_HEADER_BYTES:]
        return self.add_sealed(header, bytes(sealed), payload)

    def finish(self) -> tuple[PackEntry, ByteWriter]:
        """Write footer and trailer: what to index, and the value to sync and publish."""
        self._writer.write(self._footer, pack_format.trailer(self._footer))
        pack = PackId(digest(self._footer))
        return PackEntry(pack, self._writer.size, self.content, tuple(self.records)), self._writer

    def abort(self) -> None:
        """Drop the pack."""
        self._writer.abort()
