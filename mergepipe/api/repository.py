"""A repository: open, commit, look at history, check out.

Every operation takes its author, time and progress as arguments or from `Repository.open`; nothing
below this module reads the environment or the clock.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mergepipe.api.contents import Contents
from mergepipe.api.recipes import Recipes
from mergepipe.api.revising import Revising
from mergepipe.api.sharing import Sharing
from mergepipe.api.weights import Weights
from mergepipe.checkpoints.requests import CommitRequest, CommitResult
from mergepipe.errors import NothingToCommit, RefExists, RevisionNotFound, UsageError, WorktreeDirty
from mergepipe.ids import ObjectId, shown
from mergepipe.objects.records import Commit, Snapshot
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import branches, history, layout, locks, revisions
from mergepipe.repository.reflog import ReflogEntry
from mergepipe.repository.refnames import HEADS, TAGS, branch_ref, tag_ref

if TYPE_CHECKING:
    # What reads and writes checkpoints is loaded when it is needed: `mp log` answers at once.
    from mergepipe.api.opened import Identity
    from mergepipe.api.pulling import CloneResult, PullResult
    from mergepipe.api.upkeep import Pruned
    from mergepipe.catalog.suspects import Checked
    from mergepipe.checkpoints.worktree import FileChange
    from mergepipe.repository.diff import Diff
    from mergepipe.repository.gc import Collected
    from mergepipe.repository.problems import Report
    from mergepipe.repository.retention import Retention
    from mergepipe.repository.usage import Usage
    from mergepipe.transfer.credentials import Credentials

_TENSOR_FILE = "tensors.safetensors"

# A model of a terabyte from a slow disk; a checkout that hangs is somebody else's to end.
_LONGEST_CHECKOUT_S = 24 * 3600


class Repository(Recipes, Sharing, Contents, Weights, Revising):
    """A repository of models. Use as a context manager, or call `close`."""

    def __repr__(self) -> str:
        return f"Repository({str(self.directory)!r})"

    # Revisions and history

    def snapshot_of(self, revision: str) -> Snapshot:
        """The snapshot of the commit a revision names."""
        return self.objects.snapshot(self.model_of(revision)[1].snapshot)

    def log(
        self,
        revision: str | None = "HEAD",
        *,
        topological: bool = False,
        first_parent: bool = False,
    ) -> Iterator[tuple[ObjectId, Commit]]:
        """Commits from a revision back, newest first, read as they are asked for.

        None: from every branch, tag, branch of a remote, and HEAD. With `first_parent`, the line of
        a branch itself, without what was merged into it. `A..B` is as in git: what is in B and not
        in A, where either may be left out for HEAD; `A...B` what is in one of them only.
        """
        if revision is None:
            return history.walk(self.objects, self._tips(), topological=topological)
        limits = revisions.parse_range(revision)
        tips = [self.resolve(one) for one in limits.among]
        hidden = history.hidden(
            self.objects, [[self.resolve(one) for one in each] for each in limits.hidden]
        )
        commits = (
            history.first_parents(self.objects, tips[-1])
            if first_parent
            else history.walk(self.objects, tips, topological=topological)
        )
        return (each for each in commits if each[0] not in hidden) if hidden else commits

    def descendants(self, revision: str) -> Iterator[tuple[ObjectId, Commit]]:
        """Every commit whose model came from a revision's, by merging or training; newest first.

        Of what any branch, tag or remote's branch holds; the revision itself is not among them.
        """
        return history.descendants(self.objects, [self.resolve(revision)], self._tips())

    def containing(self, revision: str) -> frozenset[ObjectId]:
        """A revision's commit and all that came from it."""
        return frozenset(
            (self.resolve(revision), *(each for each, _ in self.descendants(revision)))
        )

    def _tips(self) -> list[ObjectId]:
        head = self.refs.head().commit
        return list(dict.fromkeys([*([] if head is None else [head]), *self.refs.list().values()]))

    def diff(self, a: str, b: str = "HEAD", *, progress: Progress = SILENT) -> "Diff":
        """How the model of revision `b` differs from that of `a`, tensor by tensor."""
        from mergepipe.repository.diff import diff_snapshots

        return diff_snapshots(
            self.snapshot_of(a),
            self.snapshot_of(b),
            self.objects,
            self.blocks,
            threads=self.threads,
            progress=progress,
        )

    def check(
        self, revision: str = "HEAD", against: str | None = None, *, progress: Progress = SILENT
    ) -> "Checked":
        """Tensors of a revision that look wrong: not finite, zeroed, or unlike another model's.

        Without `against`: compared with what it was trained from, or else what it leans on.
        """
        from mergepipe.catalog.suspects import Checked, suspects

        identity, commit = self.model_of(revision)
        under = commit.trained_from or commit.leans_on if against is None else self.resolve(against)
        self.finiteness.ensure(commit.snapshot, progress)
        nonfinite = self.finiteness.named(commit.snapshot) or ()
        tensors = (
            () if under is None else self.diff(under.hex(), revision, progress=progress).tensors
        )
        other = None if under is None else under.hex()
        return Checked(identity.hex(), other, tuple(suspects(nonfinite, tensors)))

    def usage(self, named: Sequence[str] = ()) -> "Usage":
        """The room that these revisions take; every branch, tag and import if none is named."""
        from mergepipe.api import upkeep

        return upkeep.usage(self, named)

    def gc(
        self, *, dry_run: bool = False, keep_reflog: bool = True, progress: Progress = SILENT
    ) -> "Collected":
        """Free what no ref, reflog or worktree needs. Raises Locked, Corruption."""
        from mergepipe.api import upkeep

        return upkeep.gc(self, dry_run=dry_run, keep_reflog=keep_reflog, progress=progress)

    def prune(
        self,
        branches: Sequence[str] = (),
        retention: "Retention | None" = None,
        *,
        keep_tags: bool = True,
        dry_run: bool = False,
        progress: Progress = SILENT,
    ) -> "Pruned":
        """Let go of the models of old commits of branches (none named: of all), and free them.

        History stays as it is: ids, messages, what came from what. Kept are what `retention` keeps
        (by default each branch's tip), every tip of a branch or import, HEAD, with `keep_tags` what
        tags name, and what a kept model was trained from or merged of. Raises Locked, Corruption.
        """
        from mergepipe.api import upkeep
        from mergepipe.repository.retention import Retention

        return upkeep.prune(
            self,
            branches,
            retention or Retention(),
            keep_tags=keep_tags,
            dry_run=dry_run,
            progress=progress,
        )

    def fsck(
        self, *, read_data: bool = False, repair: bool = False, progress: Progress = SILENT
    ) -> "Report":
        """Check everything. Problems are no error: look at `Report.ok`. Raises Locked.

        `repair` puts right what can be: it reads all data, sets damage aside, and brings what is
        missing from files here and from remotes.
        """
        from mergepipe.api import healing, upkeep

        if repair:
            return healing.repair(self, progress=progress)
        return upkeep.fsck(self, read_data=read_data, repair=False, progress=progress)

    def reflog(self, ref: str = "HEAD") -> list[ReflogEntry]:
        """Where a ref was, newest first; `ref` may be a short branch name."""
        assert self.refs.reflog is not None
        for name in (ref, HEADS + ref, TAGS + ref, f"refs/{ref}"):
            if entries := self.refs.reflog.read(name):
                return entries
        if revisions.find_ref(ref, self.refs) is not None:
            return []  # HEAD before the first commit, or a ref whose log was removed
        raise RevisionNotFound(f"no log of {ref!r}", "mp branch and mp tag list what there is")

    # Committing

    def commit(
        self,
        path: str | Path | Sequence[str | Path] | None = None,
        *,
        message: str = "",
        branch: str | None = None,
        base: str | None = None,
        progress: Progress = SILENT,
    ) -> CommitResult:
        """Commit the worktree, or the directory or file `path`, onto a branch.

        Of several paths the commit holds these files only: those of the worktree as they lie in it,
        others under their names.
        `branch` (made if it is not there) defaults to where HEAD is. Raises NothingToCommit,
        MalformedFile, IncompleteCheckpoint, SourceChanged, UnsafePath, NoSpace, Locked.
        """
        target = None if branch is None else branch_ref(branch)
        from mergepipe.formats.tree import scan, scan_several

        several = path if isinstance(path, Sequence) and not isinstance(path, str) else None
        lone = path if several is None else several[0] if len(several) == 1 else None
        assert lone is None or isinstance(lone, str | Path)
        own = not several if lone is None else Path(lone).resolve() == self.worktree.root.resolve()
        if own:
            sources = self.worktree.scan()
        elif lone is not None:
            sources = scan(Path(lone))
        else:
            sources = scan_several([Path(each) for each in several or ()], self.worktree.root)
        if own and not sources:
            raise NothingToCommit(
                f"{self.worktree.root} holds no files",
                "put a model there, check one out, or name a path: mp commit PATH",
            )
        request = CommitRequest(
            message, self.signature(), target, None if base is None else self.resolve(base)
        )
        with self.writing():
            result = self.committer().commit(sources, request, progress)
        if self.storage.condemned:  # met on the way, and replaced as far as these files go
            from mergepipe.api import healing

            healing.set_aside(self)
        if own and (target is None or target == self.refs.head().branch):
            self.worktree.record(result.snapshot, sources)
        return result

    def revert(self, revision: str, *, progress: Progress = SILENT) -> ObjectId:
        """Commit the model without what a commit changed; files follow, if any were checked out.

        Raises WorktreeDirty, and as `take_back`.
        """
        if self.worktree.snapshot() is not None and self.status():
            raise WorktreeDirty("files here differ from the last commit", "mp commit them first")
        identity = self.take_back(revision)
        self._follow(identity, force=False, progress=progress)
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
        head = self.refs.head()
        here = branch is None or (head.branch is not None and branch_ref(branch) == head.branch)
        if here and self.worktree.snapshot() is not None and self.status():
            raise WorktreeDirty("files here differ from the last commit", "mp commit them first")
        identity = self.put_back(branch, revision, message=message)[1]
        if here:
            self._follow(identity, force=False, progress=progress)
        return identity

    def status(self, progress: Progress = SILENT) -> tuple["FileChange", ...]:
        """How the worktree differs from HEAD, sorted by path."""
        from mergepipe.checkpoints.worktree import compare

        recorded = self._recorded()
        files = self.worktree.scan()
        entries = self.worktree.entries(
            files,
            recorded,
            block_size=self.config.store.block_size,
            threads=self.threads,
            progress=progress,
        )
        tip = self.refs.head().commit
        target = None if tip is None else self.objects.commit(tip).snapshot
        changes = compare(entries, None if target is None else self.objects.snapshot(target))
        if not changes and target is not None:
            # So that the next status need not read them; in a repository that this user may only
            # read, it has to.
            with suppress(PermissionError):
                self.worktree.record(target, files)
        return changes

    # Checking out

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
        """Write a revision's files: into the worktree (HEAD follows), or into the directory `to`.

        With `paths`, only these files or folders of it, over what is there, as in git: HEAD stays.
        With `tensors`, one safetensors file of just those: `to` if it ends in `.safetensors`, else
        `to/tensors.safetensors`. Returns where it wrote. Raises WorktreeDirty unless `force`.
        """
        from mergepipe.checkpoints.assembly import plan_file, plan_selection
        from mergepipe.checkpoints.checkout import export_files

        identity, commit = self.model_of(revision)
        if paths and tensors:
            raise UsageError("files and tensors at once", "check out one after the other")
        if to is None and not (tensors or paths):
            self._materialise(commit.snapshot, force=force, progress=progress)
            self._move_head(revision, identity)
            return self.worktree.root
        snapshot = self.objects.snapshot(commit.snapshot)
        destination = Path("." if to is None else to)
        if tensors:
            lone = destination.suffix == ".safetensors"
            name = destination.name if lone else _TENSOR_FILE
            destination = destination.parent if lone else destination
            plans = [plan_selection(snapshot, tensors, self.objects, name)]
        else:
            named = [entry for path in paths for entry in self.files(revision, path)]
            chosen = dict.fromkeys(named) if paths else snapshot.files
            plans = [plan_file(entry, self.objects) for entry in chosen]
        if paths and to is None:
            destination, force = self.worktree.root, True
            self.worktree.forget([plan.path for plan in plans])
        export_files(
            plans, destination, self.blocks, force=force, threads=self.threads, progress=progress
        )
        return destination / plans[0].path if tensors else destination

    def switch(
        self,
        branch: str,
        *,
        create: bool = False,
        force: bool = False,
        progress: Progress = SILENT,
    ) -> None:
        """Put HEAD on a branch, made at HEAD with `create`; files follow if any were materialised.

        Raises RevisionNotFound, RefExists, WorktreeDirty.
        """
        ref = branch_ref(branch)
        here = self.refs.head()
        if create:
            if here.commit is None and self.refs.read(ref) is not None:
                raise RefExists(f"there is a branch {branch!r} already", f"mp switch {branch}")
            if here.commit is not None:
                self.refs.update(
                    ref, here.commit, expected=None, who=self.signature(), why="branch: made here"
                )
        else:
            tip = self.refs.read(ref)
            if tip is None:
                self.resolve(branch)  # for its hint at the nearest name
                raise RevisionNotFound(
                    f"{branch!r} is no branch",
                    f"mp switch -c {branch} makes it; mp checkout takes any revision",
                )
            self._follow(tip, force=force, progress=progress)
        self.refs.set_head(ref, who=self.signature(), why=f"switch: to {branch}")

    def reset(
        self, revision: str = "HEAD", *, hard: bool = False, progress: Progress = SILENT
    ) -> ObjectId:
        """Move the current branch to a revision; with `hard` the worktree follows, changes lost."""
        identity, commit = self.model_of(revision)
        if hard:
            self._materialise(commit.snapshot, force=True, progress=progress)
        head = self.refs.head()
        why = f"reset: moving to {revision}"
        if head.branch is None:
            self.refs.set_head(identity, who=self.signature(), why=why)
        else:
            self.refs.update(
                head.branch, identity, expected=head.commit, who=self.signature(), why=why
            )
        return identity

    # Remotes

    @classmethod
    def clone(
        cls,
        url: str,
        directory: str | Path | None = None,
        *,
        branch: str | None = None,
        lazy: bool = False,
        checkout: bool = True,
        credentials: "Credentials | None" = None,
        who: "Identity | None" = None,
        progress: Progress = SILENT,
    ) -> "CloneResult":
        """Make a repository that has what the one at a URL has; `directory` defaults to its name.

        With `branch`, only that one and its history. A clone that fails leaves nothing behind.
        Raises UsageError, RevisionNotFound, and as `fetch`.
        """
        from mergepipe.api import pulling

        return pulling.clone(
            url,
            None if directory is None else Path(directory),
            branch=branch,
            lazy=lazy,
            checkout=checkout,
            credentials=credentials,
            who=who,
            progress=progress,
        )

    def pull(
        self,
        remote: str | None = None,
        branch: str | None = None,
        *,
        credentials: "Credentials | None" = None,
        progress: Progress = SILENT,
    ) -> "PullResult":
        """Fetch a branch and move the current one forward to it; files follow, as with `switch`.

        Raises Diverged, WorktreeDirty, RevisionNotFound, and as `fetch`.
        """
        from mergepipe.api import pulling

        def follow(commit: ObjectId) -> bool:
            return self._follow(commit, force=False, progress=progress)

        return pulling.pull(self, remote, branch, credentials, progress, follow)

    # Branches and tags

    def branch(self, name: str, revision: str = "HEAD", *, force: bool = False) -> ObjectId:
        """Make a branch at a revision; `force` moves one that is there. Raises RefExists."""
        return self._make_ref(branch_ref(name), revision, force)

    def tag(
        self, name: str, revision: str = "HEAD", *, force: bool = False, message: str = ""
    ) -> ObjectId:
        """Make a tag at a revision; `force` moves one that is there. Raises RefExists.

        A message is kept in the tag's log, in this repository.
        """
        return self._make_ref(tag_ref(name), revision, force, message)

    def delete_branch(self, name: str, *, force: bool = False) -> ObjectId:
        """Remove a branch; without `force`, only one whose commits another ref still reaches."""
        ref, who = branch_ref(name), self.signature()
        return branches.delete_branch(self.refs, self.objects, ref, force=force, who=who)

    def branches(self) -> dict[str, ObjectId]:
        """Every branch of this repository and its tip, sorted by name."""
        return {ref.removeprefix(HEADS): shown(at) for ref, at in self.refs.list(HEADS).items()}

    def tags(self) -> dict[str, ObjectId]:
        """Every tag and its commit, sorted by name."""
        return {ref.removeprefix(TAGS): shown(at) for ref, at in self.refs.list(TAGS).items()}

    def rename_branch(self, new: str, old: str | None = None) -> ObjectId | None:
        """Rename a branch, the current one by default; its log, and HEAD, go along.

        Returns its tip, None for one without commits. Raises RevisionNotFound, RefExists.
        """
        current = self.refs.head().branch
        source = current if old is None else branch_ref(old)
        if source is None:
            raise UsageError("HEAD is on no branch", "say which one: mp branch -m OLD NEW")
        return branches.rename_branch(self.refs, source, branch_ref(new), who=self.signature())

    def delete_tag(self, name: str) -> ObjectId:
        """Remove a tag."""
        return branches.delete_tag(self.refs, tag_ref(name), who=self.signature())

    def _make_ref(self, ref: str, revision: str, force: bool, message: str = "") -> ObjectId:
        at, who = self.resolve(revision), self.signature()
        return branches.make_ref(
            self.refs, ref, at, force=force, who=who, revision=revision, message=message
        )

    def _move_head(self, revision: str, identity: ObjectId) -> None:
        why = f"checkout: moving to {revision}"
        on_branch = self.refs.read(HEADS + revision) if _may_be_branch(revision) else None
        if on_branch is not None:
            self.refs.set_head(HEADS + revision, who=self.signature(), why=why)
        elif revision not in ("HEAD", "@"):
            self.refs.set_head(identity, who=self.signature(), why=why)

    def _materialise(self, snapshot: ObjectId, *, force: bool, progress: Progress) -> None:
        from mergepipe.checkpoints.checkout import WorktreeCheckout

        checkout = WorktreeCheckout(
            self.worktree,
            self.objects,
            self.blocks,
            block_size=self.config.store.block_size,
            threads=self.threads,
        )
        # However long another's takes: who waited finds the files there, or brings the next ones.
        lock = self.directory / layout.WORKTREE_LOCK
        with locks.acquire(lock, timeout_s=_LONGEST_CHECKOUT_S):
            checkout.run(snapshot, force=force, progress=progress)

    def _follow(self, commit: ObjectId, *, force: bool, progress: Progress) -> bool:
        """Write a commit's files if any were materialised; whether they were."""
        if self.worktree.snapshot() is None:
            return False
        self._materialise(self.objects.commit(commit).snapshot, force=force, progress=progress)
        return True

    def _recorded(self) -> Snapshot | None:
        recorded = self.worktree.snapshot()
        return None if recorded is None else self.objects.snapshot(recorded)


def _may_be_branch(revision: str) -> bool:
    return not any(sign in revision for sign in "~^@: ")
