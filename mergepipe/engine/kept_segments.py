"""Finished segments of a merge, in `unfinished/<plan>/` until they are published.

docs/scale-out.md, rule 6. Whose process died finds them there: the same command again takes over
what is whole, and does the rest. A note says which segment it is of, by all that its result depends
on; the packs beside it are read, record by record, before they are believed, as nobody waited for
the disk.
"""

import contextlib
import hashlib
from types import TracebackType
from typing import Protocol, Self

import msgspec

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.local_writer import LocalWriter
from mergepipe.engine.computing import StepResult
from mergepipe.engine.work import Step
from mergepipe.errors import Corruption, Locked
from mergepipe.executors.readings import Readings
from mergepipe.executors.segments import Segment, SegmentResult, WorkersLost
from mergepipe.ids import ID_BYTES, BlockId, ObjectId, PackId, digest
from mergepipe.packs.entries import PackEntry
from mergepipe.packs.reader import read_footer, whole_record
from mergepipe.packs.written import WrittenPack
from mergepipe.repository import locks
from mergepipe.repository.layout import UNFINISHED

_VERSION = 1
_LOCK = "lock"


class Kept(Protocol):
    """What of a run was done before."""

    def find(self, segment: Segment) -> SegmentResult | None:
        """The result of a segment that an earlier process finished."""
        ...

    def keep(self, segment: Segment, result: SegmentResult) -> None:
        """Let a result outlive this process."""
        ...


class NothingKept:
    """A run that is not gone on with."""

    def find(self, segment: Segment) -> SegmentResult | None:
        """Nothing was done before."""
        return None

    def keep(self, segment: Segment, result: SegmentResult) -> None:
        """Nothing is kept."""


class _Step(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    blocks: bytes
    nonfinite: int
    taken_in: tuple[tuple[int, int, int], ...]


class _Note(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A finished segment: what it was, what came of it. `readings` as in `Readings`, in order."""

    version: int
    segment: bytes
    packs: tuple[bytes, ...]
    works: tuple[tuple[_Step, ...], ...]
    readings: tuple[int, int, int, int]
    host: str


class KeptSegments(msgspec.Struct):
    """Those of one plan, in one repository. Only one process at a time keeps any.

    settings     all that results depend on beside the steps themselves
    least_bytes  of output that a segment makes: what is less is done again as fast
    """

    files: LocalByteStore
    plan: ObjectId
    settings: bytes
    least_bytes: int
    _lock: locks.HeldLock | None = None

    @property
    def folder(self) -> str:
        """Where they lie."""
        return f"{UNFINISHED}/{self.plan.hex()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop them: they are published, or not wanted. Kept where lost workers ended the run."""
        held = self._hold() if self.files.path(self.folder).is_dir() else False
        if held and not isinstance(error, WorkersLost):
            remove_kept(self.files, self.plan)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def find(self, segment: Segment) -> SegmentResult | None:
        """The result of a segment that an earlier process finished, if all of it is whole."""
        if segment.made_bytes < self.least_bytes:
            return None
        data = self.files.get(self._note_key(segment))
        if data is None or not self._hold():
            return None
        with contextlib.suppress(msgspec.DecodeError, Corruption, FileNotFoundError):
            note = msgspec.msgpack.decode(data[ID_BYTES:], type=_Note)
            whole = digest(data[ID_BYTES:]) == data[:ID_BYTES]
            if whole and (note.version, note.segment) == (_VERSION, self._identity(segment)):
                return self._result(segment, note)
        return None

    def keep(self, segment: Segment, result: SegmentResult) -> None:
        """Give the packs of a result names that outlive this process, and note what they are."""
        writers = [pack.writer for pack in result.packs]
        known = all(isinstance(writer, LocalWriter) for writer in writers)
        if segment.made_bytes < self.least_bytes or not known or not self._hold():
            return
        for pack in result.packs:
            assert isinstance(pack.writer, LocalWriter)
            self.files.set_aside(pack.writer, self._pack_key(pack.entry.id))
        read = result.readings
        note = _Note(
            _VERSION,
            self._identity(segment),
            tuple(pack.entry.id for pack in result.packs),
            tuple(tuple(map(_noted, values)) for values in result.values),
            (read.expert_bytes, read.base_bytes, read.metadata_bytes, read.reads),
            result.host,
        )
        data = msgspec.msgpack.encode(note)
        writer = self.files.create()
        writer.write(digest(data), data)
        writer.seal()
        self.files.set_aside(writer, self._note_key(segment))

    def _result(self, segment: Segment, note: _Note) -> SegmentResult | None:
        packs = [self._pack(PackId(pack)) for pack in note.packs]
        if [len(work.steps) for work in segment.items] != [len(steps) for steps in note.works]:
            return None
        return SegmentResult(
            number=segment.number,
            values=tuple(tuple(map(_result, steps)) for steps in note.works),
            packs=tuple(packs),
            readings=Readings(*note.readings),
            host=note.host,
        )

    def _pack(self, pack: PackId) -> WrittenPack:
        """A pack of which every record is whole. Raises Corruption, FileNotFoundError."""
        key = self._pack_key(pack)
        content, records = read_footer(self.files, pack, key)
        size = self.files.size(key) or 0
        for header, offset in records:
            if whole_record(self.files, key, offset, size) != header:
                raise Corruption(f"{key}: the record at {offset} is damaged")
        entry = PackEntry(pack, size, content, records)
        return WrittenPack(entry, writer=self.files.reopen(key))

    def _identity(self, segment: Segment) -> bytes:
        parts = hashlib.sha256(self.settings)
        for work in segment.items:
            parts.update(b"work %d" % work.encode)
            for step in work.steps:
                parts.update(_place(step))
        return parts.digest()

    def _hold(self) -> bool:
        """Whether nobody else is at work on this very plan."""
        if self._lock is None:
            with contextlib.suppress(Locked):
                self.files.make_folder(self.folder)
                lock = self.files.path(f"{self.folder}/{_LOCK}")
                self._lock = locks.acquire(lock, timeout_s=0)
        return self._lock is not None

    def _note_key(self, segment: Segment) -> str:
        return f"{self.folder}/{segment.number:06d}"

    def _pack_key(self, pack: PackId) -> str:
        return f"{self.folder}/{pack.hex()}.pack"


def remove_kept(files: LocalByteStore, plan: ObjectId) -> None:
    """Remove what was kept of a plan's run."""
    folder = f"{UNFINISHED}/{plan.hex()}/"
    for key in list(files.list(folder)):
        files.delete(key)
    with contextlib.suppress(OSError):
        files.path(folder.rstrip("/")).rmdir()


def _place(step: Step) -> bytes:
    place = b" %d %d %d %d " % (step.task.number, step.index, step.blocks, step.block_bytes)
    return step.memo + place


def _noted(result: StepResult) -> _Step:
    taken_in = tuple((*place, count) for place, count in result.taken_in.items())
    return _Step(b"".join(result.blocks), result.nonfinite, taken_in)


def _result(step: _Step) -> StepResult:
    starts = range(0, len(step.blocks), ID_BYTES)
    return StepResult(
        tuple(BlockId(step.blocks[at : at + ID_BYTES]) for at in starts),
        step.nonfinite,
        {(line, place): count for line, place, count in step.taken_in},
    )
