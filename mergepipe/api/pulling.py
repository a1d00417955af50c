"""Fetching and pulling with an open repository: its remotes, branches and worktree."""

import contextlib
from collections.abc import Callable

from mergepipe.api import healing
from mergepipe.api.opened import OpenRepository, open_url
from mergepipe.api.results import FetchResult, PullResult
from mergepipe.errors import (
    Diverged,
    RefMoved,
    RevisionNotFound,
    UsageError,
)
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.absent import DEEPEN, read_absent
from mergepipe.repository.history import is_ancestor
from mergepipe.repository.refnames import HEADS, REMOTES, branch_ref, short_name
from mergepipe.transfer import fetch as fetching
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.fetch import FetchOptions
from mergepipe.transfer.healing import Healed
from mergepipe.transfer.horizon import Reach

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
