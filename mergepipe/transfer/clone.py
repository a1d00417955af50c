"""Where a clone goes, and how it gets there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mergepipe.bytestore import unfinished
from mergepipe.bytestore.local import sync_directory
from mergepipe.errors import UsageError
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.records import Blob, Snapshot
from mergepipe.objects.store import ObjectStore
from mergepipe.repository import layout
from mergepipe.repository.refnames import HEADS
from mergepipe.transfer.remote_refs import RemoteRefs
from mergepipe.transfer.urls import RemoteUrl


def directory_for(url: RemoteUrl) -> Path:
    """The directory that a clone of `url` makes if none is named: what the URL ends with.

    Raises UsageError where that is no name.
    """
    parts = [part for part in PurePosixPath(url.path).parts if part not in ("/", "~", ".")]
    if parts and parts[-1] == layout.DIRECTORY:
        parts.pop()
    name = parts[-1] if parts else url.host
    if not name or name.startswith((".", "-")) or "/" in name:
        raise UsageError(f"no name for a directory in {quoted(url.shown)}", "mp clone URL DIR")
    return Path(name)


@contextlib.contextmanager
def whole_or_nothing(target: Path, what: str = "clone") -> Iterator[Path]:
    """A directory to build in, which becomes `target` if the block ends well, and else is gone.

    `what` is built is part of its name until then (formats.tree passes over such names).
    `target` may be there if it is empty; what a killed command left in its place or beside it is
    removed. Raises UsageError.
    """
    target = target.absolute()
    there = os.path.lexists(target)
    prefix = f".{target.name}.{what}-"
    if there and target.is_dir():
        unfinished.sweep(target, prefix)
    if there and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(
            f"{quoted(str(target))} is there and not empty", "name a directory that is not"
        )
    made = _make_parents(target.parent)
    # In it if it is there, as it may be another disk, or where the user's shell stands.
    parent = target if there else target.parent
    try:
        with unfinished.building(parent, prefix) as building:
            yield building
            if there:
                # The repository last: a directory has one when its files are in place.
                for entry in sorted(building.iterdir(), key=lambda it: it.name == layout.DIRECTORY):
                    entry.rename(target / entry.name)
                building.rmdir()
            else:
                building.rename(target)
            sync_directory(parent)
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _make_parents(folder: Path) -> list[Path]:
    """Make a folder and its parents; returns those that were not there, outermost first."""
    missing = [one for one in (folder, *folder.parents) if not one.is_dir()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def first_branch(there: RemoteRefs, wanted: str | None) -> str:
    """The branch (full name) a clone begins on: the one asked for, or where HEAD is there.

    Perhaps without a commit, if there is none at all.
    """
    if wanted is not None:
        return wanted if wanted.startswith(HEADS) else HEADS + wanted
    default = HEADS + layout.DEFAULT_BRANCH
    candidates = [there.head, default, *there.branches]
    return next((one for one in candidates if one in there.branches), there.head or default)


def block_size_of(objects: ObjectStore, commit: ObjectId) -> int | None:
    """`store.block_size` of the repository that a commit was made in, in bytes, as it shows.

    Models that are cut differently share no blocks, and settings do not travel: opaque files and
    headers are cut at exactly that size.
    """
    snapshot = objects.load(objects.commit(commit).snapshot, Snapshot)
    for file in snapshot.files:
        content = file.content
        tensor = objects.tensor(content.data if isinstance(content, Blob) else content.header)
        return tensor.block_bytes
    return None
