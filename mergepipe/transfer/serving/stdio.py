"""A byte store served to one client over two pipes (docs/format-remote.md, "stdio")."""

import contextlib
import os
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import msgspec

from mergepipe.bytestore import frames, wire
from mergepipe.bytestore.frames import (
    LARGEST_PAYLOAD,
    FrameReader,
    FrameWriter,
    Header,
    Kind,
    LineEnded,
)
from mergepipe.bytestore.pace import IDLE_S, Pace
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import MergepipeError, RemoteRefused, UsageError
from mergepipe.repository.push_log import PushLog
from mergepipe.transfer.serving.offer import NOBODY, Offer
from mergepipe.transfer.serving.recording import Caller
from mergepipe.transfer.serving.surface import REPOSITORY, Surface

_HEARTBEAT_S = 5.0
_WAITING_FRAMES = 8
_PIECE_BYTES = 1 << 20


def serve_stdio(
    store: ByteStore,
    stdin: BinaryIO,
    stdout: BinaryIO,
    *,
    surface: Surface = REPOSITORY,
    read_only: bool = False,
    idle_s: float = IDLE_S,
    log: PushLog | None = None,
    caller: Caller = NOBODY,
) -> None:
    """Serve until `stdin` ends. Raises RemoteRefused if what comes is no client.

    `log`: where it is written down what `caller` pushed.
    """
    offer = Offer(store, surface=surface, read_only=read_only, log=log)
    _Session(offer, stdin.fileno(), stdout.fileno(), idle_s, caller).run()


class _Task:
    """A request under way. Its body waits in `arrived`: frames, then None at its end."""

    def __init__(self, number: int, request: frames.Request) -> None:
        self.number = number
        self.request = request
        self.arrived: queue.Queue[bytes | None] = queue.Queue(_WAITING_FRAMES)
        self.lock = threading.Lock()
        """Held while a frame about this request goes out: none may come after its reply."""
        self.over = False
        self.quiet = True


