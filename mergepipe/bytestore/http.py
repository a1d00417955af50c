"""A byte store that another machine serves over http (docs/format-remote.md, "http")."""

import contextlib
import http.client
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar
from urllib.parse import quote

from mergepipe.bytestore import wire
from mergepipe.bytestore.http_connection import Connections, paced
from mergepipe.bytestore.http_refusals import Broken, broken, refusal
from mergepipe.bytestore.http_replies import (
    PROTOCOL,
    PROTOCOL_HEADER,
    checked_range,
    read_body,
    read_reply,
)
from mergepipe.bytestore.pace import IDLE_S, Pace
from mergepipe.bytestore.protocol import Buffer, ByteWriter, NotOffered, Swap
from mergepipe.bytestore.retries import Retries
from mergepipe.bytestore.spool import SpoolWriter
from mergepipe.closing import Closing
from mergepipe.errors import (
    MergepipeError,
    RemoteRefused,
    RemoteUnreachable,
    UsageError,
)
from mergepipe.ids import PackId
from mergepipe.names import quoted

# RFC 6750, section 2.1. Anything else could end the header and begin another.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_GONE_FOR_NOW = frozenset((408, 429, 500, 502, 503, 504))
_PROGRESS_BYTES = 1 << 20

Taken = TypeVar("Taken")
Take = Callable[[http.client.HTTPResponse, Pace], Taken]
_RETRIED = (OSError, http.client.HTTPException)


class _ServerTrouble(OSError):
    """A 5xx, or the like, that may be gone when we ask again."""


