"""A byte store over http, as a Starlette application (docs/format-remote.md, "http")."""

import asyncio
import functools
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import quote

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from mergepipe.bytestore import wire
from mergepipe.bytestore.http_replies import PROTOCOL, PROTOCOL_HEADER, STILL_WORKING
from mergepipe.bytestore.pace import IDLE_S
from mergepipe.bytestore.protocol import Buffer, ByteStore
from mergepipe.errors import (
    AuthenticationError,
    Locked,
    MergepipeError,
    NoSpace,
    UsageError,
)
from mergepipe.repository.push_log import Action
from mergepipe.transfer.serving.busy_threads import BusyThreads
from mergepipe.transfer.serving.gate import Gate, NotAllowed
from mergepipe.transfer.serving.http_bodies import Piecewise, drain, receive, steps, whole_body
from mergepipe.transfer.serving.offer import Offer, ReadOnly, TooLarge, is_published
from mergepipe.transfer.serving.recording import Caller
from mergepipe.transfer.serving.surface import REPOSITORY, Surface
from mergepipe.transfer.serving.tokens import Scope, Tokens

_THREADS = 32
_SWAPS = 4
_HEARTBEAT_S = 5.0
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})")
_LARGEST_REQUEST = wire.MOST_IDS * (wire.ID_BYTES + 2) + 16
_HEADERS = {PROTOCOL_HEADER: PROTOCOL, "Cache-Control": "no-store"}

_log = logging.getLogger("mergepipe.serve")
Result = TypeVar("Result")
Endpoint = Callable[[Request], Awaitable[Response]]


