"""The byte store of a lazy clone: records of promised packs come when they are first read.

To all else it is the local store with more packs than it has files. What is asked for by record is
what is fetched, and nothing beside it: a budget on reading is a budget on receiving.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mergepipe.bytestore.local import LocalByteStore, sync_directory
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.untrusted import open_plain, open_to_change, plain_status
from mergepipe.ids import PackId
from mergepipe.packs.far_side import FarSide
from mergepipe.packs.format import RECORD_HEADER_BYTES, Content
from mergepipe.packs.promised import (
    PROMISED,
    PromisedPack,
    PromisedRecord,
    neighbours,
    promised_key,
)
from mergepipe.packs.promises import promise
from mergepipe.packs.reader import PREFIX, pack_key, parse_pack_key, parse_pack_name
from mergepipe.packs.records import Location
from mergepipe.packs.writer import PackWriter

# A pack may become whole, or be replaced by the other side, while it is read; not for ever.
_MOST_MOVES = 4
_BLOCK_BYTES = 512  # what st_blocks counts, whatever the file system's own blocks are

_Run = list[tuple[PromisedRecord, memoryview]]


class LazyByteStore(LocalByteStore):
    """A repository's files, and the promised packs of one remote, which `connect` reaches.

    `remote` names it in messages. A record that the remote sends damaged is given as it came, and
    not kept: readers compare hashes, and look for another copy, as with a damaged disk.
    """

    def __init__(self, root: Path, connect: Callable[[], ByteStore], remote: str) -> None:
        super().__init__(root)
        self._far = FarSide(connect, remote)
        self._packs: dict[PackId, PromisedPack] = {}
        self._received = 0
        self._coming: set[PromisedRecord] = set()
        self._arrivals = threading.Condition()
        self._relisting = threading.RLock()

    def close(self) -> None:
        """Close the line, too."""
        self._far.close()
        super().close()

    @property
    def remote(self) -> str:
        """What the remote is called."""
        return self._far.name

    @property
    def received_bytes(self) -> int:
        """Bytes of records that came since the store was opened."""
        return self._received

    # What others see

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value; records that are not here are fetched.

        Raises FileNotFoundError if neither side has it, RemoteUnreachable.
        """
        for _ in range(_MOST_MOVES):
            try:
                return super().read_into(key, offset, out)
            except FileNotFoundError:
                pack = self._promised(key)
            if pack is None:
                break
            with contextlib.suppress(_Moved):
                return self._read(pack, offset, out)
        return super().read_into(key, offset, out)

    def get(self, key: str) -> bytes | None:
        """The whole value, or None."""
        found = super().get(key)
        if found is not None or (pack := self._promised(key)) is None:
            return found
        data = bytearray(pack.size)
        return bytes(data[: self.read_into(key, 0, memoryview(data))])

    def size(self, key: str) -> int | None:
        """Length of the value, or None; of a promised pack, what it will be."""
        found = super().size(key)
        if found is None and (pack := parse_pack_key(key)) is not None:
            return super().size(promised_key(pack))
        return found

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under the folder `prefix`, sorted; promised packs are among the packs."""
        found = super().list(prefix)
        if not (PREFIX.startswith(prefix) or prefix.startswith(PREFIX)):
            return found
        promised = (PREFIX + key.removeprefix(PROMISED) for key in super().list(PROMISED))
        return iter(sorted({*found, *(key for key in promised if key.startswith(prefix))}))

    def delete(self, key: str) -> None:
        """Remove the key; of a promised pack, what came of it."""
        super().delete(key)
        if (pack := parse_pack_key(key)) is not None:
            super().delete(promised_key(pack))
            self._packs.pop(pack, None)

    def expect(self, ranges: Sequence[tuple[str, int, int]]) -> None:
        """Fetch what is missing of ranges (key, offset, length) that are about to be read.

        Side by side: else who reads one after the other waits for each. Raises RemoteUnreachable.
        """
        missing: dict[PromisedRecord, None] = {}
        for key, offset, length in ranges:
            if super().size(key) is not None or (pack := self._promised(key)) is None:
                continue
            for record in pack.records(offset, length):
                if not pack.is_here(record) and not self._begins(pack, record):
                    missing[PromisedRecord(pack, record)] = None
        # What went away meanwhile is noticed, and looked for, by whoever reads it.
        with contextlib.suppress(FileNotFoundError):
            self._bring(missing)

    # What those who look after a repository ask

    def promised(self) -> set[PackId]:
        """Packs of which something may still be with the remote."""
        found = (parse_pack_name(key.removeprefix(PROMISED)) for key in super().list(PROMISED))
        return {pack for pack in found if pack is not None and not self._is_own(pack)}

    def has_record(self, at: Location) -> bool:
        """Whether a record is here, so that reading it asks nobody."""
        if self._is_own(at.pack) or (pack := self._promised(pack_key(at.pack))) is None:
            return True
        found = pack.records(at.offset, at.stored_bytes)
        return all(self._local(pack, record) is not None for record in found)

    def absent_bytes(self) -> int:
        """Bytes of promised packs that are not here, as the file system counts them."""
        absent = 0
        for pack in self.promised():
            with contextlib.suppress(FileNotFoundError):
                found = self._path(promised_key(pack)).stat()
                absent += max(0, found.st_size - found.st_blocks * _BLOCK_BYTES)
        return absent

    def forget(self, pack: PackId) -> None:
        """Give up a promise; records of it that are here move to a pack of our own first.

        The remote has the rest elsewhere, or not at all any more: it joined packs, or its branch
        is gone, and then what we hold of it may be all there is.
        """
        found = self._promised(pack_key(pack))
        if found is None:
            return
        here = [number for number in range(found.count) if self._local(found, number) is not None]
        if here:
            writer = PackWriter(self, Content.BLOCKS)
            try:
                for number in here:
                    record = self._local(found, number)
                    if record is not None:
                        writer.add_sealed(
                            found.header(number),
                            bytes(record[:RECORD_HEADER_BYTES]),
                            record[RECORD_HEADER_BYTES:],
                        )
                identity, value = writer.finish()
                value.sync()
                self.publish([(value, pack_key(identity))])
            except BaseException:
                writer.abort()
                raise
        super().delete(promised_key(pack))
        self._packs.pop(pack, None)

    def relist(self) -> None:
        """Promise what is new on the other side, and give up what it has no more.

        Raises RemoteUnreachable, RemoteRefused, Corruption, NoSpace.
        """
        with self._relisting, self._far.reached("the list of packs") as remote:
            listed = promise(remote, self)
            for pack in self.promised() - listed:
                self.forget(pack)

    # Reading

    def _read(self, pack: PromisedPack, offset: int, out: memoryview) -> int:
        """A range of a promised pack, from the file and, where that has holes, from the remote."""
        # Asked before the file is read: a record that comes meanwhile is not in `out`.
        known = [record for record in pack.records(offset, len(out)) if pack.is_here(record)]
        try:
            count = super().read_into(promised_key(pack.id), offset, out)
        except FileNotFoundError:
            self._packs.pop(pack.id, None)
            raise _Moved from None
        missing = [
            PromisedRecord(pack, record)
            for record in pack.records(offset, count)
            if record not in known and not self._came(pack, record, offset, out[:count])
        ]
        for (_, record), data in self._bring(missing, wanted=True).items():
            start = pack.start(record)
            begin, end = max(start, offset), min(start + len(data), offset + count)
            out[begin - offset : end - offset] = data[begin - start : end - start]
        return count

    def _came(self, pack: PromisedPack, record: int, offset: int, data: memoryview) -> bool:
        """Whether a record is here, given bytes of the file from `offset` on."""
        begin, end = pack.start(record) - offset, pack.start(record + 1) - offset
        if begin < 0 or end > len(data):
            return self._local(pack, record) is not None
        if pack.is_whole(record, data[begin:end]):
            pack.note(record)
            return True
        return False

    def _local(self, pack: PromisedPack, record: int) -> memoryview | None:
        """A record, if it is here, whole; perhaps in a pack that became ours meanwhile."""
        start, end = pack.start(record), pack.start(record + 1)
        data = memoryview(bytearray(end - start))
        for key in (promised_key(pack.id), pack_key(pack.id)):
            with contextlib.suppress(FileNotFoundError):
                if super().read_into(key, start, data) == len(data) and pack.is_whole(record, data):
                    pack.note(record)
                    return data
        pack.note(record, here=False)  # what was here may be damaged now
        return None

    def _begins(self, pack: PromisedPack, record: int) -> bool:
        head = memoryview(bytearray(RECORD_HEADER_BYTES))
        try:
            super().read_into(promised_key(pack.id), pack.start(record), head)
        except FileNotFoundError:
            return True  # moved, or gone: the reader will see
        return pack.begins(record, head)

    # Fetching

    def _bring(
        self, records: Iterable[PromisedRecord], *, wanted: bool = False
    ) -> dict[PromisedRecord, memoryview]:
        """Fetch records, each once however many threads want it; returns them if `wanted`."""
        found: dict[PromisedRecord, memoryview] = {}
        todo = list(records)
        while todo:
            with self._arrivals:
                # Another thread may have brought it since it was missed.
                others = [
                    one for one in todo if one in self._coming or one.promise.is_here(one.number)
                ]
                mine = [one for one in todo if one not in others]
                self._coming.update(mine)
            try:
                found.update((one, data) for one, data in self._fetch(mine) if wanted)
            finally:
                with self._arrivals:
                    self._coming.difference_update(mine)
                    self._arrivals.notify_all()
            with self._arrivals:
                while any(one in self._coming for one in others):
                    self._arrivals.wait()
            todo = []
            for one in others:
                came = self._local(*one)
                if came is None:
                    todo.append(one)  # whoever went for it came back without
                elif wanted:
                    found[one] = came
        return found

    def _fetch(
        self, records: Sequence[PromisedRecord]
    ) -> Iterator[tuple[PromisedRecord, memoryview]]:
        runs = list(neighbours(records))
        if len(runs) < 2:
            fetched: Iterable[_Run] = map(self._fetch_run, runs)
        else:
            fetched = self._far.workers().map(self._fetch_run, runs)
        for run in fetched:
            yield from run
        for pack in {pack.id: pack for pack, _ in records}.values():
            self._move_if_complete(pack)

    def _fetch_run(self, run: Sequence[PromisedRecord]) -> _Run:
        """Neighbouring records in one exchange; those whose checksums hold are kept."""
        pack, first = run[0]
        start, end = pack.start(first), pack.start(run[-1][1] + 1)
        data = memoryview(bytearray(end - start))
        count = self._ask(pack, start, data)
        found: _Run = []
        good: list[int] = []
        for _, record in run:
            begin, stop = pack.start(record) - start, pack.start(record + 1) - start
            found.append((PromisedRecord(pack, record), data[begin:stop]))
            if stop <= count and pack.is_whole(record, data[begin:stop]):
                good.append(record)
        whole = len(good) == len(run)
        for first, last in [(run[0][1], run[-1][1])] if whole else [(one, one) for one in good]:
            begin, stop = pack.start(first), pack.start(last + 1)
            if self._keep(pack, begin, data[begin - start : stop - start]):
                for record in range(first, last + 1):
                    pack.note(record)
        with self._arrivals:
            self._received += count
        return found

    def _ask(self, pack: PromisedPack, offset: int, out: memoryview) -> int:
        key = pack_key(pack.id)
        try:
            with self._far.reached(key) as remote:
                return remote.read_into(key, offset, out)
        except FileNotFoundError:
            pass
        # Its gc joined packs: the records are in others now. The reader asks the index again.
        if super().size(promised_key(pack.id)) is not None:
            self.relist()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key)

    def _keep(self, pack: PromisedPack, offset: int, data: memoryview) -> bool:
        """Write records where they belong. No fsync: what a crash takes comes again."""
        try:
            descriptor = open_to_change(self._path(promised_key(pack.id)), os.O_WRONLY)
        except FileNotFoundError:
            return False  # another process made it whole
        try:
            while data:
                written = os.pwrite(descriptor, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            # The reader has the bytes. That they have to come again is no reason to fail.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return False
        finally:
            os.close(descriptor)
        return True

    def _move_if_complete(self, pack: PromisedPack) -> None:
        """A pack all of whose records came is one of ours."""
        key = promised_key(pack.id)
        try:
            if not pack.complete:
                found = plain_status(self._path(key))
                if pack.scanned or found.st_blocks * _BLOCK_BYTES < found.st_size:
                    return
                # No holes, so other processes may have brought what this one did not.
                pack.scanned = True
                numbers = range(pack.count)
                if not all(pack.is_here(one) or self._local(pack, one) for one in numbers):
                    return
            with self._relisting:
                _sync_file(self._path(key))
                (self.root / PREFIX).mkdir(exist_ok=True)
                self.move(key, pack_key(pack.id))
        except FileNotFoundError:
            return  # another thread or process did it
        self._packs.pop(pack.id, None)
        for folder in (PREFIX, PROMISED):
            sync_directory(self.root / folder)

    def _promised(self, key: str) -> PromisedPack | None:
        pack = parse_pack_key(key)
        if pack is None:
            return None
        found = self._packs.get(pack)
        if found is None:
            try:
                found = self._packs.setdefault(pack, PromisedPack.load(self, pack))
            except FileNotFoundError:
                return None
        return found

    def _is_own(self, pack: PackId) -> bool:
        return super().size(pack_key(pack)) is not None

    def _after_fork(self) -> None:
        super()._after_fork()
        self._coming = set()
        self._arrivals = threading.Condition()
        self._relisting = threading.RLock()
        self._far.after_fork()


class _Moved(Exception):
    """A promised pack is not where it was: whole now, or given up."""


def _sync_file(path: Path) -> None:
    descriptor = open_plain(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