class HttpByteStore(Closing):
    """What `mp serve` offers at `url`. Reads, and writes that can be looked up, are retried.

    `unsent` is what a user should read where the server wants a token, and one was not sent.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        unsent: str = "",
        idle_s: float = IDLE_S,
        retries: Retries | None = None,
    ) -> None:
        if token is not None and not _TOKEN.fullmatch(token):
            raise UsageError("the token holds characters that a token cannot have")
        self.url = url
        self._unsent = unsent
        self._connections = Connections(url, idle_s)
        self._retries = retries or Retries()
        self._idle_s = idle_s
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "mergepipe"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        if self._connections.proxy_authorization:
            self._headers["Proxy-Authorization"] = self._connections.proxy_authorization

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def get(self, key: str) -> bytes | None:
        """The whole value, or None. Raises RemoteRefused if it is no small value, nor a pack."""
        limit = wire.largest_value(key)

        def take(response: http.client.HTTPResponse, pace: Pace) -> bytes | None:
            return None if response.status == 404 else read_body(response, limit)

        return self._ask("GET", _value(key), take, limit, missing=True)

    def read_into(self, key: str, offset: int, out: memoryview) -> int:
        """Fill `out` from `offset` of the value; a broken read goes on where it broke."""
        if not len(out):
            if self.size(key) is None:
                raise FileNotFoundError(key)
            return 0
        done = 0
        ended = False

        def wanted() -> dict[str, str]:
            return {"Range": f"bytes={offset + done}-{offset + len(out) - 1}"}

        def take(response: http.client.HTTPResponse, pace: Pace) -> bool:
            nonlocal done, ended
            if response.status in (404, 416):
                ended = True
                return response.status == 416
            count, total = checked_range(response, offset + done, len(out) - done)
            ended = offset + done + count == total
            end = done + count
            while done < end:
                moved = response.readinto(out[done:end])
                if not moved:
                    raise ConnectionError("the reply was cut off")
                done += moved
            return True

        while done < len(out) and not ended:
            before = done
            try:
                found = self._ask(
                    "GET", _value(key), take, len(out) - done, headers=wanted, missing=True
                )
            except Broken:
                # A line that keeps breaking gets through a large read all the same.
                if done - before < _PROGRESS_BYTES:
                    raise
                continue
            if not found:
                raise FileNotFoundError(key)
        return done

    def size(self, key: str) -> int | None:
        """Length of the value, or None."""

        def take(response: http.client.HTTPResponse, pace: Pace) -> int | None:
            if response.status == 404:
                return None
            length = response.headers.get("Content-Length", "")
            if not (length.isascii() and length.isdigit() and len(length) < 19):
                raise RemoteRefused(f"the remote does not say how long {quoted(key)} is")
            return int(length)

        return self._ask("HEAD", _value(key), take, 0, missing=True)

    def holds(self, ids: Sequence[bytes]) -> list[bool]:
        """Whether each block or object is there whole."""
        answers: list[bool] = []
        for at in range(0, len(ids), wire.MOST_IDS):
            some = ids[at : at + wire.MOST_IDS]
            body = wire.encode(some)
            reply = self._ask(
                "POST", "/v1/holds", read_reply, wire.MOST_IDS + wire.LARGEST_REPLY, body=body
            )
            answers += wire.parse_holds(reply, some)
        return answers

    def pick(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values of these keys, of those that are there."""
        values: dict[str, bytes] = {}
        for at in range(0, len(keys), wire.MOST_PICKED):
            left = keys[at : at + wire.MOST_PICKED]
            while left:
                some, left = wire.picked(self._question("/v1/pick", wire.encode(left)), left)
                values |= some
        return values

    def locate(self, ids: Sequence[bytes]) -> list[PackId]:
        """The packs where blocks and objects are."""
        packs: dict[PackId, None] = {}
        for at in range(0, len(ids), wire.MOST_SOUGHT):
            reply = self._question("/v1/locate", wire.encode(ids[at : at + wire.MOST_SOUGHT]))
            packs |= dict.fromkeys(wire.parse_packs(reply))
        return list(packs)

    def footers(self, packs: Sequence[PackId]) -> list[bytes | None]:
        """The footers of packs."""
        footers: list[bytes | None] = []
        while len(footers) < len(packs):
            some = packs[len(footers) : len(footers) + wire.MOST_SOUGHT]
            footers += wire.parse_footers(
                self._question("/v1/footers", wire.encode(some)), len(some)
            )
        return footers

    def swap_together(self, swaps: Sequence[Swap], near: Sequence[str] = ()) -> bool:
        """All of these swaps, or none; the reply that was lost is asked for again."""
        if len(swaps) > wire.MOST_SWAPS:
            return False
        writes = [os.urandom(wire.WRITE_ID_BYTES) for _ in swaps]
        tries = 0

        def body() -> bytes:
            nonlocal tries
            tries += 1
            return wire.encode(wire.swaps_request(swaps, writes, near, again=tries > 1))

        try:
            reply = self._ask("POST", "/v1/swaps", read_reply, wire.LARGEST_REPLY, body=body)
        except RemoteRefused:
            return False  # an earlier release; or single swaps tell why
        return wire.parse(reply, wire.SwapReply, "an answer to swaps").swapped

    def _question(self, path: str, body: bytes) -> bytes:
        """A question that not every server takes. Raises NotOffered."""

        def take(response: http.client.HTTPResponse, pace: Pace) -> bytes:
            return read_body(response, wire.LARGEST_LISTING)

        try:
            return self._ask("POST", path, take, wire.LARGEST_LISTING, body=body)
        except RemoteRefused as error:
            raise NotOffered(error.message, error.hint) from error

    def purge(self, request: bytes) -> bytes:
        """Have models removed for good."""
        return self._ask("POST", "/v1/purge", read_reply, wire.LARGEST_LISTING, body=request)

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under the folder `prefix`, sorted."""
        return wire.all_keys(partial(self._listing, "keys", prefix), prefix)

    def values(self, prefix: str) -> dict[str, bytes]:
        """All values of a folder of small ones, by key, in as few exchanges as they fit in."""
        return wire.all_values(partial(self._listing, "values", prefix), prefix)

    def create(self) -> SpoolWriter:
        """Begin a value; it is sent when it is published."""
        return SpoolWriter()

    def publish(self, values: Sequence[tuple[ByteWriter, str]]) -> None:
        """Send values, in order. One whose reply was lost is looked up before it is sent again."""
        for writer, key in values:
            assert isinstance(writer, SpoolWriter)
            if writer.size > wire.largest_value(key):
                raise RemoteRefused(f"{quoted(key)} is larger than a remote takes")
            self._upload(key, writer)
            writer.abort()

    def put(self, key: str, value: Buffer) -> None:
        """Write or replace a small value."""
        self._ask("PUT", _value(key), read_reply, wire.LARGEST_REPLY, body=bytes(value))

    def compare_and_swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace `old` by `new` if the value is `old`; a lost reply is looked up."""
        return self.swap_with_id(key, old, new, os.urandom(wire.WRITE_ID_BYTES))

    def swap_with_id(self, key: str, old: bytes | None, new: bytes | None, write_id: bytes) -> bool:
        """Compare and swap under an id that is the same in every try."""
        tries = 0

        def body() -> bytes:
            nonlocal tries
            tries += 1
            return wire.encode(wire.SwapRequest(key, old, new, write_id, again=tries > 1))

        reply = self._ask("POST", "/v1/swap", read_reply, wire.LARGEST_REPLY, body=body)
        return wire.parse(reply, wire.SwapReply, "an answer to a swap").swapped

    def delete(self, key: str) -> None:
        """Remove the key."""
        self._ask("DELETE", _value(key), read_reply, wire.LARGEST_REPLY)

    def _listing(self, what: str, prefix: str, after: str) -> bytes:
        def take(response: http.client.HTTPResponse, pace: Pace) -> bytes:
            return read_body(response, wire.LARGEST_LISTING)

        path = f"/v1/{what}?prefix={quote(prefix, safe='/')}&after={quote(after, safe='/')}"
        return self._ask("GET", path, take, wire.LARGEST_LISTING)

    def _upload(self, key: str, writer: SpoolWriter) -> None:
        pauses = self._retries.pauses()
        while True:
            try:
                self._ask(
                    "PUT", _value(key), read_reply, wire.LARGEST_REPLY, body=writer, again=False
                )
            except Broken as error:
                pause = next(pauses, None)
                if pause is None:
                    raise
                time.sleep(pause)
                if key.startswith("packs/") and self.size(key) == writer.size:
                    return  # only the reply was lost
                del error
            else:
                return

    def _ask(
        self,
        method: str,
        path: str,
        take: Take[Taken],
        allowance: int,
        *,
        body: bytes | SpoolWriter | Callable[[], bytes] | None = None,
        headers: Callable[[], dict[str, str]] | None = None,
        missing: bool = False,
        again: bool = True,
    ) -> Taken:
        """One exchange, tried again if `again`. `missing`: 404 and 416 are answers for `take`."""
        pauses = self._retries.pauses() if again else iter(())
        while True:
            try:
                sent = body() if callable(body) else body
                extra = headers() if headers is not None else {}
                return self._exchange(method, path, take, allowance, sent, extra, missing)
            except ssl.SSLCertVerificationError as error:
                raise RemoteUnreachable(
                    f"{self.url} cannot prove that it is who it says: {error.verify_message}",
                    "SSL_CERT_FILE names a file with the authorities to trust",
                ) from error
            except _RETRIED as error:
                pause = None if isinstance(error, socket.gaierror) else next(pauses, None)
                if pause is None:
                    raise broken(self.url, error) from error
                time.sleep(pause)

    def _exchange(
        self,
        method: str,
        path: str,
        take: Take[Taken],
        allowance: int,
        body: bytes | SpoolWriter | None,
        headers: dict[str, str],
        missing: bool,
    ) -> Taken:
        while True:
            connection, used = self._connections.take()
            pace = Pace(self._idle_s)
            clean = False
            try:
                line = paced(connection)
                line.begin(pace)
                try:
                    response = self._send(connection, method, path, body, headers)
                except (http.client.RemoteDisconnected, ConnectionError):
                    if used:  # it was closed just as we took it; the next one is newer, or new
                        continue
                    raise
                with response:
                    if line.ended:  # http.client takes what there is for all the headers
                        raise ConnectionError("the reply was cut off")
                    pace.restart()
                    line.allow(allowance)
                    self._check_status(response, missing)
                    taken = take(response, pace)
                    clean = response.isclosed()
                return taken
            finally:
                if clean:
                    self._connections.give(connection)
                else:
                    connection.close()

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | SpoolWriter | None,
        headers: dict[str, str],
    ) -> http.client.HTTPResponse:
        connection.putrequest(method, self._connections.target + path, skip_accept_encoding=True)
        for name, value in (self._headers | headers).items():
            connection.putheader(name, value)
        if body is not None:
            length = body.size if isinstance(body, SpoolWriter) else len(body)
            connection.putheader("Content-Length", str(length))
            connection.putheader("Content-Type", "application/msgpack")
        connection.endheaders()
        # A server that has refused closes while we send: what it said is still to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if isinstance(body, SpoolWriter):
                _send_spooled(connection, body)
            elif body:
                paced(connection).sendall(body)
        return connection.getresponse()

    def _check_status(self, response: http.client.HTTPResponse, missing: bool) -> None:
        status = response.status
        ours = response.headers.get(PROTOCOL_HEADER) == PROTOCOL
        if status in _GONE_FOR_NOW:
            raise _ServerTrouble(f"it answered {status} {quoted(response.reason)}")
        if ours and (status in (200, 201, 206) or (missing and status in (404, 416))):
            if response.headers.get("Content-Encoding") is not None:
                raise RemoteRefused(f"{self.url} answers in an encoding that nobody asked for")
            return
        raise refusal(
            response, self.url, ours=ours, unsent=self._unsent, proxy=self._connections.proxy
        )


def _value(key: str) -> str:
    if not wire.is_key(key):
        raise MergepipeError(f"not a key: {key!r}")
    return f"/v1/value/{quote(key)}"


def _send_spooled(connection: http.client.HTTPConnection, body: SpoolWriter) -> None:
    if body.descriptor is not None and paced(connection).send_file(body.descriptor, body.size):
        return
    for piece in body.pieces():
        paced(connection).sendall(piece)
