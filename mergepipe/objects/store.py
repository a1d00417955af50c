"""Objects by id: read through the index, verified by hash, written through a transaction."""

import contextlib
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from mergepipe.bytestore.protocol import Buffer
from mergepipe.codecs import frames
from mergepipe.codecs.registry import codec_named, codec_tagged
from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import CodecError, Corruption, MissingObject
from mergepipe.ids import ObjectId, object_id
from mergepipe.objects import limits
from mergepipe.objects.encoding import decode, encode, kind_of
from mergepipe.objects.records import Commit, Record, Snapshot, Tensor
from mergepipe.packs.condemned import HEALING
from mergepipe.packs.format import RECORD_HEADER_BYTES
from mergepipe.packs.reader import pack_key, read_exactly
from mergepipe.packs.records import Location
from mergepipe.packs.runs import runs
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.packs.view import View

Kind = TypeVar("Kind", bound=Record)

_HEAD_BYTES = 64
# Bytes between two objects that cost less to read than another call.
_GAP_BYTES = 4 << 10
# A block of zstd is at most 128 KiB (RFC 8878, 3.1.1.2): its first comes out of so much.
_START_BYTES = 256 << 10
# What `keeping` remembers: tensors of twenty models of 70 billion weights, and some more.
_KEPT_BYTES = 128 << 20


