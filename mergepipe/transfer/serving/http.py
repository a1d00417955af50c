"""A byte store over http, as a Starlette application (docs/format-remote.md, "http")."""

import asyncio
import contextlib
import logging
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import quote

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from mergepipe.bytestore import wire
from mergepipe.bytestore.http import PROTOCOL, PROTOCOL_HEADER, STILL_WORKING
from mergepipe.bytestore.pace import IDLE_S, Pace
from mergepipe.bytestore.protocol import ByteStore, ByteWriter, Holding
from mergepipe.errors import (
    AuthenticationError,
    Locked,
    MergepipeError,
    NoSpace,
    RemoteRefused,
    UsageError,
)
from mergepipe.transfer.serving.surface import REPOSITORY, Surface
from mergepipe.transfer.serving.swaps import Swaps
from mergepipe.transfer.serving.tokens import Scope, Tokens

_PIECE_BYTES = 1 << 20
_THREADS = 32
_HEARTBEAT_S = 5.0
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})")
_LARGEST_REQUEST = wire.MOST_IDS * (wire.ID_BYTES + 2) + 16
_HEADERS = {PROTOCOL_HEADER: PROTOCOL, "Cache-Control": "no-store"}

_log = logging.getLogger("mergepipe.serve")
Result = TypeVar("Result")
Endpoint = Callable[[Request], Awaitable[Response]]


class _TooLarge(RemoteRefused):
    """More bytes than are taken."""


class _NotAllowed(AuthenticationError):
    """A good token, or none needed, but not for this."""


