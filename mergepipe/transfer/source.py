"""The repository that pushes, as a push sees it."""

from msgspec import Struct

from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.storage import Storage
from mergepipe.repository.pruned import NONE, Pruned
from mergepipe.reprs import brief
from mergepipe.transfer.wire_packs import WIRE_PACK_BYTES


@brief
class Source(Struct, frozen=True):
    """The repository that pushes. `effort` and `max_chain` are its settings of those names.

    `pruned`: the commits whose models it no longer keeps. `inputs`: whether models go along that
    merges only name as what they were made of. `near`: refs of the other side (full names) that
    most likely have what the new commits build on; none: all of them are looked at.
    """

    storage: Storage
    objects: ObjectStore
    blocks: BlockReader
    effort: str = "auto"
    max_chain: int = 2
    pack_bytes: int = WIRE_PACK_BYTES
    pruned: Pruned = NONE
    inputs: bool = True
    near: tuple[str, ...] = ()
