"""What moves files and HEAD: committing the worktree, checking revisions out, switching."""

import contextlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mergepipe.api.contents import Contents
from mergepipe.api.hooking import ask_before_commit
from mergepipe.api.opened import OpenRepository
from mergepipe.checkpoints.requests import CommitRequest, CommitResult
from mergepipe.errors import (
    Corruption,
    NothingToCommit,
    RefExists,
    RevisionNotFound,
    UsageError,
    WorktreeDirty,
)
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import layout, locks
from mergepipe.repository.refnames import HEADS, branch_ref

if TYPE_CHECKING:
    # What reads and writes checkpoints is loaded when it is needed: `mp log` answers at once.
    from mergepipe.checkpoints.worktree import FileChange

_TENSOR_FILE = "tensors.safetensors"
# A model of a terabyte from a slow disk; a checkout that hangs is somebody else's to end.
_LONGEST_CHECKOUT_S = 24 * 3600


class Working:
    """The side of a repository that is seen beside `.mergepipe`."""

    def __init__(self, opened: OpenRepository, contents: Contents) -> None:
        self._repo = opened
        self._contents = contents

    def commit(
        self,
        path: str | Path | Sequence[str | Path] | None = None,
        *,
        message: str = "",
        branch: str | None = None,
        base: str | None = None,
        verify: bool = True,
        progress: Progress = SILENT,
    ) -> CommitResult:
        """As `Repository.commit` says."""
        target = None if branch is None else branch_ref(branch)
        from mergepipe.codecs.chooser import TRYING
        from mergepipe.formats.tree import scan, scan_several

        several = path if isinstance(path, Sequence) and not isinstance(path, str) else None
        lone = path if several is None else several[0] if len(several) == 1 else None
        assert lone is None or isinstance(lone, str | Path)
        of_worktree = (
            not several
            if lone is None
            else Path(lone).resolve() == self._repo.worktree.root.resolve()
        )
        if of_worktree:
            sources = self._repo.worktree.scan()
        elif lone is not None:
            sources = scan(Path(lone))
        else:
            sources = scan_several([Path(each) for each in several or ()], self._repo.worktree.root)
        if of_worktree and not sources:
            raise NothingToCommit(
                f"{self._repo.worktree.root} holds no files",
                "put a model there, check one out, or name a path: mp commit PATH",
            )
        if not sources:
            given = [lone] if several is None else several
            raise NothingToCommit(
                f"there are no files in {' and '.join(quoted(str(each)) for each in given)}",
                "name the directory of a model that has some, and that .mpignore leaves some of",
            )
        if verify:
            shown = self._repo.worktree.root if of_worktree else lone
            ask_before_commit(
                self._repo.hooks,
                None if shown is None else Path(shown),
                sources,
                target or self._repo.refs.head().branch or "",
                message,
                base,
            )
        request = CommitRequest(
            message,
            self._repo.signature(),
            target,
            None if base is None else self._repo.resolve(base),
        )
        with self._repo.writing():
            result = self._repo.committer().commit(sources, request, progress)
        quick = self._repo.config.store.codec not in TRYING  # who wants speed gets no more
        if request.base is not None and result.new_blocks < result.blocks and not quick:
            # Stored before, by somebody who did not know its base: budgets could not read it.
            from mergepipe.api.layering import store_coarse_layers

            with contextlib.suppress(Corruption):  # the base is not whole here: nothing to lean on
                base_snapshot = self._repo.objects.commit(request.base).snapshot
                store_coarse_layers(self._repo, result.snapshot, base_snapshot, progress)
        if self._repo.storage.condemned:  # met on the way, and replaced as far as these files go
            from mergepipe.api import healing

            healing.set_aside(self._repo)
        if of_worktree and (target is None or target == self._repo.refs.head().branch):
            self._repo.worktree.record(result.snapshot, sources)
        return result

    def status(self, progress: Progress = SILENT) -> tuple["FileChange", ...]:
        """How the worktree differs from HEAD, sorted by path."""
        return self._compared(progress)[0]

    def _compared(
        self, progress: Progress
    ) -> tuple[tuple["FileChange", ...], tuple["FileChange", ...]]:
        """How the worktree differs from HEAD, and how from what was checked out."""
        from mergepipe.checkpoints.worktree import compare

        recorded = self._repo.worktree.recorded(self._repo.objects)
        files = self._repo.worktree.scan()
        entries = self._repo.worktree.entries(
            files,
            recorded,
            block_size=self._repo.config.store.block_size,
            threads=self._repo.threads,
            progress=progress,
        )
        tip = self._repo.refs.head().commit
        target = None if tip is None else self._repo.model_at(tip).snapshot
        changes = compare(entries, None if target is None else self._repo.objects.snapshot(target))
        if not changes and target is not None:
            # So that the next status need not read them; in a repository that this user may only
            # read, it has to.
            with suppress(PermissionError):
                self._repo.worktree.record(target, files)
        return changes, compare(entries, recorded)

    def checkout(
        self,
        revision: str,
        *,
        to: str | Path | None = None,
        tensors: Sequence[str] = (),
        paths: Sequence[str] = (),
        force: bool = False,
        progress: Progress = SILENT,
    ) -> Path:
        """As `Repository.checkout` says."""
        if paths and tensors:
            raise UsageError("files and tensors at once", "check out one after the other")
        with self._repo.lease(self._repo.resolve(revision)):
            return self._checkout(
                revision, to=to, tensors=tensors, paths=paths, force=force, progress=progress
            )

    def _checkout(
        self,
        revision: str,
        *,
        to: str | Path | None,
        tensors: Sequence[str],
        paths: Sequence[str],
        force: bool,
        progress: Progress,
    ) -> Path:
        from mergepipe.checkpoints.assembly import plan_file, plan_selection
        from mergepipe.checkpoints.checkout import export_files

        identity, commit = self._repo.model_of(revision)
        if to is None and not (tensors or paths):
            self._materialise(commit.snapshot, force=force, progress=progress)
            self._move_head(revision, identity)
            return self._repo.worktree.root
        snapshot = self._repo.objects.snapshot(commit.snapshot)
        destination = Path("." if to is None else to)
        if tensors:
            lone = destination.suffix == ".safetensors"
            name = destination.name if lone else _TENSOR_FILE
            destination = destination.parent if lone else destination
            plans = [plan_selection(snapshot, tensors, self._repo.objects, name)]
        else:
            named = [entry for path in paths for entry in self._contents.files(revision, path)]
            chosen = dict.fromkeys(named) if paths else snapshot.files
            plans = [plan_file(entry, self._repo.objects) for entry in chosen]
        if paths and to is None:
            destination, force = self._repo.worktree.root, True
            self._repo.worktree.forget([plan.path for plan in plans])
        export_files(
            plans,
            destination,
            self._repo.blocks,
            force=force,
            threads=self._repo.threads,
            progress=progress,
        )
        return destination / plans[0].path if tensors else destination

    def switch(
        self,
        branch: str,
        *,
        create: bool = False,
        start: str = "HEAD",
        force: bool = False,
        progress: Progress = SILENT,
    ) -> None:
        """As `Repository.switch` says."""
        ref = branch_ref(branch)
        here = self._repo.refs.head()
        if create:
            begin = here.commit if start == "HEAD" else self._repo.resolve(start)
            if self._repo.refs.read(ref) is not None:
                raise RefExists(f"there is a branch {branch!r} already", f"mp switch {branch}")
            if begin is not None:
                if begin != here.commit:
                    self.follow(begin, force=force, progress=progress)
                self._repo.refs.update(
                    ref,
                    begin,
                    expected=None,
                    who=self._repo.signature(),
                    why=f"branch: made at {start}",
                )
        else:
            tip = self._repo.refs.read(ref)
            if tip is None:
                self._repo.resolve(branch)  # for its hint at the nearest name
                raise RevisionNotFound(
                    f"{branch!r} is no branch",
                    f"mp switch -c {branch} makes it; mp checkout takes any revision",
                )
            self.follow(tip, force=force, progress=progress)
        self._repo.refs.set_head(ref, who=self._repo.signature(), why=f"switch: to {branch}")

    def reset(
        self, revision: str = "HEAD", *, hard: bool = False, progress: Progress = SILENT
    ) -> ObjectId:
        """Move the current branch to a revision; with `hard` the worktree follows, changes lost."""
        identity, commit = self._repo.model_of(revision)
        if hard:
            self._materialise(commit.snapshot, force=True, progress=progress)
        head = self._repo.refs.head()
        why = f"reset: moving to {revision}"
        if head.branch is None:
            self._repo.refs.set_head(identity, who=self._repo.signature(), why=why)
        else:
            self._repo.refs.update(
                head.branch, identity, expected=head.commit, who=self._repo.signature(), why=why
            )
        return identity

    def follow(self, commit: ObjectId, *, force: bool, progress: Progress) -> bool:
        """Write a commit's files if any were materialised; whether they were."""
        if self._repo.worktree.snapshot() is None:
            return False
        self._materialise(self._repo.model_at(commit).snapshot, force=force, progress=progress)
        return True

    def _move_head(self, revision: str, identity: ObjectId) -> None:
        why = f"checkout: moving to {revision}"
        on_branch = self._repo.refs.read(HEADS + revision) if _may_be_branch(revision) else None
        if on_branch is not None:
            self._repo.refs.set_head(HEADS + revision, who=self._repo.signature(), why=why)
        elif revision not in ("HEAD", "@"):
            self._repo.refs.set_head(identity, who=self._repo.signature(), why=why)

    def _materialise(self, snapshot: ObjectId, *, force: bool, progress: Progress) -> None:
        from mergepipe.checkpoints.checkout import WorktreeCheckout

        checkout = WorktreeCheckout(
            self._repo.worktree,
            self._repo.objects,
            self._repo.blocks,
            block_size=self._repo.config.store.block_size,
            threads=self._repo.threads,
        )
        # However long another's takes: who waited finds the files there, or brings the next ones.
        self._repo.guard()
        lock = self._repo.directory / layout.WORKTREE_LOCK
        with locks.acquire(lock, timeout_s=_LONGEST_CHECKOUT_S):
            checkout.run(snapshot, force=force, progress=progress)

    def require_clean(self) -> None:
        """Raise WorktreeDirty where a model is checked out and was changed since.

        Files that are as they were checked out, or as HEAD has them, are no change: a command that
        was killed had moved the branch, and not all files yet.
        """
        if self._repo.worktree.snapshot() is None:
            return
        changes, since = self._compared(SILENT)
        if {change.path for change in changes} & {change.path for change in since}:
            raise WorktreeDirty("files here differ from the last commit", "mp commit them first")


def _may_be_branch(revision: str) -> bool:
    return not any(sign in revision for sign in "~^@: ")
