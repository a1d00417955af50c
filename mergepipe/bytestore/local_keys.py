"""Keys as files of a directory, and of the other disks that it uses: where each is, and which are.

A folder of keys lies on one disk as a whole (`elsewhere.LARGE` says which), so that a rename never
crosses from one to another.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mergepipe.bytestore.elsewhere import LARGE, MARKER, POINTER, Elsewhere, base_of, require
from mergepipe.bytestore.untrusted import beneath, is_real_directory, status_of
from mergepipe.errors import MergepipeError


class LocalKeys:
    """The keys below `root`, of which `elsewhere` says what lies on other disks."""

    def __init__(self, root: Path, elsewhere: Elsewhere) -> None:
        self._root = root
        self._elsewhere = elsewhere
        self._stamp = _stamp(root)

    @property
    def on_one_disk(self) -> bool:
        """Whether all of them lie in one directory."""
        return self._elsewhere.packs is None

    def base(self, key: str) -> Path:
        """The directory below which a key lies."""
        return base_of(self._elsewhere, self._root, key)

    def path(self, key: str) -> Path:
        """The file that holds the value of a key, or would. Raises MergepipeError for no key."""
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in key:
            raise MergepipeError(f"not a key: {key!r}")
        return beneath(self.base(key), key)

    def check_disks(self) -> None:
        """Raise MergepipeError unless what is large is where it was when this was made."""
        if _stamp(self._root) != self._stamp:
            raise MergepipeError(
                f"the packs or the index of {self._root} were moved to another disk meanwhile",
                "do it again; a server has to be started again",
            )
        if self._elsewhere.packs is not None:
            require(self._elsewhere.packs)

    def after(self, prefix: str, after: str) -> Iterator[str]:
        """Keys under the folder `prefix` that come after a key, sorted.

        Folders that lie before it are not entered. Raises OSError if one cannot be listed: an error
        must not look like an empty folder.
        """
        if not prefix or prefix.split("/", 1)[0] in LARGE:
            self.check_disks()  # a disk that is gone must not look like an empty folder, either
        pending = [prefix]
        while pending:
            key = pending.pop()
            if key and not key.endswith("/"):
                yield key
                continue
            try:
                if key and not is_real_directory(beneath(self.base(key), key.rstrip("/"))):
                    continue
                entries = self._entries(key)
            except (FileNotFoundError, NotADirectoryError):
                continue
            # "a.b" comes before "a/b": a folder is sorted with its slash, as its keys are.
            pending += sorted(
                (
                    entry
                    for entry in entries
                    if entry > after or (entry.endswith("/") and after.startswith(entry))
                ),
                reverse=True,
            )

    def within(self, folder: str) -> Sequence[str]:
        """Keys that lie in a folder itself, and folders (with a slash) in it; in no order."""
        try:
            if not is_real_directory(beneath(self.base(folder), folder.rstrip("/"))):
                return ()
            return self._entries(folder)
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def _entries(self, key: str) -> Sequence[str]:
        """Keys in a folder, those of folders with a slash; in no order."""
        keys = []
        for base in {self.base(key)} if key else {self._root, self.base(LARGE[0])}:
            with os.scandir(base / key) as entries:
                for entry in entries:
                    if key or (self.base(entry.name) == base and entry.name != MARKER):
                        slash = "/" if entry.is_dir(follow_symlinks=False) else ""
                        keys.append(f"{key}{entry.name}{slash}")
        return keys


def _stamp(root: Path) -> tuple[int, int] | None:
    """What changes when something is moved to another disk, or back."""
    status = status_of(root / POINTER)
    return None if status is None else (status.st_ino, status.st_mtime_ns)
