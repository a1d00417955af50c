"""How much room models take: raw, unique and stored bytes, and where the savings come from."""

import struct
from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from mergepipe.ids import ID_BYTES, BlockId, ObjectId, PackId
from mergepipe.objects.ahead import ObjectsAhead
from mergepipe.objects.encoding import decode
from mergepipe.objects.records import Commit, Snapshot, Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.choice import choose
from mergepipe.packs.records import Location
from mergepipe.packs.storage import Storage
from mergepipe.repository.refnames import HEADS, IMPORTS, TAGS, short_name
from mergepipe.repository.refs import RefStore
from mergepipe.reprs import brief


@brief
class ModelUsage(Struct, frozen=True):
    """One model. Sizes in bytes; a record is its header and payload.

    raw_bytes        its files
    unique_bytes     its distinct blocks
    stored_bytes     the records of its own blocks, shared ones too
    base_bytes       the records of other blocks that these lean on, needed to read them
    exclusive_bytes  of both, the records that no other model listed reads: what removing it frees
    """

    rev: str
    commit: ObjectId
    base: ObjectId | None
    base_rev: str | None
    raw_bytes: int
    unique_bytes: int
    stored_bytes: int
    base_bytes: int
    exclusive_bytes: int

    @property
    def alone_bytes(self) -> int:
        """What the store would hold if it held this model alone: its records and its bases'."""
        return self.stored_bytes + self.base_bytes

    @property
    def shared_bytes(self) -> int:
        """Of alone_bytes, what some other model listed reads too."""
        return self.alone_bytes - self.exclusive_bytes


@brief
class Usage(Struct, frozen=True):
    """All models listed, each block and each record counted once.

    raw_bytes = dedup_saved_bytes + coding_saved_bytes + stored_bytes, always. Coding can cost
    (saved is negative) where bases are stored that no listed model contains.
    packs_bytes is what the pack files take: stored_bytes, objects_bytes, and the rest: other
    models, other encodings, garbage, footers. promised_bytes: what a lazy clone's packs lack of
    that, which is with the remote; it is in stored_bytes, and not in packs_bytes.
    """

    raw_bytes: int
    unique_bytes: int
    stored_bytes: int
    objects_bytes: int
    packs_bytes: int
    models: tuple[ModelUsage, ...]
    promised_bytes: int = 0

    @property
    def dedup_saved_bytes(self) -> int:
        """What storing equal blocks once saves."""
        return self.raw_bytes - self.unique_bytes

    @property
    def coding_saved_bytes(self) -> int:
        """What encoding blocks saves."""
        return self.unique_bytes - self.stored_bytes


# A record that some model reads: its place, its length, and the length of the block that it is the
# first layer of, if a model holds that block itself.
_READ = np.dtype([("place", "S12"), ("stored", np.int64), ("raw", np.int64), ("own", np.bool_)])
_Read = NDArray[np.void]
_BATCH = 4096
_ID = f"S{ID_BYTES}"
_PLACE = struct.Struct(">IQ")  # the number of a pack, and an offset in it


def default_revisions(refs: RefStore) -> list[tuple[str, ObjectId]]:
    """Branches, tags and imports by their short names, each commit once."""
    revisions: dict[ObjectId, str] = {}
    for folder in (HEADS, TAGS, IMPORTS):
        for name, commit in refs.list(folder).items():
            revisions.setdefault(commit, short_name(name))
    return [(name, commit) for commit, name in revisions.items()]


