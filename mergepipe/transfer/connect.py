"""From a URL to the byte store behind it; only the transport that is used gets loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.untrusted import is_real_directory
from mergepipe.errors import NoRepository, UsageError
from mergepipe.missing_paths import nearest_path
from mergepipe.repository import layout
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.home import Home
from mergepipe.transfer.receiving import ReceivingStore
from mergepipe.transfer.urls import CLOUD, WEB, RemoteUrl, Scheme


class OwnHome(Home, Protocol):
    """A repository that whoever opened it closes."""

    def close(self) -> None:
        """Release files."""
        ...


def file_remote(home: OwnHome) -> ReceivingStore:
    """A repository on this machine, as others see one; its end is the same code as a server's.

    Closing the store closes the repository.
    """
    return ReceivingStore(home, release=home.close)


def connect(
    url: RemoteUrl,
    credentials: Credentials,
    name: str = "",
    *,
    open_home: Callable[[Path], OwnHome],
) -> ByteStore:
    """The byte store at `url`; `name` is the remote's, if it has one.

    `open_home` opens a repository of this machine, given its directory (`api` has it, and is above
    us). Some transports find out only with the first exchange that nobody answers. Raises
    NoRepository, RemoteUnreachable, AuthenticationError, UsageError (an extra is not installed).
    """
    if url.scheme is Scheme.FILE:
        return file_remote(open_home(repository_at(url.local)))
    if url.scheme in CLOUD:
        from mergepipe.bytestore.cloud import open_bucket

        return open_bucket(url.scheme, url.host, url.path, credentials.environment)
    if url.scheme in WEB:
        from mergepipe.bytestore.http import HttpByteStore

        return HttpByteStore(
            url.shown, token=credentials.token(url, name), unsent=credentials.withheld(url, name)
        )
    if url.scheme is Scheme.SSH:
        from mergepipe.bytestore.ssh import ssh_store

        environment = credentials.environment
        return ssh_store(
            url.host,
            url.path,
            user=url.user,
            port=url.port,
            command=environment.get("MP_SSH", "ssh"),
            program=environment.get("MP_SSH_REMOTE", "mp"),
        )
    raise UsageError(f"no transport for {url}")


def repository_at(path: Path) -> Path:
    """The repository directory that a file URL names: itself, or its `.mergepipe`.

    Raises NoRepository, UnsafeRepository.
    """
    if is_real_directory(path / layout.DIRECTORY):
        return path / layout.DIRECTORY
    if layout.has_packs(path) and (path / layout.HEAD).is_file():
        return path
    otherwise = "check the path; `mp init PATH` makes one"
    hint = otherwise if path.exists() else nearest_path(path, otherwise)
    raise NoRepository(f"there is no repository at {path}", hint)
