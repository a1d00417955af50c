"""Frames over a pipe, and the requests in them (docs/format-remote.md, "stdio").

A frame is `u32 length, u32 request number, u8 kind, payload`, little-endian; the length is that of
the payload. Descriptors are used without blocking, so that every wait has an end.
"""

import fcntl
import os
import select
import struct
import threading
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import msgspec

from mergepipe.bytestore.pace import Pace
from mergepipe.bytestore.protocol import Buffer
from mergepipe.errors import RemoteRefused

LARGEST_PAYLOAD = 256 << 10
HELLO = b"mergepipe 1"
AT_ONCE = 16
"""Requests that may be under way on one line."""

_HEADER = struct.Struct("<IIB")
_PIPE_BYTES = 1 << 20
# How soon a writer notices that its line was given up.
_LOOK_MS = 500


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 0
    REQUEST = 1
    DATA = 2
    """A piece of a request's or a reply's bytes. An empty one says: still at work."""
    END = 3
    """The end of a request's bytes."""
    REPLY = 4
    ERROR = 5


class Header(NamedTuple):
    """What stands before a payload."""

    length: int
    number: int
    kind: Kind


class LineEnded(ConnectionError):
    """The line is closed, from either end."""


class _Request(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A method by its name, then its arguments."""


class Get(_Request, frozen=True, tag="get"):
    """Reply: the length or nil; the bytes are its data."""

    key: str


class Read(_Request, frozen=True, tag="read"):
    """Reply: how many bytes; the bytes are its data. Error not_found if there is no such key."""

    key: str
    offset: int
    length: int


class Size(_Request, frozen=True, tag="size"):
    """Reply: the length, or nil."""

    key: str


class Keys(_Request, frozen=True, tag="keys"):
    """Reply: the length of its data, which is msgpack [key]; with `after`, a page of it."""

    prefix: str
    after: str | None = None


class Values(_Request, frozen=True, tag="values"):
    """Reply: the length of its data, which is msgpack {key: bytes}; with `after`, a page of it."""

    prefix: str
    after: str | None = None


class Publish(_Request, frozen=True, tag="publish"):
    """The value follows as data. Reply: nil."""

    key: str
    size: int


class Put(_Request, frozen=True, tag="put"):
    """The value follows as data. Reply: nil."""

    key: str
    size: int


class Delete(_Request, frozen=True, tag="delete"):
    """Reply: nil."""

    key: str


class Swap(_Request, frozen=True, tag="swap"):
    """Reply: whether it was swapped."""

    key: str
    old: bytes | None
    new: bytes | None
    write: bytes
    again: bool


class Holds(_Request, frozen=True, tag="holds"):
    """`count` ids follow as data, 32 bytes each. Reply: their number; its data: a byte for each."""

    count: int


class Pick(_Request, frozen=True, tag="pick"):
    """msgpack [key] follows as data. Reply: the length of its data, a page of values."""

    size: int


class Locate(_Request, frozen=True, tag="locate"):
    """`count` ids follow as data. Reply: the length of its data, which is msgpack [pack id]."""

    count: int


class Footers(_Request, frozen=True, tag="footers"):
    """`count` ids of packs follow. Reply: the length of its data, msgpack [footer or nil]."""

    count: int


class Swaps(_Request, frozen=True, tag="swaps"):
    """The request follows as data (wire.SwapsRequest). Reply: whether they were swapped."""

    size: int


class Purge(_Request, frozen=True, tag="purge"):
    """The request follows as data. Reply: the length of its data, which is the report."""

    size: int


Request = (
    Get
    | Read
    | Size
    | Keys
    | Values
    | Publish
    | Put
    | Delete
    | Swap
    | Holds
    | Pick
    | Locate
    | Footers
    | Swaps
    | Purge
)


class FrameReader:
    """Frames from a descriptor, until `give_up` or its end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._given_up = False
        # A wait ends when a byte comes through here.
        self._woken, self._waking = os.pipe()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)
        self._header = bytearray(_HEADER.size)
        _prepare(descriptor)

    def give_up(self) -> None:
        """Make whoever waits here, now or later, end with LineEnded."""
        self._given_up = True
        os.write(self._waking, b"x")

    def close(self) -> None:
        """Close what `give_up` uses; nobody may wait any more."""
        os.close(self._woken)
        os.close(self._waking)

    def header(self) -> Header | None:
        """The next frame's header, or None at the end. Waits as long as it takes.

        Raises RemoteRefused for what is no frame, LineEnded if the line was cut or given up.
        """
        if not self._fill(memoryview(self._header), may_end=True):
            return None
        length, number, kind = _HEADER.unpack(self._header)
        if length > LARGEST_PAYLOAD or kind > max(Kind):
            raise RemoteRefused("what came over the line is no mergepipe frame")
        return Header(length, number, Kind(kind))

    def into(self, out: memoryview) -> None:
        """Payload bytes, straight into memory."""
        self._fill(out)

    def payload(self, length: int) -> bytes:
        """A payload by itself."""
        out = bytearray(length)
        self._fill(memoryview(out))
        return bytes(out)

    def _fill(self, out: memoryview, *, may_end: bool = False) -> bool:
        done = 0
        while done < len(out):
            try:
                count = os.readv(self._descriptor, [out[done:]])
            except BlockingIOError:
                self._poll.poll()
                if self._given_up:
                    raise LineEnded("the line was given up") from None
                continue
            if count == 0:
                if may_end and not done:
                    return False
                raise LineEnded("the line was cut")
            done += count
        return True


class FrameWriter:
    """Frames to a descriptor, from any thread."""

    def __init__(self, descriptor: int, idle_s: float, ended: Callable[[], bool]) -> None:
        self._descriptor = descriptor
        self._idle_s = idle_s
        self._ended = ended
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        _prepare(descriptor)

    def settle(self) -> None:
        """Return once nobody writes; who comes later finds the line ended."""
        with self._lock:
            pass

    def send(self, number: int, kind: Kind, payload: Buffer = b"") -> None:
        """One frame. Raises Stalled when nobody takes it, LineEnded if the line was given up."""
        length = len(payload)
        if length > LARGEST_PAYLOAD:
            raise RemoteRefused(f"a message of {length:,} bytes is larger than a frame")
        pending = [memoryview(_HEADER.pack(length, number, kind))]
        if length:
            pending.append(memoryview(payload).cast("B"))
        with self._lock:
            pace = Pace(self._idle_s)
            while pending:
                if self._ended():
                    raise LineEnded("the line was given up")
                try:
                    count = os.writev(self._descriptor, pending)
                except BlockingIOError:
                    self._poll.poll(min(_LOOK_MS, pace.left() * 1000))
                    continue
                pace.moved(count)
                while pending and count >= len(pending[0]):
                    count -= len(pending.pop(0))
                if pending:
                    pending[0] = pending[0][count:]


def _prepare(descriptor: int) -> None:
    os.set_blocking(descriptor, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):  # a pipe holds 64 KiB otherwise: a switch for each
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            return  # no pipe, or its owner has too many large ones
