"""Cloning: a repository that has what the one at a URL has, made whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from mergepipe.api.contents import Contents
from mergepipe.api.opened import Identity, OpenRepository, open_url
from mergepipe.api.remotes import add
from mergepipe.api.results import CloneResult, FetchResult
from mergepipe.api.working import Working
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.unfinished import Unfinished
from mergepipe.bytestore.untrusted import is_real_directory
from mergepipe.errors import AuthenticationError, MergepipeError, RemoteUnreachable
from mergepipe.ids import ObjectId
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import layout
from mergepipe.repository.refnames import HEADS, branch_ref, short_name
from mergepipe.repository.refs import Head
from mergepipe.transfer import clone as transfer
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.fetch import Fetched, FetchOptions, fetch
from mergepipe.transfer.horizon import Reach
from mergepipe.transfer.remote_refs import read_refs, tracking_ref
from mergepipe.transfer.remotes import DEFAULT_REMOTE, check_remote_url
from mergepipe.transfer.urls import RemoteUrl


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
    wanted = _Wanted(
        url=url,
        # Without `..`, as it is shown; its parents need not be there.
        target=Path(os.path.abspath(directory or transfer.directory_for(url))),  # noqa: PTH100
        branch=branch,
        lazy=lazy,
        depth=depth,
        files=checkout and not lazy,  # a checkout would bring all of the model
        credentials=(credentials or Credentials()).trusting(url),  # not the other side's word
        who=who,
    )
    transfer.wait_for_others(wanted.target)
    try:
        return _make(wanted, progress)
    except transfer.TargetTaken:
        standing = _standing(wanted)
        if standing is None:
            raise
        return standing


class _Wanted(Struct, frozen=True):
    """What a clone is to be; `files`: whether the model of its first branch is checked out."""

    url: RemoteUrl
    target: Path
    branch: str | None
    lazy: bool
    depth: int | None
    files: bool
    credentials: Credentials
    who: Identity | None

    def connected(self) -> ByteStore:
        """The byte store of the other side."""
        return open_url(self.url, self.credentials, DEFAULT_REMOTE, who=self.who)

    def opened(self, directory: Path) -> OpenRepository:
        """The clone itself, whose remote is asked with these credentials."""
        return OpenRepository(directory, who=self.who, credentials=lambda _: self.credentials)

    def result(
        self, fetched: Fetched, first: str, commit: ObjectId | None, *, files: bool, stood: bool
    ) -> CloneResult:
        """What came of it; `first`: the branch that HEAD is on."""
        return CloneResult(
            directory=self.target,
            fetch=FetchResult(self.url.shown, fetched),
            branch=first.removeprefix(HEADS),
            commit=commit,
            files=files,
            lazy=self.lazy,
            stood=stood,
        )


def _make(wanted: _Wanted, progress: Progress) -> CloneResult:
    with (
        transfer.whole_or_nothing(wanted.target) as building,
        wanted.connected() as store,
        _kept_if_cut(building),
    ):
        with OpenRepository.init(building.path, who=wanted.who) as begun:
            add(begun, DEFAULT_REMOTE, wanted.url.shown)
            if wanted.lazy:
                begun.configure(f"remote.{DEFAULT_REMOTE}.lazy", "true")
            if wanted.depth is not None:
                begun.configure(f"remote.{DEFAULT_REMOTE}.depth", str(wanted.depth))
        transfer.take_up(wanted.target, begun.directory, wanted.url.shown)
        with wanted.opened(begun.directory) as repository:
            branches = () if wanted.branch is None else (short_name(branch_ref(wanted.branch)),)
            options = FetchOptions(branches, reach=Reach(wanted.depth))
            fetched = fetch(repository, DEFAULT_REMOTE, store, options, progress=progress)
            first = transfer.first_branch(fetched.there, wanted.branch)
            commit = fetched.there.values.get(first)
            files = _begin(repository, first, commit, checkout=wanted.files, progress=progress)
    return wanted.result(fetched, first, commit, files=files, stood=False)


@contextlib.contextmanager
def _kept_if_cut(building: Unfinished) -> Iterator[None]:
    """What has come stays for the next clone where nothing is wrong with it but that it was cut."""
    try:
        yield
    except (KeyboardInterrupt, RemoteUnreachable, AuthenticationError) as error:
        building.kept = transfer.received_anything(building.path)
        if building.kept and isinstance(error, MergepipeError):
            hint = "what has come is kept: the same clone goes on from there"
            raise type(error)(
                error.message, f"{error.hint}; {hint}" if error.hint else hint
            ) from error
        raise


def _standing(wanted: _Wanted) -> CloneResult | None:
    """What is at the target already, if it is just what this clone would make; else None.

    Of the processes of a job that all clone to one place, one is first.
    """
    directory = wanted.target / layout.DIRECTORY
    if not wanted.target.is_dir() or not is_real_directory(directory):
        return None
    with wanted.opened(directory) as repository, wanted.connected() as store:
        origin = repository.config.remote.get(DEFAULT_REMOTE)
        settings = (wanted.url.shown, wanted.lazy, wanted.depth or 0)
        if origin is None or (origin.url, origin.lazy, origin.depth) != settings:
            return None
        there = read_refs(store)
        first = transfer.first_branch(there, wanted.branch)
        commit = there.values.get(first)
        if repository.refs.head() != Head(first, commit):
            return None
        for name, tip in there.branches.items():
            ours = tracking_ref(DEFAULT_REMOTE, name)
            if wanted.branch is None and ours is not None and repository.refs.read(ours) != tip:
                return None
        if wanted.files and commit is not None:
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
    files = wanted.files and commit is not None
    return wanted.result(nothing, first, commit, files=files, stood=True)


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
        size = transfer.block_size_of(repository.objects, commit)
        if size is not None and size != repository.config.store.block_size:
            repository.configure("store.block_size", str(size))
        repository.refs.update(branch, commit, expected=None, who=who, why=why)
    repository.refs.set_head(branch, who=who, why=why)
    if commit is None or not checkout:
        return False
    Working(repository, Contents(repository)).checkout("HEAD", progress=progress)
    return True
