"""The files of a checkpoint on disk: which they are, and reading them while nobody changes them.

Links to regular files are read through, because the Hugging Face cache is made of them; a link to a
directory, a dangling link and anything that is no regular file is refused.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from msgspec import Struct
from msgspec.structs import replace

from mergepipe.bytestore.whole_calls import fill_at
from mergepipe.errors import (
    IncompleteCheckpoint,
    MalformedFile,
    MergepipeError,
    SourceChanged,
    UnsafePath,
)
from mergepipe.formats.export_folders import is_unfinished_export
from mergepipe.formats.ignore import IGNORE_FILE, IgnoreRules
from mergepipe.missing_paths import nearest_path
from mergepipe.names import quoted
from mergepipe.objects.paths import check_path, check_paths
from mergepipe.repository.layout import DIRECTORY

_SKIPPED = (DIRECTORY, ".git")
# What a killed init, clone or merge --out was making (repository.layout, transfer.clone).
_UNFINISHED_REPOSITORY = re.compile(r"\..+\.(?:init|clone|merge)-[0-9a-f]{16}")


class SourceFile(Struct, frozen=True):
    """A regular file as it was found. `path` is its place in the snapshot, `size` is in bytes."""

    path: str
    location: Path
    size: int
    executable: bool
    mtime_ns: int
    inode: int


def scan(root: Path) -> tuple[SourceFile, ...]:
    """All files under `root`, or the lone file `root`, sorted by the UTF-8 bytes of their paths.

    Leaves out empty directories, `.mergepipe` and `.git` at any level, what `.mpignore` names, and
    what a killed checkout, init or clone left. Raises UnsafePath for a path or kind of file that no
    snapshot may hold and for what lies inside a repository, IncompleteCheckpoint for a dangling
    link, MergepipeError for what cannot be read.
    """
    _refuse_repository(root)
    if not root.is_dir():
        return (scan_file(root),)
    files: list[SourceFile] = []
    pending = [("", root, IgnoreRules())]
    while pending:
        directory, location, rules = pending.pop()
        entries = _list(location)
        if (
            any(entry.name == IGNORE_FILE for entry in entries)
            and (location / IGNORE_FILE).is_file()
        ):
            rules = rules.entering(directory, location / IGNORE_FILE)
        for entry in entries:
            path = directory + entry.name
            if entry.name in _SKIPPED or _is_unfinished(entry.name):
                continue
            is_directory = entry.is_dir(follow_symlinks=False)
            if rules.ignores(f"{path}/" if is_directory else path):
                continue
            check_path(path)
            if is_directory:
                pending.append((f"{path}/", Path(entry.path), rules))
            else:
                files.append(_source(path, Path(entry.path)))
    check_paths(file.path for file in files)
    return tuple(sorted(files, key=lambda file: file.path.encode("utf-8")))


def scan_several(paths: Iterable[Path], root: Path) -> tuple[SourceFile, ...]:
    """The files at several places as one model, sorted: below `root` as they lie there.

    Others have their own names, and files of a folder that name before theirs. Raises as `scan`
    does, and UnsafePath where two files would have one path.
    """
    by_path: dict[str, SourceFile] = {}
    top = root.resolve()
    for location in paths:
        place = location.resolve()
        name = place.relative_to(top).as_posix() if place.is_relative_to(top) else place.name
        prefix = "" if name == "." else f"{name}/"
        files = scan(location)
        for file in files:
            path = f"{prefix}{file.path}" if location.is_dir() else name
            there = by_path.setdefault(path, replace(file, path=check_path(path)))
            if there.location.resolve() != file.location.resolve():
                raise UnsafePath(f"{there.location} and {file.location} would both be {path}")
    check_paths(by_path)
    return tuple(sorted(by_path.values(), key=lambda file: file.path.encode("utf-8")))


def scan_file(location: Path, path: str | None = None) -> SourceFile:
    """One file, to be stored as `path` (by default under its own name). Raises as `scan` does."""
    return _source(check_path(location.name if path is None else path), location)


class StableReader:
    """A source file open for reading; every read is checked to be whole. For any thread."""

    def __init__(self, source: SourceFile, descriptor: int) -> None:
        self.source = source
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The descriptor, for hints to the kernel."""
        return self._descriptor

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill all of `out` (bytes) from `offset`. Raises SourceChanged if the file is shorter."""
        try:
            count = fill_at(self._descriptor, out, offset)
        except OSError as error:
            _unreadable(self.source.location, error)
        if count < len(out):
            _changed(self.source, "it is shorter than it was")

    def check(self) -> None:
        """Raise SourceChanged if the file is not as it was when it was found."""
        now = os.fstat(self._descriptor)
        for what, before, after in (
            ("file", self.source.inode, now.st_ino),
            ("size", self.source.size, now.st_size),
            ("modification time", self.source.mtime_ns, now.st_mtime_ns),
        ):
            if before != after:
                _changed(self.source, f"its {what} was {before} and is {after}")


@contextmanager
def open_stable(source: SourceFile) -> Iterator[StableReader]:
    """Open a file for reading; on entry and on exit, check that it is as it was when found.

    If it has changed, SourceChanged replaces any error of ours that the body raised, because that
    error describes bytes that never stood in the file together. Raises MergepipeError if it cannot
    be read.
    """
    try:
        # O_NONBLOCK: a fifo that took the file's place must not make us wait for its writer.
        descriptor = os.open(source.location, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        _changed(source, "it is gone")
    except OSError as error:
        _unreadable(source.location, error)
    try:
        reader = StableReader(source, descriptor)
        reader.check()
        try:
            yield reader
        except MergepipeError:
            reader.check()
            raise
        reader.check()
    finally:
        os.close(descriptor)


def read_source(source: SourceFile, limit_bytes: int) -> bytes:
    """A small file as a whole. Raises MalformedFile if it is larger than `limit_bytes`."""
    if source.size > limit_bytes:
        raise MalformedFile(
            f"{quoted(source.path)} has {source.size} bytes; {limit_bytes} are allowed"
        )
    content = bytearray(source.size)
    with open_stable(source) as reader:
        reader.read_into(0, memoryview(content))
    return bytes(content)


def read_start(source: SourceFile, limit_bytes: int) -> bytes:
    """The first bytes of a file, at most `limit_bytes`."""
    content = bytearray(min(source.size, limit_bytes))
    with open_stable(source) as reader:
        reader.read_into(0, memoryview(content))
    return bytes(content)


def _is_unfinished(name: str) -> bool:
    """Whether only a killed command leaves something of this name behind."""
    return is_unfinished_export(name) or _UNFINISHED_REPOSITORY.fullmatch(name) is not None


def _refuse_repository(location: Path) -> None:
    """Raise UnsafePath for a repository's own directory and for whatever lies in one."""
    resolved = location.resolve()
    for folder in (resolved, *resolved.parents):
        # A clone in the making has a worktree, so its directory may be looked into.
        if folder.name == DIRECTORY or folder.name.startswith(f"{DIRECTORY}.init-"):
            raise UnsafePath(
                f"{quoted(str(location))} is a repository's own, or lies in one",
                f"name the directory of the model, which is beside {DIRECTORY}",
            )


