"""How much room models take: raw, unique and stored bytes, and where the savings come from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.choice import choose
from mergepipe.packs.records import Encoding, Place
from mergepipe.packs.storage import Storage
from mergepipe.repository.refnames import HEADS, IMPORTS, TAGS, short_name
from mergepipe.repository.refs import RefStore
from mergepipe.reprs import brief


@brief
@dataclass(frozen=True, slots=True)
class ModelUsage:
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
@dataclass(frozen=True, slots=True)
class Usage:
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


@dataclass(frozen=True, slots=True)
class _Needs:
    """What one model needs: its blocks with their lengths, and records by place."""

    raw_bytes: int
    blocks: dict[BlockId, int]
    records: dict[Place, int]
    own: set[Place]


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
    needs: list[_Needs] = []
    readers: dict[Place, int] = {}
    unique: dict[BlockId, int] = {}
    records: dict[Place, int] = {}
    for _, commit in revisions:
        need = _needs(commit, objects, storage)
        needs.append(need)
        unique |= need.blocks
        records |= need.records
        for place in need.records:
            readers[place] = readers.get(place, 0) + 1
    names: dict[ObjectId, str] = {}
    for name, commit in revisions:
        names.setdefault(commit, name)
    models = []
    for (name, identity), need in zip(revisions, needs, strict=True):
        base = objects.commit(identity).leans_on
        models.append(
            ModelUsage(
                name,
                identity,
                base,
                None if base is None else names.get(base),
                need.raw_bytes,
                sum(need.blocks.values()),
                sum(size for place, size in need.records.items() if place in need.own),
                sum(size for place, size in need.records.items() if place not in need.own),
                sum(size for place, size in need.records.items() if readers[place] == 1),
            )
        )
    objects_bytes, packs_bytes = _totals(storage)
    promised = storage.promises.absent_bytes()
    return Usage(
        sum(need.raw_bytes for need in needs),
        sum(unique.values()),
        sum(records.values()),
        objects_bytes,
        packs_bytes - promised,
        tuple(models),
        promised,
    )


def _needs(commit: ObjectId, objects: ObjectStore, storage: Storage) -> _Needs:
    snapshot = objects.snapshot(objects.commit(commit).snapshot)
    blocks: dict[BlockId, None] = {}
    for tensor in dict.fromkeys(snapshot.tensor_ids()):
        blocks.update(dict.fromkeys(objects.tensor(tensor).block_ids()))
    chosen = choose(storage, blocks)
    own = _places(chosen[block] for block in blocks)
    return _Needs(
        sum(file.size for file in snapshot.files),
        {block: chosen[block].raw_length for block in blocks},
        _places(chosen.values()),
        set(own),
    )


def _places(encodings: Iterable[Encoding]) -> dict[Place, int]:
    return {at.place: at.stored_bytes for encoding in encodings for at in encoding.layers}


def _totals(storage: Storage) -> tuple[int, int]:
    """Bytes of all objects' records, and of all packs."""
    with storage.view() as view:
        objects = sum(at.stored_bytes for at in view.objects())
        return objects, sum(size for size, _ in view.packs().values())
