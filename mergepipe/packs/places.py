"""In which packs records are: for whoever wants to read the footers of those alone."""

from collections.abc import Iterable, Sequence

from mergepipe.ids import NO_ID, BlockId, ObjectId, PackId
from mergepipe.packs.view import View


def locate(view: View, ids: Iterable[bytes]) -> tuple[dict[PackId, None], list[bytes]]:
    """The packs of blocks and objects, and of what the blocks lean on; and the ids in none.

    Every copy and encoding counts: which of them is read is for the reader to choose.
    """
    packs: dict[PackId, None] = {}
    lost: list[bytes] = []
    pending: list[bytes] = list(ids)
    seen = set(pending)
    while pending:
        identity = pending.pop()
        records = (*view.block(BlockId(identity)), *view.object_copies(ObjectId(identity)))
        if not records:
            lost.append(identity)
        for at in records:
            packs[at.pack] = None
            base = at.header.base
            if base != NO_ID and base not in seen:
                seen.add(base)
                pending.append(base)
    return packs, lost


def lacking(view: View, ids: Sequence[bytes]) -> list[bytes]:
    """Those of some ids of which neither an object nor a whole block is indexed."""
    return [
        identity
        for identity in ids
        if view.object(ObjectId(identity)) is None and not view.has_block(BlockId(identity))
    ]
