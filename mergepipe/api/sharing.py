"""The store that a lazy clone leans on, as one that its merges write to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mergepipe.api.opened import OpenRepository
from mergepipe.repository.ownership import check_user

if TYPE_CHECKING:
    from mergepipe.engine.shared_store import SharedStore


@contextmanager
def shared_store(repo: OpenRepository) -> "Iterator[SharedStore | None]":
    """Where a merge puts its blocks, if not here: as `merge.blocks` says, until the merge is over.

    None too where the clone is not lazy, or workers cannot reach its remote by themselves. Raises
    NoRepository, UnsafeRepository, Locked.
    """
    wanted = repo.config.merge.blocks
    alone = wanted == "auto" and not repo.workers.hands_out
    if repo.lazy_remote is None or wanted == "clone" or alone:
        yield None
        return
    # Servers and transports are behind these, which other merges need not load.
    from mergepipe.engine.shared_places import bucket_of, directory_of
    from mergepipe.engine.shared_store import shared_bucket, shared_directory

    _, url = repo.remote_called(repo.lazy_remote)
    place, directory = bucket_of(url), directory_of(url)
    if place is not None:
        with shared_bucket(place, repo.open_lazy_remote(), repo.storage) as shared:
            yield shared
    elif directory is not None:
        with OpenRepository(directory, who=repo.who) as home:
            home.guard = lambda: check_user(home.directory, os.environ)
            home.command = repo.command
            with shared_directory(home.transactions, repo.storage) as shared:
                yield shared
    else:
        yield None
