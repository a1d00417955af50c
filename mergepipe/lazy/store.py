"""The byte store of a lazy clone: records of promised packs come when they are first read.

To all else it is the local store with more packs than it has files. What is asked for by record is
what is fetched, and nothing beside it: a budget on reading is a budget on receiving.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from mergepipe import forks
from mergepipe.bytestore.forwarding import ForwardingStore
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.ids import PackId
from mergepipe.lazy.arrivals import Arrivals
from mergepipe.lazy.far_side import FarSide
from mergepipe.lazy.frames import bring_frames
from mergepipe.lazy.promised_pack import PROMISED, PromisedPack, PromisedRecord, promised_key
from mergepipe.lazy.shelf import PromisedPacks
from mergepipe.packs.reader import PREFIX, parse_pack_key
from mergepipe.packs.records import Location

# A pack may become whole, or be replaced by the other side, while it is read; not for ever.
_MOST_MOVES = 4


class LazyByteStore(ForwardingStore):
    """A repository's files, and the promised packs of one remote, which `connect` reaches.

    Closes the files, too. `remote` names the other side in messages. A record that it sends damaged
    is given as it came, and not kept: readers compare hashes, and look for another copy, as with a
    damaged disk. It is a `packs.promises.Promises` as well.
    """

    def __init__(
        self, files: LocalByteStore, connect: Callable[[], ByteStore], remote: str
    ) -> None:
        super().__init__(files)
        self._files = files
        self._far = FarSide(connect, remote)
        self._shelf = PromisedPacks(files)
        self._arrivals = Arrivals(
            self._shelf, self._far, lambda key: files.size(key) is not None, self.relist
        )
        forks.watch(self)

    def close(self) -> None:
        """Close the files and the line."""
        forks.unwatch(self)
        self._far.close()
        self._files.close()

    @property
    def remote(self) -> str:
        """What the remote is called."""
        return self._far.name

    @property
    def received_bytes(self) -> int:
        """Bytes of records that came since the store was opened."""
        return self._arrivals.received_bytes

    # As a byte store

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value; records that are not here are fetched.

        Raises FileNotFoundError if neither side has it, RemoteUnreachable.
        """
        for _ in range(_MOST_MOVES):
            try:
                return self._files.read_into(key, offset, out)
            except FileNotFoundError:
                pack = self._shelf.find(key)
            if pack is None:
                break
            with contextlib.suppress(_Moved):
                return self._read(pack, offset, out)
        return self._files.read_into(key, offset, out)

    def get(self, key: str) -> bytes | None:
        """The whole value, or None."""
        value = self._files.get(key)
        if value is not None or (pack := self._shelf.find(key)) is None:
            return value
        data = bytearray(pack.size)
        return bytes(data[: self.read_into(key, 0, memoryview(data))])

    def size(self, key: str) -> int | None:
        """Length of the value, or None; of a promised pack, what it will be."""
        size = self._files.size(key)
        if size is None and (pack := parse_pack_key(key)) is not None:
            return self._files.size(promised_key(pack))
        return size

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under the folder `prefix`, sorted; promised packs are among the packs."""
        keys = self._files.list(prefix)
        if not (PREFIX.startswith(prefix) or prefix.startswith(PREFIX)):
            return keys
        promised = (PREFIX + key.removeprefix(PROMISED) for key in self._files.list(PROMISED))
        return iter(sorted({*keys, *(key for key in promised if key.startswith(prefix))}))

    def delete(self, key: str) -> None:
        """Remove the key; of a promised pack, what came of it."""
        self._files.delete(key)
        if (pack := parse_pack_key(key)) is not None:
            self._shelf.delete(pack)

    def expect(self, ranges: Sequence[tuple[str, int, int]]) -> None:
        """Fetch what is missing of ranges (key, offset, length) that are about to be read.

        Side by side: else who reads one after the other waits for each. Raises RemoteUnreachable.
        """
        missing: dict[PromisedRecord, None] = {}
        for key, offset, length in ranges:
            if self._files.size(key) is not None or (pack := self._shelf.find(key)) is None:
                continue
            for record in pack.records(offset, length):
                if not pack.is_here(record) and not self._shelf.begins(pack, record):
                    missing[PromisedRecord(pack, record)] = None
        # What went away meanwhile is noticed, and looked for, by whoever reads it.
        with contextlib.suppress(FileNotFoundError):
            self._arrivals.bring(missing)

    def _read(self, pack: PromisedPack, offset: int, out: memoryview) -> int:
        """A range of a promised pack, from the file and, where that has holes, from the remote."""
        # Asked before the file is read: a record that comes meanwhile is not in `out`.
        known = [record for record in pack.records(offset, len(out)) if pack.is_here(record)]
        try:
            count = self._files.read_into(promised_key(pack.id), offset, out)
        except FileNotFoundError:
            self._shelf.lose(pack.id)
            raise _Moved from None
        missing = [
            PromisedRecord(pack, record)
            for record in pack.records(offset, count)
            if record not in known and not self._shelf.came(pack, record, offset, out[:count])
        ]
        for (_, record), data in self._arrivals.bring(missing, wanted=True).items():
            start = pack.start(record)
            begin, end = max(start, offset), min(start + len(data), offset + count)
            out[begin - offset : end - offset] = data[begin - start : end - start]
        return count

    # As promises

    def promised(self) -> set[PackId]:
        """Packs of which something may still be with the remote."""
        return self._shelf.ids()

    def has_record(self, at: Location, /) -> bool:
        """Whether a record is here, so that reading it asks nobody."""
        return self._shelf.has(at)

    def has_range(self, key: str, offset: int, length: int) -> bool:
        """Whether reading a range most likely asks nobody: its records begin here, all of them."""
        if self._files.size(key) is not None:
            return True
        pack = self._shelf.find(key)
        return pack is not None and all(
            pack.is_here(record) or self._shelf.begins(pack, record)
            for record in pack.records(offset, length)
        )

    def absent_bytes(self) -> int:
        """Bytes of promised packs that are not here, as the file system counts them."""
        return self._shelf.absent_bytes()

    def promise(self, remote: ByteStore, packs: Iterable[PackId], /) -> None:
        """Have the promise of a remote's packs. Raises as `relist`."""
        bring_frames(remote, self._files, packs)

    def relist(self) -> None:
        """Promise what is new on the other side, and give up what it has no more.

        Raises RemoteUnreachable, RemoteRefused, Corruption, NoSpace.
        """
        with self._shelf.changing, self._far.reached("the list of packs") as remote:
            listed = bring_frames(remote, self._files)
            for pack in self.promised() - listed:
                self._shelf.forget(pack)

    def after_fork(self) -> None:
        """In the child: lines, threads and locks are the parent's."""
        self._shelf.after_fork()
        self._arrivals.after_fork()


class _Moved(Exception):
    """A promised pack is not where it was: whole now, or given up."""
