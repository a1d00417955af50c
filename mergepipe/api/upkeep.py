"""Looking after a repository: how much room it takes, what is wrong with it, what can go."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mergepipe.progress import Progress
from mergepipe.repository import layout
from mergepipe.repository.fsck import fsck as check
from mergepipe.repository.gc import Collected, collect
from mergepipe.repository.problems import Report
from mergepipe.repository.revisions import resolve
from mergepipe.repository.usage import Usage, default_revisions, measure

if TYPE_CHECKING:
    from mergepipe.api.opened import OpenRepository


def usage(repository: "OpenRepository", revisions: Sequence[str]) -> Usage:
    """The room that revisions take; every branch, tag and import if none is named."""
    named = [(name, resolve(name, repository.refs, repository.objects)) for name in revisions]
    chosen = named or default_revisions(repository.refs)
    return measure(chosen, repository.objects, repository.storage)


def gc(
    repository: "OpenRepository", *, dry_run: bool, keep_reflog: bool, progress: Progress
) -> Collected:
    """Free what nothing needs. Raises Locked, and Corruption if something needed is missing."""
    return collect(
        repository.local,
        repository.storage,
        repository.objects,
        repository.refs,
        repository.directory / layout.STORE_LOCK,
        lock_timeout_s=repository.config.core.lock_timeout,
        reflog=keep_reflog,
        dry_run=dry_run,
        now_s=time.time(),
        progress=progress,
    )


def fsck(
    repository: "OpenRepository", *, read_data: bool, repair: bool, progress: Progress
) -> Report:
    """Check everything, and with `repair` put right what can be. Raises Locked."""
    return check(
        repository.storage,
        repository.objects,
        repository.refs,
        repository.directory / layout.STORE_LOCK,
        max_chain=repository.config.store.max_chain,
        read_data=read_data,
        repair=repository.signature() if repair else None,
        threads=repository.threads,
        lock_timeout_s=repository.config.core.lock_timeout,
        progress=progress,
    )
