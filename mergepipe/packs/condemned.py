"""Records that were found damaged: no longer in the index, and remembered until they are replaced.

What is not in the index is missing to all who ask it: a commit stores it again, a fetch brings it.
"""

from collections.abc import Iterable

from mergepipe.ids import ID_BYTES, PackId
from mergepipe.packs.records import Place

KEY = b"condemned"
HEALING = (
    "mp fsck --repair tells what else is, and mends it from remotes and the files here; "
    "mp fetch --heal, or a commit of the same files, does too"
)
"""What to do about damage, for messages."""
_ITEM_BYTES = ID_BYTES + 8


def pack_places(places: Iterable[Place]) -> bytes:
    """Places as the index keeps them: pack id and offset (u64), sorted."""
    return b"".join(pack + offset.to_bytes(8, "little") for pack, offset in sorted(places))


def parse_places(data: bytes) -> frozenset[Place]:
    """Places again; a list that is damaged is none."""
    if len(data) % _ITEM_BYTES:
        return frozenset()
    items = (data[first : first + _ITEM_BYTES] for first in range(0, len(data), _ITEM_BYTES))
    return frozenset(
        (PackId(item[:ID_BYTES]), int.from_bytes(item[ID_BYTES:], "little")) for item in items
    )
