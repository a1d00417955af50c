"""From quarantine into the store: what new commits need is verified, all of it, then moved.

The closure of the commits is walked over store and quarantine together, every object and every
block that is new is looked at, and only records that were, and are needed, get into `packs/`.
Nothing of an admission that fails is visible; the packs at fault are removed.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from mergepipe.bytestore.protocol import ByteWriter
from mergepipe.bytestore.windows import WindowStore
from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import BlockId, ObjectId, PackId
from mergepipe.objects.grid import blocks_of
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.entries import PackEntry
from mergepipe.packs.format import Content, RecordHeader, RecordKind
from mergepipe.packs.reader import pack_key, read_exactly, read_footer
from mergepipe.packs.records import Encoding
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import PACK_BYTES
from mergepipe.packs.view import View
from mergepipe.packs.writer import PackWriter
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.pruned import NONE, Pruned
from mergepipe.transfer.inspection import Inspected
from mergepipe.transfer.new_commits import (
    NewCommits,
    commits_between,
    known_objects,
    objects_of,
)
from mergepipe.transfer.quarantine import Quarantine
from mergepipe.transfer.two_storages import layered
from mergepipe.transfer.verification import BadBlock, plant, verify

_BATCH = 4096


class Admitted(Struct, frozen=True):
    """What came into the store. `stored_bytes`: whole records; `raw_bytes`: blocks, decoded."""

    commits: int = 0
    packs: int = 0
    stored_bytes: int = 0
    raw_bytes: int = 0


class Admission:
    """One decision about commits that others sent. Used from one thread, `store.lock` held.

    `verify` first, which takes long; then `publish`, under `lock`, right before the ref moves.
    What was `inspected` as it came in is not decoded again.
    """

    def __init__(
        self,
        storage: Storage,
        quarantine: Quarantine,
        *,
        inspected: Inspected | None = None,
        pruned: Pruned = NONE,
        threads: int = 1,
        progress: Progress = SILENT,
    ) -> None:
        """`pruned`: commits that are admitted without their models, as where they come from."""
        self._storage = storage
        self._pruned = pruned
        self._quarantine = quarantine
        self._inspected = Inspected(0) if inspected is None else inspected
        self._threads = threads
        self._progress = progress
        self._needed: dict[PackId, set[int]] = {}
        self.commits: tuple[ObjectId, ...] = ()
        """Those that are new, once they were verified."""
        self._raw_bytes = 0

    def verify(self, tips: Iterable[ObjectId], known: Iterable[ObjectId]) -> None:
        """Look at all that commits need and the `known` ones, whole in the store, do not bring.

        Raises MissingObject for what is neither in the store nor in quarantine, Corruption naming
        what is not as it should be; quarantined packs that are at fault are then gone.
        """
        self._storage.refresh()
        if self._quarantine.empty:
            self._closure(_Objects(self._storage, None), self._storage, list(tips), known)
            return
        self._quarantine.storage.refresh()
        both = layered(self._storage, self._quarantine.storage)
        objects = _Objects(self._storage, self._quarantine.storage)
        try:
            self._closure(objects, both, list(tips), known)
        except BadBlock as bad:
            self._quarantine.remove(sorted(self._mine(bad.packs)))
            raise bad.error from None
        except MissingObject:
            raise
        except Corruption:
            if not objects.damaged_here:
                self._quarantine.remove(sorted(objects.packs))
            raise

    def publish(self) -> Admitted:
        """Move what was verified to `packs/`, blocks before objects, durably, and index it."""
        if not self._needed:
            return Admitted(len(self.commits))
        try:
            return self._publish()
        except FileNotFoundError as error:
            raise MissingObject(
                f"{error.filename or error} left quarantine meanwhile", "try again"
            ) from error

    def _publish(self) -> Admitted:
        footers = {pack: self._footer(pack) for pack in self._needed}
        order = sorted(self._needed, key=lambda pack: (footers[pack][0], pack))
        whole = [pack for pack in order if len(footers[pack][1]) == len(self._needed[pack])]
        partial = [pack for pack in order if pack not in set(whole)]
        entries: list[PackEntry] = []
        for content in Content:
            here = [pack for pack in whole if footers[pack][0] is content]
            for pack in here:
                self._quarantine.release(pack)
                size = self._storage.store.size(pack_key(pack)) or 0
                entries.append(PackEntry(pack, size, *footers[pack]))
            self._quarantine.sync_packs()
            there = [pack for pack in partial if footers[pack][0] is content]
            entries += self._copy(there, footers)
        self._storage.add_packs(entries)
        done = [pack for pack in partial if self._used_up(footers[pack][1])]
        self._quarantine.remove([*whole, *done])
        stored = sum(header.stored_bytes for entry in entries for header, _ in entry.records)
        return Admitted(len(self.commits), len(entries), stored, self._raw_bytes)

    def _closure(
        self,
        objects: "_Objects",
        both: Storage,
        tips: Sequence[ObjectId],
        known: Iterable[ObjectId],
    ) -> None:
        new = commits_between(objects, tips, known, self._pruned.absent)
        self.commits = new.commits
        expected = self._objects(objects, new)
        blocks = self._new_blocks(expected)
        forest = plant(both, blocks, self._are_new, self._is_known)
        verify(forest, both.store, BlockReader(both), self._threads, self._progress)
        self._raw_bytes = forest.raw_bytes
        for pack, offset in objects.places:
            self._needed.setdefault(pack, set()).add(offset)
        quarantined = self._mine(
            {at.pack for encoding in forest.chosen.values() for at in encoding.layers}
        )
        for encoding in forest.chosen.values():
            for at in encoding.layers:
                if at.pack in quarantined:
                    self._needed.setdefault(at.pack, set()).add(at.offset)

    def _objects(self, objects: "_Objects", new: NewCommits) -> dict[BlockId, int]:
        """Walk the closure; returns the lengths of all blocks of its tensors."""
        expected: dict[BlockId, int] = {}
        known = known_objects(objects, new.boundary)
        for needed in objects_of(objects, new.commits, known, self._pruned):
            if not isinstance(needed.record, Tensor):
                continue
            for use in blocks_of(needed.record, f"tensor {needed.id.hex()}"):
                length = expected.setdefault(use.id, use.length)
                if length != use.length:
                    raise Corruption(
                        f"tensor {needed.id.hex()}: block {use.id.hex()} cannot have {use.length} "
                        f"bytes, elsewhere it has {length}"
                    )
        return expected

    def _new_blocks(self, expected: Mapping[BlockId, int]) -> dict[BlockId, int]:
        """Those that the store does not have whole. Raises Corruption for a length that is not."""
        sizes: dict[BlockId, int] = {}
        blocks = list(expected)
        for first in range(0, len(blocks), _BATCH):
            batch = blocks[first : first + _BATCH]
            lengths = self._storage.ask(functools.partial(_lengths, blocks=batch))
            for block, length in zip(batch, lengths, strict=True):
                if length is None:
                    sizes[block] = expected[block]
                elif length != expected[block]:
                    raise Corruption(
                        f"block {block.hex()} has {length} bytes, a tensor says {expected[block]}"
                    )
        return sizes

    def _are_new(self, blocks: Sequence[BlockId]) -> list[bool]:
        return self._storage.ask(lambda view: [not view.has_block(block) for block in blocks])

    def _is_known(self, encoding: Encoding) -> bool:
        return encoding.places in self._inspected

    def _mine(self, packs: Iterable[PackId]) -> set[PackId]:
        """Those of some packs that are quarantined."""
        return {pack for pack in packs if self._quarantine.size(pack) is not None}

    def _footer(self, pack: PackId) -> tuple[Content, list[tuple[RecordHeader, int]]]:
        try:
            return read_footer(self._quarantine.packs, pack)
        except FileNotFoundError:
            return read_footer(self._storage.store, pack)  # another admission moved it

    def _copy(
        self,
        packs: Sequence[PackId],
        footers: Mapping[PackId, tuple[Content, list[tuple[RecordHeader, int]]]],
    ) -> list[PackEntry]:
        """Records that were verified, out of packs that hold others too, into packs of their own.

        What came with them may be anything: a reader would meet it as another way to read a block.
        """
        writers: list[PackWriter] = []
        values: list[tuple[ByteWriter, str]] = []
        entries: list[PackEntry] = []
        try:
            for pack in packs:
                for header, offset in footers[pack][1]:
                    if offset not in self._needed[pack]:
                        continue
                    if not writers or writers[-1].size >= PACK_BYTES:
                        writers.append(PackWriter(self._storage.store, footers[pack][0]))
                    data = read_exactly(
                        self._quarantine.packs, pack_key(pack), offset, header.stored_bytes
                    )
                    writers[-1].add_copy(header, data)
            for writer in writers:
                entry, value = writer.finish()
                value.sync()
                values.append((value, pack_key(entry.id)))
                entries.append(entry)
            self._storage.store.publish(values)
        except BaseException:
            for writer in writers:
                writer.abort()
            raise
        return entries

    def _used_up(self, records: Sequence[tuple[RecordHeader, int]]) -> bool:
        """Whether the store has all that a pack brings, so that the pack can go."""

        def question(view: View) -> bool:
            return all(
                view.object(ObjectId(header.id)) is not None
                if header.kind is RecordKind.OBJECT
                else view.has_block(BlockId(header.id))
                for header, _ in records
            )

        return self._storage.ask(question)


class _Objects:
    """Objects of the store, then of the quarantine; remembers which quarantined records it read.

    places   the records that were read, each verified
    packs    the packs they, and bad ones, are in
    """

    def __init__(self, storage: Storage, incoming: Storage | None) -> None:
        self._here = ObjectStore(storage)
        self._storage = storage
        self._incoming = incoming
        # Objects that were sent lie in the order in which they are asked for.
        windows = None if incoming is None else Storage(WindowStore(incoming.store), incoming.index)
        self._there = None if windows is None else ObjectStore(windows)
        self.places: set[tuple[PackId, int]] = set()
        self.packs: set[PackId] = set()
        self.damaged_here = False

    def canonical(self, identity: ObjectId) -> bytes:
        """The object's bytes, verified. Raises MissingObject, Corruption."""
        if self._storage.ask(lambda view: view.object(identity)) is not None:
            try:
                return self._here.canonical(identity)
            except Corruption:
                self.damaged_here = True
                raise
        if self._incoming is None or self._there is None:
            return self._here.canonical(identity)
        damage: Corruption | None = None
        for at in self._incoming.ask(lambda view: view.object_copies(identity)):
            self.packs.add(at.pack)
            try:
                data = self._there.read(identity, at)
            except Corruption as error:
                damage = damage or Corruption(f"object {identity.hex()}: {error.message}")
                continue
            except FileNotFoundError:
                continue  # admitted by another, just now
            self.places.add((at.pack, at.offset))
            return data
        if damage is not None:
            raise damage
        return self._here.canonical(identity)

    def present(self, candidates: Iterable[ObjectId]) -> list[ObjectId]:
        """Those of some values that are ids of objects in either."""
        wanted = list(candidates)
        here = set(self._here.present(wanted))
        if self._there is not None:
            here.update(self._there.present(wanted))
        return [one for one in wanted if one in here]


def _lengths(view: View, blocks: Sequence[BlockId]) -> list[int | None]:
    """The length of each block that can be read, else None."""
    return [
        view.block(block)[0].header.raw_length if view.has_block(block) else None
        for block in blocks
    ]
