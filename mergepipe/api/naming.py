"""Names for snapshots: which commit holds one, and what people call it."""

from collections.abc import Iterable

from msgspec import Struct

from mergepipe.ids import ObjectId
from mergepipe.objects.store import ObjectStore
from mergepipe.repository import history
from mergepipe.repository.refnames import HEADS, IMPORTS, REMOTES, TAGS, short_name
from mergepipe.repository.refs import RefStore

_ORDER = (HEADS, TAGS, REMOTES, IMPORTS)


class Holder(Struct, frozen=True):
    """A commit that holds a snapshot. `name`: a ref at it, else its id in hex."""

    commit: ObjectId
    name: str


def holders(
    refs: RefStore, objects: ObjectStore, snapshots: Iterable[ObjectId]
) -> dict[ObjectId, Holder]:
    """Who holds these snapshots: a branch, tag, remote or import, else a commit in their history.

    A snapshot that nothing reaches is not in the result.
    """
    wanted = set(snapshots)
    tips = {name: tip for prefix in _ORDER for name, tip in refs.list(prefix).items()}
    holders_by_id: dict[ObjectId, Holder] = {}
    for name, tip in tips.items():
        holders_by_id.setdefault(objects.commit(tip).snapshot, Holder(tip, short_name(name)))
    if not wanted <= holders_by_id.keys():
        commits = history.reachable_commits(objects, list(dict.fromkeys(tips.values())))
        for identity, commit in commits:
            holders_by_id.setdefault(commit.snapshot, Holder(identity, identity.hex()))
    return {snapshot: holders_by_id[snapshot] for snapshot in wanted if snapshot in holders_by_id}
