"""Objects read many at a time, before a walk asks for them one by one."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from mergepipe.ids import ObjectId
from mergepipe.objects.references import named_ids
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.pack_starts import PackStarts

_COMMITS_AT_ONCE = 256
_MOST_BYTES = 64 << 20  # of those that are held at a time


class ObjectsAhead:
    """The objects of a store. It is a `repository.closure.ObjectSource`, for one thread."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._near: dict[ObjectId, bytes] = {}
        self._packs = PackStarts(objects.storage.store)

    def canonical(self, identity: ObjectId) -> bytes:
        """The object's bytes, verified. Raises MissingObject, Corruption."""
        near = self._near.get(identity)
        return self._objects.canonical(identity) if near is None else near

    def present(self, candidates: Iterable[ObjectId]) -> list[ObjectId]:
        """Those of some values that are ids of objects here, in their order."""
        return self._objects.present(candidates)

    def expect(self, identities: Iterable[ObjectId]) -> list[bytes]:
        """Read objects together, as far as they fit; returns those that were read."""
        new = [identity for identity in identities if identity not in self._near]
        left = _MOST_BYTES - sum(map(len, self._near.values()))
        records = (
            self._objects.read_together(new, left, self._packs.read) if new and left > 0 else {}
        )
        self._near |= records
        return list(records.values())

    def models(
        self,
        commits: Iterable[ObjectId],
        known: Callable[[ObjectId], bool] = lambda identity: False,
    ) -> Iterator[ObjectId]:
        """The same commits, a few at a time: what their models name is read before.

        `known` says of an object that nobody will ask for it.
        """
        rest = iter(commits)
        while window := list(islice(rest, _COMMITS_AT_ONCE)):
            self._near = {each: self._near[each] for each in window if each in self._near}
            self.expect(window)
            level = [self._near[each] for each in window if each in self._near]
            for _ in ("snapshots, profiles", "tensors"):
                named = dict.fromkeys(each for data in level for each in named_ids(data))
                level = self.expect(each for each in named if not known(each))
            yield from window
