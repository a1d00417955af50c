"""Where a process keeps its unfinished files: a folder of `tmp/`, held by a lock while it lives."""

import contextlib
import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path

from mergepipe.bytestore import flocks
from mergepipe.bytestore.sharing import make_folder
from mergepipe.bytestore.untrusted import beneath, is_real_directory

FOLDER = "tmp"
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SESSION = re.compile(r"[0-9]+-[0-9a-z]+")


class Sessions:
    """The sessions of one byte store, one for each disk that it writes to. Not thread-safe."""

    def __init__(self, kind: str) -> None:
        """`kind` ends their names: what one kind leaves, no other removes."""
        self._kind = kind
        self._open: dict[Path, tuple[Path, int]] = {}  # with the descriptor that holds the lock
        self._counter = 0

    def begun(self, base: Path) -> bool:
        """Whether there is one below `base`."""
        return base in self._open

    def next_file(self, base: Path) -> Path:
        """A new file's name in the session below `base`, which begins if need be."""
        while base not in self._open:
            self._begin(base)
        self._counter += 1
        return self._open[base][0] / f"{self._counter:06d}"

    def end(self) -> None:
        """Remove them, and what is left in them."""
        while self._open:
            session, held = self._open.popitem()[1]
            with contextlib.suppress(FileNotFoundError):  # on a disk that is gone
                for leftover in session.iterdir():
                    leftover.unlink(missing_ok=True)
                session.rmdir()
            os.close(held)

    def forget(self) -> None:
        """In a forked child: they are the parent's."""
        for _, held in self._open.values():
            os.close(held)  # closing one copy leaves the parent's lock held
        self._open = {}

    def remove_dead(self, base: Path, rescue: Callable[[Path], None]) -> None:
        """Remove those below `base` whose process is gone; `rescue` sees each file before."""
        tmp = base / FOLDER
        if not is_real_directory(tmp):
            return
        ours = {session for session, _ in list(self._open.values())}
        for session in tmp.iterdir():
            if session in ours or not _SESSION.fullmatch(session.name.removesuffix(self._kind)):
                continue
            try:
                descriptor = os.open(session, _OPEN_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for leftover in session.iterdir():
                    rescue(leftover)
                    leftover.unlink(missing_ok=True)
                session.rmdir()
            except OSError:
                continue  # alive, or being removed by someone else
            finally:
                os.close(descriptor)

    def _begin(self, base: Path) -> None:
        session = beneath(base, f"{FOLDER}/{os.getpid()}-{os.urandom(4).hex()}{self._kind}")
        make_folder(session)
        with contextlib.suppress(FileNotFoundError):
            held = os.open(session, _OPEN_DIRECTORY)
            try:
                flocks.lock(held, fcntl.LOCK_EX, session)
            except BaseException:
                os.close(held)
                session.rmdir()
                raise
            # Someone tidying up may have removed it between the mkdir and the lock.
            if session.is_dir():
                self._open[base] = session, held
            else:
                os.close(held)
