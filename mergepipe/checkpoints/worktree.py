"""The model beside `.mergepipe`: which snapshot is materialised there, and what changed since.

The state is a cache of facts about files: losing it costs hashing them again.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.untrusted import plain_status, read_plain
from mergepipe.checkpoints.ingest import Ingest, ingest, plain_piece
from mergepipe.checkpoints.ingest_work import NamesOnly, Piece
from mergepipe.checkpoints.layout import Layout, Span
from mergepipe.checkpoints.outcome import BlockNote
from mergepipe.errors import Corruption
from mergepipe.executors.threads import ThreadExecutor
from mergepipe.executors.workforce import Workforce
from mergepipe.formats.tree import SourceFile, scan
from mergepipe.ids import ObjectId
from mergepipe.objects.encoding import decode
from mergepipe.objects.records import FileEntry, Snapshot
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.sink import ObjectsInMemory
from mergepipe.progress import SILENT, Progress
from mergepipe.reprs import brief

KEY = "worktree"
_VERSION = 1
# A file written in the same clock tick as its stat was taken may change without its mtime
# changing (git's "racy" entries): what is as young as the record itself is not trusted.
_RACY_NS = 20_000_000


class FileState(msgspec.Struct, frozen=True, array_like=True):
    """What a file looked like when its content was last known."""

    size: int
    mtime_ns: int
    inode: int
    executable: bool


class WorktreeState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The materialised snapshot (hex id), and the files that are known to hold it."""

    version: int
    snapshot: str | None
    files: dict[str, FileState]


@brief
class FileChange(Struct, frozen=True):
    """One file that differs: `change` is new, modified or deleted."""

    path: str
    change: str


EMPTY = WorktreeState(_VERSION, None, {})


class Worktree:
    """The directory beside `.mergepipe`, and the state kept about it."""

    def __init__(self, directory: Path, store: ByteStore) -> None:
        self.root = directory.parent
        self._path = directory / KEY
        self._store = store

    def state(self) -> WorktreeState:
        """What is recorded; nothing, where the record is missing, damaged or of another version."""
        try:
            written_ns = plain_status(self._path).st_mtime_ns
            state = msgspec.json.decode(read_plain(self._path), type=WorktreeState)
        except (FileNotFoundError, msgspec.DecodeError):
            return EMPTY
        if state.version != _VERSION:
            return EMPTY
        trusted = {
            path: known
            for path, known in state.files.items()
            if known.mtime_ns < written_ns - _RACY_NS
        }
        return msgspec.structs.replace(state, files=trusted)

    def snapshot(self) -> ObjectId | None:
        """The materialised snapshot, or None."""
        name = self.state().snapshot
        try:
            return None if name is None else ObjectId(bytes.fromhex(name))
        except ValueError:
            return None

    def recorded(self, objects: ObjectStore) -> Snapshot | None:
        """The materialised snapshot itself; None too if it is not here, or damaged."""
        identity = self.snapshot()
        with contextlib.suppress(Corruption):  # files are then looked at, as if nothing were known
            return None if identity is None else objects.snapshot(identity)
        return None

    def scan(self) -> tuple[SourceFile, ...]:
        """The files that are there, sorted by path, ignored ones left out."""
        return scan(self.root)

    def record(self, snapshot: ObjectId | None, files: Sequence[SourceFile]) -> None:
        """Remember that these files hold `snapshot`."""
        known = {
            file.path: FileState(file.size, file.mtime_ns, file.inode, file.executable)
            for file in files
        }
        state = WorktreeState(_VERSION, None if snapshot is None else snapshot.hex(), known)
        self._store.put(KEY, msgspec.json.encode(state))

    def forget(self, paths: Sequence[str]) -> None:
        """Stop trusting what is known of these files: they are about to be written."""
        state = self.state()
        files = {path: known for path, known in state.files.items() if path not in set(paths)}
        self._store.put(KEY, msgspec.json.encode(WorktreeState(_VERSION, state.snapshot, files)))

    def entries(
        self,
        files: Sequence[SourceFile],
        recorded: Snapshot | None,
        *,
        block_size: int,
        threads: int,
        progress: Progress = SILENT,
    ) -> dict[str, FileEntry]:
        """What a snapshot would say of each file; reads only those the state cannot vouch for.

        `recorded` is the materialised snapshot. Nothing is stored.
        """
        known = self.state().files
        told = {} if recorded is None else {entry.path: entry for entry in recorded.files}
        by_path: dict[str, FileEntry] = {}
        unknown: list[SourceFile] = []
        for file in files:
            if file.path in told and _unchanged(file, known):
                by_path[file.path] = told[file.path]
            else:
                unknown.append(file)
        if unknown:
            sink = ObjectsInMemory()
            ingested = ingest(
                unknown,
                sink,
                _IdsOnly(),
                Ingest(Workforce(ThreadExecutor(threads))),
                block_size=block_size,
                progress=progress,
                check_index=False,
            )
            snapshot = decode(sink.objects[ingested.snapshot], Snapshot, "the worktree")
            by_path |= {entry.path: entry for entry in snapshot.files}
        return by_path


def compare(files: Mapping[str, FileEntry], snapshot: Snapshot | None) -> tuple[FileChange, ...]:
    """How files differ from a snapshot, sorted by path."""
    old = {} if snapshot is None else {entry.path: entry for entry in snapshot.files}
    changes = [
        FileChange(path, "new" if path not in old else "modified")
        for path, entry in files.items()
        if old.get(path) != entry
    ]
    changes += [FileChange(path, "deleted") for path in old if path not in files]
    return tuple(sorted(changes, key=lambda change: change.path.encode()))


def _unchanged(file: SourceFile, known: Mapping[str, FileState]) -> bool:
    return known.get(file.path) == FileState(file.size, file.mtime_ns, file.inode, file.executable)


class _IdsOnly:
    """Encodes nothing: for the ids that blocks would have."""

    def __init__(self) -> None:
        self._layout = Layout((), ())
        self.coder = NamesOnly()

    def begin(self, layout: Layout) -> None:
        """Learn which tensors will come."""
        self._layout = layout

    def piece(self, source: SourceFile, spans: Sequence[Span]) -> Piece:
        """Neighbouring blocks."""
        return plain_piece(self._layout, source, spans)

    def collect(self, spans: Sequence[Span], notes: Sequence[BlockNote]) -> None:
        """Nothing to note."""
