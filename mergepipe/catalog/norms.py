"""How large tensors are: roughly, noted when their model was stored, remembered by snapshot.

A snapshot without an entry came from a remote, is a merge's, or the index was made anew.
"""

import struct
from collections.abc import Mapping

from mergepipe.ids import ID_BYTES, ObjectId
from mergepipe.packs.storage import Storage

_ENTRY = struct.Struct(f"<{ID_BYTES}sd")


class Squares:
    """Sums of squares of the tensors of one store's models."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def find(self, snapshot: ObjectId) -> dict[ObjectId, float] | None:
        """By tensor; None: nobody noted them."""
        with self._storage.view() as view:
            value = view.cached(_key(snapshot))
        if value is None or len(value) % _ENTRY.size:
            return None
        return {ObjectId(tensor): square for tensor, square in _ENTRY.iter_unpack(value)}

    def remember(self, snapshot: ObjectId, squares: Mapping[ObjectId, float]) -> None:
        """Let `find` know."""
        value = b"".join(_ENTRY.pack(tensor, square) for tensor, square in sorted(squares.items()))
        self._storage.index.cache([(_key(snapshot), value)])


def _key(snapshot: ObjectId) -> bytes:
    return b"s/" + snapshot
