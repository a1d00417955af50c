"""What around a repository decides whether it can be worked with: room, rights, who holds locks."""

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mergepipe.bytestore.untrusted import open_plain
from mergepipe.repository import layout

_WRITTEN = (layout.PACKS, layout.REFS, layout.LOGS, layout.INDEX, layout.TMP)


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A lock file that somebody holds; `process` is None where they left no id (shared holders)."""

    name: str
    process: int | None


@dataclass(frozen=True, slots=True)
class Health:
    """`free_bytes` of its file system; `unwritable`: what this user may not write to."""

    directory: Path
    free_bytes: int
    unwritable: tuple[str, ...]
    locks: tuple[HeldFile, ...]


def examine(directory: Path) -> Health:
    """Look at a repository without waiting for anybody and without changing anything."""
    places = [directory, *(directory / name for name in _WRITTEN)]
    unwritable = tuple(
        str(place.relative_to(directory.parent))
        for place in places
        if place.exists() and not os.access(place, os.W_OK | os.X_OK)
    )
    held = (_holder(directory / name) for name in (layout.LOCK, layout.STORE_LOCK))
    return Health(
        directory,
        shutil.disk_usage(directory).free,
        unwritable,
        tuple(each for each in held if each is not None),
    )


def _holder(path: Path) -> HeldFile | None:
    """Who holds a lock file; None if nobody does, or if it cannot be read."""
    try:
        descriptor = open_plain(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        # For an instant, and never in the way of a shared holder's neighbours: who wants it
        # exclusively tries again within a millisecond.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).strip()
        return HeldFile(path.name, int(text) if text.isdigit() else None)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None
