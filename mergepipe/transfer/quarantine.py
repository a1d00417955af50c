"""Packs that others sent, in `incoming/` of a repository: checked as packs, believed in nothing.

Framing, bounds and every record's checksum are checked as a pack closes; whether its records are
what they claim is for `admission`. Nobody else reads from here.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from mergepipe.bytestore.local import LocalByteStore, sync_directory
from mergepipe.bytestore.local_writer import LocalWriter
from mergepipe.bytestore.protocol import Buffer, ByteWriter
from mergepipe.closing import Closing
from mergepipe.errors import Corruption, MergepipeError, RemoteRefused
from mergepipe.ids import PackId, digest
from mergepipe.objects.limits import MAX_OBJECT_BYTES
from mergepipe.packs.entries import PackEntry
from mergepipe.packs.format import (
    PACK_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    RecordHeader,
    RecordKind,
    parse_pack_header,
)
from mergepipe.packs.index import Index
from mergepipe.packs.reader import (
    PREFIX,
    pack_key,
    parse_pack_key,
    parse_pack_name,
    read_exactly,
    read_footer,
    whole_record,
)
from mergepipe.packs.records import Location
from mergepipe.packs.runs import runs
from mergepipe.packs.storage import Storage
from mergepipe.packs.writer import PackWriter
from mergepipe.repository.incoming import (
    FOLDER,
    SESSIONS,
    incoming_key,
    incoming_packs,
    stale_packs,
)
from mergepipe.sizes import format_size
from mergepipe.transfer.inspection import Arrived

MAX_PACK_BYTES = 128 << 20
MAX_PACKS = 1 << 16
DEFAULT_LIMIT_BYTES = 64 << 30
# How much may pass before the room that is left is looked up again: others write here too.
_LOOK_AGAIN_BYTES = 8 << 20
_RUN_BYTES = 8 << 20

Look = Callable[[PackId, Sequence[int], Sequence[Arrived]], None]


class Quarantine(Closing):
    """The quarantine of one repository. May be used from any thread, by several processes.

    At most `limit_bytes` in all.
    """

    def __init__(self, directory: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._local = LocalByteStore(directory, SESSIONS)
        self._limit_bytes = limit_bytes
        self.packs = IncomingPacks(self._local)

    def close(self) -> None:
        """Release files; packs stay."""
        if "storage" in self.__dict__:
            self.storage.close()
        else:
            self._local.close()

    @cached_property
    def storage(self) -> Storage:
        """What is quarantined, through an index of its own, which may be lost at any time."""
        return Storage(self.packs, Index.of(self._local.root, f"{FOLDER}index"))

    @property
    def empty(self) -> bool:
        """Whether there is no pack: asked before anything is made for an index."""
        return next(self._files(), None) is None

    def create(self, look: Look | None = None) -> "QuarantineWriter":
        """Begin a pack; `look` is for what is kept of one that is cut short.

        Raises RemoteRefused if there is no room for any.
        """
        self._check_room(0)
        return QuarantineWriter(self._local.create(), self, look)

    def take_up(self) -> None:
        """Keep what killed processes had received of packs, so that it need not come again."""
        with suppress(PermissionError):
            self._local.remove_dead_sessions(self.rescue)

    def rescue(self, key: str, look: Look | None = None) -> None:
        """Keep the records of a pack that is cut short, as a pack of their own.

        Those that came whole, up to the first that did not; nothing if there are none, or no room.
        """
        size = self._local.size(key) or 0
        try:
            content = parse_pack_header(read_exactly(self._local, key, 0, PACK_HEADER_BYTES), key)
            writer = PackWriter(self.packs, content)
        except MergepipeError:
            return  # it is no pack, or of a later release; or the disk is full
        try:
            offset = PACK_HEADER_BYTES
            while (header := whole_record(self._local, key, offset, size)) is not None:
                record = read_exactly(self._local, key, offset, header.stored_bytes)
                writer.add_copy(header, record)
                offset += header.stored_bytes
            if writer.records:
                entry, value = writer.finish()
                assert isinstance(value, LocalWriter)
                self.keep(QuarantineWriter(value, self), entry.id, look)
        except MergepipeError:
            pass
        finally:
            writer.abort()

    def keep(self, writer: ByteWriter, pack: PackId, look: Look | None = None) -> None:
        """Check what was written as the pack of this id, and keep it; durable on return.

        `look` is given the pack and its records, some MiB at a time, with their offsets. Raises
        what it raises, Corruption for what is no such pack, RemoteRefused where there is no room.
        """
        assert isinstance(writer, QuarantineWriter)
        writer.sync()
        local = writer.local
        key = self.key_of(local)
        content, records = read_footer(self._local, pack, key)
        self._check_room(local.size)
        for offsets, arrived in _checked(self._local, key, pack, records):
            if look is not None:
                look(pack, offsets, arrived)
        self._keep(PackEntry(pack, local.size, content, records), local)

    def key_of(self, local: LocalWriter) -> str:
        """Where a value lies while it is written."""
        return self._local.key_of(local)

    def keep_written(self, entry: PackEntry, value: ByteWriter) -> None:
        """Keep a pack whose records this process has checked and written; durable on return."""
        value.sync()
        self._keep(entry, value)

    def _keep(self, entry: PackEntry, value: ByteWriter) -> None:
        self._local.publish([(value, incoming_key(entry.id))])
        if "storage" in self.__dict__:
            self.storage.add_packs([entry])

    def size(self, pack: PackId) -> int | None:
        """Length of a quarantined pack, or None. Whoever asks still wants it: it is not stale."""
        size = self._local.size(incoming_key(pack))
        if size is not None:
            with suppress(FileNotFoundError):  # admitted meanwhile
                os.utime(self._local.path(incoming_key(pack)), follow_symlinks=False)
        return size

    def release(self, pack: PackId) -> None:
        """Move a pack to `packs/`; the caller makes the name durable (`sync_packs`)."""
        try:
            self._local.move(incoming_key(pack), pack_key(pack))
        except FileNotFoundError:
            if self._local.size(pack_key(pack)) is None:
                raise
            # Another admission needed the same pack and was first.
            self._local.delete(incoming_key(pack))

    def sync_packs(self) -> None:
        """Make the names of released packs durable."""
        sync_directory(self._local.folder(PREFIX))

    def remove(self, packs: Sequence[PackId]) -> None:
        """Drop packs."""
        for pack in packs:
            self._local.delete(incoming_key(pack))
        if packs and "storage" in self.__dict__:
            self.storage.refresh()

    def remove_stale(self, now_s: float | None = None) -> int:
        """Drop packs that nobody touched for a week; returns how many."""
        stale = stale_packs(self._local.root, time.time() if now_s is None else now_s)
        self.remove([pack for pack, _ in stale])
        return len(stale)

    def total_bytes(self) -> int:
        """Length of all packs together."""
        return sum(found.st_size for _, found in self._files())

    def _check_room(self, more_bytes: int) -> None:
        for attempt in range(2):
            sizes = [found.st_size for _, found in self._files()]
            if len(sizes) < MAX_PACKS and sum(sizes) + more_bytes <= self._limit_bytes:
                return
            if attempt == 0:
                self.remove_stale()
        raise RemoteRefused(
            f"no more than {format_size(self._limit_bytes)} (or {MAX_PACKS} packs) are received "
            "before they are taken in",
            "the owner of the repository can raise receive.limit; mp gc removes what is left over",
        )

    def _files(self) -> Iterator[tuple[PackId, os.stat_result]]:
        return incoming_packs(self._local.root)


class QuarantineWriter:
    """A pack on its way into quarantine, bounded as it grows."""

    def __init__(
        self, local: LocalWriter, quarantine: Quarantine, look: Look | None = None
    ) -> None:
        self.local = local
        self._quarantine = quarantine
        self._cut_short = look is not None
        self._look = look
        self._looked_at = 0

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.local.size

    def write(self, *chunks: Buffer) -> None:
        """Append all of each chunk. Raises RemoteRefused, NoSpace."""
        size = self.local.size + sum(len(chunk) for chunk in chunks)
        if size > MAX_PACK_BYTES:
            raise RemoteRefused(f"a pack of more than {format_size(MAX_PACK_BYTES)}")
        if size - self._looked_at > _LOOK_AGAIN_BYTES:
            self._quarantine._check_room(size)
            self._looked_at = size
        self.local.write(*chunks)

    def sync(self) -> None:
        """Return once what was written is durable."""
        self._cut_short = False  # all came: if it is refused now, then because of what it is
        self.local.sync()

    def abort(self) -> None:
        """Forget what was written; what came whole of a pack that is cut short is kept."""
        if self._cut_short:
            self._cut_short = False
            self._quarantine.rescue(self._quarantine.key_of(self.local), self._look)
        self.local.abort()


class IncomingPacks(Closing):
    """Quarantined packs as a byte store: `packs/<id>.pack` here is `incoming/<id>.pack` there."""

    def __init__(self, local: LocalByteStore) -> None:
        self._local = local

    def close(self) -> None:
        """Release file descriptors."""
        self._local.close()

    def get(self, key: str) -> bytes | None:
        """The whole value, or None."""
        return self._local.get(_moved(key))

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value."""
        return self._local.read_into(_moved(key), offset, out)

    def size(self, key: str) -> int | None:
        """Length of the value, or None."""
        return self._local.size(_moved(key))

    def list(self, prefix: str) -> Iterator[str]:
        """Keys of the packs, sorted, if `prefix` is theirs."""
        if prefix in ("", PREFIX):
            for key in self._local.list(FOLDER):
                pack = parse_pack_name(key.removeprefix(FOLDER))
                if pack is not None:
                    yield pack_key(pack)

    def values(self, prefix: str) -> dict[str, bytes]:
        """No small values are here."""
        return {}

    def create(self) -> LocalWriter:
        """Begin a value."""
        return self._local.create()

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        """Make synced values visible, here."""
        self._local.publish([(writer, _moved(key)) for writer, key in values])

    def put(self, key: str, value: Buffer) -> None:
        """Write or replace a value."""
        self._local.put(_moved(key), value)

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Nothing moves here."""
        raise MergepipeError("a quarantine has no refs")

    def delete(self, key: str) -> None:
        """Remove a key."""
        self._local.delete(_moved(key))


def _moved(key: str) -> str:
    pack = parse_pack_key(key)
    if pack is None:
        raise MergepipeError(f"no pack has the key {key!r}")
    return incoming_key(pack)


def _checked(
    store: LocalByteStore, key: str, pack: PackId, records: Sequence[tuple[RecordHeader, int]]
) -> Iterator[tuple[list[int], list[Arrived]]]:
    """Every record as the footer says, its checksum right, some MiB at a time.

    The bytes are valid until the next ones are asked for. Raises Corruption, RemoteRefused.
    """
    what = f"pack {pack.hex()}"
    buffer = bytearray(_RUN_BYTES)
    for run in runs((Location(header, pack, offset) for header, offset in records), _RUN_BYTES):
        begin = run[0].offset
        length = run[-1].end - begin
        data = memoryview(buffer if length <= len(buffer) else bytearray(length))[:length]
        store.read_into(key, begin, data)
        arrived = []
        for at in run:
            header = at.header
            if header.kind is RecordKind.OBJECT and header.raw_length > MAX_OBJECT_BYTES:
                raise RemoteRefused(
                    f"{what}: object {header.id.hex()} claims {header.raw_length} bytes"
                )
            record = data[at.offset - begin : at.end - begin]
            sealed = header.sealed(digest(record[RECORD_HEADER_BYTES:]))
            if record[:RECORD_HEADER_BYTES] != sealed or not sealed.endswith(header.checksum):
                raise Corruption(f"{what}: record of {header.id.hex()[:12]} fails its checksum")
            arrived.append(Arrived(header, record[RECORD_HEADER_BYTES:]))
        yield [at.offset for at in run], arrived
