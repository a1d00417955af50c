"""What plans leave out, kept by their ids: a plan object itself holds only what is merged.

Kept in the index, which may be lost; then nothing is known of a plan that was stored before.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from mergepipe.ids import ObjectId

if TYPE_CHECKING:
    from mergepipe.packs.storage import Storage
    from mergepipe.plans.left_out import LeftOut

_CACHED = b"o/"


def remember(storage: "Storage", plan: ObjectId, left_out: "Sequence[LeftOut]") -> None:
    """Keep what a plan leaves out."""
    rows = [(part.kind, part.model, part.names, part.reason, part.count) for part in left_out]
    storage.index.cache([(_CACHED + plan, msgspec.json.encode(rows))])


def recall(storage: "Storage", plan: ObjectId) -> "tuple[LeftOut, ...]":
    """What a plan leaves out, as far as it is known."""
    from mergepipe.plans.left_out import Kind, LeftOut

    with storage.view() as view:
        value = view.cached(_CACHED + plan)
    if value is None:
        return ()
    row = tuple[str, str, tuple[str, ...], str, int]
    try:
        rows = msgspec.json.decode(value, type=list[row])
        return tuple(
            LeftOut(Kind(kind), model, names, reason, count)
            for kind, model, names, reason, count in rows
        )
    except (msgspec.DecodeError, ValueError):
        return ()  # of another version