class Service:
    """One store on offer. `tokens` None: whoever reaches this address, from this machine, may."""

    def __init__(
        self,
        store: ByteStore,
        tokens: Tokens | None = None,
        *,
        surface: Surface = REPOSITORY,
        read_only: bool = False,
        idle_s: float = IDLE_S,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._surface = surface
        self._read_only = read_only
        self._idle_s = idle_s
        self._swaps = Swaps(store)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="serve")
        self._busy = 0
        self._lock = threading.Lock()

    @property
    def busy(self) -> int:
        """How many calls of the store are under way."""
        return self._busy

    def application(self) -> Starlette:
        """The routes."""
        read, write = Scope.READ, Scope.WRITE
        value = "/v1/value/{key:path}"
        return Starlette(
            routes=[
                Route(value, self._guarded(self._get, read), methods=["GET"]),
                Route(value, self._guarded(self._put, write), methods=["PUT"]),
                Route(value, self._guarded(self._delete, write), methods=["DELETE"]),
                Route("/v1/values", self._guarded(self._values, read), methods=["GET"]),
                Route("/v1/keys", self._guarded(self._keys, read), methods=["GET"]),
                Route("/v1/swap", self._guarded(self._swap, write), methods=["POST"]),
                Route("/v1/holds", self._guarded(self._holds, read), methods=["POST"]),
            ]
        )

    def _guarded(self, endpoint: Endpoint, needed: Scope) -> Endpoint:
        """The endpoint, with who may call it before, and errors as replies after."""

        async def guarded(request: Request) -> Response:
            try:
                self._allow(request, needed)
                return await endpoint(request)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody reads it
            except TimeoutError:
                return _error(408, wire.ErrorReply("timeout", "nothing came for too long"), True)
            except (MergepipeError, OSError) as error:
                if not isinstance(error, MergepipeError | FileNotFoundError):
                    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
                if not isinstance(error, _TooLarge):
                    await self._drain(request)
                return _error(_status(error), wire.error_reply(error), _has_body(request))

        return guarded

    def _allow(self, request: Request, needed: Scope) -> None:
        # A page in somebody's browser reaches loopback too, under a name of its own even
        # (DNS rebinding). Browsers name the page's origin; we are never asked by a page.
        if "origin" in request.headers:
            raise _NotAllowed("requests of web pages are refused")
        if self._tokens is None:
            if not _LOOPBACK.fullmatch(request.headers.get("host", "")):
                raise _NotAllowed("without tokens, only localhost is served")
        else:
            allowed = self._tokens.scope(request.headers.get("authorization", ""))
            if allowed is Scope.NONE:
                raise AuthenticationError(
                    "a token is needed", "set MP_TOKEN, or add it to the file of tokens"
                )
            if allowed < needed:
                raise _NotAllowed("this token may only read")
        if self._read_only and needed is Scope.WRITE:
            raise _NotAllowed("this server is read-only")

    async def _get(self, request: Request) -> Response:
        key = _key(request, self._surface.readable)
        size = await self._call(self._store.size, key)
        if size is None:
            raise FileNotFoundError(key)
        first, end = 0, size
        asked = request.headers.get("range")
        headers = {**_HEADERS, "Accept-Ranges": "bytes"}
        if asked is not None and request.method != "HEAD":
            found = _RANGE.fullmatch(asked)
            if found is None or int(found[1]) > int(found[2]):
                raise UsageError("only one range of bytes, from first to last, is served")
            first, end = int(found[1]), min(int(found[2]) + 1, size)
            if first >= size:
                return Response(
                    status_code=416, headers={**_HEADERS, "Content-Range": f"bytes */{size}"}
                )
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
        headers["Content-Length"] = str(end - first)
        if request.method == "HEAD":
            return Response(headers=headers)
        return _Piecewise(self, key, first, end, 200 if asked is None else 206, headers)

    async def _put(self, request: Request) -> Response:
        key = _key(request, lambda key: self._surface.published(key) or self._surface.replaced(key))
        limit = wire.largest_value(key)
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise _TooLarge(f"a value has at most {limit:,} bytes")
        if not key.startswith("packs/"):
            data = b"".join([bytes(each) async for each in self._body(request, limit)])
            return await self._answer(lambda: self._store.put(key, data), _nothing, 201)
        there = await self._call(self._store.size, key) is not None
        writer = await self._call(self._store.create)
        try:
            await self._receive(request, writer, limit)
        except BaseException:
            await self._call(writer.abort)
            raise
        return await self._answer(
            lambda: _publish(self._store, writer, key), _nothing, 200 if there else 201
        )

    async def _receive(self, request: Request, writer: ByteWriter, limit: int) -> None:
        """Write the body as it comes: one piece on its way to the disk while the next one comes."""
        writing: asyncio.Future[None] | None = None
        failure: MergepipeError | OSError | None = None
        try:
            async for piece in self._body(request, limit):
                if writing is not None:
                    try:
                        await writing
                    except (MergepipeError, OSError) as error:
                        # Read on to the end: who still sends would not hear why it is refused.
                        failure = failure or error
                    writing = None
                if failure is None:
                    writing = asyncio.ensure_future(self._call(writer.write, piece))
            if writing is not None:
                await writing
        finally:
            if writing is not None and not writing.done():
                await asyncio.wait([writing])
        if failure is not None:
            raise failure

    async def _drain(self, request: Request) -> None:
        """Read what is still coming: who is cut off while sending does not hear why."""
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and 0 < int(declared) <= wire.LARGEST_PACK:
            with contextlib.suppress(TimeoutError, ClientDisconnect, _TooLarge):
                async for _ in self._body(request, wire.LARGEST_PACK):
                    pass

    async def _delete(self, request: Request) -> Response:
        key = _key(request, self._surface.replaced)
        return await self._answer(lambda: self._store.delete(key), _nothing)

    async def _values(self, request: Request) -> Response:
        prefix = _prefix(request, self._surface.listable)
        readable = self._surface.readable
        found = await self._call(self._store.values, prefix)
        shown = {key: value for key, value in found.items() if readable(key)}
        if len(shown) > wire.MOST_VALUES:
            raise RemoteRefused(f"there are more than {wire.MOST_VALUES:,} values here")
        return _packed(shown)

    async def _keys(self, request: Request) -> Response:
        prefix = _prefix(request, self._surface.listable)
        readable = self._surface.readable

        def listed() -> list[str]:
            return [key for key in self._store.list(prefix) if readable(key)]

        return _packed(await self._call(listed))

    async def _swap(self, request: Request) -> Response:
        asked = await self._document(request, wire.SwapRequest)
        if not self._surface.swapped(asked.key):
            raise RemoteRefused("only branches and tags are moved")
        for value in (asked.old, asked.new):
            if value is not None and len(value) > wire.LARGEST_VALUE:
                raise _TooLarge(f"a value has at most {wire.LARGEST_VALUE:,} bytes")
        return await self._answer(
            lambda: wire.SwapReply(self._swaps.swap(asked)), msgspec.msgpack.encode
        )

    async def _holds(self, request: Request) -> Response:
        store = self._store
        if not isinstance(store, Holding):
            raise UsageError("this store cannot tell what it holds")
        ids = await self._document(request, list[bytes])
        if len(ids) > wire.MOST_IDS or any(len(each) != wire.ID_BYTES for each in ids):
            raise UsageError(
                f"at most {wire.MOST_IDS:,} ids of {wire.ID_BYTES} bytes are asked for"
            )
        return await self._answer(lambda: store.holds(ids), bytes)

    async def _call(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call the store on a thread: it reads disks."""

        def counted() -> Result:
            with self._lock:
                self._busy += 1
            try:
                return function(*arguments)
            finally:
                with self._lock:
                    self._busy -= 1

        return await asyncio.get_running_loop().run_in_executor(self._threads, counted)

    async def _answer(
        self, work: Callable[[], Result], encode: Callable[[Result], bytes], status: int = 200
    ) -> Response:
        """What `work` gives. Work that takes long sends nils meanwhile, so that nobody hangs up."""
        task = asyncio.ensure_future(self._call(work))
        done, _ = await asyncio.wait([task], timeout=_HEARTBEAT_S)
        if done:
            return Response(encode(await task), status, headers=_HEADERS)

        async def slowly() -> AsyncIterator[bytes]:
            while not task.done():
                yield STILL_WORKING
                await asyncio.wait([task], timeout=_HEARTBEAT_S)
            try:
                yield encode(task.result())
            except (MergepipeError, OSError) as error:
                yield msgspec.msgpack.encode(wire.error_reply(error))

        return StreamingResponse(slowly(), 200, headers=_HEADERS)

    async def _document(self, request: Request, kind: type[Result]) -> Result:
        body = b"".join([bytes(each) async for each in self._body(request, _LARGEST_REQUEST)])
        try:
            return msgspec.msgpack.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"a request that cannot be read: {error}") from error

    async def _body(self, request: Request, limit: int) -> AsyncIterator[bytearray]:
        """The body in pieces of 1 MiB, as long as it keeps coming."""
        pace = Pace(self._idle_s)
        piece = bytearray()
        total = 0
        more = True
        while more:
            async with asyncio.timeout(pace.left()):
                message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            data = message.get("body", b"")
            more = message.get("more_body", False)
            total += len(data)
            if total > limit:
                raise _TooLarge(f"a request has at most {limit:,} bytes")
            pace.moved(len(data))
            piece += data
            if len(piece) >= _PIECE_BYTES:
                yield piece
                piece = bytearray()
        if piece:
            yield piece


class _Piecewise(Response):
    """A range of a value, read a piece ahead of what is being sent."""

    def __init__(
        self,
        service: Service,
        key: str,
        first: int,
        end: int,
        status: int,
        headers: dict[str, str],
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        self._service = service
        self._key = key
        self._first = first
        self._end = end

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        pace = Pace(self._service._idle_s)
        at = self._first
        coming = self._read(at)
        try:
            while at < self._end:
                piece = await coming
                at += len(piece)
                if at < self._end:
                    coming = self._read(at)
                async with asyncio.timeout(pace.left()):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                pace.restart()
        finally:
            if not coming.done():
                await asyncio.wait([coming])
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _read(self, at: int) -> "asyncio.Future[bytearray]":
        return asyncio.ensure_future(self._service._call(self._piece, at))

    def _piece(self, at: int) -> bytearray:
        piece = bytearray(min(_PIECE_BYTES, self._end - at))
        if self._service._store.read_into(self._key, at, memoryview(piece)) != len(piece):
            raise OSError(f"{self._key} became shorter")
        return piece


def application(
    store: ByteStore,
    tokens: Tokens | None = None,
    *,
    surface: Surface = REPOSITORY,
    read_only: bool = False,
) -> Starlette:
    """`store` as an http application. Without tokens it answers to this machine only."""
    return Service(store, tokens, surface=surface, read_only=read_only).application()


def _publish(store: ByteStore, writer: ByteWriter, key: str) -> None:
    try:
        writer.sync()
        store.publish([(writer, key)])
    finally:
        writer.abort()


def _key(request: Request, allowed: Callable[[str], bool]) -> str:
    key: str = request.path_params["key"]
    # One key has one spelling: `%2e%2e`, `%2F` and the like never get as far as a store.
    spelled: bytes = request.scope.get("raw_path", b"")
    if not wire.is_key(key) or not spelled.endswith(f"/v1/value/{quote(key)}".encode()):
        raise UsageError("not a key")
    if not allowed(key):
        raise RemoteRefused("this key is not for others")
    return key


def _prefix(request: Request, allowed: Callable[[str], bool]) -> str:
    prefix = request.query_params.get("prefix", "")
    if not allowed(prefix):
        raise RemoteRefused("this folder is not for others")
    return prefix


def _packed(document: object) -> Response:
    body = msgspec.msgpack.encode(document)
    if len(body) > wire.LARGEST_LISTING:
        raise RemoteRefused(f"the listing has more than {wire.LARGEST_LISTING:,} bytes")
    return Response(body, media_type="application/msgpack", headers=_HEADERS)


def _error(status: int, reply: wire.ErrorReply, hang_up: bool) -> Response:
    headers = _HEADERS | ({"Connection": "close"} if hang_up else {})
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = msgspec.msgpack.encode(reply)
    return Response(body, status, headers=headers, media_type="application/msgpack")


def _has_body(request: Request) -> bool:
    return request.method in ("PUT", "POST")


def _status(error: BaseException) -> int:
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return 500


def _nothing(result: None) -> bytes:
    return b""


_STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (_NotAllowed, 403),
    (AuthenticationError, 401),
    (_TooLarge, 413),
    (UsageError, 400),
    (NoSpace, 507),
    (Locked, 409),
    (MergepipeError, 409),
    (FileNotFoundError, 404),
)
