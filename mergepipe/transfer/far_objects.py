"""Objects that are here, or with a remote that is asked where they are."""

from collections.abc import Iterable, Sequence

from mergepipe.ids import ObjectId
from mergepipe.objects.encoding import decode
from mergepipe.objects.records import Commit
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.storage import Storage
from mergepipe.packs.view import View
from mergepipe.transfer.remote_packs import RemoteStorage
from mergepipe.transfer.two_storages import layered


class FarObjects:
    """What a walk reads of a remote: the footers of those packs alone that hold what it comes to.

    An object's neighbours are in its pack, so most walks ask a few times. It is a
    `repository.closure.ObjectSource`. `everything`: all packs are needed, so all are listed.
    """

    def __init__(self, here: Storage, remote: RemoteStorage, *, everything: bool) -> None:
        self._here = here
        self._remote = remote
        self._everything = everything
        self._objects = ObjectStore(layered(here, remote))
        if everything:
            remote.refresh()

    def canonical(self, identity: ObjectId) -> bytes:
        """The object's bytes, verified. Raises MissingObject, Corruption."""
        self._seek_objects([identity])
        return self._objects.canonical(identity)

    def present(self, candidates: Iterable[ObjectId]) -> list[ObjectId]:
        """Those of some values that are ids of objects here or there, in their order."""
        wanted = list(candidates)
        self._seek_objects(wanted)
        return self._objects.present(wanted)

    def commit(self, identity: ObjectId) -> Commit:
        """A commit as it is stored. Raises MissingObject, Corruption."""
        return decode(self.canonical(identity), Commit, f"object {identity.hex()[:12]}")

    def seek(self, ids: Sequence[bytes]) -> None:
        """Know where blocks and objects are, that are not here."""
        if ids and not self._everything:
            self._remote.seek(ids)

    def _seek_objects(self, ids: Sequence[ObjectId]) -> None:
        def unknown(view: View) -> list[ObjectId]:
            return [identity for identity in ids if view.object(identity) is None]

        if not self._everything:
            missing = set(self._here.ask(unknown)) & set(self._remote.ask(unknown))
            self.seek(sorted(missing))
