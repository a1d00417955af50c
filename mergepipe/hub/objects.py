"""Files that come before their commit by git-lfs's protocol: whole, or large ones in parts.

Parts are what the hub's clients call `multipart`: each is sent to an address of its own, and sent
again alone when its connection breaks. A part is known by its SHA-256, which is its ETag.
"""

import re
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mergepipe.hub.addresses import Address
from mergepipe.hub.errors import HubError
from mergepipe.hub.models import Model
from mergepipe.hub.reception import Reception
from mergepipe.hub.requests import base_url
from mergepipe.hub.staging import StagedFile, Staging
from mergepipe.transfer.serving.http_bodies import drain

PART_BYTES = 64 << 20
"""Of files that come in parts: those that are larger than one."""
_MOST_PARTS = 1000
_PIECE_BYTES = 1 << 20
_LFS = "application/vnd.git-lfs+json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Objects:
    """git-lfs's steps of an upload. Who asks may write: that was looked at before."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    async def batch(self, request: Request, address: Address) -> Response:
        """Where the objects go that are not here yet (git-lfs, docs/api/batch.md)."""
        asked = await self._reception.document(request)
        objects, transfers = asked.get("objects"), asked.get("transfers")
        if not isinstance(objects, list) or not all(_is_object(each) for each in objects):
            raise HubError(422, "`objects` lists SHA-256s and sizes")
        if asked.get("operation") != "upload":
            raise HubError(422, "files are downloaded from their own addresses")
        self._reception.arrivals.check_writable()
        model = await self._reception.model(address)
        place = f"{base_url(request)}/{model.id}.git/info/lfs/objects"
        in_parts = isinstance(transfers, list) and "multipart" in transfers
        in_parts = in_parts and any(each["size"] > PART_BYTES for each in objects)

        def told() -> list[dict[str, Any]]:
            return [
                self._object(model, place, each["oid"], each["size"], in_parts) for each in objects
            ]

        answers = await self._reception.work.call(told)
        transfer = "multipart" if in_parts else "basic"
        return JSONResponse(
            {"transfer": transfer, "objects": answers, "hash_algo": "sha256"}, media_type=_LFS
        )

    def _object(
        self, model: Model, place: str, sha256: str, size: int, in_parts: bool
    ) -> dict[str, Any]:
        known: dict[str, Any] = {"oid": sha256, "size": size, "authenticated": True}
        if self._reception.arrivals.is_here(model.repository, sha256, size):
            return known

        def href(*part: int) -> str:
            allowed = self._reception.passes.issue(model.id, sha256, str(size), *map(str, part))
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
        model = await self._reception.model(address)
        staging = self._reception.staging(model)
        if part is not None:
            first = int(part) * _part_bytes(int(size))
            length = min(_part_bytes(int(size)), int(size) - first)
            file = await self._file(request, staging, length, None)
            return Response(headers={"ETag": f'"{file.sha256}"'})
        if staging.hold(sha256, int(size)):
            await drain(request, self._reception.idle_s)
            return Response()
        await self._file(request, staging, int(size), sha256)
        return Response()

    async def _file(
        self, request: Request, staging: Staging, size: int, sha256: str | None
    ) -> StagedFile:
        file = await self._reception.file(
            request, staging, size + 1, size=size, sha256=sha256, lasting=True
        )
        staging.give_back(file, done=False)
        return file

    async def complete(self, request: Request, address: Address) -> Response:
        """The parts of an object are all here: they become it."""
        sha256, size = address.rest[0], request.query_params.get("size", "")
        self._check_pass(request, address, size)
        asked = await self._reception.document(request)
        model = await self._reception.model(address)
        names = _part_names(asked.get("parts"))
        await self._reception.work.calls.run(
            self._reception.work.committing,
            self._join,
            self._reception.staging(model),
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
            with staging.begin(size) as upload:
                for part in parts:
                    for piece in part.pieces(0, part.size, _PIECE_BYTES):
                        upload.write(piece)
                file = upload.finish(sha256, lasting=True)
            staging.give_back(file, done=False)
            done = True
        finally:
            for part in parts:
                staging.give_back(part, done=done)

    async def verify(self, request: Request, address: Address) -> Response:
        """Whether an object came."""
        asked = await self._reception.document(request)
        if not _is_object(asked):
            raise HubError(422, "an object has a SHA-256 and a size")
        model = await self._reception.model(address)
        here = self._reception.arrivals.is_here
        if not await self._reception.work.call(here, model.repository, asked["oid"], asked["size"]):
            raise HubError(404, "no such object came")
        return JSONResponse({}, media_type=_LFS)

    def _check_pass(self, request: Request, address: Address, *words: str) -> None:
        query = request.query_params
        if not self._reception.passes.holds(query, address.model, address.rest[0], *words):
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
