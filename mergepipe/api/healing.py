"""Healing a repository: damage is set aside, and replaced from wherever a good copy is."""

import contextlib

from msgspec.structs import replace

from mergepipe.api import upkeep
from mergepipe.api.opened import OpenRepository, open_url
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import MergepipeError
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import layout, locks
from mergepipe.repository.problems import Note, NoteKind, Report
from mergepipe.repository.repair import condemned_packs, rescue_packs
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.healing import Healed, find_lacking, heal_from_remote

# Each reading of files brings back one level: a snapshot, its tensors, their blocks.
_LEVELS = 3


def repair(
    repository: OpenRepository, *, read_data: bool = True, progress: Progress = SILENT
) -> Report:
    """Put right what can be, from what is here, the files beside it, and every remote.

    The report says what was done, what each remote answered, and what is still wrong. Raises
    Locked.
    """
    report = upkeep.fsck(repository, read_data=read_data, repair=True, progress=progress)
    if report.ok:
        return report
    done, notes = list(report.repaired), []
    if report.lacks:
        done += _from_files(repository, progress)
        for name in repository.config.remote:
            if not find_lacking(repository.storage, repository.refs):
                break
            lines, asked = _ask(repository, name, progress)
            done += lines
            notes += asked
    # Last, as the commit that a ref names may have come back.
    report = upkeep.fsck(repository, read_data=False, repair=True, restore=True, progress=progress)
    if report.lacks and not repository.config.remote:
        notes.append(Note(NoteKind.ASKED, "remotes", "there are none that could be asked"))
    done += report.repaired
    return replace(report, notes=(*report.notes, *notes), repaired=tuple(done), unread_bytes=0)


def heal(
    repository: OpenRepository,
    name: str,
    store: ByteStore,
    *,
    read_data: bool,
    progress: Progress = SILENT,
) -> Healed:
    """Replace what is damaged or missing here from the remote called `name`.

    `read_data`: find out first, by reading all of it; else as far as it is known. Raises Locked,
    and what fetching raises.
    """
    if read_data:
        upkeep.fsck(repository, read_data=True, repair=True, progress=progress)
    else:
        set_aside(repository)
    healed = heal_from_remote(repository, name, store, progress)
    upkeep.fsck(repository, read_data=False, repair=False, progress=progress)  # what lacks still?
    return healed


def set_aside(repository: OpenRepository) -> None:
    """Move packs with damaged records to quarantine, if nobody else is at work and there is room.

    Else `mp fsck --repair` does.
    """
    packs = condemned_packs(repository.storage)
    with contextlib.suppress(MergepipeError, PermissionError):
        if packs:
            with locks.acquire(repository.directory / layout.STORE_LOCK, timeout_s=0):
                rescue_packs(packs, repository.storage)


def _from_files(repository: OpenRepository, progress: Progress) -> list[str]:
    """Store again what the worktree holds, if a model lies there; says what was done."""
    from mergepipe.checkpoints.healing import heal_from_files

    total = Healed()
    with contextlib.suppress(MergepipeError):  # no model, or one that changes just now
        for _ in range(_LEVELS):
            sources = repository.worktree.scan()
            lacking = find_lacking(repository.storage, repository.refs)
            if not sources or not lacking:
                break
            with repository.writing():
                healed = heal_from_files(
                    repository.storage,
                    repository.config,
                    sources,
                    lacking,
                    threads=repository.threads,
                    progress=progress,
                )
            if not healed:
                break
            total += healed
    return [f"stored {total} again from the files in {repository.worktree.root}"] if total else []


def _ask(repository: OpenRepository, name: str, progress: Progress) -> tuple[list[str], list[Note]]:
    """Copy what is missing from one remote; says what was done, or why nothing was."""
    given = repository.credentials
    credentials = Credentials() if given is None else given(repository.directory)
    try:
        _, url = repository.remote_called(name)
        with open_url(url, credentials, name, who=repository.who) as store:
            healed = heal_from_remote(repository, name, store, progress)
    except MergepipeError as error:
        return [], [Note(NoteKind.ASKED, name, f"could not be asked: {error.message}")]
    if not healed:
        return [], [Note(NoteKind.ASKED, name, f"has nothing of what is missing ({url.shown})")]
    return [f"stored {healed} again from {name} ({url.shown})"], []
