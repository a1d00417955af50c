"""The reflog: where each ref pointed, one line per move (docs/format.md, "Refs and the reflog")."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from mergepipe.bytestore.local import sync_directory
from mergepipe.bytestore.sharing import make_folder
from mergepipe.bytestore.untrusted import (
    beneath,
    is_real_directory,
    open_to_change,
    read_plain,
)
from mergepipe.bytestore.whole_calls import read_at, write_all
from mergepipe.bytestore.whole_disk import WholeDisk
from mergepipe.failpoints import reached
from mergepipe.ids import NO_ID, ObjectId

_LINE = re.compile(
    r"(?P<old>[0-9a-f]{64}) (?P<new>[0-9a-f]{64}) (?P<time>-?[0-9]{1,19}) "
    r"(?P<sign>[+-])(?P<hours>[0-9]{2})(?P<minutes>[0-9]{2}) (?P<author>[^\t]*)\t(?P<why>.*)"
)
_HEX_ID = re.compile(r"[0-9a-f]{64}")
# What would break a line or a field, and what a terminal might obey.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Signature(Struct, frozen=True):
    """Who moved a ref and when: `time` in Unix seconds, `utc_offset` in minutes."""

    author: str
    time: int
    utc_offset: int


class ReflogEntry(Struct, frozen=True):
    """One move of a ref. `old` or `new` is None where the ref was made or removed."""

    old: ObjectId | None
    new: ObjectId | None
    who: Signature
    why: str

    def encode(self) -> bytes:
        """The entry as a line of the log, line end included."""
        sign = "-" if self.who.utc_offset < 0 else "+"
        hours, minutes = divmod(abs(self.who.utc_offset), 60)
        author, why = (_CONTROL.sub(" ", text).strip() for text in (self.who.author, self.why))
        line = (
            f"{(self.old or NO_ID).hex()} {(self.new or NO_ID).hex()} {self.who.time} "
            f"{sign}{hours:02d}{minutes:02d} {author}\t{why}\n"
        )
        return line.encode(errors="backslashreplace")


def parse_line(line: str) -> ReflogEntry | None:
    """The entry that `line` (without its end) holds, or None if it holds none."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    minutes = 60 * int(match["hours"]) + int(match["minutes"])
    who = Signature(
        match["author"], int(match["time"]), -minutes if match["sign"] == "-" else minutes
    )
    return ReflogEntry(_id(match["old"]), _id(match["new"]), who, match["why"])


def _id(text: str) -> ObjectId | None:
    value = bytes.fromhex(text)
    return None if value == NO_ID else ObjectId(value)


def settled(entries: Sequence[ReflogEntry], current: ObjectId | None) -> list[ReflogEntry]:
    """Those of `entries` (newest first) that happened, given where the ref is now.

    A crash between the log line and the ref leaves a line about a move that never was: the ref
    stayed where that line begins. `ref@{n}` must not count it.
    """
    happened = []
    expected = current
    for entry in entries:
        if entry.new != expected and entry.old == expected:
            continue
        happened.append(entry)
        expected = entry.old
    return happened


def _since(lines: Sequence[str], moment: int) -> list[str]:
    """The lines that stay when moves before a moment go."""
    kept = []
    for number, line in enumerate(lines, 1):
        entry = parse_line(line)
        last = number == len(lines) and entry is not None and entry.new is not None
        if entry is None or last or entry.who.time >= moment:
            kept.append(line)
    return kept


