"""What passes over any wire: limits, requests and replies as msgpack, errors, what a key may be.

All that the other side sends is checked here before anyone looks at it (docs/format-remote.md).
"""

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from mergepipe.errors import (
    AuthenticationError,
    Corruption,
    Locked,
    MergepipeError,
    MissingObject,
    NoSpace,
    RefMoved,
    RemoteRefused,
)
from mergepipe.ids import PackId
from mergepipe.names import SHOWN, escape_for_terminal

MOST_VALUES = 4_000_000
MOST_KEYS = 4_000_000
MOST_LISTED_BYTES = 1 << 30
"""Of all pages of a listing together: no hub has as many, and memory holds them."""
MOST_IDS = 100_000
MOST_SOUGHT = 16_384
"""Ids whose packs are asked for at once."""
ID_BYTES = 32
LARGEST_LISTING = 16 << 20
PAGE_BYTES = 8 << 20
"""Of a page of a listing, about."""
PAGE_S = 5.0
"""A page ends here, too: whoever waits for it must not take the line for dead."""
LARGEST_VALUE = 1 << 20
"""Of a value that is no pack: refs are some tens of bytes."""
LARGEST_PACK = 128 << 20
LARGEST_REPLY = 64 << 10
"""Of a reply that is neither a listing nor a value."""
LONGEST_KEY = 1100
MOST_PICKED = 1000
"""Keys that are asked for by name at once."""
MOST_SWAPS = 1000
"""Swaps that are asked for at once."""
WRITE_ID_BYTES = 16

PASSING = frozenset(("internal", "timeout"))
"""Kinds of errors after which it makes sense to ask again: a server's own trouble."""

_MESSAGE_CHARACTERS = 600
_PART_BYTES = 8  # what msgpack adds to a key and its value, about
# Errors that mean the same on both sides. Any other kind is just a no.
_KINDS: dict[str, type[MergepipeError]] = {
    each.kind: each
    for each in (AuthenticationError, Corruption, Locked, MissingObject, NoSpace, RefMoved)
}

Parsed = TypeVar("Parsed")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class SwapRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One compare-and-swap. `again`: it was sent before, and no reply came."""

    key: str
    old: bytes | None
    new: bytes | None
    write: bytes
    again: bool = False


class SwapsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Swaps to be made together, or none of them.

    near  keys whose values the new ones most likely build on, among others
    """

    swaps: tuple[SwapRequest, ...]
    near: tuple[str, ...] = ()


class SwapReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of a swap."""

    swapped: bool


class ErrorReply(msgspec.Struct, frozen=True):
    """An error as it travels. `kind` is that of mergepipe/errors.py."""

    kind: str
    message: str
    hint: str = ""


def is_key(key: str) -> bool:
    """Whether `key` is a relative path that can mean only one thing anywhere."""
    return (
        0 < len(key) <= LONGEST_KEY
        and all(part not in ("", ".", "..") for part in key.split("/"))
        and "\\" not in key
        and not _CONTROL.search(key)
    )


def largest_value(key: str) -> int:
    """The most bytes that are taken for the whole value of `key`."""
    return LARGEST_PACK if key.startswith("packs/") else LARGEST_VALUE


def encode(document: object) -> bytes:
    """A request or reply as it travels. Ids that print as hex are the bytes that they are."""
    return msgspec.msgpack.encode(document, enc_hook=bytes)


def parse(data: bytes, kind: type[Parsed], what: str) -> Parsed:
    """Decode msgpack that the other side sent. Raises RemoteRefused."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteRefused(f"the remote sent {what} that cannot be read: {error}") from error


def page(parts: Iterable[tuple[str, bytes | None]]) -> tuple[list[tuple[str, bytes | None]], bool]:
    """As many keys, with values or without, as make a page; whether there are more.

    `parts` are asked for no more than that.
    """
    until = time.monotonic() + PAGE_S
    taken: list[tuple[str, bytes | None]] = []
    size = 0
    for key, value in parts:
        if taken and (size >= PAGE_BYTES or time.monotonic() > until):
            return taken, True
        taken.append((key, value))
        size += len(key) + len(value or b"") + _PART_BYTES
    return taken, False


def page_of_keys(keys: Iterable[str]) -> bytes:
    """A page of a listing as it travels: a nil at the end says that there is more."""
    parts, more = page((key, None) for key in keys)
    return encode([key for key, _ in parts] + [None] * more)


def page_of_values(values: Iterable[tuple[str, bytes]]) -> bytes:
    """A page of values as it travels: an empty key at the end says that there are more."""
    parts, more = page(values)
    return encode(dict(parts) | ({"": b""} if more else {}))


def all_keys(ask: Callable[[str], bytes], prefix: str) -> Iterator[str]:
    """The keys below `prefix`, page by page; `ask` gives the page after a key.

    Raises RemoteRefused unless they are keys, sorted, and not absurdly many.
    """
    size, count, after, more = 0, 0, "", True
    while more:
        listed = parse(ask(after), list[str | None], "a list of keys")
        more = bool(listed) and listed[-1] is None
        some = [key or "" for key in (listed[:-1] if more else listed)]
        _check_keys(some, prefix, after)
        size += sum(map(len, some))
        count += len(some)
        _check_page(more, some, size, count, MOST_KEYS)
        after = some[-1] if some else after
        yield from some


