"""Reading all packs a part at a time: which was read last, so that the next call goes on there.

A repository of terabytes is not read in one night; a twentieth each night is all of it in three
weeks. Packs go in the order of their ids, which new ones fall into anywhere.
"""

import contextlib
import re
from collections.abc import Mapping

from msgspec import Struct

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import MergepipeError, UsageError
from mergepipe.ids import PackId
from mergepipe.sizes import parse_size

KEY = "reading"
_LINE = re.compile(rb"([0-9a-f]{64}) ([0-9]{1,19})\n")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) *%")


class Portion(Struct, frozen=True):
    """How much to read in a call: `share` of all bytes (0 to 1), or so many bytes."""

    share: float = 0.0
    size_bytes: int = 0

    @classmethod
    def parse(cls, text: str) -> "Portion":
        """`5%`, or `20GiB`. Raises UsageError."""
        if text.strip().isdecimal() and len(text) < 4 and int(text) <= 100:
            raise UsageError(
                f"{text!r} would be bytes: a part of the data is a share or a size",
                f"did you mean --read-data={text.strip()}%? A size has a unit, such as 20GiB",
            )
        match = _SHARE.fullmatch(text.strip())
        if match is not None and 0 < float(match[1]) <= 100:
            return cls(share=float(match[1]) / 100)
        if match is None and text.strip()[:1].isdecimal():
            size = parse_size(text)
            if size > 0:
                return cls(size_bytes=size)
        raise UsageError(
            f"not a part of the data: {text!r}", "write --read-data=5%, or --read-data=20GiB"
        )


def next_part(store: ByteStore, packs: Mapping[PackId, int], portion: Portion) -> list[PackId]:
    """The packs (given with their sizes) to read now: at least one, after those read last."""
    wanted = max(portion.size_bytes, portion.share * sum(packs.values()))
    last = _last(store)
    ordered = sorted(packs, key=lambda pack: (pack <= last, pack))
    part: list[PackId] = []
    size = 0
    for pack in ordered:
        if part and size >= wanted:
            break
        part.append(pack)
        size += packs[pack]
    return part


def remember(store: ByteStore, part: list[PackId], now_s: float) -> None:
    """These were read. Who may not write begins at the same place again."""
    if part:
        with contextlib.suppress(MergepipeError, PermissionError):
            store.put(KEY, f"{part[-1].hex()} {int(now_s)}\n".encode())


def _last(store: ByteStore) -> bytes:
    match = _LINE.fullmatch(store.get(KEY) or b"")
    return b"" if match is None else bytes.fromhex(match[1].decode())
