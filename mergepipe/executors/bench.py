"""Where a worker does segments: what it opened, kept from one segment to the next."""

import os
import socket
import threading
import time
from collections.abc import Callable

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.executors.packing import SegmentPacks
from mergepipe.executors.readings import Readings
from mergepipe.executors.segments import (
    Doing,
    Foresighted,
    Place,
    Segment,
    SegmentResult,
    WorkerSpec,
)
from mergepipe.executors.versions import check_versions
from mergepipe.packs.written import WrittenPack


class Bench:
    """One worker's stores and job. `heard` may be asked from another thread."""

    def __init__(self) -> None:
        self._stores: dict[Place, ByteStore] = {}
        self._spec: WorkerSpec | None = None
        self._doing: Doing | None = None
        self._before = Readings()
        self._made_bytes = 0
        self._lock = threading.Lock()
        self.host = f"{socket.gethostname()}:{os.getpid()}"

    def begin(self, spec: WorkerSpec) -> None:
        """Work for this spec from now on. Raises MergepipeError: versions, or a place not there."""
        if spec == self._spec:
            return
        check_versions(spec.versions, self.host)
        assert spec.source is not None
        for place in list(self._stores):
            if place not in (spec.source, spec.target):
                self._stores.pop(place).close()
        self._doing = spec.job.open(self._store(spec.source))
        self._spec = spec

    def run(
        self, segment: Segment, tell: Callable[[int, Readings], None] = lambda made, read: None
    ) -> SegmentResult:
        """Do a segment; `tell` hears what was made and read of it after each item.

        Raises NeedsRepair, and what the job raises; nothing is left of the segment then.
        """
        doing, spec = self._doing, self._spec
        assert doing is not None and spec is not None
        started = time.perf_counter()
        with self._lock:
            self._before, self._made_bytes = doing.readings(), 0
        target = None if spec.target is None else self._store(spec.target)
        packs = None if target is None else SegmentPacks(target)
        values = []
        try:
            for place, item in enumerate(segment.items):
                if isinstance(doing, Foresighted):
                    # While this one is done, the next one's bytes are on their way.
                    for following in segment.items[place : place + 2]:
                        doing.ahead(following)
                outcome = doing.do(item)
                if packs is not None:
                    packs.add(outcome.encoded)
                outcome.release()
                values.append(outcome.value)
                with self._lock:
                    self._made_bytes += outcome.made_bytes
                tell(*self.heard())
            written: tuple[WrittenPack, ...] = ()
            if packs is not None and target is not None and spec.target is not None:
                written = spec.target.settle(target, packs.finish())
        finally:
            if packs is not None:
                packs.abort()
        seconds = time.perf_counter() - started
        return SegmentResult(
            number=segment.number,
            values=tuple(values),
            packs=written,
            readings=self.heard()[1],
            host=self.host,
            seconds=seconds,
        )

    def heard(self) -> tuple[int, Readings]:
        """What was made of the segment at hand so far, and what was read for it."""
        with self._lock:
            if self._doing is None:
                return 0, Readings()
            return self._made_bytes, self._doing.readings() - self._before

    def close(self) -> None:
        """Close the stores."""
        for store in self._stores.values():
            store.close()
        self._stores.clear()
        self._spec = self._doing = None

    def _store(self, place: Place) -> ByteStore:
        if place not in self._stores:
            self._stores[place] = place.open()
        return self._stores[place]
