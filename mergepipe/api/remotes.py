"""The remotes of a repository: added, removed, listed, and connected to."""

from mergepipe.api.opened import OpenRepository, open_url
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import UsageError
from mergepipe.names import quoted
from mergepipe.repository import config_edits
from mergepipe.repository.refnames import REMOTES
from mergepipe.repository.refs import ANY
from mergepipe.transfer import remotes
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.urls import RemoteUrl


def add(repository: OpenRepository, name: str, url: str) -> RemoteUrl:
    """Add a remote; relative paths begin where this process is. Raises UsageError, Locked."""
    return remotes.add_remote(repository.config.remote, repository.configure, name, url)


def remove(repository: OpenRepository, name: str) -> int:
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
    with repository.refs.together():
        repository.edit_config(lambda text: config_edits.without_remote(text, name))
        gone = repository.refs.names(f"{REMOTES}{name}/")
        for ref in gone:
            repository.refs.delete(ref, expected=ANY, who=who, why="remote removed")
    return len(gone)


def rename(repository: OpenRepository, old: str, new: str) -> None:
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
        repository.edit_config(lambda text: config_edits.with_renamed_remote(text, old, new))
        for ref in repository.refs.names(f"{REMOTES}{old}/"):
            target = f"{REMOTES}{new}/{ref.removeprefix(f'{REMOTES}{old}/')}"
            repository.refs.rename(ref, target, who=who, why=f"remote: renamed {old} to {new}")


def set_url(repository: OpenRepository, name: str, url: str) -> RemoteUrl:
    """Point a remote elsewhere; what it last had stays known. Raises UsageError, Locked."""
    if name not in repository.config.remote:
        raise UsageError(f"no remote is called {quoted(name)}", f"mp remote add {name} URL")
    parsed = remotes.check_remote_url(url)
    repository.configure(f"remote.{name}.url", parsed.shown)
    return parsed


def open_remote(
    repository: OpenRepository, wanted: str | None, credentials: Credentials
) -> tuple[str, RemoteUrl, ByteStore]:
    """A remote's name (empty if given as a URL), URL and byte store, which the caller closes."""
    name, url = repository.remote_called(wanted)
    return name, url, open_url(url, credentials, name, who=repository.who)
