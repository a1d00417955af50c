"""Moving the packs of a repository, or its index, to another disk and back.

Whoever is killed in between types the same command again. docs/format.md, "On another disk".
"""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from mergepipe.bytestore.elsewhere import (
    LARGE,
    MARKER,
    POINTER,
    Elsewhere,
    check_place,
    marker,
    parse_pointer,
    read_marker,
)
from mergepipe.bytestore.local import LocalByteStore, raise_if_full, sync_directory
from mergepipe.bytestore.sharing import is_shared, make_folder, share_tree
from mergepipe.bytestore.untrusted import (
    check_tree,
    is_real_directory,
    open_plain,
    status_of,
)
from mergepipe.bytestore.whole_calls import write_all_at
from mergepipe.errors import ConfigError, NotMounted, UnsafeRepository, UsageError
from mergepipe.names import quoted
from mergepipe.packs import index_files
from mergepipe.packs.reader import SUFFIX
from mergepipe.progress import SILENT, Progress
from mergepipe.repository import config, config_edits, layout, locks
from mergepipe.repository.incoming import SESSIONS

PACKS, INDEX = "store.packs", "store.index"
SETTINGS = (PACKS, INDEX)

_COPIED_BYTES = 1 << 20
_INCOMING_INDEX = (f"{layout.INCOMING}/index/", f"{layout.INCOMING}/index.lock")


def check_target(directory: Path, target: Path) -> Path:
    """A directory that may become one of the repository at `directory`, as it is stored.

    It is new, empty, or that repository's already. Raises UsageError, UnsafeRepository.
    """
    target = target.absolute()
    if b"\n" in os.fsencode(target):
        raise UsageError(f"{quoted(str(target))} has a line end in its name", "choose another name")
    target = Path(os.path.realpath(target.parent)) / target.name
    home = directory.parent if directory.name == layout.DIRECTORY else directory
    if target.is_relative_to(os.path.realpath(home)):
        raise UsageError(
            f"{quoted(str(target))} is inside the repository's directory",
            "name a directory of its own, outside of what commits take",
        )
    status = status_of(target)
    if status is None:
        if not target.parent.is_dir():
            raise UsageError(
                f"no directory {quoted(str(target.parent))}", "mount the disk, or make it"
            )
        return target
    if not target.is_dir() or target.is_symlink():
        raise UsageError(f"{quoted(str(target))} is no directory", "name a new directory")
    if status_of(target / MARKER) is None and any(target.iterdir()):
        raise UsageError(
            f"{quoted(str(target))} is not empty", "name a new directory in it, or an empty one"
        )
    return target


def relocate(
    directory: Path,
    setting: str,
    target: Path | None,
    *,
    lock_timeout_s: float = 10.0,
    progress: Progress = SILENT,
) -> None:
    """Have the packs (`store.packs`) or the index (`store.index`) in `target`; None: in its own.

    Waits for every process that is writing. Raises Locked, NoSpace, UsageError, UnsafeRepository,
    NotMounted where packs would have to come from a disk that is not there.
    """
    check_tree(directory)
    if os.lstat(directory).st_uid != os.geteuid():
        raise UnsafeRepository(
            f"{quoted(str(directory))} belongs to another user",
            "its owner says on which disk its packs are",
        )
    config.load(directory / layout.CONFIG)
    target = None if target is None else check_target(directory, target)
    with locks.acquire(directory / layout.STORE_LOCK, timeout_s=lock_timeout_s):
        said = parse_pointer(directory)
        before = said.packs if setting == PACKS else said.index
        if target is None and before is None:
            raise ConfigError(f"{setting} is not set", "`mp config` lists what is")
        repository = said.repository or os.urandom(16).hex()
        if not said.repository:  # before a directory is marked with it: that may be cut short
            with _own_files(directory) as files:
                files.put(POINTER, Elsewhere(repository).encode())
        if target is not None:
            _claim(directory, repository, target)
        theirs: Path | None = None
        if setting == PACKS:
            after = replace(said, repository=repository, packs=target)
            theirs = _source(directory, said, before, target)
            _copy_packs(directory, theirs, target, progress)
        else:
            with suppress(NotMounted, UnsafeRepository):
                theirs = _source(directory, said, before, target)
            after = replace(said, repository=repository, index=target)
        _note(directory, after)
        for source in _sources(directory, theirs, target):
            if setting == PACKS:
                _remove_packs(source, target or directory, unfinished=source != directory)
            else:
                _remove_indexes(source)
            if source != directory and source not in (after.packs, after.index):
                _leave(source)


def _source(
    directory: Path, said: Elsewhere, before: Path | None, target: Path | None
) -> Path | None:
    """The directory of another disk to move things from, if there is one and it is ours.

    Raises UnsafeRepository, and NotMounted unless that disk is mounted at `target` now.
    """
    if before is None or before == target:
        return None
    try:
        check_place(directory, said.repository, before)
    except NotMounted:
        if target is None or not any((target / layout.PACKS).glob(f"*{SUFFIX}")):
            raise
        return None
    return before


def _sources(directory: Path, theirs: Path | None, target: Path | None) -> list[Path]:
    """Where things are moved from; from the repository itself, too, if a move was cut short."""
    places = [] if target is None else [directory]
    return places if theirs is None else [theirs, *places]


