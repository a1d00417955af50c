"""A byte store that `mp serve --stdio` serves at the other end of a line."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from mergepipe.bytestore import frames, wire
from mergepipe.bytestore.line import BrokenExchange, Exchange, Line, Peer
from mergepipe.bytestore.pace import IDLE_S
from mergepipe.bytestore.protocol import Buffer, ByteWriter, NotOffered, Swap
from mergepipe.bytestore.retries import Retries
from mergepipe.bytestore.spool import SpoolWriter
from mergepipe.closing import Closing
from mergepipe.errors import MergepipeError, RemoteRefused, RemoteUnreachable
from mergepipe.ids import PackId
from mergepipe.names import quoted

_PROGRESS_BYTES = 1 << 20
_NIL = b"\xc0"

Made = TypeVar("Made")


class StdioByteStore(Closing):
    """What is served where `connect` leads. The line is opened when it is needed, and again.

    `patience_s`: how long the other side may take to greet.
    """

    def __init__(
        self,
        connect: Callable[[], Peer],
        shown: str,
        *,
        idle_s: float = IDLE_S,
        patience_s: float = IDLE_S,
        retries: Retries | None = None,
    ) -> None:
        self._connect = connect
        self._patience_s = patience_s
        self._worked = False
        self._shown = shown
        self._idle_s = idle_s
        self._retries = retries or Retries()
        self._line: Line | None = None
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def close(self) -> None:
        """Close the line; the other side ends."""
        with self._lock:
            line, self._line = self._line, None
        if line is not None and self._owner == os.getpid():
            line.close()

    def get(self, key: str) -> bytes | None:
        """The whole value, or None."""
        reply = self._ask(frames.Get(_checked(key)), wire.largest_value(key))
        return None if reply.reply == _NIL else _whole(reply)

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value; a broken read goes on where it broke."""
        done = 0
        while True:
            left = out[done:]
            asked = frames.Read(_checked(key), offset + done, len(left))
            try:
                reply = self._ask(asked, out=left)
            except _Broken as error:
                if error.got < _PROGRESS_BYTES:
                    raise
                done += error.got
                continue
            if _reply(reply, int) != reply.got:
                raise RemoteRefused("the remote does not send what it says it sends")
            return done + reply.got

    def size(self, key: str) -> int | None:
        """Length of the value, or None."""
        reply = self._ask(frames.Size(_checked(key)))
        if reply.reply == _NIL:
            return None
        size = _reply(reply, int)
        if size < 0:
            raise RemoteRefused(f"the remote does not say how long {quoted(key)} is")
        return size

    def holds(self, ids: Sequence[bytes]) -> list[bool]:
        """Whether each block or object is there whole."""
        held: list[bool] = []
        for at in range(0, len(ids), wire.MOST_IDS):
            some = ids[at : at + wire.MOST_IDS]
            reply = self._ask(frames.Holds(len(some)), len(some), body=[b"".join(some)])
            held += wire.parse_holds(_whole(reply), some)
        return held

    def pick(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values of these keys, of those that are there."""
        values: dict[str, bytes] = {}
        for at in range(0, len(keys), wire.MOST_PICKED):
            left = keys[at : at + wire.MOST_PICKED]
            while left:
                body = wire.encode(left)
                some, left = wire.picked(self._question(frames.Pick(len(body)), body), left)
                values |= some
        return values

    def locate(self, ids: Sequence[bytes]) -> list[PackId]:
        """The packs where blocks and objects are."""
        packs: dict[PackId, None] = {}
        for at in range(0, len(ids), wire.MOST_SOUGHT):
            some = ids[at : at + wire.MOST_SOUGHT]
            reply = self._question(frames.Locate(len(some)), b"".join(some))
            packs |= dict.fromkeys(wire.parse_packs(reply))
        return list(packs)

    def footers(self, packs: Sequence[PackId]) -> list[bytes | None]:
        """The footers of packs."""
        footers: list[bytes | None] = []
        while len(footers) < len(packs):
            some = packs[len(footers) : len(footers) + wire.MOST_SOUGHT]
            reply = self._question(frames.Footers(len(some)), b"".join(some))
            footers += wire.parse_footers(reply, len(some))
        return footers

    def swap_together(self, swaps: Sequence[Swap], near: Sequence[str] = ()) -> bool:
        """All of these swaps, or none; where the reply was lost, it is asked for again."""
        if len(swaps) > wire.MOST_SWAPS:
            return False
        writes = [os.urandom(wire.WRITE_ID_BYTES) for _ in swaps]
        # That it may be the second time is said at once: a line that breaks is asked anew below.
        body = wire.encode(wire.swaps_request(swaps, writes, near, again=True))
        try:
            return _reply(self._ask(frames.Swaps(len(body)), body=[body]), bool)
        except RemoteUnreachable:
            raise
        except RemoteRefused:
            return False  # an earlier release; or single swaps tell why

    def _question(self, request: frames.Request, body: bytes) -> bytes:
        """A question that not every server takes. Raises NotOffered."""
        try:
            return _whole(self._ask(request, wire.LARGEST_LISTING, body=[body]))
        except RemoteRefused as error:
            raise NotOffered(error.message, error.hint) from error

    def purge(self, request: bytes) -> bytes:
        """Have models removed for good."""
        asked = frames.Purge(len(request))
        return _whole(self._ask(asked, wire.LARGEST_LISTING, body=[request]))

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under the folder `prefix`, sorted."""

        def ask(after: str) -> bytes:
            return _whole(self._ask(frames.Keys(prefix, after), wire.LARGEST_LISTING))

        return wire.all_keys(ask, prefix)

    def values(self, prefix: str) -> dict[str, bytes]:
        """All values of a folder of small ones, by key, in as few exchanges as they fit in."""

        def ask(after: str) -> bytes:
            return _whole(self._ask(frames.Values(prefix, after), wire.LARGEST_LISTING))

        return wire.all_values(ask, prefix)

    def create(self) -> SpoolWriter:
        """Begin a value; it is sent when it is published."""
        return SpoolWriter()

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        """Send values, in order. One whose reply was lost is looked up before it is sent again."""
        for writer, key in values:
            assert isinstance(writer, SpoolWriter)
            if writer.size > wire.largest_value(key):
                raise RemoteRefused(f"{quoted(key)} is larger than a remote takes")
            self._ask(frames.Publish(_checked(key), writer.size), body=writer)
            writer.abort()

    def put(self, key: str, value: Buffer) -> None:
        """Write or replace a small value."""
        self._ask(frames.Put(_checked(key), len(value)), body=[bytes(value)])

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace `old` by `new` if the value is `old`; a lost reply is looked up."""
        return self.swap_with_id(key, old, new, os.urandom(wire.WRITE_ID_BYTES))

    def swap_with_id(self, key: str, old: bytes | None, new: bytes | None, write_id: bytes) -> bool:
        """Compare and swap under an id that is the same in every try."""
        return _reply(self._ask(frames.Swap(_checked(key), old, new, write_id, again=False)), bool)

    def delete(self, key: str) -> None:
        """Remove the key."""
        self._ask(frames.Delete(_checked(key)))

    def _ask(
        self,
        request: frames.Request,
        limit: int = 0,
        *,
        out: memoryview | None = None,
        body: Sequence[bytes] | SpoolWriter | None = None,
    ) -> Exchange:
        """One exchange, over a new line where one breaks. Raises what the other side answers."""
        pauses = self._retries.pauses()
        while True:
            try:
                line = self._opened()
                try:
                    reply = line.ask(request, limit, out, _pieces(body))
                finally:
                    self._drop_if_broken(line)
                if reply.error is None or reply.error.kind not in wire.PASSING:
                    break
                raise ConnectionError(reply.error.message)
            except OSError as error:
                received_bytes = error.got if isinstance(error, BrokenExchange) else 0
                pause = next(pauses, None)
                # What came of a large read stays: its caller asks for the rest.
                if pause is None or received_bytes >= _PROGRESS_BYTES:
                    raise _Broken(self._shown, error, received_bytes) from error
            time.sleep(pause)
            if isinstance(request, frames.Swap):
                request = msgspec.structs.replace(request, again=True)
            elif isinstance(request, frames.Publish) and self._has(request):
                return Exchange(0, None, 0, self._idle_s)  # only the reply was lost
        if reply.error is None:
            return reply
        if reply.error.kind == "not_found" and isinstance(request, frames.Read):
            raise FileNotFoundError(request.key)
        raise wire.error_from(reply.error)

    def _has(self, published: frames.Publish) -> bool:
        return published.key.startswith("packs/") and self.size(published.key) == published.size

    def _opened(self) -> Line:
        """The line, opened if there is none."""
        with self._lock:
            if self._owner != os.getpid():  # after a fork the line is the parent's
                self._line, self._owner = None, os.getpid()
            if self._line is None or self._line.failure is not None:
                line = Line(self._connect(), self._idle_s)
                try:
                    line.open(self._patience_s)
                except BaseException as error:
                    said = line.close()
                    if said is not None and isinstance(error, OSError):
                        raise said from error
                    if not isinstance(error, OSError) or self._worked:
                        raise
                    # Where it never worked it is not tried again: somebody may be typing passwords.
                    raise _Broken(self._shown, error, 0) from error
                self._line = line
                self._worked = True
            return self._line

    def _drop_if_broken(self, line: Line) -> None:
        if line.failure is not None:
            with self._lock:
                if self._line is line:
                    self._line = None
            line.close()


class _Broken(RemoteUnreachable):
    """A line that broke after `got` bytes of a reply."""

    def __init__(self, shown: str, error: Exception, got: int) -> None:
        super().__init__(
            f"cannot reach {shown}: {quoted(str(error) or type(error).__name__)}",
            "check the address and the network; what was sent is not sent again",
        )
        self.got = got


def _checked(key: str) -> str:
    if not wire.is_key(key):
        raise MergepipeError(f"not a key: {key!r}")
    return key


def _pieces(body: Sequence[bytes] | SpoolWriter | None) -> Iterable[memoryview] | None:
    if body is None:
        return None
    return body.pieces() if isinstance(body, SpoolWriter) else map(memoryview, body)


def _reply(found: Exchange, kind: type[Made]) -> Made:
    assert found.reply is not None
    return wire.parse(found.reply, kind, "a reply")


def _whole(found: Exchange) -> bytes:
    if len(found.gathered) != _reply(found, int):
        raise RemoteRefused("the remote does not send what it says it sends")
    return bytes(found.gathered)
