"""Files that come before their commit by git-lfs's protocol: whole, or large ones in parts.

Parts are what the hub's clients call `multipart`: each is sent to an address of its own, and sent
again alone when its connection breaks. A part is known by its SHA-256, which is its ETag.
"""

import functools
import re
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mergepipe.hub.addresses import Address
from mergepipe.hub.arrivals import Arrivals
from mergepipe.hub.errors import HubError
from mergepipe.hub.models import Model, find_model
from mergepipe.hub.passes import Passes
from mergepipe.hub.repositories import Repositories
from mergepipe.hub.requests import base_url, read_document
from mergepipe.hub.staging import StagedFile, Staging
from mergepipe.hub.work import Work
from mergepipe.transfer.serving.http_bodies import drain, receive

PART_BYTES = 64 << 20
"""Of files that come in parts: those that are larger than one."""
_MOST_PARTS = 1000
_PIECE_BYTES = 1 << 20
_LFS = "application/vnd.git-lfs+json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Objects:
    """git-lfs's steps of an upload. Who asks may write: that was looked at before."""

    def __init__(
        self,
        repositories: Repositories,
        arrivals: Arrivals,
        passes: Passes,
        work: Work,
        idle_s: float,
    ) -> None:
        self._repositories = repositories
        self._arrivals = arrivals
        self._passes = passes
        self._work = work
        self._idle_s = idle_s

    async def batch(self, request: Request, address: Address) -> Response:
        """Where the objects go that are not here yet (git-lfs, docs/api/batch.md)."""
        asked = await read_document(request, self._idle_s)
        objects, transfers = asked.get("objects"), asked.get("transfers")
        if not isinstance(objects, list) or not all(_is_object(each) for each in objects):
            raise HubError(422, "`objects` lists SHA-256s and sizes")
        if asked.get("operation") != "upload":
            raise HubError(422, "files are downloaded from their own addresses")
        self._arrivals.check_writable()
        model = await self._model(address)
        place = f"{base_url(request)}/{model.id}.git/info/lfs/objects"
        in_parts = isinstance(transfers, list) and "multipart" in transfers
        in_parts = in_parts and any(each["size"] > PART_BYTES for each in objects)

        def told() -> list[dict[str, Any]]:
            return [
                self._object(model, place, each["oid"], each["size"], in_parts) for each in objects
            ]

        answers = await self._work.call(told)
        transfer = "multipart" if in_parts else "basic"
        return JSONResponse(
            {"transfer": transfer, "objects": answers, "hash_algo": "sha256"}, media_type=_LFS
        )

    def _object(
        self, model: Model, place: str, sha256: str, size: int, in_parts: bool
    ) -> dict[str, Any]:
        known: dict[str, Any] = {"oid": sha256, "size": size, "authenticated": True}
        if self._arrivals.is_here(model.repository, sha256, size):
            return known

        def href(*part: int) -> str:
            allowed = self._passes.issue(model.id, sha256, str(size), *map(str, part))
            query = {"size": size, **({"part": part[0]} if part else {}), **allowed}
            return f"{place}/{sha256}?{urlencode(query)}"

        upload: dict[str, Any] = {"href": href()}
        if in_parts and size > PART_BYTES:
            length = _part_bytes(size)
            count = -(-size // length)
            upload["header"] = {"chunk_size": str(length)} | {
                str(number + 1): href(number) for number in range(count)
            }
        return known | {"actions": {"upload": upload, "verify": {"href": f"{place}/verify"}}}

    async def put(self, request: Request, address: Address) -> Response:
        """An object itself or a part of one, at the address that `batch` gave."""
        sha256, query = address.rest[0], request.query_params
        size, part = query.get("size", ""), query.get("part")
        words = (size,) if part is None else (size, part)
        self._check_pass(request, address, *words)
        model = await self._model(address)
        staging = self._arrivals.of(model.repository)
        if part is not None:
            first = int(part) * _part_bytes(int(size))
            length = min(_part_bytes(int(size)), int(size) - first)
            file = await self._receive(request, staging, length, None)
            return Response(headers={"ETag": f'"{file.sha256}"'})
        if staging.hold(sha256, int(size)):
            await drain(request, self._idle_s)
            return Response()
        await self._receive(request, staging, int(size), sha256)
        return Response()

    async def _receive(
        self, request: Request, staging: Staging, size: int, sha256: str | None
    ) -> StagedFile:
        upload = await self._work.call(staging.begin, size)
        try:
            write = functools.partial(self._work.call, upload.write)
            await receive(request, write, size + 1, self._idle_s)
            file = await self._work.call(upload.finish, sha256, lasting=True)
        except BaseException:
            await self._work.call(upload.abort)
            raise
        staging.give_back(file, done=False)
        return file

    async def complete(self, request: Request, address: Address) -> Response:
        """The parts of an object are all here: they become it."""
        sha256, size = address.rest[0], request.query_params.get("size", "")
        self._check_pass(request, address, size)
        asked = await read_document(request, self._idle_s)
        model = await self._model(address)
        names = _part_names(asked.get("parts"))
        await self._work.calls.run(
            self._work.committing,
            self._join,
            self._arrivals.of(model.repository),
            names,
            sha256,
            int(size),
        )
        return JSONResponse({}, media_type=_LFS)

    def _join(self, staging: Staging, names: list[str], sha256: str, size: int) -> None:
        if staging.hold(sha256, size):
            return
        parts: list[StagedFile] = []
        done = False
        try:
            for name in names:
                part = staging.take(name)
                if part is None:
                    raise HubError(400, f"no part with the ETag {name} came: send it again")
                parts.append(part)
            upload = staging.begin(size)
            try:
                for part in parts:
                    for piece in part.pieces(0, part.size, _PIECE_BYTES):
                        upload.write(piece)
                file = upload.finish(sha256, lasting=True)
            except BaseException:
                upload.abort()
                raise
            staging.give_back(file, done=False)
            done = True
        finally:
            for part in parts:
                staging.give_back(part, done=done)

    async def verify(self, request: Request, address: Address) -> Response:
        """Whether an object came."""
        asked = await read_document(request, self._idle_s)
        if not _is_object(asked):
            raise HubError(422, "an object has a SHA-256 and a size")
        model = await self._model(address)
        here = self._arrivals.is_here
        if not await self._work.call(here, model.repository, asked["oid"], asked["size"]):
            raise HubError(404, "no such object came")
        return JSONResponse({}, media_type=_LFS)

    async def _model(self, address: Address) -> Model:
        return await self._work.call(find_model, self._repositories, address.model, new=True)

    def _check_pass(self, request: Request, address: Address, *words: str) -> None:
        query = request.query_params
        if not self._passes.holds(query, address.model, address.rest[0], *words):
            raise HubError(403, "this address was not given out here, or too long ago")


def _part_bytes(size: int) -> int:
    """How long the parts of a file of this size are, but for the last."""
    return max(PART_BYTES, -(-size // _MOST_PARTS))


def _part_names(listed: object) -> list[str]:
    """The ETags of parts, in the order of their numbers. Raises HubError."""
    if not isinstance(listed, list) or len(listed) > _MOST_PARTS:
        raise HubError(422, "`parts` lists numbers and ETags")
    names = {}
    for each in listed:
        number = each.get("partNumber") if isinstance(each, dict) else None
        name = each.get("etag") if isinstance(each, dict) else None
        if not isinstance(number, int) or not isinstance(name, str):
            raise HubError(422, "`parts` lists numbers and ETags")
        names[number] = name.strip('"')
    return [names[number] for number in sorted(names)]


def _is_object(listed: object) -> bool:
    return (
        isinstance(listed, dict)
        and isinstance(listed.get("size"), int)
        and listed["size"] >= 0
        and isinstance(listed.get("oid"), str)
        and _SHA256.fullmatch(listed["oid"]) is not None
    )
