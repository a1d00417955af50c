"""The remotes of a repository: added, removed, listed, and connected to."""

from pathlib import Path
from typing import TYPE_CHECKING

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import UsageError
from mergepipe.lazy.store import LazyByteStore
from mergepipe.names import quoted
from mergepipe.repository import config as configuration
from mergepipe.repository.refnames import REMOTES
from mergepipe.repository.refs import ANY
from mergepipe.transfer import remotes
from mergepipe.transfer.connect import connect
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.urls import RemoteUrl

if TYPE_CHECKING:
    from mergepipe.api.opened import Identity, OpenRepository


def add(repository: "OpenRepository", name: str, url: str) -> RemoteUrl:
    """Add a remote; relative paths begin where this process is. Raises UsageError, Locked."""
    return remotes.add_remote(repository.config.remote, repository.configure, name, url)


def remove(repository: "OpenRepository", name: str) -> int:
    """Remove a remote and what it last had; returns how many of its refs that were.

    Raises UsageError, Locked.
    """
    if name not in repository.config.remote:
        raise UsageError(f"no remote is called {quoted(name)}", "`mp remote list` lists them")
    if repository.config.remote[name].lazy and repository.storage.promises.promised():
        raise UsageError(
            f"this clone is lazy: some of its models are at {quoted(name)} only",
            "mp config remote.NAME.url URL changes where that is",
        )
    who = repository.signature()
    with repository.refs.locked():
        repository.edit_config(lambda text: configuration.without_remote(text, name))
        gone = repository.refs.names(f"{REMOTES}{name}/")
        for ref in gone:
            repository.refs.delete(ref, expected=ANY, who=who, why="remote removed")
    return len(gone)


def rename(repository: "OpenRepository", old: str, new: str) -> None:
    """Give a remote another name; what is known of its branches goes along.

    Raises UsageError, RefExists, Locked.
    """
    if old not in repository.config.remote:
        raise UsageError(f"no remote is called {quoted(old)}", "`mp remote list` lists them")
    remotes.check_remote_name(new)
    if new in repository.config.remote:
        raise UsageError(f"there is a remote {quoted(new)} already", f"mp remote rm {new}")
    who = repository.signature()
    with repository.refs.locked():
        repository.edit_config(lambda text: configuration.with_renamed_remote(text, old, new))
        for ref in repository.refs.names(f"{REMOTES}{old}/"):
            target = f"{REMOTES}{new}/{ref.removeprefix(f'{REMOTES}{old}/')}"
            repository.refs.rename(ref, target, who=who, why=f"remote: renamed {old} to {new}")


def set_url(repository: "OpenRepository", name: str, url: str) -> RemoteUrl:
    """Point a remote elsewhere; what it last had stays known. Raises UsageError, Locked."""
    if name not in repository.config.remote:
        raise UsageError(f"no remote is called {quoted(name)}", f"mp remote add {name} URL")
    parsed = remotes.check_remote_url(url)
    repository.configure(f"remote.{name}.url", parsed.shown)
    return parsed


def find(repository: "OpenRepository", wanted: str | None) -> tuple[str, RemoteUrl]:
    """Name (empty if given as a URL) and URL of a remote. Raises UsageError."""
    return remotes.find_remote(repository.config.remote, wanted, _here(repository.directory))


def open_remote(
    repository: "OpenRepository", wanted: str | None, credentials: Credentials
) -> tuple[str, RemoteUrl, ByteStore]:
    """`find`, and the byte store of the other side; the caller closes it."""
    name, url = find(repository, wanted)
    return name, url, open_url(url, credentials, name, who=repository.who)


def open_url(
    url: RemoteUrl,
    credentials: Credentials,
    name: str = "",
    *,
    who: "Identity | None" = None,
    hops: int = 0,
) -> ByteStore:
    """The byte store at a URL; `who` signs what is pushed to a repository of this machine."""
    from mergepipe.api.opened import OpenRepository

    def open_home(path: Path) -> OpenRepository:
        theirs = credentials.abroad()
        return OpenRepository(path, who=who, credentials=lambda _: theirs, hops=hops)

    return connect(url, credentials, name, open_home=open_home)


def lazy_store(repository: "OpenRepository", name: str, hops: int = 0) -> LazyByteStore:
    """The byte store of a lazy clone of the remote called `name`, which is asked when need be."""

    def reach() -> ByteStore:
        found, url = find(repository, name)
        given = repository.credentials
        credentials = Credentials() if given is None else given(repository.directory)
        return open_url(url, credentials, found, who=repository.who, hops=hops + 1)

    return LazyByteStore(repository.local, reach, name)


def _here(directory: Path) -> Path:
    """Where relative paths in the config begin: the folder that has `.mergepipe` in it."""
    return directory.parent
