"""Files that were uploaded and belong to no commit yet, by their SHA-256, in a repository's `tmp`.

They are seen by nobody but the commit that names them. They go when it is made, when the server
ends (what a killed one leaves, the next command that writes removes), or after a day.
"""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from msgspec import Struct

from mergepipe.api import Repository
from mergepipe.bytestore.local import LocalWriter
from mergepipe.bytestore.protocol import Buffer
from mergepipe.errors import MergepipeError
from mergepipe.hub.errors import HubError

_KEPT_S = 24 * 3600.0


class StagedFile(Struct):
    """A file that is whole, and was what it was said to be."""

    sha256: str
    writer: LocalWriter
    size: int
    came: float
    used: int = 0
    """How many commits are reading it now."""
    lasting: bool = False
    """Whether it waits for a commit that is to come; else it goes with the last that reads it."""

    @property
    def location(self) -> Path:
        """Where it lies."""
        return self.writer.path

    def pieces(self, first: int, end: int, length: int) -> Iterator[bytes]:
        """Its bytes from one offset to another, at most `length` at a time."""
        with self.location.open("rb") as stream:
            stream.seek(first)
            while first < end:
                piece = stream.read(min(length, end - first))
                if not piece:
                    raise HubError(500, "what was uploaded is not there any more")
                first += len(piece)
                yield piece


class Upload:
    """A file on its way in. `write` and `finish` on any thread, one after the other."""

    def __init__(self, staging: "Staging", writer: LocalWriter, size: int | None) -> None:
        self._staging = staging
        self._writer = writer
        self._size = size
        self._sha256 = hashlib.sha256()
        self.written = 0

    def write(self, *pieces: Buffer) -> None:
        """Append bytes. Raises HubError once there are too many of them, NoSpace."""
        for piece in pieces:
            self._staging.claim(len(piece))
            self.written += len(piece)
            if self._size is not None and self.written > self._size:
                raise HubError(400, f"more than the {self._size:,} bytes that were announced")
            self._sha256.update(piece)
            self._writer.write(piece)

    def finish(self, sha256: str | None = None, *, lasting: bool = False) -> StagedFile:
        """Take the file for a commit, if it is whole; a lasting one stays when it is given back.

        Raises HubError for another than was told.
        """
        if self._size is not None and self.written != self._size:
            raise HubError(400, f"{self.written:,} bytes came, not the {self._size:,} announced")
        came = self._sha256.hexdigest()
        if sha256 is not None and came != sha256:
            raise HubError(400, f"what came has the SHA-256 {came}, not {sha256}")
        self._writer.seal()
        return self._staging.keep(
            StagedFile(
                sha256=came,
                writer=self._writer,
                size=self.written,
                came=self._staging.now(),
                used=1,
                lasting=lasting,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Forget all that came, if there was an error: `finish` comes last in here."""
        if kind is not None:
            self.abort()

    def abort(self) -> None:
        """Forget all that came."""
        self._staging.claim(-self.written)
        self._writer.abort()


class Staging:
    """The uploaded files of one repository; all methods from any thread."""

    def __init__(self, repository: Repository, now: Callable[[], float] = time.monotonic) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._files: dict[str, StagedFile] = {}
        self._bytes = 0
        self.now = now

    def begin(self, size: int | None) -> Upload:
        """A new file, of `size` bytes if that is known."""
        self._sweep()
        return Upload(self, self._repository.local.create(), size)

    def claim(self, count: int) -> None:
        """Bytes come (or go). Raises HubError (413) beyond what a repository takes in at once."""
        limit = self._repository.config.receive.limit
        with self._lock:
            if limit and count > 0 and self._bytes + count > limit:
                raise HubError(
                    413, f"more than {limit:,} bytes wait for a commit: receive.limit says so"
                )
            self._bytes += count

    def keep(self, file: StagedFile) -> StagedFile:
        """Have a file that is whole; where it is here already, that one is taken instead."""
        with self._lock:
            before = self._files.get(file.sha256)
            if before is None:
                self._files[file.sha256] = file
                return file
            before.came = file.came
            before.used += 1
            before.lasting = before.lasting or file.lasting
            self._bytes -= file.size
        file.writer.abort()
        return before

    def hold(self, sha256: str, size: int) -> bool:
        """Have a file wait for a commit; whether there is one of this size."""
        with self._lock:
            file = self._files.get(sha256)
            if file is None or file.size != size:
                return False
            file.lasting = True
            file.came = self.now()
            return True

    def take(self, sha256: str) -> StagedFile | None:
        """A file for a commit, which stays until it is given back; None if there is none."""
        with self._lock:
            file = self._files.get(sha256)
            if file is not None:
                file.used += 1
            return file

    def give_back(self, file: StagedFile, *, done: bool) -> None:
        """A commit has read a file; `done`: it is stored, and needed here no more."""
        with self._lock:
            file.used -= 1
            file.lasting = file.lasting and not done
            if file.lasting or file.used:
                return
            del self._files[file.sha256]
            self._bytes -= file.size
        file.writer.abort()

    def _sweep(self) -> None:
        """Remove what nobody committed in a day."""
        old = self.now() - _KEPT_S
        with self._lock:
            gone = [
                sha256 for sha256, file in self._files.items() if file.came < old and not file.used
            ]
            files = [self._files.pop(sha256) for sha256 in gone]
            self._bytes -= sum(file.size for file in files)
        for file in files:
            with contextlib.suppress(MergepipeError):
                file.writer.abort()
