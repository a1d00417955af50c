"""A disk that forgets: what a power cut may leave of what a program wrote.

Fed with a program's system calls, it knows which bytes and which names are durable: bytes after an
fsync of their file (or a write through O_DSYNC), names after an fsync of their directory, and both
after a syncfs. All else may survive or not, each write and each name on its own.
"""

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

Survives = Callable[[], bool]


@dataclass(slots=True)
class File:
    """Bytes: those that are durable, and the writes since, in order."""

    executable: bool = False
    durable: bytes = b""
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)  # write, or truncation

    def content(self, survives: Survives) -> bytes:
        data = bytearray(self.durable)
        for change in self.pending:
            if not survives():
                continue
            if isinstance(change, int):
                del data[change:]
                data.extend(bytes(change - len(data)))
            else:
                offset, new = change
                data.extend(bytes(max(0, offset - len(data))))
                data[offset : offset + len(new)] = new
        return bytes(data)

    def sync(self) -> None:
        self.durable = self.content(lambda: True)
        self.pending.clear()


@dataclass(slots=True)
class Folder:
    """Names: those that are durable, and the changes since, in order; None removes a name."""

    durable: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[tuple[str, "File | Folder | None"]] = field(default_factory=list)

    def entries(self, survives: Survives) -> dict[str, "File | Folder"]:
        found = dict(self.durable)
        for name, entry in self.pending:
            if not survives():
                continue
            if entry is None:
                found.pop(name, None)
            else:
                found[name] = entry
        return found

    def sync(self) -> None:
        self.durable = self.entries(lambda: True)
        self.pending.clear()


def load(path: Path) -> Folder:
    """What stands on the real disk, all of it durable."""
    folder = Folder()
    for entry in path.iterdir():
        if entry.is_dir():
            folder.durable[entry.name] = load(entry)
        else:
            executable = os.access(entry, os.X_OK)
            folder.durable[entry.name] = File(executable, entry.read_bytes())
    return folder


def store(folder: Folder, path: Path, survives: Survives) -> None:
    """Put on the real disk what is left after the power cut."""
    path.mkdir()
    for name, entry in folder.entries(survives).items():
        if isinstance(entry, Folder):
            store(entry, path / name, survives)
        else:
            (path / name).write_bytes(entry.content(survives))
            (path / name).chmod(0o755 if entry.executable else 0o644)


def nothing() -> bool:
    """Only what is durable survives."""
    return False


def everything() -> bool:
    """All survives, as after a SIGKILL."""
    return True


def some(seed: int) -> Survives:
    """Each write and name survives or not."""
    rng = random.Random(seed)
    share = rng.choice([0.2, 0.5, 0.8])
    return lambda: rng.random() < share


class Disk:
    """The tree below `root` (a real path), as system calls change it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = load(root)

    def parts(self, path: str) -> list[str] | None:
        """The names below the root, or None for a path elsewhere."""
        try:
            return list(Path(os.path.normpath(path)).relative_to(self.root).parts)
        except ValueError:
            return None

    def find(self, names: Iterable[str]) -> "File | Folder | None":
        at: File | Folder | None = self.top
        for name in names:
            if not isinstance(at, Folder):
                return None
            at = at.entries(everything).get(name)
        return at

    def folder(self, names: list[str]) -> Folder:
        found = self.find(names)
        assert isinstance(found, Folder), names
        return found

    def sync(self) -> None:
        """All of it is durable, as after syncfs."""
        _sync(self.top)

    def link(self, names: list[str], entry: "File | Folder | None") -> None:
        self.folder(names[:-1]).pending.append((names[-1], entry))


def _sync(entry: File | Folder) -> None:
    entry.sync()
    if isinstance(entry, Folder):
        for below in entry.durable.values():
            _sync(below)
