"""Parsers of what comes over a line: requests, replies and their heads, from either side."""

import asyncio
import contextlib
import http.client
import io
import json
import logging
import os
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import msgspec

from mergepipe.api import Repository
from mergepipe.bytestore import frames, wire
from mergepipe.bytestore.http_replies import checked_range, read_body, read_reply
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.pace import Pace
from mergepipe.hub.addresses import api_address, file_address, object_address, split
from mergepipe.hub.commit_body import CommitReader
from mergepipe.hub.errors import HubError
from mergepipe.hub.staging import Staging
from mergepipe.transfer.serving.http import application

from .parser import Feed, Parser, plain

_IDS = [bytes([number]) * 32 for number in range(3)]


class _Said:
    """A socket from which a reply can be read."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object, **__: object) -> io.BytesIO:
        return io.BytesIO(self._data)


def _reply(read: Callable[[http.client.HTTPResponse], object]) -> Feed:
    def feed(data: bytes) -> None:
        with http.client.HTTPResponse(cast(Any, _Said(data))) as response:
            response.begin()
            read(response)

    return feed


def _range(response: http.client.HTTPResponse) -> None:
    checked_range(response, 0, 8)
    read_body(response, 8)


def _framed(_: Path) -> tuple[Feed, list[bytes]]:
    requests = (
        frames.Get("refs/heads/main"),
        frames.Read("packs/x.pack", 0, 99),
        frames.Publish("packs/x.pack", 9),
        frames.Swap("refs/heads/main", None, _IDS[0], _IDS[1], False),
        frames.Holds(3),
    )
    payloads = [msgspec.msgpack.encode(request) for request in requests]
    seed = b"".join(
        struct.pack("<IIB", len(payload), number, frames.Kind.REQUEST) + payload
        for number, payload in enumerate(payloads)
    )

    def feed(data: bytes) -> None:
        reading, writing = os.pipe()
        os.write(writing, data[: 32 << 10])
        os.close(writing)
        line = frames.FrameReader(reading)
        try:
            while (header := line.header()) is not None:
                payload = line.payload(header.length)
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    msgspec.msgpack.decode(payload, type=frames.Request)
        finally:
            line.close()
            os.close(reading)

    return feed, [seed]


def _served(_: Path) -> tuple[Feed, list[bytes]]:
    """Heads and bodies of requests, as an ASGI server hands them on."""
    logging.disable()
    store = MemoryByteStore()
    store.put("refs/heads/main", b"x" * 65)
    service = application(store)
    loop = asyncio.new_event_loop()

    def feed(data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        method, _, target = first.partition(b" ")
        raw_path, _, query = target.partition(b"?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method.decode("latin1").upper() or "GET",
            "scheme": "http",
            # As uvicorn makes it of what it has read.
            "path": unquote(raw_path.decode("latin1")),
            "raw_path": raw_path,
            "query_string": query,
            "headers": [
                (name.strip().lower(), value.strip())
                for name, _, value in (line.partition(b":") for line in lines)
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        loop.run_until_complete(_ask(service, scope, body))

    seeds = [
        b"GET /v1/value/refs/heads/main\r\nHost: 127.0.0.1\r\nRange: bytes=0-9\r\n\r\n",
        b"GET /v1/keys?prefix=refs/\r\nHost: 127.0.0.1\r\n\r\n",
        b"PUT /v1/value/packs/x.pack\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /v1/swap\r\nHost: 127.0.0.1\r\n\r\n"
        + wire.encode(wire.SwapRequest("refs/heads/x", None, _IDS[0], _IDS[1])),
        b"POST /v1/holds\r\nHost: 127.0.0.1\r\n\r\n" + wire.encode(_IDS),
    ]
    return feed, seeds


async def _ask(service: Any, scope: dict[str, Any], body: bytes) -> None:
    pieces = iter(
        {"type": "http.request", "body": body[at : at + 4096], "more_body": at + 4096 < len(body)}
        for at in range(0, max(1, len(body)), 4096)
    )

    async def receive() -> MutableMapping[str, Any]:
        return next(pieces, {"type": "http.disconnect"})

    async def send(message: MutableMapping[str, Any]) -> None:
        assert message.get("status", 200) < 500 or message["status"] == 501, message

    asked: Callable[..., Awaitable[None]] = service
    await asked(scope, receive, send)


def _hub_commit(folder: Path) -> tuple[Feed, list[bytes]]:
    repository = Repository.init(folder)
    staging = Staging(repository)

    def feed(data: bytes) -> None:
        reader = CommitReader(staging)
        try:
            for at in range(0, len(data), 50):
                reader.feed(data[at : at + 50])
            reader.finish()
        finally:
            reader.close(done=False)

    entries = [
        {"key": "header", "value": {"summary": "s", "description": "", "parentCommit": "a" * 64}},
        {"key": "file", "value": {"content": "aGVsbG8=", "path": "a", "encoding": "base64"}},
        {"key": "lfsFile", "value": {"path": "b", "algo": "sha256", "oid": "0" * 64, "size": 5}},
        {"key": "deletedFile", "value": {"path": "c"}},
    ]
    return feed, [b"\n".join(json.dumps(entry).encode() for entry in entries)]


def _hub_address(data: bytes) -> None:
    parts = split(data)
    for read in (api_address, file_address, object_address):
        with contextlib.suppress(HubError):
            read(parts)


PARSERS = (
    plain(
        "a request to swap",
        lambda data: wire.parse(data, wire.SwapRequest, "x"),
        wire.encode(wire.SwapRequest("refs/heads/x", None, _IDS[0], _IDS[1])),
    ),
    plain(
        "a list of keys",
        lambda data: list(wire.all_keys(lambda after: data, "packs/")),
        wire.encode(["packs/a.pack", "packs/b.pack"]),
    ),
    plain(
        "values",
        lambda data: wire.all_values(lambda after: data, "refs/"),
        wire.encode({"refs/heads/a": b"x" * 65, "refs/tags/b": b"y" * 65}),
    ),
    plain("what is held", lambda data: wire.parse_holds(data, _IDS), b"\0\1\0"),
    plain(
        "an error of a remote",
        lambda data: str(wire.error_from(wire.parse(data, wire.ErrorReply, "x"))),
        wire.encode(wire.ErrorReply("corruption", "it is broken", "mend it")),
    ),
    Parser("frames", _framed, (frames.LineEnded,)),
    Parser(
        "the head of a reply",
        lambda _: (
            _reply(_range),
            [
                b"HTTP/1.1 206 OK\r\nContent-Length: 8\r\nContent-Range: bytes 0-7/99\r\n\r\n"
                b"12345678"
            ],
        ),
        (OSError, http.client.HTTPException),
    ),
    Parser(
        "a reply that took long",
        lambda _: (
            _reply(lambda response: read_reply(response, Pace())),
            [
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"1\r\n\xc0\r\n5\r\nhello\r\n0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xc0\x90",
            ],
        ),
        (OSError, http.client.HTTPException),
    ),
    Parser("a request", _served),
    Parser("a commit of the hub", _hub_commit),
    plain(
        "an address of the hub",
        _hub_address,
        b"/org/model/resolve/main/a/b.safetensors",
        b"/model/tree/refs%2Fpr%2F1/x",
        b"/model.git/info/lfs/objects/batch",
    ),
)
