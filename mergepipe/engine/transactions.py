"""How a merge begins to write and how it becomes visible: one repository's side of publication."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from msgspec import Struct

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.checkpoints.publication import Published, publish_commit
from mergepipe.engine.runs import RUNS
from mergepipe.ids import ObjectId
from mergepipe.objects.records import Commit
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.repository import locks
from mergepipe.repository.reflog import Signature
from mergepipe.repository.refs import RefStore


class MergeRequest(Struct, frozen=True):
    """What a user asks of a merge's commit, beyond the plan.

    base, experts  commits of the inputs; where they are not named, tips that hold their snapshots
    branch         full ref name, None for where HEAD is
    who            None: whoever the repository acts for
    import_bytes   what was read to import experts that were given as paths
    names          what the user calls the plan's models, in their order
    allow_nonfinite  whether values that are infinite or NaN may go in and come out
    trailer        last lines of the commit's message: what was asked (docs/format-merge.md)
    """

    base: ObjectId | None = None
    experts: tuple[ObjectId, ...] = ()
    branch: str | None = None
    message: str = ""
    who: Signature | None = None
    import_bytes: int = 0
    names: tuple[str, ...] = ()
    allow_nonfinite: bool = False
    trailer: str = ""


class Transactions(Struct, frozen=True):
    """Begins and publishes transactions of one repository. `signature` says who acts, and when."""

    files: LocalByteStore
    storage: Storage
    objects: ObjectStore
    refs: RefStore
    store_lock: Path
    lock_timeout_s: float
    signature: Callable[[], Signature]
    guard: Callable[[], None] = lambda: None
    lease: Callable[[], AbstractContextManager[object]] = nullcontext

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction; the store's lock is held, shared, while it is open. Raises Locked."""
        self.guard()
        self.files.remove_dead_sessions()
        with (
            locks.acquire(self.store_lock, shared=True, timeout_s=self.lock_timeout_s),
            self.lease(),
            Transaction(self.storage) as transaction,
        ):
            yield transaction

    def publish(
        self,
        transaction: Transaction,
        request: MergeRequest,
        make: Callable[[ObjectId | None, Signature], Commit],
        *,
        why: str,
    ) -> Published:
        """Publish a transaction with the commit that `make` returns for the branch's tip."""
        who = request.who or self.signature()
        published = publish_commit(
            transaction,
            self.refs,
            request.branch,
            lambda tip: make(tip, who),
            who=who,
            why=why,
        )
        assert published is not None  # `make` always returns a commit
        return published

    def holders(self) -> dict[ObjectId, ObjectId]:
        """Commits at tips of refs by the snapshot they hold; of several the first by ref name."""
        commits: dict[ObjectId, ObjectId] = {}
        for commit in self.refs.list().values():
            commits.setdefault(self.objects.commit(commit).snapshot, commit)
        return commits

    def keep_run(self, commit: ObjectId, text: str) -> None:
        """Keep what a merge's run took. It may be lost: nothing depends on it."""
        self.files.put(f"{RUNS}{commit.hex()}.json", text.encode())
