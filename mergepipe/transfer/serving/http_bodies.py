"""Bodies of http requests and replies, a piece at a time, as long as they keep moving."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mergepipe.bytestore import wire
from mergepipe.bytestore.pace import Pace
from mergepipe.bytestore.protocol import Buffer
from mergepipe.errors import MergepipeError
from mergepipe.transfer.serving.offer import TooLarge

_PIECE_BYTES = 1 << 20
# A client that takes less than this within the idle time is let go.
_SENT_BYTES = 256 << 10
_BODY_READ = "mergepipe.body_read"


async def body_of(request: Request, limit: int, idle_s: float) -> AsyncIterator[list[bytes]]:
    """The body, about 1 MiB at a time. Raises TooLarge, TimeoutError, ClientDisconnect."""
    pace = Pace(idle_s)
    pieces: list[bytes] = []
    waiting = total = 0
    more = True
    while more:
        async with asyncio.timeout(pace.left()):
            message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        data = message.get("body", b"")
        more = message.get("more_body", False)
        request.scope[_BODY_READ] = not more
        total += len(data)
        if total > limit:
            raise TooLarge(f"a request has at most {limit:,} bytes")
        pace.moved(len(data))
        pieces.append(data)
        waiting += len(data)
        if waiting >= _PIECE_BYTES:
            yield pieces
            pieces, waiting = [], 0
    if waiting:
        yield pieces


async def whole_body(request: Request, limit: int, idle_s: float) -> bytes:
    """The body of a small request, raising as `body_of` does."""
    return b"".join([each async for some in body_of(request, limit, idle_s) for each in some])


async def receive(
    request: Request, write: Callable[..., Awaitable[None]], limit: int, idle_s: float
) -> None:
    """Write the body as it comes: one piece on its way to the disk while the next one comes.

    Raises as `body_of`, and what `write` raises once the body is at its end.
    """
    writing: asyncio.Future[None] | None = None
    failure: MergepipeError | OSError | None = None
    try:
        async for pieces in body_of(request, limit, idle_s):
            if writing is not None:
                try:
                    await writing
                except (MergepipeError, OSError) as error:
                    # Read on to the end: who still sends would not hear why it is refused.
                    failure = failure or error
                writing = None
            if failure is None:
                writing = asyncio.ensure_future(write(*pieces))
        if writing is not None:
            await writing
    finally:
        if writing is not None and not writing.done():
            await asyncio.wait([writing])
    if failure is not None:
        raise failure


async def drain(request: Request, idle_s: float) -> None:
    """Read what is still coming: who is cut off while sending does not hear why."""
    declared = request.headers.get("content-length", "0")
    if request.scope.get(_BODY_READ):
        return  # waiting for more would be waiting for the client to go away
    if declared.isdigit() and 0 < int(declared) <= wire.LARGEST_PACK:
        with contextlib.suppress(TimeoutError, ClientDisconnect, TooLarge):
            async for _ in body_of(request, wire.LARGEST_PACK, idle_s):
                pass


class Piecewise(Response):
    """Spans of a value, some read ahead of the one that is being sent.

    `read` gives the bytes from one offset to another, `spans` what is to be read, one after the
    other; `ahead` says how many may be on their way beside the one that is sent.
    """

    def __init__(
        self,
        read: Callable[[int, int], Awaitable[Buffer]],
        spans: Iterator[tuple[int, int]],
        status: int,
        headers: Mapping[str, str],
        idle_s: float,
        ahead: Callable[[], int] = lambda: 1,
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        self._read = read
        self._spans = spans
        self._idle_s = idle_s
        self._ahead = ahead
        self._coming: deque[asyncio.Future[Buffer]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as the framework asks. Raises TimeoutError where the client takes nothing."""
        try:
            start = {"type": "http.response.start", "status": self.status_code}
            await send({**start, "headers": self.raw_headers})
            pace = Pace(self._idle_s)
            self._begin(1)
            while self._coming:
                piece = memoryview(await self._coming.popleft())
                self._begin(max(1, self._ahead()))
                for at in range(0, len(piece), _SENT_BYTES):
                    part = piece[at : at + _SENT_BYTES]
                    async with asyncio.timeout(pace.left()):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                    pace.restart()
        finally:
            for each in self._coming:
                each.cancel()
            running = [each for each in self._coming if not each.done()]
            if running:
                await asyncio.wait(running)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _begin(self, most: int) -> None:
        """Read on until `most` spans are on their way."""
        while len(self._coming) < most and (span := next(self._spans, None)) is not None:
            self._coming.append(asyncio.ensure_future(self._read(*span)))


def steps(first: int, end: int, length: int = _PIECE_BYTES) -> Iterator[tuple[int, int]]:
    """Bytes `first` to `end`, `length` at a time."""
    return ((at, min(at + length, end)) for at in range(first, end, length))