class Service:
    """An offer over http. Without tokens it answers to this machine only."""

    def __init__(
        self,
        offer: Offer,
        tokens: Tokens | None = None,
        *,
        idle_s: float = IDLE_S,
    ) -> None:
        self._offer = offer
        self._gate = Gate(tokens)
        self._idle_s = idle_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="serve")
        # Swaps decode and verify, one after the other: reads do not stand in line with them.
        self._swapping = ThreadPoolExecutor(_SWAPS, thread_name_prefix="swap")
        self._calls = BusyThreads()

    @property
    def busy(self) -> int:
        """How many calls of the store are under way."""
        return self._calls.busy

    def application(self) -> Starlette:
        """The routes."""
        read, write = Scope.READ, Scope.WRITE
        value = "/v1/value/{key:path}"
        service = Starlette(
            routes=[
                Route(value, self._guarded(self._get, read), methods=["GET"]),
                Route(value, self._guarded(self._put, write), methods=["PUT"]),
                Route(value, self._guarded(self._delete, write), methods=["DELETE"]),
                Route("/v1/values", self._guarded(self._values, read), methods=["GET"]),
                Route("/v1/keys", self._guarded(self._keys, read), methods=["GET"]),
                Route("/v1/swap", self._guarded(self._swap, write), methods=["POST"]),
                Route("/v1/holds", self._guarded(self._holds, read), methods=["POST"]),
                Route("/v1/pick", self._guarded(self._pick, read), methods=["POST"]),
                Route("/v1/locate", self._guarded(self._locate, read), methods=["POST"]),
                Route("/v1/footers", self._guarded(self._footers, read), methods=["POST"]),
                Route("/v1/swaps", self._guarded(self._swaps, write), methods=["POST"]),
                Route("/v1/purge", self._guarded(self._purge, write), methods=["POST"]),
            ]
        )
        # An address with another slash is another one; to make it, a query would have to be text.
        service.router.redirect_slashes = False
        return service

    def _guarded(self, endpoint: Endpoint, needed: Scope) -> Endpoint:
        """The endpoint, with who may call it before, and errors as replies after."""

        async def guarded(request: Request) -> Response:
            try:
                try:
                    self._gate.check(request.headers, needed)
                except AuthenticationError as error:
                    if needed is Scope.WRITE:
                        await self._call(self._denied, request, error)
                    raise
                return await endpoint(request)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody reads it
            except TimeoutError:
                return _error(408, wire.error_reply(TimeoutError()), True)
            except (MergepipeError, OSError) as error:
                if not isinstance(error, MergepipeError | FileNotFoundError):
                    _log.error(
                        "%s %s failed", request.method, request.scope["path"], exc_info=error
                    )
                if not isinstance(error, TooLarge):
                    await drain(request, self._idle_s)
                return _error(_status(error), wire.error_reply(error), _has_body(request))

        return guarded

    def _caller(self, request: Request) -> Caller:
        address = "" if request.client is None else request.client.host
        forwarded = request.headers.get("x-forwarded-for", "")
        return Caller(self._gate.name(request.headers), address, forwarded)

    def _denied(self, request: Request, error: AuthenticationError) -> None:
        action: Action = "purge" if request.scope["path"].endswith("/v1/purge") else "push"
        self._offer.recorder.denied(self._caller(request), action, error.message)

    async def _get(self, request: Request) -> Response:
        key = _key(request)
        size = await self._call(self._offer.size, key)
        if size is None:
            raise FileNotFoundError(key)
        first, end = 0, size
        asked = request.headers.get("range")
        headers = {**_HEADERS, "Accept-Ranges": "bytes"}
        if asked is not None and request.method != "HEAD":
            match = _RANGE.fullmatch(asked)
            if match is None or int(match[1]) > int(match[2]):
                raise UsageError("only one range of bytes, from first to last, is served")
            first, end = int(match[1]), min(int(match[2]) + 1, size)
            if first >= size:
                return Response(
                    status_code=416, headers={**_HEADERS, "Content-Range": f"bytes */{size}"}
                )
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
        headers["Content-Length"] = str(end - first)
        if request.method == "HEAD":
            return Response(headers=headers)

        def read(begin: int, stop: int) -> Awaitable[Buffer]:
            return self._call(self._piece, key, begin, stop)

        status = 200 if asked is None else 206
        return Piecewise(read, steps(first, end), status, headers, self._idle_s)

    def _piece(self, key: str, begin: int, end: int) -> bytearray:
        piece = bytearray(end - begin)
        if self._offer.read_into(key, begin, memoryview(piece)) != len(piece):
            raise OSError(f"{key} became shorter")
        return piece

    async def _put(self, request: Request) -> Response:
        key = _key(request)
        declared = request.headers.get("content-length", "")
        self._offer.check_upload(key, int(declared) if declared.isdigit() else 0)
        limit = wire.largest_value(key)
        if not is_published(key):
            data = await whole_body(request, limit, self._idle_s)
            return await self._answer(lambda: self._offer.put(key, data), _nothing, 201)
        writer = await self._call(self._offer.create)
        try:
            write = functools.partial(self._call, writer.write)
            await receive(request, write, limit, self._idle_s)
        except BaseException:
            await self._call(writer.abort)
            raise
        there = await self._call(self._offer.size, key) is not None
        status, caller = 200 if there else 201, self._caller(request)
        return await self._answer(
            lambda: self._offer.publish(writer, key, caller), _nothing, status
        )

    async def _delete(self, request: Request) -> Response:
        key = _key(request)
        return await self._answer(lambda: self._offer.delete(key), _nothing)

    async def _values(self, request: Request) -> Response:
        after = request.query_params.get("after")
        return _listing(await self._call(self._offer.values, _prefix(request), after))

    async def _keys(self, request: Request) -> Response:
        after = request.query_params.get("after")
        return _listing(await self._call(self._offer.keys, _prefix(request), after))

    async def _swap(self, request: Request) -> Response:
        asked = await self._document(request, wire.SwapRequest)
        caller = self._caller(request)
        return await self._answer(
            lambda: wire.SwapReply(self._offer.swap(asked, caller)), wire.encode, on=self._swapping
        )

    async def _holds(self, request: Request) -> Response:
        ids = await self._document(request, list[bytes])
        return await self._answer(lambda: self._offer.holds(ids), bytes)

    async def _pick(self, request: Request) -> Response:
        keys = await self._document(request, list[str])
        return _listing(await self._call(self._offer.pick, keys))

    async def _locate(self, request: Request) -> Response:
        ids = await self._document(request, list[bytes])
        return _listing(await self._call(self._offer.locate, ids))

    async def _footers(self, request: Request) -> Response:
        packs = await self._document(request, list[bytes])
        return _listing(await self._call(self._offer.footers, packs))

    async def _swaps(self, request: Request) -> Response:
        asked = await self._document(request, wire.SwapsRequest)
        caller = self._caller(request)
        return await self._answer(
            lambda: wire.SwapReply(self._offer.swaps(asked, caller)),
            wire.encode,
            on=self._swapping,
        )

    async def _purge(self, request: Request) -> Response:
        body = await whole_body(request, _LARGEST_REQUEST, self._idle_s)
        asked, caller = bytes(body), self._caller(request)
        return await self._answer(
            lambda: self._offer.purge(asked, caller), bytes, on=self._swapping
        )

    async def _call(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call the store on a thread: it reads disks."""
        return await self._calls.run(self._threads, function, *arguments)

    async def _answer(
        self,
        work: Callable[[], Result],
        encode: Callable[[Result], bytes],
        status: int = 200,
        on: ThreadPoolExecutor | None = None,
    ) -> Response:
        """What `work` gives. Work that takes long sends nils meanwhile, so that nobody hangs up."""
        task = asyncio.ensure_future(self._calls.run(on or self._threads, work))
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
        body = await whole_body(request, _LARGEST_REQUEST, self._idle_s)
        try:
            return msgspec.msgpack.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"a request that cannot be read: {error}") from error


def application(
    store: ByteStore,
    tokens: Tokens | None = None,
    *,
    surface: Surface = REPOSITORY,
    read_only: bool = False,
) -> Starlette:
    """`store` as an http application. Without tokens it answers to this machine only."""
    return Service(Offer(store, surface=surface, read_only=read_only), tokens).application()


def _key(request: Request) -> str:
    key: str = request.path_params["key"]
    # One key has one spelling: `%2e%2e`, `%2F` and the like never get as far as a store.
    spelled: bytes = request.scope.get("raw_path", b"")
    if not spelled.endswith(f"/v1/value/{quote(key)}".encode()):
        raise UsageError("not a key")
    return key


def _prefix(request: Request) -> str:
    return request.query_params.get("prefix", "")


def _listing(body: bytes) -> Response:
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


def _nothing(result: object) -> bytes:
    return b""


_STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (NotAllowed, 403),
    (ReadOnly, 403),
    (AuthenticationError, 401),
    (TooLarge, 413),
    (UsageError, 400),
    (NoSpace, 507),
    (Locked, 409),
    (MergepipeError, 409),
    (FileNotFoundError, 404),
)
