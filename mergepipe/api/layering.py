"""Coarse layers of a model over another, for models that were stored without."""

from mergepipe.api.opened import OpenRepository
from mergepipe.ids import ObjectId
from mergepipe.progress import SILENT, Progress


def store_coarse_layers(
    opened: OpenRepository, snapshot: ObjectId, base: ObjectId, progress: Progress = SILENT
) -> int:
    """Store blocks of a snapshot that have no coarse layer over a base's once more, over these.

    How many. Raises Locked, NoSpace, Corruption, MissingObject.
    """
    from mergepipe.checkpoints.relayering import layerless, store_layers

    objects = opened.objects
    blocks = list(
        layerless(objects.snapshot(snapshot), objects.snapshot(base), objects, opened.blocks)
    )
    if not blocks:
        return 0
    with opened.transactions.begin() as transaction:
        stored = store_layers(
            blocks,
            opened.blocks,
            transaction,
            effort=opened.config.store.codec,
            max_chain=opened.config.store.max_chain,
            progress=progress,
        )
        if stored:
            transaction.publish()
    return stored
