"""What a push cannot send: models and history that neither side has."""

from collections.abc import Sequence

from mergepipe.bytestore.protocol import Holding
from mergepipe.errors import MergepipeError
from mergepipe.ids import ObjectId
from mergepipe.repository.presence import has_all
from mergepipe.repository.tombstones import Tombstones, purged_error, read_tombstones
from mergepipe.transfer.source import Source


def refuse_pruned(source: Source, commits: Sequence[ObjectId], stones: Tombstones) -> None:
    """Raise MergepipeError for a commit that cannot be sent: its model was let go of here.

    `stones`: what was purged there, too, goes as history alone.
    """
    for identity in commits:
        if identity not in source.pruned or identity in stones:
            continue
        stone = read_tombstones(source.storage.store).get(identity)
        if stone is not None:
            raise purged_error(
                stone,
                f"the remote has never had the model of {identity.hex()[:12]}, which",
                f"mp purge {identity.hex()[:12]} --remote NAME --yes tells it so: the history "
                "above then goes there",
            )
        if not has_all(source.storage, source.objects.commit(identity)):
            raise MergepipeError(
                f"the model of commit {identity.hex()[:12]} was pruned here, and the remote has "
                "never had it: the history above it cannot go there",
                "push to a remote that has it, or a model without history: mp push --release",
            )


def refuse_absent(source: Source, commits: Sequence[ObjectId], holding: Holding) -> None:
    """Raise MergepipeError for history that neither we nor the other side have."""
    cut = {each: source.objects.absent_of(each) for each in commits} if source.pruned.absent else {}
    absent = list(dict.fromkeys(other for named in cut.values() for other in named))
    held = dict(zip(absent, holding.holds(absent), strict=True)) if absent else {}
    for identity, named in cut.items():
        lacking = next((other for other in named if not held[other]), None)
        if lacking is not None:
            raise MergepipeError(
                f"commit {identity.hex()[:12]} needs {lacking.hex()[:12]}, which is not in this "
                "shallow clone, and the remote does not have it",
                "`mp fetch --unshallow` first; or `mp push --release` sends the model without its "
                "history",
            )
