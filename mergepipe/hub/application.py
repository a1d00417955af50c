"""The hub as an ASGI application: what each address answers, to whom, and on which threads."""

import asyncio
import functools
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from mergepipe.bytestore.pace import IDLE_S
from mergepipe.bytestore.protocol import Buffer
from mergepipe.errors import MergepipeError
from mergepipe.hub import errors, listings
from mergepipe.hub.addresses import Address, api_address, file_address, object_address, split
from mergepipe.hub.decoding import DecodedBlocks
from mergepipe.hub.errors import HubError
from mergepipe.hub.files import PIECE_BYTES, FileBytes, Files
from mergepipe.hub.models import commit_of, find_model, list_models, spelled
from mergepipe.hub.pages.application import Pages
from mergepipe.hub.repositories import Repositories
from mergepipe.hub.requests import LARGEST_REQUEST, base_url
from mergepipe.hub.resolving import resolve
from mergepipe.hub.uploads import Uploads
from mergepipe.hub.work import Work
from mergepipe.hub.xet.application import PREFIX
from mergepipe.transfer.serving.gate import Gate
from mergepipe.transfer.serving.http_bodies import Piecewise, drain, whole_body
from mergepipe.transfer.serving.tokens import Scope

DOWNLOADS = 64
"""That may be under way at once."""
_WAIT_S = 5.0
_LIST_PAGE, _TREE_PAGE, _DETAILED_PAGE, _COMMITS_PAGE = 1000, 1000, 50, 50

_log = logging.getLogger("mergepipe.serve")


