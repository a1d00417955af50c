"""What is known of the files of snapshots: their ids on the hub, and where their bytes are."""

import bisect
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Generic, TypeVar

from msgspec import Struct

from mergepipe.api import Repository
from mergepipe.checkpoints.assembly import FilePlan, Part, plan_file
from mergepipe.hub.decoding import DecodedBlocks
from mergepipe.ids import ObjectId, digest
from mergepipe.objects.records import FileEntry
from mergepipe.packs.promises import NoPromises

SMALL_BYTES = 1 << 20
"""A file of at most this many bytes has the id that git gives it."""
PIECE_BYTES = 4 << 20
_SNAPSHOTS = 32
_PLANS = 64
_IDS = 4096
SHA256_KEY = b"hub/sha256/"
"""Under this and a content's key, an index keeps the SHA-256 of a file."""
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The last values that were asked for; made where they are not among them. For any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of `key`. Two threads may make it at once."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


class FileFacts(Struct, frozen=True):
    """A file as listings show it. `oid`: 40 hex digits; `sha256`: 64, where it is known."""

    path: str
    size: int
    oid: str
    sha256: str | None


class Files:
    """The files of all repositories that are served."""

    def __init__(self, decoded: DecodedBlocks) -> None:
        self.decoded = decoded
        self._snapshots: Recent[ObjectId, Mapping[str, FileEntry]] = Recent(_SNAPSHOTS)
        self._plans: Recent[tuple[ObjectId, str], FilePlan] = Recent(_PLANS)
        self._oids: Recent[bytes, str] = Recent(_IDS)

    def of_snapshot(self, repository: Repository, snapshot: ObjectId) -> Mapping[str, FileEntry]:
        """The files of a snapshot by path, sorted."""
        return self._snapshots.get(
            snapshot,
            lambda: {entry.path: entry for entry in repository.objects.snapshot(snapshot).files},
        )

    def plan(self, repository: Repository, snapshot: ObjectId, entry: FileEntry) -> FilePlan:
        """Where the bytes of a file of a snapshot are."""
        return self._plans.get((snapshot, entry.path), lambda: plan_file(entry, repository.objects))

    def facts(self, repository: Repository, entry: FileEntry) -> FileFacts:
        """What listings say of a file. Reads it if it is small and was not looked at lately."""
        return FileFacts(
            entry.path, entry.size, self.oid(repository, entry), known_sha256(repository, entry)
        )

    def oid(self, repository: Repository, entry: FileEntry) -> str:
        """Forty hex digits that stand for a file's content: git's for a small file."""
        key = content_key(entry)
        if entry.size > SMALL_BYTES:
            return key.hex()[:40]

        def read() -> str:
            parts = plan_file(entry, repository.objects).parts
            blob = hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False)
            for raw in self.decoded.read(repository.blocks, parts):
                blob.update(raw)
            return blob.hexdigest()

        return self._oids.get(key, read)


class FileBytes(Struct, frozen=True):
    """The bytes of a file, read block by block."""

    repository: Repository
    plan: FilePlan
    decoded: DecodedBlocks

    @property
    def is_elsewhere(self) -> bool:
        """Whether some of it may have to be fetched first."""
        return not isinstance(self.repository.storage.promises, NoPromises)

    def spans(
        self, first: int, end: int, length: Callable[[], int] = lambda: PIECE_BYTES
    ) -> Iterator[tuple[int, int]]:
        """Bytes `first` to `end` in pieces of whole blocks but for the ends.

        `length` is asked each time how long a piece may be; the first one is a block, so that
        something is on its way soon.
        """
        limit = 1
        at = first
        for part in self._touched(first, end):
            if part.offset > at and part.offset + part.length - at > limit:
                yield at, part.offset
                at, limit = part.offset, length()
        if at < end:
            yield at, end

    def read(self, first: int, end: int) -> memoryview:
        """Bytes `first` to `end`; only blocks that hold some of them are decoded."""
        parts = self._touched(first, end)
        raws = self.decoded.read(self.repository.blocks, parts)
        cut = [
            raw[max(0, first - part.offset) : end - part.offset]
            for part, raw in zip(parts, raws, strict=True)
        ]
        return cut[0] if len(cut) == 1 else memoryview(b"".join(cut))

    def _touched(self, first: int, end: int) -> tuple[Part, ...]:
        if first >= end:
            return ()
        parts = self.plan.parts
        low = bisect.bisect_right(parts, first, key=lambda part: part.offset) - 1
        high = bisect.bisect_left(parts, end, key=lambda part: part.offset)
        return parts[low:high]


def content_key(entry: FileEntry) -> bytes:
    """What two files share that are the same tensors one after the other: 32 bytes."""
    return digest(b"".join(entry.tensor_ids()))


def known_sha256(repository: Repository, entry: FileEntry) -> str | None:
    """The SHA-256 of a large file (64 hex digits), if it is known here."""
    if entry.size <= SMALL_BYTES:
        return None
    key = SHA256_KEY + content_key(entry)
    with repository.storage.view() as view:
        value = view.cached(key)
    return None if value is None else value.hex()
