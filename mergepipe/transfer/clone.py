"""Where a clone goes, and how it gets there whole or not at all."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mergepipe.bytestore import unfinished
from mergepipe.bytestore.local_writer import make_durable, sync_directory
from mergepipe.bytestore.unfinished import Unfinished
from mergepipe.bytestore.untrusted import is_real_directory, plain_status, read_plain, status_of
from mergepipe.errors import MergepipeError, UnsafeRepository, UsageError
from mergepipe.failpoints import reached
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.records import Blob, Snapshot
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.reader import SUFFIX, parse_pack_name
from mergepipe.repository import config, layout
from mergepipe.repository.incoming import SESSIONS
from mergepipe.repository.refnames import HEADS
from mergepipe.transfer.remote_refs import RemoteRefs
from mergepipe.transfer.remotes import DEFAULT_REMOTE
from mergepipe.transfer.urls import RemoteUrl

_UNFINISHED = re.compile(r"\..+\.(?:clone|merge)-[0-9a-f]{16}")
# In a directory that was built: all of it is there, and on its way to where it belongs.
_WHOLE = ".whole"


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


class TargetTaken(UsageError):
    """There is something at the place of a directory that was to be made."""

    kind = "usage"


@contextlib.contextmanager
def whole_or_nothing(target: Path, what: str = "clone") -> Iterator[Unfinished]:
    """A directory to build in, which becomes `target` if the block ends well, and else is gone.

    `what` is built is part of its name until then (formats.tree passes over such names).
    `target` may be there if it is empty. Raises TargetTaken. Of what a killed command left, a
    clone waits for `take_up`; the rest is removed.
    """
    target = target.absolute()
    prefix = _prefix(target, what)
    there = os.path.lexists(target)
    if there:
        finish_moving(target, what)
        _check_free(target)
    directories = make_durable(target.parent)
    # In it if it is there, as it may be another disk, or where the user's shell stands.
    parent = target if there else target.parent
    try:
        with unfinished.building(parent, prefix, swept=what != "clone") as building:
            yield building
            if there:
                _check_free(target)
                _move_into(building.path, target)
            else:
                _become(building.path, target)
            sync_directory(parent)
    except BaseException:
        for folder in reversed(directories):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def wait_for_others(target: Path) -> None:
    """Return once no other process of this user is making a clone at `target`."""
    for parent in (target, target.parent):
        while unfinished.wait_for_others(parent, _prefix(target, "clone")):
            pass


def take_up(target: Path, directory: Path, url: str) -> None:
    """Move what killed clones of `url` to `target` had received to the quarantine in `directory`.

    Nothing else of theirs is used, and that is verified again as it is admitted.
    """

    def take(left: Path) -> None:
        theirs = left / layout.DIRECTORY
        if not is_real_directory(theirs) or _origin(theirs) != url:
            return
        incoming = directory / layout.INCOMING
        incoming.mkdir(exist_ok=True)
        for folder in (theirs / layout.INCOMING, theirs / layout.PACKS):
            if is_real_directory(folder):
                for path in folder.iterdir():
                    if parse_pack_name(path.name) is not None:
                        plain_status(path)
                        reached("clone.take")
                        path.rename(incoming / path.name)
        for session in (theirs / layout.TMP).glob(f"*{SESSIONS}"):
            if is_real_directory(session):
                session.rename(directory / layout.TMP / session.name)

    for parent in (target, target.parent):
        with contextlib.suppress(UnsafeRepository):
            unfinished.sweep(parent, _prefix(target, "clone"), take)


def received_anything(building: Path) -> bool:
    """Whether a clone in the making has packs that would have to come again."""
    directory = building / layout.DIRECTORY
    folders = (directory / layout.INCOMING, directory / layout.PACKS)
    return any(next(folder.glob(f"*{SUFFIX}"), None) is not None for folder in folders)


def finish_moving(target: Path, what: str) -> None:
    """Bring into `target` what a killed command, done otherwise, had still to move there."""

    def take(left: Path) -> None:
        if status_of(left / _WHOLE) is not None:
            _move_into(left, target)

    prefix = _prefix(target, what)
    if what != "clone" or any(
        status_of(left / _WHOLE) is not None for left in target.glob(f"{prefix}*")
    ):
        unfinished.sweep(target, prefix, take)


def _prefix(target: Path, what: str) -> str:
    return f".{target.name}.{what}-"


def _check_free(target: Path) -> None:
    """Raise TargetTaken unless there is an empty directory, but for what is being built in it."""
    if not target.is_dir() or any(
        not _UNFINISHED.fullmatch(path.name) for path in target.iterdir()
    ):
        raise _taken(target)


def _taken(target: Path) -> TargetTaken:
    return TargetTaken(
        f"{quoted(str(target))} is there and not empty", "name a new directory, or an empty one"
    )


def _become(building: Path, target: Path) -> None:
    reached("clone.rename")
    try:
        building.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _taken(target) from error  # another process was faster
        raise


def _move_into(building: Path, target: Path) -> None:
    # From here on what is not moved yet belongs there, whoever moves it.
    reached("clone.whole")
    (building / _WHOLE).touch()
    # The repository last: a directory has one when its files are in place.
    for entry in sorted(building.iterdir(), key=lambda it: it.name == layout.DIRECTORY):
        if entry.name != _WHOLE and not os.path.lexists(target / entry.name):
            reached("clone.rename")
            entry.rename(target / entry.name)


def _origin(directory: Path) -> str | None:
    """The URL that a clone in the making is of."""
    try:
        text = read_plain(directory / layout.CONFIG).decode()
        return config.parse(text).remote[DEFAULT_REMOTE].url
    except (OSError, UnicodeDecodeError, MergepipeError, KeyError):
        return None


def first_branch(there: RemoteRefs, wanted: str | None) -> str:
    """The branch (full name) a clone begins on: the one asked for, or where HEAD is there.

    Perhaps without a commit, if there is none at all.
    """
    if wanted is not None:
        return wanted if wanted.startswith(HEADS) else HEADS + wanted
    default = HEADS + layout.DEFAULT_BRANCH
    candidates = [there.head, default, *there.branches]
    return next(
        (candidate for candidate in candidates if candidate in there.branches),
        there.head or default,
    )


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