def _claim(directory: Path, repository: str, target: Path) -> None:
    """Make a directory that repository's, or leave it so. Raises UnsafeRepository, UsageError."""
    target.mkdir(exist_ok=True)
    named, at = "", b""
    with suppress(FileNotFoundError):
        named, at = read_marker(target)
    if named and named != repository:
        raise UsageError(
            f"{quoted(str(target))} belongs to another repository, at {quoted(os.fsdecode(at))}",
            "name a new directory",
        )
    theirs = Path(os.fsdecode(at)) if at else directory
    here = Path(os.path.realpath(directory))
    if named and theirs != here and status_of(theirs / POINTER) is not None:
        raise UsageError(
            f"{quoted(str(target))} belongs to the repository at {quoted(str(theirs))}, "
            "which is there still",
            "this one is a copy, and has no packs of its own: mp clone that one",
        )
    check_tree(target)
    if not named or theirs != here:
        descriptor = os.open(
            target / MARKER,
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o666,
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(marker(directory, repository))
            file.flush()
            os.fsync(descriptor)
        sync_directory(target)
        sync_directory(target.parent)
    if is_shared(directory):
        share_tree(target, directory.stat().st_gid)


def _own_files(base: Path) -> LocalByteStore:
    """The files that lie in a directory itself, whatever it says of others."""
    return LocalByteStore(base, elsewhere=Elsewhere())


def _note(directory: Path, after: Elsewhere) -> None:
    """Write where packs and index are from now on."""
    text = config_edits.with_format(config.read_text(directory / layout.CONFIG))
    changes = [
        (POINTER, after.encode()),
        (layout.CONFIG, config_edits.with_feature(text, POINTER, bool(after.places())).encode()),
    ]
    # A release that knows nothing of it is told before there is anything to know.
    for key, value in reversed(changes) if after.places() else changes:
        with _own_files(directory) as files:
            files.put(key, value)


def _copy_packs(
    directory: Path, before: Path | None, target: Path | None, progress: Progress
) -> None:
    """Bring to `target`, or to the repository itself, what is large and not there yet."""
    if before is not None:
        check_tree(before)
    with _own_files(target or directory) as there:
        make_folder(there.folder(f"{layout.PACKS}/"))
        make_folder(there.folder(f"{layout.TMP}/"))
        for source in _sources(directory, before, target):
            for kind in ("", SESSIONS):
                with LocalByteStore(source, kind, elsewhere=Elsewhere()) as left:
                    left.remove_dead_sessions()
            with _own_files(source) as here:
                keys = list(_large(here))
                missing = [key for key in keys if there.size(key) != here.size(key)]
                progress.start("move", sum(here.size(key) or 0 for key in missing))
                for key in missing:
                    _copy(here, there, key, progress)


def _large(files: LocalByteStore) -> Iterator[str]:
    """Keys of what lies where packs do, but what is unfinished and what is made again."""
    for folder in LARGE:
        if folder != layout.TMP:
            for key in files.list(f"{folder}/"):
                if not key.startswith(_INCOMING_INDEX):
                    yield key


def _copy(here: LocalByteStore, there: LocalByteStore, key: str, progress: Progress) -> None:
    """Copy a file, holes (of promised packs) as holes, and make it durable."""
    status = here.status(key)
    source = open_plain(here.path(key), os.O_RDONLY)
    writer = there.create()
    try:
        size = os.fstat(source).st_size
        with writer.path.open("r+b") as file:
            for offset, length in _extents(source, size):
                while length:
                    data = os.pread(source, min(length, _COPIED_BYTES), offset)
                    write_all_at(file.fileno(), data, offset)
                    offset, length = offset + len(data), length - len(data)
                    progress.advance(len(data))
            file.truncate(size)
        writer.sync()
        there.publish([(writer, key)])
    except OSError as error:
        writer.abort()
        raise_if_full(error, str(there.root))
        raise
    except BaseException:
        writer.abort()
        raise
    finally:
        os.close(source)
    if status is not None:
        there.date(key, status.st_mtime)


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Offsets and lengths of what a file holds between its holes."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, end - begin


def _remove_packs(source: Path, target: Path, *, unfinished: bool) -> None:
    """Remove what is large from a directory, as far as it is in the other one."""
    with _own_files(source) as here, _own_files(target) as there:
        for key in list(_large(here)):
            if there.size(key) == here.size(key):
                here.delete(key)
    for folder in LARGE:
        if unfinished or folder != layout.TMP:
            _remove_empty(source / folder)


def _remove_indexes(source: Path) -> None:
    """Remove the files of indexes, which are made again."""
    remotes = source / layout.REMOTES
    names = sorted(remotes.iterdir()) if is_real_directory(remotes) else []
    for folder in (source, source / layout.INCOMING, *names):
        if is_real_directory(folder) and is_real_directory(folder / layout.INDEX):
            index_files.empty(folder / layout.INDEX)
            (folder / "index.lock").unlink(missing_ok=True)
            _remove_empty(folder / layout.INDEX)
    for folder in (*names, remotes, source / layout.INCOMING):
        _remove_empty(folder)


def _leave(source: Path) -> None:
    """A directory of another disk is the repository's no more, unless something is left in it."""
    _remove_empty(source / layout.TMP)
    if all(entry.name == MARKER for entry in source.iterdir()):
        (source / MARKER).unlink(missing_ok=True)
        _remove_empty(source)


def _remove_empty(folder: Path) -> None:
    for each, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(each).rmdir()
