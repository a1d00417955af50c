"""Purging models, here and on remotes that allow it, and letting them come back."""

from collections.abc import Sequence

from msgspec import Struct

from mergepipe.api.opened import OpenRepository
from mergepipe.api.remotes import open_remote
from mergepipe.errors import Purged, RevisionNotFound, UsageError
from mergepipe.ids import ObjectId
from mergepipe.progress import Progress
from mergepipe.repository.purge_report import PurgeReport
from mergepipe.repository.purging import Purge, purge
from mergepipe.repository.tombstones import (
    Tombstone,
    lift_tombstones,
    read_tombstones,
)
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.purging import ask_to_purge, place_of


class PurgeResult(Struct, frozen=True):
    """What went here, and at each remote that was asked, by name."""

    here: PurgeReport
    remotes: dict[str, PurgeReport]


def purge_models(
    repository: OpenRepository,
    revisions: Sequence[str],
    reason: str,
    *,
    remotes: Sequence[str],
    dry_run: bool,
    credentials: Credentials | None,
    progress: Progress,
) -> PurgeResult:
    """Remove the models of revisions for good; at `remotes` first, which may say no.

    Raises as `repository.purging.purge` and `transfer.purging.ask_to_purge`.
    """
    if not revisions:
        raise UsageError("which model?", "mp purge REV --reason TEXT")
    if not dry_run:
        repository.guard()
    models = [_model(repository, revision) for revision in revisions]
    leaned_on = repository.storage.promises.remote
    if leaned_on and not dry_run and leaned_on not in remotes:
        raise UsageError(
            f"this clone is lazy: {leaned_on} has the model, too, and gives it again",
            f"mp purge ... --remote {leaned_on} removes it from both",
        )
    who = repository.signature()
    reports: dict[str, PurgeReport] = {}
    for remote in remotes:
        name, url, store = open_remote(repository, remote, credentials or Credentials())
        with store:
            reports[name or url.shown] = ask_to_purge(
                store,
                models,
                where=f"{name} ({url.shown})" if name else url.shown,
                who=who.author,
                reason=reason,
                dry_run=dry_run,
            )
    if leaned_on and not dry_run:
        repository.storage.promises.relist()  # so that what it gave is ours to remove
        repository.storage.refresh()
    request = Purge(
        models=models, signature=who, reason=reason, dry_run=dry_run, remotes=frozenset(reports)
    )
    return PurgeResult(purge(place_of(repository), request, progress), reports)


def lift(repository: OpenRepository, revision: str) -> list[Tombstone]:
    """Let a purged model be committed, fetched and pushed again; it stays away until it is."""
    _, snapshot = _model(repository, revision)
    with repository.refs.locked():
        lifted = lift_tombstones(repository.store, [snapshot])
    if not lifted:
        raise RevisionNotFound(f"{revision} was not purged here", "mp log marks what was")
    return lifted


def _model(repository: OpenRepository, revision: str) -> tuple[ObjectId, ObjectId]:
    """A commit and its snapshot, of one that was purged before, too: a cut purge is done again."""
    try:
        identity, commit = repository.commit_of(revision)
    except Purged:
        stone = read_tombstones(repository.store).with_prefix(revision)
        assert stone is not None
        return stone.commit, stone.snapshot
    return identity, commit.snapshot
