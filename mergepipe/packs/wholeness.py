"""Which packs hold what they held when they were last read whole: by size, time and inode.

The index says what a pack holds, not that it is still so. Before somebody else is told that a block
need not be sent, what was changed behind our back since it was written, or read, is read again.
What a disk loses without a trace in the file's times is for `mp fsck --read-data` to find.
"""

import struct
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption
from mergepipe.ids import PackId
from mergepipe.packs.places import locate
from mergepipe.packs.reader import pack_ids, pack_key, read_footer
from mergepipe.packs.records import Location

if TYPE_CHECKING:
    from mergepipe.packs.index import Index
    from mergepipe.packs.storage import Storage

_STATE = struct.Struct("<QqQ")
_PREFIX = b"whole:"
# So many are looked at one by one, before it is asked where something lies.
_FEW_PACKS = 1000


def note_whole(store: ByteStore, index: "Index", packs: Iterable[PackId]) -> None:
    """These packs were written, or read, just now, and are whole. May be forgotten."""
    if isinstance(store, LocalByteStore):
        states = ((pack, _state(store, pack)) for pack in packs)
        index.cache([(_key(pack), state) for pack, state in states if state])


def changed_packs(storage: "Storage", among: Collection[PackId] | None = None) -> set[PackId]:
    """Packs, of all or of some, that are not as they were when they were last known to be whole.

    None of a lazy clone, whose remote answers for them.
    """
    files = storage.store
    if not isinstance(files, LocalByteStore):
        return set()
    packs = pack_ids(files) if among is None else among
    known = storage.ask(lambda view: {pack: view.cached(_key(pack)) for pack in packs})
    return {pack for pack in packs if (state := _state(files, pack)) and known[pack] != state}


def check_changed(storage: "Storage", needed: Callable[[], Collection[bytes]]) -> bool:
    """Read packs that changed since they were last known to be whole, as far as they are `needed`.

    That is: where blocks or objects of these ids, and what they lean on, lie. Records that are
    damaged are condemned: they count as missing. True if there were any.
    """
    # Of few packs most often none changed, and then nobody looks where the ids lie.
    few = storage.ask(lambda view: view.pack_count()) <= _FEW_PACKS
    changed = changed_packs(storage) if few else set()
    if few and not changed:
        return False
    ids = needed()
    concerned = set(storage.ask(lambda view: locate(view, ids))[0])
    concerned = concerned & changed if few else changed_packs(storage, concerned)
    damaged: list[Location] = []
    for pack in sorted(concerned):
        bad = _read(storage, pack)
        damaged += bad
        if not bad:
            note_whole(storage.store, storage.index, [pack])
    storage.condemn(damaged)
    return bool(damaged)


def _read(storage: "Storage", pack: PackId) -> list[Location]:
    """The damaged records of a pack. One whose footer is lost is indexed anew."""
    try:
        _, records = read_footer(storage.store, pack)
    except (Corruption, FileNotFoundError):
        storage.rebuild()
        return []
    condemned = storage.condemned
    places = (Location(header, pack, offset) for header, offset in records)
    return [at for at in places if at.place not in condemned and not storage.is_whole(at)]


def _state(files: LocalByteStore, pack: PackId) -> bytes:
    status = files.status(pack_key(pack))
    if status is None:
        return b""
    return _STATE.pack(status.st_size, status.st_mtime_ns, status.st_ino)


def _key(pack: PackId) -> bytes:
    return _PREFIX + pack
