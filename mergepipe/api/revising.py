"""Correcting the last commit, and taking back what a commit did."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import msgspec

from mergepipe.api.opened import OpenRepository
from mergepipe.api.working import Working
from mergepipe.checkpoints.publication import publish_commit
from mergepipe.errors import MergepipeError, NothingToCommit, RevisionNotFound
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Commit, FileEntry, Snapshot
from mergepipe.packs.transaction import Transaction
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.presence import without_lost
from mergepipe.repository.refnames import branch_ref


class Revising:
    """The side of a repository that corrects its history, by adding to it."""

    def __init__(self, opened: OpenRepository, working: Working) -> None:
        self._repo = opened
        self._working = working

    def amend(self, message: str) -> ObjectId:
        """Replace the last commit by one with another message; its model stays as it is.

        The one before stays in the reflog until gc. Raises RevisionNotFound, Locked.
        """
        who = self._repo.signature()

        def make(tip: ObjectId | None) -> Commit:
            if tip is None:
                raise RevisionNotFound("there is no commit yet to amend", "mp commit makes one")
            last = without_lost(self._repo.objects, self._repo.model_at(tip))
            return msgspec.structs.replace(
                last, message=message, time=who.time, utc_offset=who.utc_offset
            )

        title = message.partition("\n")[0]
        with self._repo.writing(), Transaction(self._repo.storage) as transaction:
            why = f"commit (amend): {title}"
            return publish_commit(transaction, self._repo.refs, None, make, who=who, why=why).commit

    def put_back(
        self, branch: str | None, revision: str, *, message: str = ""
    ) -> tuple[str | None, ObjectId]:
        """Commit what `revision` holds on a branch, forward; returns the branch and the commit.

        The new commit has that revision's model with what belongs to it (manifest, profile, what it
        was trained from), and the branch's tip for a parent: whoever follows the branch can pull
        it, and it replays as the old one does. Files do not follow; see `rollback`. Raises
        RevisionNotFound, NothingToCommit where the branch holds that model already.
        """
        target = None if branch is None else branch_ref(branch)
        if target is not None and self._repo.refs.read(target) is None:
            self._repo.resolve(branch or "")  # for its hint at the nearest name
            raise RevisionNotFound(f"{branch!r} is no branch", "mp branch lists them")
        identity, wanted = self._repo.to_copy(revision)
        who = self._repo.signature()
        words = message or (
            f"Roll back to {identity.hex()[:12]}: {wanted.message.partition(chr(10))[0]}\n\n"
            f"This holds the model of {identity.hex()} again.\n"
        )

        def make(tip: ObjectId | None) -> Commit:
            assert tip is not None  # a branch that is there has one, and HEAD too as it resolved
            if self._repo.objects.commit(tip).snapshot == wanted.snapshot:
                raise NothingToCommit(f"{branch or 'HEAD'} holds the model of {revision} already")
            return msgspec.structs.replace(
                wanted,
                parents=(tip,),
                author=who.author,
                time=who.time,
                utc_offset=who.utc_offset,
                message=words,
            )

        with self._repo.writing(), Transaction(self._repo.storage) as transaction:
            why = f"rollback: to {revision}"
            published = publish_commit(transaction, self._repo.refs, target, make, who=who, why=why)
        return published.branch, published.commit

    def take_back(self, revision: str) -> ObjectId:
        """Commit the model without what the commit `revision` changed, file by file.

        Files do not follow; see `revert`. Raises MergepipeError where a file was changed again
        later, or nothing was before; NothingToCommit where nothing of it is left.
        """
        identity, undone = self._repo.model_of(revision)
        if not undone.parents:
            raise MergepipeError(
                f"nothing was before {revision}, so there is nothing to go back to",
                "mp switch -c NAME begins another branch",
            )
        before_it = undone.parents[0]
        parent = without_lost(self._repo.objects, self._repo.model_at(before_it))
        before, after = (
            _files(self._repo.objects.snapshot(at.snapshot)) for at in (parent, undone)
        )
        who = self._repo.signature()
        with self._repo.writing(), Transaction(self._repo.storage) as transaction:

            def make(tip: ObjectId | None) -> Commit:
                assert tip is not None  # HEAD has a commit, as `revision` was found from it
                last = self._repo.model_at(tip)
                now = _files(self._repo.objects.snapshot(last.snapshot))
                kept = _without(now, before, after, revision)
                if kept == now:
                    raise NothingToCommit(f"nothing of {revision} is left to take back")
                same = kept == before
                ordered = (kept[path] for path in sorted(kept, key=str.encode))
                snapshot = (
                    parent.snapshot
                    if same
                    else transaction.add_object(encode(Snapshot(tuple(ordered))))
                )
                like = parent if same else last
                return Commit(
                    snapshot=snapshot,
                    parents=(tip,),
                    leans_on=like.leans_on,
                    author=who.author,
                    time=who.time,
                    utc_offset=who.utc_offset,
                    message=f'Revert "{undone.message.partition(chr(10))[0]}"\n\n'
                    f"This takes back {identity.hex()}.",
                    profile=parent.profile if same else None,
                    trained_from=like.trained_from,
                )

            why = f"revert: {revision}"
            return publish_commit(transaction, self._repo.refs, None, make, who=who, why=why).commit

    def revert(self, revision: str, *, progress: Progress = SILENT) -> ObjectId:
        """Commit the model without what a commit changed; files follow, if any were checked out.

        Raises WorktreeDirty, and as `take_back`.
        """
        self._working.require_clean()
        with self._files_in_any_case(progress):
            identity = self.take_back(revision)
        self._working.follow(identity, force=False, progress=progress)
        return identity

    def rollback(
        self,
        branch: str | None,
        revision: str,
        *,
        message: str = "",
        progress: Progress = SILENT,
    ) -> ObjectId:
        """Commit what `revision` holds on a branch (None: where HEAD is), as a new commit.

        Files follow where HEAD is on that branch and a model is checked out. Raises WorktreeDirty,
        and as `put_back`.
        """
        head = self._repo.refs.head()
        here = branch is None or (head.branch is not None and branch_ref(branch) == head.branch)
        if here:
            self._working.require_clean()
        with self._files_in_any_case(progress) if here else nullcontext():
            identity = self.put_back(branch, revision, message=message)[1]
        if here:
            self._working.follow(identity, force=False, progress=progress)
        return identity

    @contextmanager
    def _files_in_any_case(self, progress: Progress) -> Iterator[None]:
        """Where nothing is left to commit, files follow all the same.

        The same command may have been killed when it had moved the branch, and not all files yet.
        """
        try:
            yield
        except NothingToCommit:
            tip = self._repo.refs.head().commit
            assert tip is not None  # it holds what was asked for
            self._working.follow(tip, force=False, progress=progress)
            raise


def _files(snapshot: Snapshot) -> dict[str, FileEntry]:
    return {entry.path: entry for entry in snapshot.files}


def _without(
    now: dict[str, FileEntry],
    before: dict[str, FileEntry],
    after: dict[str, FileEntry],
    revision: str,
) -> dict[str, FileEntry]:
    """`now` less the change from `before` to `after`."""
    kept = dict(now)
    for path in before.keys() | after.keys():
        old, new = before.get(path), after.get(path)
        if old == new or now.get(path) == old:
            continue
        if now.get(path) != new:
            raise MergepipeError(
                f"{quoted(path)} was changed again after {revision}",
                "take back the later commits first, or mp checkout an earlier revision",
            )
        if old is None:
            del kept[path]
        else:
            kept[path] = old
    return kept
