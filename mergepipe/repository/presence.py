"""What of a model is here: its objects and blocks, or with a lazy clone's remote."""

import functools
import itertools
from collections.abc import Mapping, Sequence

import msgspec

from mergepipe.errors import Corruption, MissingObject
from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.grid import blocks_of
from mergepipe.objects.merging import Manifest
from mergepipe.objects.records import Commit, Snapshot, Tensor
from mergepipe.objects.references import Reference
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.storage import Storage
from mergepipe.packs.view import View
from mergepipe.repository.closure import closure

_BATCH = 4096


def has_snapshot(storage: Storage, snapshot: ObjectId) -> bool:
    """Whether all of a snapshot can be read, by the index.

    What gc left for its neighbours' sake does not make a model: a snapshot without its blocks. Of
    damage nothing is said here; reading it says more.
    """
    blocks: dict[BlockId, int] = {}
    roots = [Reference(snapshot, Snapshot.KIND, "snapshot")]
    try:
        for needed in closure(roots, ObjectStore(storage), known={}):
            if isinstance(needed.record, Tensor):
                blocks |= {
                    use.id: use.length
                    for use in blocks_of(needed.record, f"tensor {needed.id.hex()}")
                }
    except MissingObject:
        return False
    except Corruption:
        return True
    return not lacking_blocks(storage, blocks)


def without_lost(objects: ObjectStore, commit: Commit) -> Commit:
    """A commit that names no profile and no manifest that are not here, as a new one has to."""
    profile, manifest = commit.profile, commit.manifest
    return msgspec.structs.replace(
        commit,
        profile=profile if profile is not None and objects.has(profile) else None,
        manifest=manifest if manifest is not None and _has_merge(objects, manifest) else None,
    )


def has_all(storage: Storage, commit: Commit) -> bool:
    """Whether everything that a commit names for itself is here."""
    whole = without_lost(ObjectStore(storage), commit) == commit
    return whole and has_snapshot(storage, commit.snapshot)


def lacking_blocks(storage: Storage, blocks: Mapping[BlockId, int]) -> dict[BlockId, int]:
    """Those of some blocks that cannot be read here, by the index."""
    lacking: dict[BlockId, int] = {}
    remaining = iter(blocks)
    while batch := list(itertools.islice(remaining, _BATCH)):
        present = storage.ask(functools.partial(_has, blocks=batch))
        lacking |= {
            block: blocks[block] for block, have in zip(batch, present, strict=True) if not have
        }
    return lacking


def _has_merge(objects: ObjectStore, manifest: ObjectId) -> bool:
    return objects.has(manifest) and objects.has(objects.load(manifest, Manifest).plan)


def _has(view: View, blocks: Sequence[BlockId]) -> list[bool]:
    return [view.has_block(block) for block in blocks]