class Reflog:
    """The logs of one repository. Callers hold its `lock` while they append or remove."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> list[ReflogEntry]:
        """All entries of a ref (or `HEAD`), newest first; empty if it has no log.

        A last line without its end is the trace of a crash and is left out, and so is a damaged
        line: `damaged` tells of it.
        """
        entries = (parse_line(line) for line in self._lines(name))
        return [entry for entry in entries if entry is not None][::-1]

    def damaged(self, name: str) -> int | None:
        """The number of the first line that is no entry, from 1; None if all are."""
        lines = enumerate(self._lines(name), 1)
        return next((number for number, line in lines if parse_line(line) is None), None)

    def mentioned(self, since: int = 0) -> Iterator[ObjectId]:
        """Every id that stands in any log, in damaged lines too.

        Of moves before `since` (Unix seconds) only where each ref went last.
        """
        for name in self.names():
            for line in _since(self._lines(name), since):
                entry = parse_line(line)
                if entry is not None and entry.who.time < since:
                    if entry.new is not None:
                        yield entry.new
                    continue
                for match in _HEX_ID.finditer(line):
                    if (identity := _id(match[0])) is not None:
                        yield identity

    def mend(self, name: str) -> Path:
        """Leave damaged lines out from now on; returns where the log as it was is kept."""
        path = self._path(name)
        data = read_plain(path)
        lines = [line for line in self._lines(name) if parse_line(line) is not None]
        kept = self._folder.parent / "quarantine" / f"{name.replace('/', '-')}-{os.getpid()}.log"
        make_folder(kept.parent)
        _replace(kept, data)
        _replace(path, "".join(f"{line}\n" for line in lines).encode())
        return kept

    def expire(self, name: str, before: int) -> int:
        """Drop moves before a moment (Unix seconds), but the last one; returns how many.

        That one goes, too, if it says that the ref was removed. Damaged lines stay: `mend` is for
        them.
        """
        lines = self._lines(name)
        kept = _since(lines, before)
        if len(kept) < len(lines):
            _replace(self._path(name), "".join(f"{line}\n" for line in kept).encode())
        return len(lines) - len(kept)

    def _lines(self, name: str) -> list[str]:
        try:
            data = read_plain(self._path(name))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return []
        return data.decode(errors="replace").split("\n")[:-1]

    def names(self) -> Iterator[str]:
        """Every ref that has a log, `HEAD` included, sorted by folder."""
        if not is_real_directory(self._folder):
            return
        for folder, folders, files in os.walk(self._folder):
            folders.sort()
            for name in sorted(files):
                if name.endswith(".lock"):  # no ref is called that: a copy under way
                    continue
                yield (Path(folder) / name).relative_to(self._folder).as_posix()

    def append(self, name: str, entry: ReflogEntry) -> None:
        """Add an entry and return once it is durable."""
        self.append_all([(name, entry)])

    def append_all(self, entries: Sequence[tuple[str, ReflogEntry]]) -> None:
        """Add entries to the logs of refs, and return once all are durable."""
        lines: dict[str, list[bytes]] = {}
        for name, entry in entries:
            lines.setdefault(name, []).append(entry.encode())
        with WholeDisk(self._folder.parent, len(lines)) as disk:
            changed: dict[Path, None] = {}
            for name, new in lines.items():
                changed |= dict.fromkeys(self._write(name, b"".join(new), sync=not disk.at_once))
            if disk.at_once:
                disk.sync()
            else:
                # New files' names, and those of new folders above them, must survive a crash too.
                for folder in changed:
                    sync_directory(folder)

    def _write(self, name: str, lines: bytes, *, sync: bool) -> Sequence[Path]:
        """Add lines to a log; returns the folders that have new names."""
        path = self._path(name)
        changed = self._make_room(path)
        descriptor = open_to_change(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            reached("reflog.write")
            _cut_torn_line(descriptor)
            write_all(descriptor, lines)
            if sync:
                reached("reflog.sync")
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return changed

    def remove(self, name: str) -> None:
        """Forget the log of a ref that is gone, and folders that are empty without it."""
        path = self._path(name)
        reached("reflog.remove")
        # What stands where its folder was, or in its place, is the log of another ref.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()
        for folder in path.parents:
            if folder == self._folder:
                break
            try:
                folder.rmdir()
            except OSError:
                break

    def _path(self, name: str) -> Path:
        return beneath(self._folder.parent, f"{self._folder.name}/{name}")

    def _make_room(self, path: Path) -> Sequence[Path]:
        """Folders in which there are new names with a new file, the innermost first.

        Logs in its way are of refs removed just before a crash.
        """
        if path.is_file():
            return ()
        if path.is_dir():
            shutil.rmtree(path)
        if path.parent.is_dir():
            return (path.parent,)
        for folder in path.parents:
            if folder == self._folder:
                break
            if folder.is_file():
                folder.unlink()
        missing = [folder for folder in path.parents if not folder.is_dir()]
        make_folder(path.parent)
        return [path.parent, *(folder.parent for folder in missing)]


def _replace(path: Path, content: bytes) -> None:
    """Put a file in place of another, durably and at once."""
    beside = path.with_name(f"{path.name}.lock")
    descriptor = open_to_change(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    sync_directory(path.parent)


def _cut_torn_line(descriptor: int) -> None:
    """Drop what follows the last line end: a crash interrupted that line."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    data = read_at(descriptor, size, 0)
    os.ftruncate(descriptor, data.rfind(b"\n") + 1)