class _Session:
    def __init__(
        self, offer: Offer, stdin: int, stdout: int, idle_s: float, caller: Caller
    ) -> None:
        self._offer = offer
        self._caller = caller
        self._idle_s = idle_s
        self._broken = threading.Event()
        self._hung_up = False
        self._descriptors = stdin, stdout
        self._reader = FrameReader(stdin)
        self._writer = FrameWriter(stdout, idle_s, self._broken.is_set)
        self._tasks: dict[int, _Task] = {}
        self._lock = threading.Lock()

    def run(self) -> None:
        """The whole conversation."""
        beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        pool = ThreadPoolExecutor(frames.AT_ONCE, thread_name_prefix="serve")
        try:
            self._writer.send(0, Kind.HELLO, frames.HELLO)
            header = self._reader.header()
            if header is None:
                return
            if header.kind is not Kind.HELLO or self._reader.payload(header.length) != frames.HELLO:
                raise RemoteRefused("this is no client of this version of the protocol")
            beating.start()
            while (header := self._reader.header()) is not None:
                self._take(header, pool)
        except OSError:
            pass  # the client is gone
        except MergepipeError as error:
            self._tell(0, Kind.ERROR, wire.encode(wire.error_reply(error)))
            raise
        finally:
            self._hung_up = True
            # A swap that has begun is finished: its outcome can be looked up.
            pool.shutdown()
            self._broken.set()
            self._reader.close()
            for descriptor in self._descriptors:
                os.set_blocking(descriptor, True)  # they may be a terminal's, and others use them

    def _take(self, header: Header, pool: ThreadPoolExecutor) -> None:
        length, number, kind = header
        if kind is Kind.REQUEST:
            payload = self._reader.payload(length)
            if number in self._tasks or len(self._tasks) >= frames.AT_ONCE:
                raise RemoteRefused(f"at most {frames.AT_ONCE} requests, each under its own number")
            try:
                request = msgspec.msgpack.decode(payload, type=frames.Request)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                refusal = UsageError(f"a request that cannot be read: {error}")
                self._tell(number, Kind.ERROR, wire.encode(wire.error_reply(refusal)))
                return
            task = _Task(number, request)
            with self._lock:
                self._tasks[number] = task
            pool.submit(self._work, task)
        elif kind in (Kind.DATA, Kind.END):
            payload = self._reader.payload(length)
            found = self._tasks.get(number)
            while found is not None and not found.over:  # else it was refused before its body came
                try:
                    found.arrived.put(payload if kind is Kind.DATA else None, timeout=0.5)
                except queue.Full:
                    continue
                break
        else:
            raise RemoteRefused("a client sends requests and their bytes, nothing else")

    def _work(self, task: _Task) -> None:
        try:
            reply, kind = wire.encode(self._carry_out(task)), Kind.REPLY
        except (MergepipeError, OSError) as error:
            reply, kind = wire.encode(wire.error_reply(error)), Kind.ERROR
        except BaseException as error:
            self._finish(task, Kind.ERROR, wire.encode(wire.error_reply(error)))
            raise
        self._finish(task, kind, reply)

    def _finish(self, task: _Task, kind: Kind, reply: bytes) -> None:
        with task.lock:
            task.over = True
            with self._lock:
                self._tasks.pop(task.number)
            self._tell(task.number, kind, reply)

    def _carry_out(self, task: _Task) -> object:
        """Do what was asked; returns the reply."""
        offer = self._offer
        match task.request:
            case frames.Read(key, offset, length):
                return self._send_range(task, key, offset, length)
            case frames.Get(key):
                size = offer.size(key)
                return None if size is None else self._send_range(task, key, 0, size)
            case frames.Size(key):
                return offer.size(key)
            case frames.Keys(prefix, after):
                return self._send(task, offer.keys(prefix, after))
            case frames.Values(prefix, after):
                return self._send(task, offer.values(prefix, after))
            case frames.Holds(count):
                return self._send(task, offer.holds(self._ids(task, count)))
            case frames.Swap(key, old, new, write, again):
                return offer.swap(wire.SwapRequest(key, old, new, write, again), self._caller)
            case frames.Pick(size):
                keys = wire.parse(self._whole_body(task, size), list[str], "a list of keys")
                return self._send(task, offer.pick(keys))
            case frames.Locate(count):
                return self._send(task, offer.locate(self._ids(task, count)))
            case frames.Footers(count):
                return self._send(task, offer.footers(self._ids(task, count)))
            case frames.Swaps(size):
                body = self._whole_body(task, size)
                return offer.swaps(wire.parse(body, wire.SwapsRequest, "swaps"), self._caller)
            case frames.Purge(size):
                return self._send(task, offer.purge(self._whole_body(task, size), self._caller))
            case frames.Publish(key, size):
                self._publish(task, key, size)
            case frames.Put(key, size):
                offer.check_upload(key, size)
                offer.put(key, b"".join(self._body(task, size)))
            case frames.Delete(key):
                offer.delete(key)
        return None

    def _publish(self, task: _Task, key: str, size: int) -> None:
        self._offer.check_upload(key, size)
        writer = self._offer.create()
        try:
            for piece in self._body(task, size):
                writer.write(piece)
        except BaseException:
            writer.abort()
            raise
        self._offer.publish(writer, key, self._caller)

    def _send_range(self, task: _Task, key: str, offset: int, length: int) -> int:
        if offset < 0 or length < 0:
            raise UsageError("a range has no negative numbers")
        buffer = memoryview(bytearray(min(length, _PIECE_BYTES)))
        done = 0
        while True:
            wanted = buffer[: length - done]
            count = self._offer.read_into(key, offset + done, wanted)
            self._send(task, wanted[:count])
            done += count
            if count < len(wanted) or done == length:
                return done

    def _send(self, task: _Task, data: bytes | memoryview) -> int:
        view = memoryview(data)
        for at in range(0, len(view), LARGEST_PAYLOAD):
            self._writer.send(task.number, Kind.DATA, view[at : at + LARGEST_PAYLOAD])
            task.quiet = False
        return len(view)

    def _whole_body(self, task: _Task, size: int) -> bytes:
        if not 0 <= size <= wire.LARGEST_VALUE:
            raise UsageError(f"a request has at most {wire.LARGEST_VALUE:,} bytes")
        return b"".join(self._body(task, size))

    def _body(self, task: _Task, size: int) -> Iterator[bytes]:
        """The bytes that belong to a request, of which there are `size`.

        Raises RemoteRefused, Stalled, and LineEnded, which nobody is left to hear of.
        """
        total = 0
        while (piece := self._arrived(task)) is not None:
            total += len(piece)
            if total > size:
                break
            yield piece
        if total != size:
            raise RemoteRefused("not as many bytes came as were announced")

    def _arrived(self, task: _Task) -> bytes | None:
        pace = Pace(self._idle_s)
        while not self._hung_up:
            with contextlib.suppress(queue.Empty):
                return task.arrived.get(timeout=min(0.5, pace.left()))
        raise LineEnded("the client is gone")

    def _ids(self, task: _Task, count: int) -> list[bytes]:
        if not 0 <= count <= wire.MOST_IDS:
            raise UsageError(f"at most {wire.MOST_IDS:,} ids are asked for at once")
        data = b"".join(self._body(task, count * wire.ID_BYTES))
        return [data[at : at + wire.ID_BYTES] for at in range(0, len(data), wire.ID_BYTES)]

    def _beat(self) -> None:
        """Tell the client of each request that has been silent for a while that it is at work."""
        while not self._broken.wait(_HEARTBEAT_S):
            with self._lock:
                tasks = list(self._tasks.values())
            for task in tasks:
                with task.lock:
                    if task.quiet and not task.over:
                        self._tell(task.number, Kind.DATA, b"")
                    task.quiet = True

    def _tell(self, number: int, kind: Kind, payload: bytes) -> None:
        try:
            self._writer.send(number, kind, payload)
        except OSError:
            self._broken.set()
            self._reader.give_up()
