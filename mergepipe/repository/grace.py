"""What gc leaves alone although nothing needs it: it is too young, or running work said so.

What was stored, or let go of by `prune`, less than `gc.grace` ago may be wanted back; and until a
ref names it, work that takes long has nothing but its age, or a lease (leases.py), to hold it by.
docs/format.md, "Collection".
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Set

from msgspec import Struct, field

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.errors import Corruption
from mergepipe.ids import ObjectId, PackId
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.footer_table import read_table
from mergepipe.packs.format import RecordKind
from mergepipe.packs.id_arrays import NO_IDS, Ids, OrderedIds, sorted_ids, union
from mergepipe.packs.reader import pack_ids, pack_key
from mergepipe.repository.pruned import Pruned


class Grace(Struct, frozen=True):
    """Up to when things must date for gc to take them: `before_s` (Unix) = now - `length_s`."""

    before_s: float
    length_s: float

    @classmethod
    def of(cls, length_s: float, now_s: float) -> "Grace | None":
        """What is younger than `length_s` stays; None: nothing does."""
        return cls(now_s - length_s, length_s) if length_s > 0 else None


class Spared(Struct, frozen=True):
    """What only its age keeps: objects, blocks, and models that were pruned, with the time."""

    objects: Set[ObjectId] = frozenset()
    blocks: Ids = field(default_factory=lambda: NO_IDS)
    pruned: Mapping[ObjectId, int] = field(default_factory=dict)

    def ids(self) -> Ids:
        """The objects and the blocks."""
        return union(self.blocks, sorted_ids(self.objects))


def young_packs(files: LocalByteStore, grace: Grace | None) -> dict[PackId, float]:
    """The packs that were written within the time of grace, and when (Unix seconds).

    A clock gone wrong makes more of them young.
    """
    if grace is None:
        return {}
    times = ((pack, files.modified(pack_key(pack))) for pack in pack_ids(files))
    return {pack: at for pack, at in times if at is not None and at > grace.before_s}


def contents(files: LocalByteStore, packs: Iterable[PackId]) -> tuple[OrderedIds, OrderedIds]:
    """The objects and blocks of packs, as far as their footers can be read."""
    objects, blocks = OrderedIds(), OrderedIds()
    for pack in packs:
        with contextlib.suppress(Corruption, FileNotFoundError):
            _, table = read_table(files, pack)
            is_object = table["kind"] == RecordKind.OBJECT
            objects.add(table["id"][is_object].tobytes())
            blocks.add(table["id"][~is_object].tobytes())
    return objects, blocks


def lately_pruned(
    pruned: Pruned, grace: Grace | None, now: Iterable[ObjectId] = ()
) -> dict[ObjectId, int]:
    """Commits whose models were let go of in the time of grace, and when; `now`: this moment."""
    if grace is None:
        return {}
    times = dict.fromkeys(now, int(grace.before_s + grace.length_s)) | dict(pruned.times)
    return {commit: at for commit, at in times.items() if at > grace.before_s}


def models_of(commits: Iterable[ObjectId], objects: ObjectStore) -> Iterator[ObjectId]:
    """What commits name beside commits: their models, as far as it can be said."""
    for identity in commits:
        with contextlib.suppress(Corruption):
            commit = objects.commit(identity)
            named = (commit.snapshot, commit.profile, commit.manifest)
            yield from (ObjectId(each) for each in named if each is not None)
