"""Publishing a commit: the one place where new history becomes visible (docs/format.md)."""

from collections.abc import Callable

from msgspec import Struct

from mergepipe.ids import ObjectId
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Commit
from mergepipe.packs.transaction import Transaction
from mergepipe.repository.absent import change_absent
from mergepipe.repository.pruned import remove_pruned
from mergepipe.repository.reflog import Signature
from mergepipe.repository.refnames import short_name
from mergepipe.repository.refs import RefStore
from mergepipe.repository.tombstones import purged_error, read_tombstones


class Published(Struct, frozen=True):
    """A commit and the branch it went to (None: HEAD was detached and moved itself).

    `unchanged`: nothing was published, `commit` is the tip that was there.
    """

    commit: ObjectId
    branch: str | None
    unchanged: bool = False


def publish_commit(
    transaction: Transaction,
    refs: RefStore,
    branch: str | None,
    make: Callable[[ObjectId | None], Commit | None],
    *,
    who: Signature,
    why: str,
) -> Published:
    """Publish a transaction together with the commit that `make` returns for the branch's tip.

    `branch` is a full ref name; None means where HEAD is. The tip is read under the lock, so that
    of several processes committing to one branch each builds on the one before. If `make` returns
    None (only where there is a tip) no commit is published, only what the store lacked of this very
    model. Raises Locked, RefMoved, NoSpace.
    """
    transaction.settle()  # the long fsyncs happen before the lock
    with refs.locked():
        head = refs.head()
        target = branch or head.branch
        tip = head.commit if target is None else refs.read(target)
        commit = make(tip)
        branch_name = None if target is None else short_name(target)
        if commit is None:
            assert tip is not None
            if transaction.stored_bytes:
                transaction.publish()  # what of this very model was damaged or missing here
            return Published(tip, branch_name, unchanged=True)
        stone = read_tombstones(transaction.store).snapshots.get(commit.snapshot)
        if stone is not None:
            raise purged_error(stone, "this very model")
        identity = transaction.add_object(encode(commit))
        transaction.publish()
        # Committed anew, so kept again: the very same commit may have been let go of before.
        remove_pruned(transaction.store, [identity])
        change_absent(transaction.store, here=[identity])
        if target is None:
            refs.set_head(identity, who=who, why=why)
        else:
            refs.update(target, identity, expected=tip, who=who, why=why)
    return Published(identity, branch_name)
