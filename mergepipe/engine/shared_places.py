"""Which remotes workers can reach themselves, and as what: a directory or a bucket."""

from pathlib import Path

from mergepipe.errors import MergepipeError
from mergepipe.executors.places import BucketPlace, FilesPlace
from mergepipe.executors.segments import Place
from mergepipe.repository import config, layout
from mergepipe.transfer.connect import repository_at
from mergepipe.transfer.urls import CLOUD, RemoteUrl, Scheme


def bucket_of(url: RemoteUrl) -> BucketPlace | None:
    """The bucket that a URL names."""
    return BucketPlace(url.scheme, url.host, url.path) if url.scheme in CLOUD else None


def directory_of(url: RemoteUrl) -> Path | None:
    """The repository's directory that a URL names; None for one that is a lazy clone itself.

    Its files do not have everything. Raises NoRepository, UnsafeRepository.
    """
    if url.scheme is not Scheme.FILE:
        return None
    directory = repository_at(url.local)
    settings = config.load(directory / layout.CONFIG)
    return None if any(one.lazy for one in settings.remote.values()) else directory


def reading_place(url: RemoteUrl) -> Place | None:
    """Where workers read what a lazy clone of `url` was promised; None: they cannot."""
    try:
        directory = directory_of(url)
    except MergepipeError:
        return None  # it is gone just now: whoever reads from it says so
    return bucket_of(url) if directory is None else FilesPlace(str(directory.resolve()))
