"""Fetching, pulling and cloning with an open repository: its remotes, branches and worktree."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mergepipe.api import healing
from mergepipe.api.contents import Contents
from mergepipe.api.opened import Identity, OpenRepository, open_url
from mergepipe.api.remotes import add
from mergepipe.api.results import CloneResult, FetchResult, PullResult
from mergepipe.api.working import Working
from mergepipe.bytestore.unfinished import Unfinished
from mergepipe.bytestore.untrusted import is_real_directory
from mergepipe.errors import (
    AuthenticationError,
    Diverged,
    MergepipeError,
    RefMoved,
    RemoteUnreachable,
    RevisionNotFound,
    UsageError,
)
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import layout
from mergepipe.repository.absent import DEEPEN, read_absent
from mergepipe.repository.history import is_ancestor
from mergepipe.repository.refnames import HEADS, REMOTES, branch_ref, short_name
from mergepipe.repository.refs import Head
from mergepipe.transfer import clone as cloning
from mergepipe.transfer import fetch as fetching
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.fetch import Fetched, FetchOptions
from mergepipe.transfer.healing import Healed
from mergepipe.transfer.horizon import Reach
from mergepipe.transfer.remote_refs import read_refs, tracking_ref
from mergepipe.transfer.remotes import DEFAULT_REMOTE, check_remote_url
from mergepipe.transfer.urls import RemoteUrl

_MOST_RACES = 8


def fetch(
    repository: OpenRepository,
    remote: str | None = None,
    options: FetchOptions | None = None,
    credentials: Credentials | None = None,
    progress: Progress = SILENT,
    *,
    heal: bool = False,
) -> FetchResult:
    """Bring what a remote (None: origin) has; `refs/remotes/` follows. Raises as `transfer.fetch`.

    What is known to be damaged or missing here comes too; with `heal` all data is read to know.

    Raises UsageError for a remote without a name: there would be no place for its branches.
    """
    name, url = repository.remote_called(remote)
    if not name:
        raise UsageError(
            f"{quoted(url.shown)} has no name here", "mp remote add NAME URL, then mp fetch NAME"
        )
    healed = Healed()
    with open_url(url, credentials or Credentials(), name, who=repository.who) as store:
        if heal or repository.storage.lacking:
            healed = healing.heal(repository, name, store, read_data=heal, progress=progress)
        fetched = fetching.fetch(repository, name, store, options, progress=progress)
    whole = options is not None and options.reach is not None and options.reach.whole
    if whole and repository.config.remote[name].depth:  # nothing is cut off from now on
        repository.configure(f"remote.{name}.depth", None)
    return FetchResult(url.shown, fetched, healed)


def pull(
    repository: OpenRepository,
    remote: str | None = None,
    branch: str | None = None,
    credentials: Credentials | None = None,
    progress: Progress = SILENT,
    follow: Callable[[ObjectId], bool] = lambda commit: False,
    *,
    depth: int | None = None,
) -> PullResult:
    """Fetch one branch (None: that of the current one's name) and move the current branch to it.

    Forward only. `follow` brings files to a commit and tells whether it did. `depth`: the newest so
    many commits of it come, as with `fetch`. Raises Diverged, WorktreeDirty, UsageError (HEAD is
    detached), RevisionNotFound (the remote has no such branch).
    """
    head = repository.refs.head()
    if head.branch is None:
        raise UsageError("HEAD is on no branch that could follow", "mp switch BRANCH")
    current = short_name(head.branch)
    wanted = short_name(branch_ref(branch or current))
    remote_name = repository.remote_called(remote)[0]
    before = repository.refs.read(f"{REMOTES}{remote_name}/{wanted}") if remote_name else None
    options = FetchOptions((wanted,), reach=None if depth is None else Reach(depth))
    result = fetch(repository, remote, options, credentials, progress)
    name = f"{REMOTES}{result.fetched.remote}/{wanted}"
    new = repository.refs.read(name)
    if new is None:
        raise RevisionNotFound(f"{name} is gone: another process removed it", "try again")
    for _ in range(_MOST_RACES):
        # Of several pulls at once, one moves the branch: the others find it where it should be.
        with contextlib.suppress(RefMoved):
            return _forward(repository, result, current, wanted, before, new, follow)
    return _forward(repository, result, current, wanted, before, new, follow)


def _forward(
    repository: OpenRepository,
    result: FetchResult,
    current: str,
    wanted: str,
    before: ObjectId | None,
    new: ObjectId,
    follow: Callable[[ObjectId], bool],
) -> PullResult:
    """Move the branch `current` to `new`; `before` is where the remote's was. Raises RefMoved."""
    name = f"{REMOTES}{result.fetched.remote}/{wanted}"
    old = repository.refs.read(f"{HEADS}{current}")
    if old is not None and new != old:
        if is_ancestor(repository.objects, new, old):
            went_back = (
                before is not None
                and before != new
                and is_ancestor(repository.objects, new, before)
            )
            return PullResult(
                fetch=result,
                branch=current,
                old=old,
                new=old,
                files=False,
                behind=short_name(name),
                went_back=went_back,
            )
        if not is_ancestor(repository.objects, old, new):
            theirs = short_name(name)
            if read_absent(repository.store):
                raise Diverged(
                    f"as far as history is here, {current} and {theirs} have diverged: neither is "
                    "an earlier version of the other",
                    f"what is older may join them: {DEEPEN}; mp reset --hard {theirs} takes theirs",
                )
            raise Diverged(
                f"{current} and {theirs} have diverged: neither is an earlier version of the other",
                f"mp reset --hard {theirs} takes theirs (mp branch NAME first keeps yours); "
                + (
                    "mp push --force keeps yours"
                    if wanted == current
                    else f"mp merge {current} {theirs} -b NAME makes a model of both"
                ),
            )
    if new != old:
        repository.refuse_purged(new, f"the model of {short_name(name)}")
    files = new != old and follow(new)
    if new != old:
        who, why = repository.signature(), f"pull: {result.fetched.remote} {wanted}"
        repository.refs.update(f"{HEADS}{current}", new, expected=old, who=who, why=why)
    return PullResult(fetch=result, branch=current, old=old, new=new, files=files)


def clone(
    text: str,
    directory: Path | None = None,
    *,
    branch: str | None = None,
    lazy: bool = False,
    depth: int | None = None,
    checkout: bool = True,
    credentials: Credentials | None = None,
    who: Identity | None = None,
    progress: Progress = SILENT,
) -> CloneResult:
    """Make a repository that has what the one at a URL has.

    One that fails leaves nothing behind; of one that is cut (a signal, the network) what has come
    is kept, hidden, and the same clone goes on from there. If the directory is just that clone
    already, which another process made, there is nothing to do.

    With `branch`, that one only, with its history. A `lazy` clone has history and metadata, and no
    files checked out; blocks come from the remote when they are read. `depth`: so many commits of
    each branch, and of what is fetched later from elsewhere. Relative paths begin where
    this process is. Raises UsageError (the directory is not empty), RevisionNotFound, and as
    `fetch`.
    """
    url = check_remote_url(text)
    # Without `..`, as it is shown; its parents need not be there.
    target = Path(os.path.abspath(directory or cloning.directory_for(url)))  # noqa: PTH100
    given = (credentials or Credentials()).trusting(url)  # that was not the other side's word
    cloning.wait_for_others(target)
    try:
        return _clone(
            url,
            target,
            branch,
            lazy=lazy,
            depth=depth,
            checkout=checkout,
            credentials=given,
            who=who,
            progress=progress,
        )
    except cloning.TargetTaken:
        standing = _standing(
            url,
            target,
            branch,
            lazy=lazy,
            depth=depth,
            checkout=checkout,
            credentials=given,
            who=who,
        )
        if standing is None:
            raise
        return standing


def _clone(
    url: RemoteUrl,
    target: Path,
    branch: str | None,
    *,
    lazy: bool,
    depth: int | None,
    checkout: bool,
    credentials: Credentials,
    who: Identity | None,
    progress: Progress,
) -> CloneResult:
    reach = Reach(depth)
    with (
        cloning.whole_or_nothing(target) as building,
        open_url(url, credentials, DEFAULT_REMOTE, who=who) as store,
        _kept_if_cut(building),
    ):
        with OpenRepository.init(building.path, who=who) as begun:
            add(begun, DEFAULT_REMOTE, url.shown)
            if lazy:
                begun.configure(f"remote.{DEFAULT_REMOTE}.lazy", "true")
            if depth is not None:
                begun.configure(f"remote.{DEFAULT_REMOTE}.depth", str(depth))
        cloning.take_up(target, begun.directory, url.shown)
        with OpenRepository(
            begun.directory, who=who, credentials=lambda _: credentials
        ) as repository:
            branches = () if branch is None else (short_name(branch_ref(branch)),)
            options = FetchOptions(branches, reach=reach)
            fetched = fetching.fetch(repository, DEFAULT_REMOTE, store, options, progress=progress)
            first = cloning.first_branch(fetched.there, branch)
            commit = fetched.there.values.get(first)
            wanted = checkout and not lazy  # a checkout would bring all of the model
            files = _begin(repository, first, commit, checkout=wanted, progress=progress)
    result = FetchResult(url.shown, fetched)
    return CloneResult(
        directory=target,
        fetch=result,
        branch=first.removeprefix(HEADS),
        commit=commit,
        files=files,
        lazy=lazy,
    )


@contextlib.contextmanager
def _kept_if_cut(building: Unfinished) -> Iterator[None]:
    """What has come stays for the next clone where nothing is wrong with it but that it was cut."""
    try:
        yield
    except (KeyboardInterrupt, RemoteUnreachable, AuthenticationError) as error:
        building.kept = cloning.received_anything(building.path)
        if building.kept and isinstance(error, MergepipeError):
            hint = "what has come is kept: the same clone goes on from there"
            raise type(error)(
                error.message, f"{error.hint}; {hint}" if error.hint else hint
            ) from error
        raise


def _standing(
    url: RemoteUrl,
    target: Path,
    branch: str | None,
    *,
    lazy: bool,
    depth: int | None,
    checkout: bool,
    credentials: Credentials,
    who: Identity | None,
) -> CloneResult | None:
    """What is at `target` already, if it is just what this clone would make; else None.

    Of the processes of a job that all clone to one place, one is first.
    """
    directory = target / layout.DIRECTORY
    if not target.is_dir() or not is_real_directory(directory):
        return None
    with (
        OpenRepository(directory, who=who, credentials=lambda _: credentials) as repository,
        open_url(url, credentials, DEFAULT_REMOTE, who=who) as store,
    ):
        origin = repository.config.remote.get(DEFAULT_REMOTE)
        wanted = (url.shown, lazy, depth or 0)
        if origin is None or (origin.url, origin.lazy, origin.depth) != wanted:
            return None
        there = read_refs(store)
        first = cloning.first_branch(there, branch)
        commit = there.values.get(first)
        if repository.refs.head() != Head(first, commit):
            return None
        for name, tip in there.branches.items():
            ours = tracking_ref(DEFAULT_REMOTE, name)
            if branch is None and ours is not None and repository.refs.read(ours) != tip:
                return None
        files = checkout and not lazy and commit is not None
        if files and commit is not None:
            snapshot = repository.objects.commit(commit).snapshot
            if repository.worktree.snapshot() != snapshot:
                return None
    nothing = Fetched(
        remote=DEFAULT_REMOTE,
        refs=(),
        kept=(),
        there=there,
        commits=0,
        objects=0,
        blocks=0,
        bytes_received=0,
        packs_received=0,
    )
    result = FetchResult(url.shown, nothing)
    return CloneResult(
        directory=target,
        fetch=result,
        branch=first.removeprefix(HEADS),
        commit=commit,
        files=files,
        lazy=lazy,
        stood=True,
    )


def _begin(
    repository: OpenRepository,
    branch: str,
    commit: ObjectId | None,
    *,
    checkout: bool,
    progress: Progress,
) -> bool:
    """Put HEAD on the first branch of a clone; whether its files were written."""
    who, why = repository.signature(), "clone"
    if commit is not None:
        size = cloning.block_size_of(repository.objects, commit)
        if size is not None and size != repository.config.store.block_size:
            repository.configure("store.block_size", str(size))
        repository.refs.update(branch, commit, expected=None, who=who, why=why)
    repository.refs.set_head(branch, who=who, why=why)
    if commit is None or not checkout:
        return False
    Working(repository, Contents(repository)).checkout("HEAD", progress=progress)
    return True