def all_values(ask: Callable[[str], bytes], prefix: str) -> dict[str, bytes]:
    """The values below `prefix`, page by page. Raises RemoteRefused as `all_keys`."""
    values: dict[str, bytes] = {}
    size, after, more = 0, "", True
    while more:
        some = parse(ask(after), dict[str, bytes], "values")
        more = some.pop("", None) is not None
        _check_keys(some, prefix, after)
        values |= some
        after = next(reversed(some), after)
        size += sum(map(len, some)) + sum(map(len, some.values()))
        _check_page(more, some, size, len(values), MOST_VALUES)
    return values


def picked(data: bytes, asked: Sequence[str]) -> tuple[dict[str, bytes], Sequence[str]]:
    """Values of keys that were asked for by name, and the keys that are still to be asked for.

    Raises RemoteRefused for others, or in another order.
    """
    values = parse(data, dict[str, bytes], "values")
    more = values.pop("", None) is not None
    left = iter(enumerate(asked))
    last = -1
    for key in values:
        last = next((at for at, each in left if each == key), len(asked))
        if last == len(asked):
            shown = escape_for_terminal(key, SHOWN)
            raise RemoteRefused(f"the remote sends a value that nobody asked for: '{shown}'")
    if more and not values:
        raise RemoteRefused("the remote sends an empty page, and says that there is more")
    return values, asked[last + 1 :] if more else ()


def page_of_footers(footers: Iterable[bytes | None]) -> bytes:
    """The first of some footers, as many as make a page. One alone that is too long is a nil."""
    taken: list[bytes | None] = []
    size, until = 0, time.monotonic() + PAGE_S
    for footer in footers:
        if footer is not None and len(footer) > PAGE_BYTES:
            footer = None
        taken.append(footer)
        size += len(footer or b"") + _PART_BYTES
        if size >= PAGE_BYTES or time.monotonic() > until:
            break
    return encode(taken)


def parse_footers(data: bytes, asked: int) -> list[bytes | None]:
    """Footers of the first of the packs that were asked for. Raises RemoteRefused."""
    footers = parse(data, list[bytes | None], "footers")
    if not 0 < len(footers) <= asked:
        raise RemoteRefused("the remote sends other footers than it was asked for")
    return footers


def parse_packs(data: bytes) -> list[PackId]:
    """Ids of packs. Raises RemoteRefused."""
    ids = parse(data, list[bytes], "a list of packs")
    if any(len(each) != ID_BYTES for each in ids):
        raise RemoteRefused("the remote names a pack that cannot be")
    return [PackId(each) for each in ids]


def parse_holds(data: bytes, ids: Sequence[bytes]) -> list[bool]:
    """One byte for each id. Raises RemoteRefused for anything else."""
    if len(data) != len(ids) or data.strip(b"\0\1"):
        raise RemoteRefused("the remote did not say of each id whether it holds it")
    return [bool(each) for each in data]


def swaps_request(
    swaps: Iterable[tuple[str, bytes | None, bytes | None]],
    writes: Iterable[bytes],
    near: Iterable[str],
    *,
    again: bool,
) -> SwapsRequest:
    """Swaps as they are asked for, each under a write id of its own."""
    requests = (SwapRequest(*swap, write, again) for swap, write in zip(swaps, writes, strict=True))
    return SwapsRequest(tuple(requests), tuple(near))


def error_reply(error: BaseException) -> ErrorReply:
    """An error as the other side is told of it; what went wrong inside this machine stays here."""
    if isinstance(error, NoSpace):
        return ErrorReply(error.kind, "no space left there", "free some space on the remote")
    if isinstance(error, MergepipeError):
        return ErrorReply(error.kind, error.message[:4096], error.hint[:4096])
    if isinstance(error, FileNotFoundError):
        return ErrorReply("not_found", "there is no such key")
    if isinstance(error, TimeoutError):
        return ErrorReply("timeout", "nothing came for too long")
    return ErrorReply("internal", f"the server failed ({type(error).__name__})")


def error_from(reply: ErrorReply) -> MergepipeError:
    """The error that the other side reports, in words fit for a terminal."""
    message = escape_for_terminal(reply.message, _MESSAGE_CHARACTERS)
    hint = escape_for_terminal(reply.hint, _MESSAGE_CHARACTERS)
    known = _KINDS.get(reply.kind)
    if known is not None:
        return known(f"the remote says: {message}", hint)
    return RemoteRefused(f"the remote refused: {message}", hint)


def _check_page(more: bool, page: Collection[str], size: int, count: int, most: int) -> None:
    if count > most or size > MOST_LISTED_BYTES:
        raise RemoteRefused(
            f"the remote lists {count:,} keys, in {size:,} bytes, of which {most:,} are taken, in "
            f"{MOST_LISTED_BYTES:,}"
        )
    if more and not page:
        raise RemoteRefused("the remote sends an empty page, and says that there is more")


def _check_keys(keys: Iterable[str], prefix: str, last: str) -> None:
    for key in keys:
        if not (is_key(key) and key.startswith(prefix) and last < key):
            raise RemoteRefused(
                f"the remote lists a key that cannot be: '{escape_for_terminal(key, SHOWN)}'"
            )
        last = key
