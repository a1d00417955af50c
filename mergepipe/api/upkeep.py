"""Looking after a repository: how much room it takes, and freeing what nothing needs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mergepipe.progress import Progress
from mergepipe.repository import layout
from mergepipe.repository.gc import Collected, collect
from mergepipe.repository.usage import Usage, default_revisions, measure

if TYPE_CHECKING:
    from mergepipe.api.repository import Repository


def usage(repository: "Repository", revisions: Sequence[str]) -> Usage:
    """The room that revisions take; every branch, tag and import if none is named."""
    named = [(name, repository.resolve(name)) for name in revisions]
    chosen = named or default_revisions(repository.refs)
    return measure(chosen, repository.objects, repository.storage)


def gc(
    repository: "Repository", *, dry_run: bool, keep_reflog: bool, progress: Progress
) -> Collected:
    """Free what nothing needs. Raises Locked, and Corruption if something needed is missing."""
    return collect(
        repository.storage,
        repository.objects,
        repository.refs,
        repository.directory / layout.STORE_LOCK,
        lock_timeout_s=repository.config.core.lock_timeout,
        reflog=keep_reflog,
        dry_run=dry_run,
        progress=progress,
    )