class ObjectStore:
    """The immutable objects of one repository."""

    def __init__(
        self,
        storage: Storage,
        beside: Mapping[ObjectId, bytes] | None = None,
        absent: Callable[[], Container[ObjectId]] = frozenset,
        also: "ObjectStore | None" = None,
    ) -> None:
        """`beside`: canonical bytes of objects that are not stored, and are found here too.

        `absent`: the commits that the repository does without, at this moment. `also`: another
        store of the same objects: what it is `keeping` is not read again.
        """
        self._storage = storage
        self._absent = absent
        self._workspace = Workspace()
        self._beside: Mapping[ObjectId, bytes] = beside if beside is not None else {}
        self._also = also
        self._keeping = threading.Lock()
        self._keepers = 0
        self._kept: dict[ObjectId, Record] = {}
        self._kept_bytes = 0

    def commit(self, identity: ObjectId) -> Commit:
        """The commit of this id, without what is absent. Raises MissingObject, Corruption."""
        return self.load(identity, Commit).without(self._absent())

    @property
    def storage(self) -> Storage:
        """Where they are."""
        return self._storage

    @property
    def absent(self) -> Container[ObjectId]:
        """The commits that the repository does without, at this moment."""
        return self._absent()

    def absent_of(self, identity: ObjectId) -> tuple[ObjectId, ...]:
        """The commits that this one names, and that are done without here. Raises as `commit`."""
        whole, absent = self.load(identity, Commit), self._absent()
        return tuple(each for each in whole.needed if each in absent)

    def and_beside(self, beside: Mapping[ObjectId, bytes]) -> "ObjectStore":
        """The same store, with objects that are not stored."""
        return ObjectStore(self._storage, beside, self._absent)

    def snapshot(self, identity: ObjectId) -> Snapshot:
        """The snapshot of this id. Raises MissingObject, Corruption."""
        return self.load(identity, Snapshot)

    def tensor(self, identity: ObjectId) -> Tensor:
        """The tensor of this id. Raises MissingObject, Corruption."""
        return self.load(identity, Tensor)

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Read no object twice inside of this: planning and merging ask for each many times.

        No longer than that: what gc, a purge or damage takes away is then missing at once.
        """
        with self._keeping:
            self._keepers += 1
        try:
            yield
        finally:
            with self._keeping:
                self._keepers -= 1
                if not self._keepers:
                    self._kept.clear()
                    self._kept_bytes = 0

    def load(self, identity: ObjectId, kind: type[Kind]) -> Kind:
        """The object of this id, which must be of `kind`. Raises MissingObject, Corruption."""
        for store in (self,) if self._also is None else (self, self._also):
            kept = store._kept.get(identity)
            if isinstance(kept, kind):
                return kept
        canonical = self.canonical(identity)
        record = decode(canonical, kind, f"object {identity.hex()[:12]}")
        with self._keeping:
            if self._keepers and self._kept_bytes < _KEPT_BYTES:
                self._kept[identity] = record
                self._kept_bytes += len(canonical)
        return record

    def kind(self, identity: ObjectId) -> str:
        """What kind of object this is. Raises MissingObject, Corruption."""
        return kind_of(self.canonical(identity))

    def has(self, identity: ObjectId) -> bool:
        """Whether the object is in a pack."""
        return bool(self._copies(identity))

    def is_here(self, identity: ObjectId) -> bool:
        """`has` where a wrong "no" would be told: for that every pack is looked into.

        Pages of the index have no checksums, so one that is damaged may have lost an id.
        """
        rebuilds = self._storage.rebuilds
        return self.has(identity) or (
            self._storage.recover({identity}, rebuilds) and self.has(identity)
        )

    def present(self, candidates: Iterable[ObjectId]) -> list[ObjectId]:
        """Those of some values that are ids of indexed objects, in their order."""
        wanted = list(candidates)
        return self._storage.ask(
            lambda view: [identity for identity in wanted if view.object(identity) is not None]
        )

    def canonical(self, identity: ObjectId) -> bytes:
        """The object's bytes, verified. Raises MissingObject, Corruption."""
        if identity in self._beside:
            return self._beside[identity]
        damage: Corruption | None = None
        for refreshed in (False, True, True):
            rebuilds = self._storage.rebuilds
            copies = self._copies(identity)
            for at in copies:
                try:
                    return self.read(identity, at)
                except FileNotFoundError:
                    continue  # gc replaced the pack since the look-up
                except Corruption as error:
                    if not self._storage.holds(at):
                        continue  # the index is wrong, not the pack
                    damage = damage or error
                    if not self._storage.is_whole(at):
                        self._storage.condemn([at])
            if damage is not None:
                break
            if copies and not refreshed and self._storage.refresh():
                continue
            if not self._storage.recover({identity}, rebuilds):
                break
        self._storage.note_lacking(True)
        raise damage or MissingObject(f"object {identity.hex()} is in no pack", HEALING)

    def read(self, identity: ObjectId, at: Location) -> bytes:
        """One copy of an object, verified. Raises Corruption, FileNotFoundError."""
        what = f"object {identity.hex()} in {pack_key(at.pack)}"
        header = at.header
        if not at.is_plausible:
            raise Corruption(f"{what} claims {header.raw_length} bytes at {at.offset}")
        self._check_limits(at, what)
        payload = read_exactly(
            self._storage.store,
            pack_key(at.pack),
            at.offset + RECORD_HEADER_BYTES,
            header.encoded_length,
        )
        return self._decoded(identity, at, payload, what)

    def read_together(
        self,
        identities: Iterable[ObjectId],
        most_bytes: int,
        read: Callable[[str, int, int], Buffer],
    ) -> dict[ObjectId, bytes]:
        """Objects, verified, as many as decode to so many bytes; neighbours by one `read`.

        What is not there, damaged, or as large as few objects are is left out: `canonical` reads
        it, and says what is wrong. `read` gives a range (offset, length) of a pack's key.
        """

        def places(view: View) -> list[Location]:
            places = (view.object(identity) for identity in dict.fromkeys(identities))
            return [at for at in places if at is not None]

        chosen: list[Location] = []
        for at in self._storage.ask(places):
            most_bytes -= at.header.raw_length
            if most_bytes < 0:
                break
            if at.is_plausible and at.header.raw_length <= limits.UNASKED_BYTES:
                chosen.append(at)
        chosen.sort(key=lambda at: at.place)
        objects: dict[ObjectId, bytes] = {}
        for run in runs(chosen, gap_bytes=_GAP_BYTES):
            begin, key = run[0].offset, pack_key(run[0].pack)
            with contextlib.suppress(Corruption, FileNotFoundError):
                data = memoryview(read(key, begin, run[-1].end - begin))
                for at in run:
                    identity = ObjectId(at.id)
                    payload = data[at.offset - begin + RECORD_HEADER_BYTES : at.end - begin]
                    objects[identity] = self._decoded(identity, at, payload, key)
        return objects

    def _decoded(self, identity: ObjectId, at: Location, payload: Buffer, what: str) -> bytes:
        """What a record's payload encodes, its hash compared. Raises Corruption."""
        header = at.header
        raw = bytearray(header.raw_length)
        try:
            codec_tagged(header.codec, header.version).decode_into(
                [payload], None, memoryview(raw), self._workspace
            )
        except CodecError as error:
            raise CodecError(f"{what}: {error.message}", error.hint) from error
        if object_id(raw) != identity:
            raise Corruption(
                f"{what} is damaged",
                HEALING,
            )
        return bytes(raw)

    def _check_limits(self, at: Location, what: str) -> None:
        """Raise Corruption for an object that is larger than its kind may be, unread."""
        header = at.header
        if header.raw_length <= limits.UNASKED_BYTES:
            return
        start: bytes | bytearray = read_exactly(
            self._storage.store,
            pack_key(at.pack),
            at.offset + RECORD_HEADER_BYTES,
            min(header.encoded_length, _START_BYTES),
        )
        if header.codec == codec_named("zstd").tag:
            start = frames.start(start, _HEAD_BYTES)
        elif header.codec != codec_named("raw").tag:
            raise Corruption(f"{what} is in a codec that objects are not stored in")
        limits.check_read(kind_of(bytes(start[:_HEAD_BYTES])), header.raw_length, what)

    def _copies(self, identity: ObjectId) -> list[Location]:
        return self._storage.look_up(lambda view: view.object_copies(identity) or None) or []

    def find_prefix(self, hex_prefix: str, limit: int = 16) -> list[ObjectId]:
        """Ids that begin with these hex digits, at most `limit`."""
        whole, odd = hex_prefix[: len(hex_prefix) // 2 * 2], len(hex_prefix) % 2
        # An odd digit is half a byte: look at every byte it can begin.
        prefixes = (
            [bytes.fromhex(whole + hex_prefix[-1] + digit) for digit in "0123456789abcdef"]
            if odd
            else [bytes.fromhex(whole)]
        )

        def question(view: View) -> list[ObjectId] | None:
            identities: list[ObjectId] = []
            for prefix in prefixes:
                identities += view.objects_with_prefix(prefix, limit - len(identities))
            return identities or None

        return self._storage.look_up(question) or []

    def put(self, record: Record, transaction: Transaction) -> ObjectId:
        """Add an object to a transaction, unless it is stored; returns its id."""
        return transaction.add_object(encode(record))


class ObjectSource(Protocol):
    """Where snapshots and tensors come from: a store, or models that are only looked at."""

    def snapshot(self, identity: ObjectId, /) -> Snapshot:
        """The snapshot of this id."""
        ...

    def tensor(self, identity: ObjectId, /) -> Tensor:
        """The tensor of this id."""
        ...


class Tensors:
    """Tensor objects by id, each read once."""

    def __init__(self, objects: ObjectSource) -> None:
        self._objects = objects
        self._known: dict[ObjectId, Tensor] = {}

    def __getitem__(self, identity: ObjectId) -> Tensor:
        record = self._known.get(identity)
        if record is None:
            record = self._known[identity] = self._objects.tensor(identity)
        return record
