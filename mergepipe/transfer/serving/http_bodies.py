"""Bodies of http requests and replies, a piece at a time, as long as they keep moving."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mergepipe.bytestore import wire
from mergepipe.bytestore.pace import Pace
from mergepipe.transfer.serving.offer import TooLarge

_PIECE_BYTES = 1 << 20
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
    """A range of a value, read a piece ahead of what is being sent.

    `read` gives the bytes from one offset to another.
    """

    def __init__(
        self,
        read: Callable[[int, int], Awaitable[bytearray]],
        first: int,
        end: int,
        status: int,
        headers: dict[str, str],
        idle_s: float,
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        self._read = read
        self._first = first
        self._end = end
        self._idle_s = idle_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as the framework asks. Raises TimeoutError where the client takes nothing."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        pace = Pace(self._idle_s)
        at = self._first
        coming = self._begin(at)
        try:
            while at < self._end:
                piece = await coming
                at += len(piece)
                if at < self._end:
                    coming = self._begin(at)
                async with asyncio.timeout(pace.left()):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                pace.restart()
        finally:
            if not coming.done():
                await asyncio.wait([coming])
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _begin(self, at: int) -> "asyncio.Future[bytearray]":
        return asyncio.ensure_future(self._read(at, min(at + _PIECE_BYTES, self._end)))