def measure(
    revisions: Sequence[tuple[str, ObjectId]], objects: ObjectStore, storage: Storage
) -> Usage:
    """The room that models (name and commit) take, from objects and the index alone.

    No block is read. Raises MissingObject, Corruption.
    """
    packs: dict[PackId, int] = {}
    ahead = ObjectsAhead(objects)
    needs, bases, sizes = [], [], []
    absent = objects.absent
    for commit in ahead.models(commit for _, commit in revisions):
        record = decode(ahead.canonical(commit), Commit, _named(commit))
        snapshot = decode(ahead.canonical(record.snapshot), Snapshot, _named(record.snapshot))
        needs.append(_needs(snapshot, ahead, storage, packs))
        bases.append(record.without(absent).leans_on)
        sizes.append(sum(file.size for file in snapshot.files))
    if needs:
        together = np.concatenate(needs)
        order = np.argsort(together["place"], kind="stable")
        together = together[order]
        starts = _starts(together["place"])
        readers = np.diff(np.append(starts, len(together)))
        alone = np.empty(len(together), np.bool_)
        alone[order] = np.repeat(readers == 1, readers)
        unique_bytes = int(np.maximum.reduceat(together["raw"], starts).sum()) if len(starts) else 0
        stored_bytes = int(together["stored"][starts].sum())
        del together, order
    else:
        alone, unique_bytes, stored_bytes = np.empty(0, np.bool_), 0, 0
    names: dict[ObjectId, str] = {}
    for name, commit in revisions:
        names.setdefault(commit, name)
    models: list[ModelUsage] = []
    raw_bytes = begin = 0
    for (name, identity), need, base, size in zip(revisions, needs, bases, sizes, strict=True):
        raw_bytes += size
        stored, is_own = need["stored"], need["own"]
        only = alone[begin : begin + len(need)]
        begin += len(need)
        models.append(
            ModelUsage(
                rev=name,
                commit=identity,
                base=base,
                base_rev=None if base is None else names.get(base),
                raw_bytes=size,
                unique_bytes=int(need["raw"].sum()),
                stored_bytes=int(stored[is_own].sum()),
                base_bytes=int(stored[~is_own].sum()),
                exclusive_bytes=int(stored[only].sum()),
            )
        )
    objects_bytes, packs_bytes = _totals(storage)
    promised = storage.promises.absent_bytes()
    return Usage(
        raw_bytes=raw_bytes,
        unique_bytes=unique_bytes,
        stored_bytes=stored_bytes,
        objects_bytes=objects_bytes,
        packs_bytes=packs_bytes - promised,
        models=tuple(models),
        promised_bytes=promised,
    )


def grown(
    commits: Sequence[ObjectId], objects: ObjectStore, storage: Storage
) -> Iterator[tuple[int, int]]:
    """Of the models of commits up to each: bytes of their files, and of all records they need."""
    packs: dict[PackId, int] = {}
    seen: NDArray[np.bytes_] = np.empty(0, _READ["place"])
    raw_bytes = stored_bytes = 0
    for commit in commits:
        snapshot = objects.snapshot(objects.commit(commit).snapshot)
        need = _needs(snapshot, objects, storage, packs)
        new = need[~np.isin(need["place"], seen)]
        raw_bytes += sum(file.size for file in snapshot.files)
        stored_bytes += int(new["stored"].sum())
        seen = np.concatenate([seen, new["place"]])
        yield raw_bytes, stored_bytes


def _named(identity: ObjectId) -> str:
    return f"object {identity.hex()[:12]}"


def _needs(
    snapshot: Snapshot,
    objects: ObjectStore | ObjectsAhead,
    storage: Storage,
    packs: dict[PackId, int],
) -> _Read:
    """The records that a model reads, each once, sorted by place; `packs` numbers them."""
    tensors = (
        decode(objects.canonical(each), Tensor, _named(each))
        for each in dict.fromkeys(snapshot.tensor_ids())
    )
    ids = np.unique(np.frombuffer(b"".join(tensor.blocks for tensor in tensors), _ID))
    parts = [np.empty(0, _READ)]
    for begin in range(0, len(ids), _BATCH):
        batch = [
            BlockId(bytes(each).ljust(ID_BYTES, b"\0")) for each in ids[begin : begin + _BATCH]
        ]
        chosen = choose(storage, batch)
        batched = set(batch)
        parts.append(
            np.array(
                [
                    (
                        _place(at, packs),
                        at.stored_bytes,
                        encoding.raw_length if block in batched and number == 0 else 0,
                        block in batched,
                    )
                    for block, encoding in chosen.items()
                    for number, at in enumerate(encoding.layers)
                ],
                _READ,
            )
        )
    # A base may be a block of the model too, and is one of several batches.
    reads = np.concatenate(parts)
    reads = reads[np.argsort(reads["place"], kind="stable")]
    starts = _starts(reads["place"])
    once = reads[starts]
    if len(starts):
        once["raw"] = np.maximum.reduceat(reads["raw"], starts)
        once["own"] = np.logical_or.reduceat(reads["own"], starts)
    return once


def _place(at: Location, packs: dict[PackId, int]) -> bytes:
    return _PLACE.pack(packs.setdefault(at.pack, len(packs)), at.offset)


def _starts(values: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Where each value of a sorted array begins."""
    if not len(values):
        return np.empty(0, np.int64)
    return np.flatnonzero(np.append(True, values[1:] != values[:-1]))


def _totals(storage: Storage) -> tuple[int, int]:
    """Bytes of all objects' records, and of all packs."""
    with storage.view() as view:
        objects = sum(at.stored_bytes for at in view.objects())
        return objects, sum(size for size, _ in view.packs().values())
