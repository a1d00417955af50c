"""The addresses by which files come by xet: a token, xorbs, and shards that make files of them."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mergepipe.hub.addresses import Address
from mergepipe.hub.errors import HubError
from mergepipe.hub.reception import Reception
from mergepipe.hub.requests import base_url
from mergepipe.hub.staging import StagedFile
from mergepipe.hub.xet import shards, xorbs
from mergepipe.hub.xet.hashes import from_hex, to_hex
from mergepipe.hub.xet.sessions import LINGERS_S, Session, Sessions, Xorb
from mergepipe.hub.xet.shards import ShardFile

PREFIX = ("api", "xet")
"""What the addresses begin with that a token leads to."""
_PIECE_BYTES = 1 << 20
_HASH = re.compile(r"[0-9a-f]{64}")
_BEARER = re.compile(r"bearer +(?P<until>[0-9]+)\.(?P<pass>[0-9a-f]{64}) *", re.IGNORECASE)


class XetUploads:
    """Takes in files by xet. What is uploaded waits for its commit as if git-lfs had brought it."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._sessions = Sessions()

    async def token(self, request: Request, address: Address) -> Response:
        """Where an upload to a model goes, and what shows there that it may. Who asks may write."""
        self._reception.arrivals.check_writable()
        model = await self._reception.model(address)
        session = self._sessions.open(model, self._reception.staging(model))
        allowed = self._reception.passes.issue(*PREFIX, session.name)
        place = f"{base_url(request)}/{'/'.join(PREFIX)}/{session.name}"
        until, token = allowed["until"], f"{allowed['until']}.{allowed['pass']}"
        return JSONResponse(
            {"casUrl": place, "accessToken": token, "exp": int(until)},
            headers={
                "X-Xet-Cas-Url": place,
                "X-Xet-Access-Token": token,
                "X-Xet-Token-Expiration": until,
            },
        )

    async def answer(self, request: Request, parts: tuple[str, ...]) -> Response:
        """A request to an address that a token led to; `parts` is what comes after `PREFIX`."""
        name, rest = (parts[0], parts[1:]) if parts else ("", ())
        match = _BEARER.fullmatch(request.headers.get("authorization", ""))
        if match is None or not self._reception.passes.holds(match.groupdict(), *PREFIX, name):
            raise HubError(401, "this token was not given out here, or too long ago")
        session = self._sessions.find(name)
        if session is None:
            raise HubError(404, "this upload was given up: begin it again")
        with _going_on(session):
            if request.method == "POST" and rest[:2] == ("v1", "xorbs") and len(rest) == 4:
                return await self._xorb(request, session, rest[3])
            if request.method == "POST" and rest in (("v1", "shards"), ("shards",)):
                return await self._shard(request, session)
        # Among them: whether somebody else has a chunk, which nobody here is told.
        raise HubError(404, "this hub has nothing at this address")

    async def _xorb(self, request: Request, session: Session, written: str) -> Response:
        if _HASH.fullmatch(written) is None:
            raise HubError(400, "a xorb is called by 64 hexadecimal digits")
        async with self._reception.upload(session.staging) as upload:
            reader = xorbs.XorbReader(upload.write)
            await self._reception.receive(request, reader.feed, xorbs.LARGEST_BYTES)
            content = await self._reception.work.call(reader.finish)
            if content.name != from_hex(written):
                raise HubError(400, f"what came is the xorb {to_hex(content.name)}, not {written}")
            file = await self._reception.work.call(upload.finish)
        if content.name in session.xorbs:
            session.staging.give_back(file, done=False)
            return JSONResponse({"was_inserted": False})
        session.xorbs[content.name] = Xorb(file, content.ends)
        return JSONResponse({"was_inserted": True})

    async def _shard(self, request: Request, session: Session) -> Response:
        body = await self._reception.file(request, session.staging, shards.LARGEST_BYTES)
        work = self._reception.work
        await work.calls.run(work.committing, self._make_files, session, body)
        session.has_made_files = True
        loop = asyncio.get_running_loop()
        loop.call_later(LINGERS_S + 1, self._sessions.sweep)
        return JSONResponse({"result": 1})

    def _make_files(self, session: Session, body: StagedFile) -> None:
        try:
            if not body.size:
                raise HubError(400, "a shard was cut short")
            content = np.memmap(body.location, np.uint8, "r")
            for _ in shards.read_shard(content.data):
                pass  # all of it can be read: one that was cut short makes nothing
            for file in shards.read_shard(content.data):
                if not self._reception.arrivals.is_here(
                    session.model.repository, file.sha256, file.size
                ):
                    _make_file(session, file)
        finally:
            session.staging.give_back(body, done=False)


@contextmanager
def _going_on(session: Session) -> Iterator[None]:
    session.requests += 1
    try:
        yield
    finally:
        session.requests -= 1


def _make_file(session: Session, file: ShardFile) -> None:
    with session.staging.begin(file.size) as upload:
        for part in file.parts():
            xorb = session.xorbs.get(part.xorb)
            if xorb is None:
                raise HubError(400, "a file is made of chunks that did not come: upload it again")
            if not part.first < part.end <= len(xorb.ends):
                raise HubError(400, "a file is made of chunks that its xorb does not have")
            first = xorb.ends[part.first - 1] if part.first else 0
            end = xorb.ends[part.end - 1]
            if end - first != part.size:
                raise HubError(400, "the chunks of a file are not as long as it says")
            for piece in xorb.file.pieces(first, end, _PIECE_BYTES):
                upload.write(piece)
        whole = upload.finish(file.sha256, lasting=True)
    session.staging.give_back(whole, done=False)