class Hub:
    """Models of repositories, as an ASGI application."""

    def __init__(
        self,
        repositories: Repositories,
        gate: Gate,
        *,
        read_only: bool = False,
        idle_s: float = IDLE_S,
        downloads: int = DOWNLOADS,
    ) -> None:
        self._repositories = repositories
        self._gate = gate
        self._idle_s = idle_s
        self._files = Files(DecodedBlocks())
        self._work = Work()
        self._uploads = Uploads(repositories, self._files, self._work, read_only, idle_s)
        self._pages = Pages(repositories, gate, self._files, self._work)
        self._slots = asyncio.Semaphore(downloads)
        self._streams = 0

    @property
    def busy(self) -> int:
        """How many pieces of work are under way on its threads."""
        return self._work.calls.busy

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        async with AsyncExitStack() as stack:
            try:
                response = await self._answer(request, stack)
            except ClientDisconnect:
                return
            except (MergepipeError, OSError) as error:
                response = await self._failure(request, error)
            try:
                await response(scope, receive, send)
            except (MergepipeError, OSError) as error:
                # The reply had begun: a connection that ends too soon says so to the client.
                why = str(error) or "the client takes nothing"
                _log.error("%s %s broke off: %s", request.method, request.scope["path"], why)

    async def _failure(self, request: Request, error: BaseException) -> Response:
        if not isinstance(error, MergepipeError | TimeoutError):
            _log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
        await drain(request, self._idle_s)
        return errors.response(error, hang_up=request.method not in ("GET", "HEAD"))

    async def _answer(self, request: Request, stack: AsyncExitStack) -> Response:
        parts = split(request.scope.get("raw_path", b"").partition(b"?")[0])
        if self._pages.are_asked_for(request, parts):
            return await self._pages.answer(request, parts, base_url(request))
        if (address := object_address(parts)) is not None:
            return await self._object(request, address)
        if parts[:2] == PREFIX:
            # As above: the token that leads here is good for nothing else.
            self._gate.check_caller(request.headers)
            return await self._uploads.xet.answer(request, parts[2:])
        if parts[0] != "api" and request.method in ("GET", "HEAD"):
            # Links of pages lead here: a browser has what it sent for them.
            self._gate.check_browser(request.headers)
            return await self._file(request, file_address(parts), stack)
        self._gate.check(request.headers, Scope.READ)
        if parts[0] == "api":
            return await self._api(request, parts[1:])
        raise HubError(405, "this address is only read")

    async def _object(self, request: Request, address: Address) -> Response:
        """A step of an upload by git-lfs's protocol."""
        if request.method == "PUT":
            # The client sends no token with the bytes: the address that it was given is one.
            self._gate.check_caller(request.headers)
            return await self._uploads.objects.put(request, address)
        self._gate.check(request.headers, Scope.WRITE)
        if request.method != "POST":
            raise HubError(405, "objects are only written here")
        if address.rest == ("batch",):
            return await self._uploads.objects.batch(request, address)
        if address.rest == ("verify",):
            return await self._uploads.objects.verify(request, address)
        if address.rest:
            return await self._uploads.objects.complete(request, address)
        raise HubError(404, "this hub has nothing at this address")

    # Files

    async def _file(self, request: Request, address: Address, stack: AsyncExitStack) -> Response:
        model = await self._work.call(find_model, self._repositories, address.model)
        if request.method == "GET":
            await self._take_slot(stack)
        reply = await self._work.call(
            functools.partial(resolve, body=request.method == "GET"),
            self._files,
            model,
            address.revision,
            address.path,
            dict(request.headers),
        )
        if request.method == "HEAD" or reply.first == reply.end:
            return Response(status_code=reply.status, headers=reply.headers)
        return await self._stream(reply.content, reply.first, reply.end, reply)

    async def _take_slot(self, stack: AsyncExitStack) -> None:
        """Wait for one's turn to download. Raises HubError (429) where it does not come."""
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise HubError(
                429, "too many downloads at once", headers={"Retry-After": "1"}
            ) from None
        self._streams += 1

        def give_back() -> None:
            self._streams -= 1
            self._slots.release()

        stack.callback(give_back)

    async def _stream(self, content: FileBytes, first: int, end: int, reply: Any) -> Response:
        """The reply with its bytes. What cannot be read at all is an error, not a broken reply."""
        spans = content.spans(first, end, self._piece_bytes)
        span = next(spans)
        threads = self._work.fetching if content.is_elsewhere else self._work.decoding

        def read(begin: int, stop: int) -> Awaitable[Buffer]:
            return self._work.calls.run(threads, content.read, begin, stop)

        start = await read(*span)

        async def read_on(begin: int, stop: int) -> Buffer:
            return start if (begin, stop) == span else await read(begin, stop)

        def all_spans() -> Any:
            yield span
            yield from spans

        return Piecewise(
            read_on, all_spans(), reply.status, reply.headers, self._idle_s, self._ahead
        )

    def _ahead(self) -> int:
        """Pieces that one download may have decoded ahead: its share of what keeps cores busy."""
        return max(1, (2 * self._work.cores + 2) // max(1, self._streams))

    def _piece_bytes(self) -> int:
        """How long a piece is: the more downloads, the shorter, so that memory stays the same."""
        return max(1, PIECE_BYTES // max(1, self._streams))

    # Listings

    async def _api(self, request: Request, parts: tuple[str, ...]) -> Response:
        if parts == ("whoami-v2",):
            return JSONResponse(self._whoami(request))
        if parts == ("models",) and request.method == "GET":
            return await self._models(request)
        if parts in _WRITING and request.method == "POST":
            self._gate.check(request.headers, Scope.WRITE)
            return await _WRITING[parts](self._uploads, request)
        if len(parts) > 1 and parts[0] == "models":
            address = api_address(parts[1:])
            upload = _UPLOADS.get((request.method, address.action))
            if upload is not None:
                self._gate.check(request.headers, Scope.WRITE)
                return await upload(self._uploads, request, address)
            endpoint = _ENDPOINTS.get((request.method, address.action))
            if endpoint is not None:
                return await endpoint(self, request, address)
            if (request.method, address.action) == ("GET", "xet-write-token"):
                self._gate.check(request.headers, Scope.WRITE)
                return await self._uploads.xet.token(request, address)
            if any(action == address.action for _, action in _ENDPOINTS):
                raise HubError(405, "not so, at this address")
        raise HubError(404, "this hub has nothing at this address")

    def _whoami(self, request: Request) -> listings.Document:
        if self._gate.guarded:
            name = self._repositories.sole or "mergepipe"
        else:
            name = self._repositories.sole or "local"
        return listings.whoami(name, self._gate.scope(request.headers))

    async def _models(self, request: Request) -> Response:
        query = request.query_params
        author, search = query.get("author"), query.get("search", "").lower()
        first = _number(query.get("cursor"), 0)
        count = min(_number(query.get("limit"), _LIST_PAGE), _LIST_PAGE)

        def found() -> list[listings.Document]:
            models = [
                model
                for model in list_models(self._repositories)
                if author in (None, model.id.partition("/")[0]) and search in model.id.lower()
            ]
            listed = []
            for model in models[first : first + count + 1]:
                identity = model.repository.resolve(spelled(model, "main"))
                commit = model.repository.objects.commit(identity)
                private = self._gate.guarded
                listed.append(listings.summary(model, identity, commit, private=private))
            return listed

        listed = await self._work.call(found)
        return _page(request, listed, first, count)

    async def _info(self, request: Request, address: Address) -> Response:
        model = await self._work.call(find_model, self._repositories, address.model)
        blobs = _flag(request.query_params.get("blobs"))
        told = functools.partial(listings.info, private=self._gate.guarded, blobs=blobs)
        return JSONResponse(await self._work.call(told, self._files, model, address.revision))

    async def _tree(self, request: Request, address: Address) -> Response:
        query = request.query_params
        expand = _flag(query.get("expand"))
        first, count = _number(query.get("cursor"), 0), _DETAILED_PAGE if expand else _TREE_PAGE
        count = min(_number(query.get("limit"), count), count)

        def found() -> tuple[list[listings.Document], str]:
            model = find_model(self._repositories, address.model)
            items, commit = listings.tree(
                self._files,
                model,
                address.revision,
                address.path,
                recursive=_flag(query.get("recursive")),
            )
            last = commit_of(model, commit) if expand and commit else None
            some = items[first : first + count + 1]
            return listings.shown(self._files, model, some, last), commit

        listed, commit = await self._work.call(found)
        return _page(request, listed, first, count, {"X-Repo-Commit": commit})

    async def _paths_info(self, request: Request, address: Address) -> Response:
        paths = _paths(await whole_body(request, LARGEST_REQUEST, self._idle_s))

        def found() -> list[listings.Document]:
            model = find_model(self._repositories, address.model)
            return listings.paths_info(self._files, model, address.revision, paths)

        return JSONResponse(await self._work.call(found))

    async def _refs(self, request: Request, address: Address) -> Response:
        return JSONResponse(
            await self._work.call(
                lambda: listings.refs(find_model(self._repositories, address.model))
            )
        )

    async def _commits(self, request: Request, address: Address) -> Response:
        query = request.query_params
        first = _number(query.get("cursor"), 0)
        count = min(_number(query.get("limit"), _COMMITS_PAGE), _COMMITS_PAGE)

        def found() -> list[listings.Document]:
            model = find_model(self._repositories, address.model)
            return listings.commits(model, address.revision, first, count + 1)

        return _page(request, await self._work.call(found), first, count)

    async def _auth_check(self, request: Request, address: Address) -> Response:
        await self._work.call(find_model, self._repositories, address.model)
        return JSONResponse({})

    async def _no_xet(self, request: Request, address: Address) -> Response:
        raise HubError(404, "nothing is downloaded by xet here: files travel over http")


Endpoint = Callable[[Hub, Request, Address], Awaitable[Response]]
_ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("GET", ""): Hub._info,
    ("GET", "revision"): Hub._info,
    ("GET", "tree"): Hub._tree,
    ("POST", "paths-info"): Hub._paths_info,
    ("GET", "refs"): Hub._refs,
    ("GET", "commits"): Hub._commits,
    ("GET", "auth-check"): Hub._auth_check,
    ("GET", "xet-read-token"): Hub._no_xet,
}


_WRITING = {
    ("validate-yaml",): Uploads.validate_yaml,
    ("repos", "create"): Uploads.create,
}
_UPLOADS = {
    ("POST", "preupload"): Uploads.preupload,
    ("POST", "commit"): Uploads.commit,
    ("POST", "branch"): Uploads.branch,
    ("POST", "tag"): Uploads.tag,
}


def _page(
    request: Request,
    listed: list[listings.Document],
    first: int,
    count: int,
    headers: dict[str, str] | None = None,
) -> Response:
    """A page of a list of which one more than `count` was looked up, and where the next one is."""
    more = dict(headers or {})
    if len(listed) > count:
        query = dict(request.query_params) | {"cursor": str(first + count)}
        path = request.scope["raw_path"].decode("ascii")
        more["Link"] = f'<{base_url(request)}{path}?{urlencode(query)}>; rel="next"'
    return JSONResponse(listed[:count], headers=more)


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else otherwise


def _flag(text: str | None) -> bool:
    return text is not None and text.lower() in ("true", "1", "yes")


def _paths(body: bytes) -> list[str]:
    """The paths that a form, or JSON, names. Raises HubError."""
    try:
        text = body.decode()
        if text.lstrip().startswith("{"):
            named = json.loads(text).get("paths", [])
        else:
            named = parse_qs(text, strict_parsing=bool(text)).get("paths", [])
    except (ValueError, RecursionError) as error:
        raise HubError(400, f"a request that cannot be read: {error}") from error
    paths = [named] if isinstance(named, str) else named
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise HubError(400, "`paths` is a list of paths")
    return paths
