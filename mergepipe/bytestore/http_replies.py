"""What an http server's replies must be like, and the marks by which they are known as ours.

A server is not trusted: lengths are bounded before anything is read, and a range that was not asked
for is refused (docs/format-remote.md, "http").
"""

import http.client
import re

from mergepipe.bytestore import wire
from mergepipe.bytestore.pace import Pace
from mergepipe.errors import RemoteRefused

PROTOCOL_HEADER = "Mergepipe-Protocol"
PROTOCOL = "1"
STILL_WORKING = b"\xc0"

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


def read_body(response: http.client.HTTPResponse, limit: int) -> bytes:
    """The whole body, whose length is known. Raises RemoteRefused if not, or beyond `limit`."""
    length = response.length
    if length is None:
        raise RemoteRefused("the remote does not say how long its reply is")
    if length > limit:
        raise RemoteRefused(f"the remote sends {length:,} bytes, of which {limit:,} fit")
    body = response.read(length)
    if len(body) != length:
        raise ConnectionError("the reply was cut off")
    return body


def read_reply(response: http.client.HTTPResponse, pace: Pace) -> bytes:
    """The answer to a write, which may have taken a while: nil bytes come before it until then."""
    if response.length is None and response.headers.get("Transfer-Encoding") is None:
        raise RemoteRefused("the remote does not say where its reply ends")
    while (first := response.read(1)) == STILL_WORKING:
        pace.alive()
    most = wire.MOST_IDS + wire.LARGEST_REPLY
    reply = first + response.read(most)  # as much as there is: its length need not be known
    if response.read(1):
        raise RemoteRefused(f"the remote sends more than {most:,} bytes")
    if response.length:
        raise ConnectionError("the reply was cut off")
    # A reply that began with nils could not have another status any more.
    if first and first[0] & 0xF0 == 0x80 and b"kind" in reply[:16]:
        raise wire.error_from(wire.parse(reply, wire.ErrorReply, "an error"))
    return reply


def checked_range(response: http.client.HTTPResponse, first: int, wanted: int) -> tuple[int, int]:
    """How many bytes come, and how long the whole value is. Raises RemoteRefused for others."""
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status != 206 or match is None:
        raise RemoteRefused("the remote does not send the range it was asked for")
    start, last, total = (int(each) for each in match.groups())
    count = last - start + 1
    fits = start == first and 0 < count <= wanted and last < total
    whole = count == wanted or last == total - 1
    if not (fits and whole and response.length == count):
        raise RemoteRefused("the remote does not send the range it was asked for")
    return count, total
