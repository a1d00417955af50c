"""Stored plans that nobody has carried out yet: `.mergepipe/plans/`, docs/format.md.

Who approves a merge may take days over it. Till then its plan and the models that it names stay,
whatever is pruned or freed at once.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import Corruption
from mergepipe.ids import ObjectId

if TYPE_CHECKING:  # a repository is opened without them
    from mergepipe.bytestore.local import LocalByteStore
    from mergepipe.objects.store import ObjectStore

FOLDER = "plans"

_NAME = re.compile(r"[0-9a-f]{64}")


def await_approval(store: ByteStore, plan: ObjectId) -> None:
    """Keep a plan from now on: the file's time says since when."""
    store.put(_key(plan), b"")


def waiting(store: ByteStore) -> Iterator[ObjectId]:
    """The plans that wait."""
    for key in store.list(f"{FOLDER}/"):
        name = key.rsplit("/", 1)[-1]
        if _NAME.fullmatch(name):
            yield ObjectId(bytes.fromhex(name))


def carried_out(store: ByteStore, plan: ObjectId) -> None:
    """A plan waits no longer; nothing is done about one that did not."""
    if store.size(_key(plan)) is not None:
        store.delete(_key(plan))


def forget_before(files: "LocalByteStore", before_s: float) -> None:
    """Let go of plans that were stored before a moment (Unix seconds)."""
    for plan in list(waiting(files)):
        at = files.modified(_key(plan))
        if at is not None and at < before_s:
            files.delete(_key(plan))


def awaited_models(store: ByteStore, objects: "ObjectStore") -> frozenset[ObjectId]:
    """The snapshots that waiting plans merge, as far as the plans can be read."""
    from mergepipe.objects.merging import Plan

    models: set[ObjectId] = set()
    for plan in waiting(store):
        with contextlib.suppress(Corruption):
            models.update(objects.load(plan, Plan).models)
    return frozenset(models)


def _key(plan: ObjectId) -> str:
    return f"{FOLDER}/{plan.hex()}"