def _list(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError as error:
        _unreadable(directory, error)


def _source(path: str, location: Path) -> SourceFile:
    try:
        status = location.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        if location.is_symlink():
            raise IncompleteCheckpoint(
                f"{quoted(path)} links to {quoted(str(location.readlink()))}, which is not there",
                f"fetch it again, remove the link, or name it in {IGNORE_FILE}",
            ) from error
        raise MergepipeError(
            f"there is no {quoted(str(location))}",
            nearest_path(location, "name the directory of a model, or a file"),
        ) from error
    except OSError as error:  # ELOOP among others
        _unreadable(location, error)
    if stat.S_ISDIR(status.st_mode):
        raise UnsafePath(
            f"{quoted(path)} is a link to a directory",
            f"copy the directory here, commit it by its own path, or name it in {IGNORE_FILE}",
        )
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePath(
            f"{quoted(path)} is a {_kind(status.st_mode)}, not a regular file",
            f"remove it or name it in {IGNORE_FILE}",
        )
    if location.is_symlink():
        _refuse_repository(location)
    if not os.access(location, os.R_OK):
        raise MergepipeError(f"cannot read {quoted(str(location))}: permission denied")
    return SourceFile(
        path=path,
        location=location,
        size=status.st_size,
        executable=bool(status.st_mode & stat.S_IXUSR),
        mtime_ns=status.st_mtime_ns,
        inode=status.st_ino,
    )


def _kind(mode: int) -> str:
    for test, kind in (
        (stat.S_ISFIFO, "fifo"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISBLK, "block device"),
    ):
        if test(mode):
            return kind
    return "device"


def _unreadable(location: Path, error: OSError) -> NoReturn:
    raise MergepipeError(f"cannot read {quoted(str(location))}: {error.strerror}") from error


def _changed(source: SourceFile, how: str) -> NoReturn:
    raise SourceChanged(
        f"{quoted(source.path)} changed while it was being read: {how}",
        "wait until nobody writes to it, then commit again",
    )
