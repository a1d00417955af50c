"""What a lazy clone brings of a remote's packs of blocks: their frames."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from msgspec import Struct

from mergepipe.bytestore.local import LocalByteStore, LocalWriter, raise_if_full
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.whole_calls import write_all_at
from mergepipe.errors import RemoteRefused
from mergepipe.ids import PackId
from mergepipe.lazy.promised_pack import promised_key
from mergepipe.packs.format import (
    PACK_HEADER_BYTES,
    TRAILER_BYTES,
    Content,
    pack_header,
    trailer,
)
from mergepipe.packs.reader import (
    check_frame,
    pack_ids,
    pack_key,
    read_content,
    read_footer_bytes,
)
from mergepipe.parallel import ordered_map

MOST_PACKS = 2_000_000
# Packs are written at 256 MiB or so, whatever came last on top.
LARGEST_PACK_BYTES = 1 << 30
_READERS = 8
_PUBLISHED_AT_ONCE = 64


class _Frame(Struct, frozen=True):
    pack: PackId
    size: int
    footer: bytes


def bring_frames(
    remote: ByteStore, store: LocalByteStore, packs: Iterable[PackId] | None = None
) -> set[PackId]:
    """Bring the frames of a remote's packs of blocks: of those that are not here, nor promised.

    `packs` are the remote's, if they were listed already. Returns all packs that were looked for.
    A frame counts once it was compared with the pack's name. The index is the caller's to refresh.
    Raises RemoteRefused for absurdly many or large packs, Corruption for damaged ones,
    RemoteUnreachable, NoSpace.
    """
    listed = set(pack_ids(remote) if packs is None else packs)
    if len(listed) > MOST_PACKS:
        raise RemoteRefused(f"the remote lists more than {MOST_PACKS:,} packs")
    new = [
        pack
        for pack in sorted(listed)
        if store.size(pack_key(pack)) is None and store.size(promised_key(pack)) is None
    ]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="promises") as pool:
        frames = ordered_map(pool, partial(_frame, remote), new, 2 * _READERS)
        for batch in _batches(frame for frame in frames if frame is not None):
            _promise_all(store, batch)
    return listed


def _frame(remote: ByteStore, pack: PackId) -> _Frame | None:
    """Header and end of a pack of blocks; None for others, and if it went since it was listed."""
    key = pack_key(pack)
    size = remote.size(key)
    if size is None:
        return None
    if not PACK_HEADER_BYTES + TRAILER_BYTES <= size <= LARGEST_PACK_BYTES:
        raise RemoteRefused(f"{key} of the remote has {size} bytes")
    try:
        if read_content(remote, key) is not Content.BLOCKS:
            return None
        footer = read_footer_bytes(remote, pack, key, far=True)
    except FileNotFoundError:
        return None
    check_frame(Content.BLOCKS, footer, size, key)
    return _Frame(pack, size, footer)


def _promise_all(store: LocalByteStore, frames: Iterable[_Frame]) -> None:
    """Put the frames of packs of blocks where promised packs are."""
    values: list[tuple[LocalWriter, str]] = []
    try:
        for frame in frames:
            value = store.create()
            values.append((value, promised_key(frame.pack)))
            value.write(pack_header(Content.BLOCKS))
            _put_at_end(value, frame)
            value.sync()
        store.publish(values)
    except BaseException:
        for value, _ in values:
            value.abort()
        raise


def _put_at_end(value: LocalWriter, frame: _Frame) -> None:
    descriptor = os.open(value.path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, frame.size)
        end = frame.footer + trailer(frame.footer)
        write_all_at(descriptor, end, frame.size - len(end))
    except OSError as error:
        raise_if_full(error, promised_key(frame.pack))
        raise
    finally:
        os.close(descriptor)


def _batches(frames: Iterator[_Frame]) -> Iterator[list[_Frame]]:
    batch: list[_Frame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == _PUBLISHED_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
