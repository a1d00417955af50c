"""Records on their way from the far side: each comes once, however many threads want it."""

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from mergepipe.lazy.far_side import FarSide
from mergepipe.lazy.promised_pack import PromisedPack, PromisedRecord, neighbours, promised_key
from mergepipe.lazy.shelf import PromisedPacks
from mergepipe.packs.reader import pack_key

_Run = list[tuple[PromisedRecord, memoryview]]


class Arrivals:
    """Brings records to their promised packs. May be used from any thread.

    `relist` is called where the other side lacks a pack that is still promised.
    """

    def __init__(
        self,
        shelf: PromisedPacks,
        far: FarSide,
        is_promised: Callable[[str], bool],
        relist: Callable[[], None],
    ) -> None:
        self._shelf = shelf
        self._far = far
        self._is_promised = is_promised
        self._relist = relist
        self._coming: set[PromisedRecord] = set()
        self._arrivals = threading.Condition()
        self.received_bytes = 0

    def bring(
        self, records: Iterable[PromisedRecord], *, wanted: bool = False
    ) -> dict[PromisedRecord, memoryview]:
        """Fetch records; returns them if `wanted`. Raises FileNotFoundError, RemoteUnreachable."""
        brought: dict[PromisedRecord, memoryview] = {}
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
                brought.update((one, data) for one, data in self._fetch(mine) if wanted)
            finally:
                with self._arrivals:
                    self._coming.difference_update(mine)
                    self._arrivals.notify_all()
            with self._arrivals:
                while any(one in self._coming for one in others):
                    self._arrivals.wait()
            todo = []
            for other in others:
                record = self._shelf.record(*other)
                if record is None:
                    todo.append(other)  # whoever went for it came back without
                elif wanted:
                    brought[other] = record
        return brought

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
            self._shelf.move_if_complete(pack)

    def _fetch_run(self, run: Sequence[PromisedRecord]) -> _Run:
        """Neighbouring records in one exchange; those whose checksums hold are kept."""
        pack, first = run[0]
        start, end = pack.start(first), pack.start(run[-1][1] + 1)
        data = memoryview(bytearray(end - start))
        count = self._ask(pack, start, data)
        records: _Run = []
        good: list[int] = []
        for _, record in run:
            begin, stop = pack.start(record) - start, pack.start(record + 1) - start
            records.append((PromisedRecord(pack, record), data[begin:stop]))
            if stop <= count and pack.is_whole(record, data[begin:stop]):
                good.append(record)
        whole = len(good) == len(run)
        for first, last in [(run[0][1], run[-1][1])] if whole else [(one, one) for one in good]:
            begin, stop = pack.start(first), pack.start(last + 1)
            if self._shelf.keep(pack, begin, data[begin - start : stop - start]):
                for record in range(first, last + 1):
                    pack.note(record)
        with self._arrivals:
            self.received_bytes += count
        return records

    def _ask(self, pack: PromisedPack, offset: int, out: memoryview) -> int:
        key = pack_key(pack.id)
        try:
            with self._far.reached(key) as remote:
                return remote.read_into(key, offset, out)
        except FileNotFoundError:
            pass
        # Its gc joined packs: the records are in others now. The reader asks the index again.
        if self._is_promised(promised_key(pack.id)):
            self._relist()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key)

    def after_fork(self) -> None:
        """In the child: what is coming comes to the parent."""
        self._coming = set()
        self._arrivals = threading.Condition()
        self._far.after_fork()
