"""The promised packs of a repository: what of them is here, and how more of them gets in."""

import contextlib
import errno
import os
import threading
from pathlib import Path

from mergepipe.bytestore.local import LocalByteStore, sync_directory
from mergepipe.bytestore.sharing import make_folder
from mergepipe.bytestore.untrusted import open_plain, open_to_change, plain_status
from mergepipe.bytestore.whole_calls import write_all_at
from mergepipe.ids import PackId
from mergepipe.lazy.promised_pack import PROMISED, PromisedPack, promised_key
from mergepipe.packs.format import RECORD_HEADER_BYTES, Content
from mergepipe.packs.reader import PREFIX, pack_key, parse_pack_key, parse_pack_name
from mergepipe.packs.records import Location
from mergepipe.packs.writer import PackWriter

_BLOCK_BYTES = 512  # what st_blocks counts, whatever the file system's own blocks are


class PromisedPacks:
    """Promised packs in the files of a repository. May be used from any thread."""

    def __init__(self, files: LocalByteStore) -> None:
        self._files = files
        self._packs: dict[PackId, PromisedPack] = {}
        self.changing = threading.RLock()
        """Held while packs become promised, or ours, so that no listing is half done."""

    def find(self, key: str) -> PromisedPack | None:
        """The promised pack of a pack's key, if there is one."""
        pack = parse_pack_key(key)
        if pack is None:
            return None
        promised = self._packs.get(pack)
        if promised is None:
            try:
                promised = self._packs.setdefault(pack, PromisedPack.load(self._files, pack))
            except FileNotFoundError:
                return None
        return promised

    def ids(self) -> set[PackId]:
        """Packs of which something may still be with the remote."""
        names = (key.removeprefix(PROMISED) for key in self._files.list(PROMISED))
        packs = map(parse_pack_name, names)
        return {pack for pack in packs if pack is not None and not self.is_own(pack)}

    def is_own(self, pack: PackId) -> bool:
        """Whether the pack is here as any other, whatever was promised of it."""
        return self._files.size(pack_key(pack)) is not None

    def lose(self, pack: PackId) -> None:
        """Read the frame anew at the next use: it is not where it was."""
        self._packs.pop(pack, None)

    def delete(self, pack: PackId) -> None:
        """Give up a promise, and what came of it."""
        self._files.delete(promised_key(pack))
        self.lose(pack)

    def forget(self, pack: PackId) -> None:
        """Give up a promise; records of it that are here move to a pack of our own first.

        The remote has the rest elsewhere, or not at all any more: it joined packs, or its branch
        is gone, and then what we hold of it may be all there is.
        """
        promised = self.find(pack_key(pack))
        if promised is None:
            return
        here = [number for number in range(promised.count) if self.record(promised, number)]
        if here:
            writer = PackWriter(self._files, Content.BLOCKS)
            try:
                for number in here:
                    record = self.record(promised, number)
                    if record is not None:
                        writer.add_copy(promised.header(number), record)
                entry, value = writer.finish()
                value.sync()
                self._files.publish([(value, pack_key(entry.id))])
            except BaseException:
                writer.abort()
                raise
        self.delete(pack)

    # What is here

    def has(self, at: Location) -> bool:
        """Whether a record is here."""
        if self.is_own(at.pack) or (pack := self.find(pack_key(at.pack))) is None:
            return True
        numbers = pack.records(at.offset, at.stored_bytes)
        return all(self.record(pack, number) is not None for number in numbers)

    def record(self, pack: PromisedPack, number: int) -> memoryview | None:
        """A record, if it is here, whole; perhaps in a pack that became ours meanwhile."""
        start, end = pack.start(number), pack.start(number + 1)
        data = memoryview(bytearray(end - start))
        for key in (promised_key(pack.id), pack_key(pack.id)):
            with contextlib.suppress(FileNotFoundError):
                count = self._files.read_into(key, start, data)
                if count == len(data) and pack.is_whole(number, data):
                    pack.note(number)
                    return data
        pack.note(number, here=False)  # what was here may be damaged now
        return None

    def came(self, pack: PromisedPack, number: int, offset: int, data: memoryview) -> bool:
        """Whether a record is here, given bytes of the file from `offset` on."""
        begin, end = pack.start(number) - offset, pack.start(number + 1) - offset
        if begin < 0 or end > len(data):
            return self.record(pack, number) is not None
        if pack.is_whole(number, data[begin:end]):
            pack.note(number)
            return True
        return False

    def begins(self, pack: PromisedPack, number: int) -> bool:
        """Whether a record most likely is here, by its first bytes alone."""
        head = memoryview(bytearray(RECORD_HEADER_BYTES))
        try:
            self._files.read_into(promised_key(pack.id), pack.start(number), head)
        except FileNotFoundError:
            return True  # moved, or gone: the reader will see
        return pack.begins(number, head)

    def absent_bytes(self) -> int:
        """Bytes of promised packs that are not here, as the file system counts them."""
        absent = 0
        for pack in self.ids():
            with contextlib.suppress(FileNotFoundError):
                status = self._files.path(promised_key(pack)).stat()
                absent += max(0, status.st_size - status.st_blocks * _BLOCK_BYTES)
        return absent

    # What comes

    def keep(self, pack: PromisedPack, offset: int, data: memoryview) -> bool:
        """Write records where they belong. No fsync: what a crash takes comes again."""
        try:
            descriptor = open_to_change(self._files.path(promised_key(pack.id)), os.O_WRONLY)
        except FileNotFoundError:
            return False  # another process made it whole
        try:
            write_all_at(descriptor, data, offset)
        except OSError as error:
            # The reader has the bytes. That they have to come again is no reason to fail.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return False
        finally:
            os.close(descriptor)
        return True

    def move_if_complete(self, pack: PromisedPack) -> None:
        """A pack all of whose records came is one of ours."""
        key = promised_key(pack.id)
        path = self._files.path(key)
        try:
            if not pack.complete:
                status = plain_status(path)
                if pack.scanned or status.st_blocks * _BLOCK_BYTES < status.st_size:
                    return
                # No holes, so other processes may have brought what this one did not.
                pack.scanned = True
                numbers = range(pack.count)
                if not all(pack.is_here(number) or self.record(pack, number) for number in numbers):
                    return
            with self.changing:
                _sync_file(path)
                make_folder(self._files.folder(PREFIX))
                self._files.move(key, pack_key(pack.id))
        except FileNotFoundError:
            return  # another thread or process did it
        self.lose(pack.id)
        for folder in (PREFIX, PROMISED):
            sync_directory(self._files.folder(folder))

    def after_fork(self) -> None:
        """In the child: who held the lock is the parent's."""
        self.changing = threading.RLock()


def _sync_file(path: Path) -> None:
    descriptor = open_plain(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
