"""A value on its way to another machine: kept here until its key is known and it can be sent."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from mergepipe.bytestore.local_writer import raise_if_full
from mergepipe.bytestore.protocol import Buffer
from mergepipe.bytestore.whole_calls import write_all

_IN_MEMORY_BYTES = 256 << 10
_PIECE_BYTES = 1 << 20


class SpoolWriter:
    """Bytes in an unnamed temporary file (in memory while they are few).

    Nothing is durable before publication: until then only this process knows of them.
    """

    def __init__(self) -> None:
        self._small = bytearray()
        self._file: BinaryIO | None = None
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    def write(self, *chunks: Buffer) -> None:
        """Append all of each chunk. Raises NoSpace if the temporary folder is full."""
        self._size += sum(memoryview(chunk).nbytes for chunk in chunks)
        if self._file is None and self._size <= _IN_MEMORY_BYTES:
            for chunk in chunks:
                self._small += chunk
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - abort closes it
                self._append(self._small)
                self._small = bytearray()
            for chunk in chunks:
                self._append(chunk)
        except OSError as error:
            raise_if_full(error, f"{tempfile.gettempdir()} (TMPDIR chooses another place)")
            raise

    def sync(self) -> None:
        """Nothing to do: publication is what makes the bytes durable."""

    def abort(self) -> None:
        """Forget the bytes."""
        self._small = bytearray()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    @property
    def descriptor(self) -> int | None:
        """The temporary file, to be read at offsets from 0; None while the bytes are in memory."""
        return None if self._file is None else self._file.fileno()

    def pieces(self, largest: int = _PIECE_BYTES) -> Iterator[memoryview]:
        """All bytes from the start, a piece at a time; each is valid until the next is made."""
        if self._file is None:
            view = memoryview(bytes(self._small))
            for at in range(0, len(view), largest):
                yield view[at : at + largest]
            return
        buffer = memoryview(bytearray(min(largest, self._size)))
        at = 0
        while at < self._size:
            count = os.preadv(self._file.fileno(), [buffer[: self._size - at]], at)
            if count == 0:
                raise OSError("a temporary file was cut off")
            at += count
            yield buffer[:count]

    def _append(self, chunk: Buffer) -> None:
        assert self._file is not None
        write_all(self._file.fileno(), chunk)
