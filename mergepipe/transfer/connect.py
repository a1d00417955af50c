"""From a URL to the byte store behind it; only the transport that is used gets loaded."""

from pathlib import Path

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import NoRepository, UsageError
from mergepipe.repository import layout
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.urls import CLOUD, RemoteUrl, Scheme


def connect(url: RemoteUrl, credentials: Credentials, name: str = "") -> ByteStore:
    """The byte store at `url`; `name` is the remote's, if it has one.

    Some transports find out only with the first exchange that nobody answers. Raises
    NoRepository, RemoteUnreachable, AuthenticationError, UsageError (an extra is not installed).
    """
    if url.scheme is Scheme.FILE:
        from mergepipe.bytestore.local import LocalByteStore

        return LocalByteStore(repository_at(url.local))
    if url.scheme in CLOUD:
        from mergepipe.bytestore.cloud import open_bucket

        return open_bucket(url.scheme, url.host, url.path, credentials.environment)
    raise UsageError(f"no transport for {url} yet")


def repository_at(path: Path) -> Path:
    """The repository directory that a file URL names: itself, or its `.mergepipe`.

    Raises NoRepository.
    """
    if (path / layout.DIRECTORY).is_dir():
        return path / layout.DIRECTORY
    if (path / layout.PACKS).is_dir() and (path / layout.HEAD).is_file():
        return path
    raise NoRepository(f"there is no repository at {path}", "mp init makes one")
