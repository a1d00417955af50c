"""A history in a dict, for tests of what walks one: counts its reads."""

from collections.abc import Iterable

from mergepipe.errors import MissingObject
from mergepipe.ids import ObjectId, digest
from mergepipe.objects.records import Commit


class DictHistory:
    def __init__(self) -> None:
        self.commits: dict[ObjectId, Commit] = {}
        self.others: dict[ObjectId, str] = {}
        self.reads = 0

    def add(
        self,
        name: str,
        parents: Iterable[ObjectId] = (),
        time: int = 0,
        base: ObjectId | None = None,
        identity: ObjectId | None = None,
    ) -> ObjectId:
        key = identity or ObjectId(digest(name.encode()))
        snapshot = ObjectId(digest(b"snapshot of " + name.encode()))
        self.commits[key] = Commit(snapshot, tuple(parents), base, "a", time, 0, name)
        return key

    def commit(self, identity: ObjectId, /) -> Commit:
        self.reads += 1
        try:
            return self.commits[identity]
        except KeyError:
            raise MissingObject(identity.hex()) from None

    def kind(self, identity: ObjectId, /) -> str:
        if identity in self.commits:
            return "commit"
        try:
            return self.others[identity]
        except KeyError:
            raise MissingObject(identity.hex()) from None

    def find_prefix(self, hex_prefix: str, limit: int) -> list[ObjectId]:
        keys = sorted((*self.commits, *self.others))
        return [key for key in keys if key.hex().startswith(hex_prefix)][:limit]

    def ancestors(self, tips: Iterable[ObjectId]) -> set[ObjectId]:
        """Each tip and all it descends from, the obvious way."""
        found: set[ObjectId] = set()
        pending = list(tips)
        while pending:
            key = pending.pop()
            if key not in found:
                found.add(key)
                pending += self.commits[key].parents
        return found
