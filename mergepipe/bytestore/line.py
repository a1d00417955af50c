"""One open line to a server on the other end of two pipes, shared by many threads.

A thread reads the frames that come and puts their bytes straight where they are wanted; who asks
writes its own frames, and waits.
"""

import threading
from collections.abc import Iterable
from typing import Protocol

from mergepipe.bytestore import wire
from mergepipe.bytestore.frames import (
    AT_ONCE,
    HELLO,
    LARGEST_PAYLOAD,
    FrameReader,
    FrameWriter,
    Header,
    Kind,
    LineEnded,
    Request,
)
from mergepipe.bytestore.pace import Pace
from mergepipe.errors import MergepipeError, RemoteRefused


class Peer(Protocol):
    """The other end: two descriptors, and what is known of it once they are silent."""

    @property
    def reading(self) -> int:
        """Descriptor that its bytes come from."""
        ...

    @property
    def writing(self) -> int:
        """Descriptor that takes bytes for it."""
        ...

    def end(self) -> MergepipeError | None:
        """Stop it, and close both descriptors; returns what it said if it had stopped itself."""
        ...


class Exchange:
    """One request and what came for it so far, in `out` or gathered."""

    def __init__(self, number: int, out: memoryview | None, limit: int, idle_s: float) -> None:
        self.number = number
        self.out = out
        self.gathered = bytearray()
        self.limit = len(out) if out is not None else limit
        self.got = 0
        self.pace = Pace(idle_s)
        self.reply: bytes | None = None
        self.error: wire.ErrorReply | None = None


class Line:
    """An open line. Once broken it stays broken: `failure` says why."""

    def __init__(self, peer: Peer, idle_s: float) -> None:
        self._closing = threading.Lock()
        self._closed = False
        self._peer = peer
        self._idle_s = idle_s
        self.failure: BaseException | None = None
        self.greeted = False
        self._changed = threading.Condition()
        self._exchanges: dict[int, Exchange] = {}
        self._number = 0
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._reader = FrameReader(peer.reading)
        self._writer = FrameWriter(peer.writing, idle_s, self._is_over)
        self._thread = threading.Thread(target=self._receive, name="line", daemon=True)
        self._thread.start()

    def open(self, patience_s: float) -> None:
        """Greet. Raises what broke the line, Stalled if nobody greets back in time."""
        self._writer.send(0, Kind.HELLO, HELLO)
        pace = Pace(patience_s)
        with self._changed:
            while not self.greeted:
                self._wait(pace)

    def close(self) -> MergepipeError | None:
        """End the line and the other side of it; returns what that said of its own accord."""
        self._fail(LineEnded("the line was closed"))
        with self._closing:
            if self._closed:
                return None
            self._closed = True
            # Closed under a thread, a descriptor may be another file's by the time it is used.
            self._reader.give_up()
            self._thread.join()
            self._reader.close()
            self._writer.settle()
            return self._peer.end()

    def ask(
        self,
        request: Request,
        limit: int = 0,
        out: memoryview | None = None,
        body: Iterable[memoryview] | None = None,
    ) -> Exchange:
        """Send a request with its body, and wait for the reply: in `out`, or `limit` bytes at most.

        Raises BrokenExchange, and whatever else breaks the line.
        """
        with self._slots:
            exchange = self._begin(out, limit)
            try:
                self._send(exchange, request, body)
                exchange.pace.restart()
                with self._changed:
                    while exchange.reply is None and exchange.error is None:
                        self._wait(exchange.pace)
            except BaseException as error:
                # Nobody may go on writing into memory that the caller has back.
                self._fail(error)
                self.close()
                if isinstance(error, LineEnded) and isinstance(self.failure, MergepipeError):
                    raise self.failure from error  # why it was given up
                if isinstance(error, OSError):
                    raise BrokenExchange(str(error), exchange.got) from error
                raise
            finally:
                with self._changed:
                    self._exchanges.pop(exchange.number, None)
            return exchange

    def _begin(self, out: memoryview | None, limit: int) -> Exchange:
        with self._changed:
            self._number = self._number % 0xFFFFFFFF + 1
            exchange = Exchange(self._number, out, limit, self._idle_s)
            self._exchanges[exchange.number] = exchange
        return exchange

    def _send(
        self, exchange: Exchange, request: Request, body: Iterable[memoryview] | None
    ) -> None:
        number = exchange.number
        self._writer.send(number, Kind.REQUEST, wire.encode(request))
        if body is None:
            return
        for piece in body:
            for at in range(0, len(piece), LARGEST_PAYLOAD):
                if exchange.error is not None:
                    return  # refused already: the rest would be thrown away
                self._writer.send(number, Kind.DATA, piece[at : at + LARGEST_PAYLOAD])
        self._writer.send(number, Kind.END)

    def _wait(self, pace: Pace) -> None:
        if self.failure is not None:
            raise self.failure if isinstance(self.failure, Exception) else LineEnded("given up")
        self._changed.wait(pace.left())

    def _is_over(self) -> bool:
        return self.failure is not None

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self.failure is None:
                self.failure = error
            self._changed.notify_all()

    def _receive(self) -> None:
        try:
            self._expect_hello()
            while (header := self._reader.header()) is not None:
                self._take(header)
            self._fail(LineEnded("the other side closed the line"))
        except (OSError, MergepipeError) as error:
            self._fail(error)

    def _expect_hello(self) -> None:
        header = self._reader.header()
        if header is None:
            raise LineEnded("the other side closed the line")
        if header.kind is Kind.ERROR:
            raise wire.error_from(
                wire.parse(self._reader.payload(header.length), wire.ErrorReply, "an error")
            )
        said = self._reader.payload(header.length)
        if header.kind is not Kind.HELLO or said != HELLO:
            raise RemoteRefused(
                "the other side does not speak this version of the protocol",
                "it needs `mp serve --stdio` of a fitting release",
            )
        with self._changed:
            self.greeted = True
            self._changed.notify_all()

    def _take(self, header: Header) -> None:
        length, number, kind = header
        exchange = self._exchanges.get(number)
        if exchange is None:
            raise RemoteRefused("the remote answers what it was not asked")
        if kind is Kind.DATA:
            if exchange.got + length > exchange.limit:
                raise RemoteRefused("the remote sends more than it was asked for")
            if not length:
                exchange.pace.alive()
            elif exchange.out is not None:
                self._reader.into(exchange.out[exchange.got : exchange.got + length])
            else:
                exchange.gathered += self._reader.payload(length)
            exchange.got += length
            exchange.pace.moved(length)
            return
        payload = self._reader.payload(length)
        with self._changed:
            if kind is Kind.REPLY:
                exchange.reply = payload
            elif kind is Kind.ERROR:
                exchange.error = wire.parse(payload, wire.ErrorReply, "an error")
            else:
                raise RemoteRefused("the remote sends frames that only clients send")
            self._exchanges.pop(number)
            self._changed.notify_all()


class BrokenExchange(ConnectionError):
    """The line broke; `got` bytes had come, and are in place."""

    def __init__(self, message: str, got: int) -> None:
        super().__init__(message)
        self.got = got
