"""Sending packs: read in few large pieces, checked as they pass, several at once."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from msgspec import Struct

from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.protocol import Buffer, ByteStore
from mergepipe.codecs.chooser import choose, samples_of
from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import Corruption, RemoteRefused
from mergepipe.ids import BlockId, PackId, digest
from mergepipe.packs import format as pack_format
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.condemned import HEALING
from mergepipe.packs.encoded_blocks import EncodedBlock, encode_block
from mergepipe.packs.format import RECORD_HEADER_BYTES, parse_record
from mergepipe.packs.open_packs import Lane, OpenPacks
from mergepipe.packs.reader import pack_key
from mergepipe.packs.records import Encoding
from mergepipe.packs.runs import runs
from mergepipe.packs.storage import Storage
from mergepipe.parallel import Scratch, ordered_map
from mergepipe.transfer.wire_packs import (
    Copied,
    FreshBlock,
    FreshGroup,
    Group,
    StoredGroup,
    WirePack,
)

AT_ONCE = 4
# What a sender reads, checks, decodes or encodes at a time.
_PIECE_BYTES = 4 << 20


class Sent(Struct, frozen=True):
    """What became of packs: those that were sent, and their bytes; others were there."""

    packs: int
    bytes: int


class Uploader:
    """Sends packs of one repository to another byte store.

    `alone`: nobody computes at the other side, so all that goes there is checked before: checksums,
    and what blocks decode to. Who can, checks what comes, and once is enough. `effort` is
    `store.codec`, for blocks that are encoded anew.
    """

    def __init__(
        self, storage: Storage, reader: BlockReader, target: ByteStore, *, alone: bool, effort: str
    ) -> None:
        self._storage = storage
        self._reader = reader
        self._target = target
        self._alone = alone
        self._effort = effort
        self._scratch = Scratch()
        self._workspace = Workspace()
        self._order = _Order()

    def send_groups(self, groups: Iterable[Group], done: Callable[[int, Sent], None]) -> None:
        """Send packs of blocks, up to four at once; `done(raw_bytes, sent)` after each group.

        `groups` is asked for no more than are under way.
        """
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="upload") as pool:
            for raw_bytes, sent in ordered_map(pool, self._send_group, groups, AT_ONCE + 1):
                done(raw_bytes, sent)

    def send_packs(self, packs: Iterable[WirePack], done: Callable[[int, Sent], None]) -> None:
        """Send packs of objects, one after the other: what others name goes first."""
        for pack in packs:
            done(0, self._send_stored(pack))

    def _send_group(self, group: Group) -> tuple[int, Sent]:
        with self._order.step(group.number):
            if isinstance(group, FreshGroup):
                return group.raw_bytes, self._send_fresh(group)
            missing = [pack for pack in group.packs if not self._is_there(pack)]
            if missing and self._alone:
                self._check(group)
            sent = []
            for pack in missing:
                if pack is group.packs[-1]:
                    self._order.wait(group.after)
                sent.append(self._send_stored(pack, known_missing=True))
            return group.raw_bytes, _sum(sent)

    def _is_there(self, pack: WirePack) -> bool:
        return self._target.size(pack_key(pack.id)) == pack.size

    def _send_stored(self, pack: WirePack, *, known_missing: bool = False) -> Sent:
        if not known_missing and self._is_there(pack):
            return Sent(0, 0)
        writer = self._target.create()
        try:
            writer.write(pack_format.pack_header(pack.content))
            for span in runs(pack.records, _PIECE_BYTES):
                writer.write(self._read(span, check=self._alone))
            writer.write(pack.footer, pack_format.trailer(pack.footer))
            self._target.publish([(writer, pack_key(pack.id))])
        except BaseException as error:
            writer.abort()
            if isinstance(error, Corruption | RemoteRefused) and not self._alone:
                self._blame(pack)
            raise
        return Sent(1, pack.size)

    def _blame(self, pack: WirePack) -> None:
        """The other side refused a pack. Raises Corruption if that is because of damage here."""
        for span in runs(pack.records, _PIECE_BYTES):
            self._read(span, check=True)

    def _read(self, span: Sequence[Copied], *, check: bool) -> memoryview:
        """Neighbouring records; with `check`, each is what the pack's id vouches for.

        Valid until this thread reads again.
        """
        length = sum(record.stored_bytes for record in span)
        key = pack_key(span[0].pack)
        self._scratch.reset()
        data = self._scratch.take(length)
        if self._storage.store.read_into(key, span[0].offset, data) != length:
            raise Corruption(f"{key} is cut short", HEALING)
        at = 0
        for record in span if check else ():
            end = at + record.stored_bytes
            header = parse_record(record.sealed, key)
            payload = data[at + RECORD_HEADER_BYTES : end]
            sealed = data[at : at + RECORD_HEADER_BYTES]
            if sealed != record.sealed or header.sealed(digest(payload)) != record.sealed:
                raise Corruption(
                    f"{key}: the record of {header.id.hex()} at {record.offset} is damaged", HEALING
                )
            at = end
        return data

    def _check(self, group: StoredGroup) -> None:
        """Decode every block by what is about to be sent, and compare its hash."""
        piece: dict[BlockId, Encoding] = {}
        raw_bytes = 0
        for block, encoding in group.encodings.items():
            piece[block] = encoding
            raw_bytes += encoding.raw_length
            if raw_bytes >= _PIECE_BYTES:
                self._reader.verify(piece)
                piece, raw_bytes = {}, 0
        self._reader.verify(piece)

    def _send_fresh(self, group: FreshGroup) -> Sent:
        store = MemoryByteStore()
        packs = OpenPacks(store)
        for piece in _pieces(group.blocks):
            for encoded in self._encode(piece):
                for record in encoded.records:
                    writer = packs.writer(Lane.of(record.header))
                    writer.add_sealed(record.header, record.sealed, record.payload)
        sent = []
        for lane in packs.lanes:
            entry, value = packs.finish(lane)
            if lane == Lane.WHOLE:
                self._order.wait(group.after)
            key = pack_key(entry.id)
            store.publish([(value, key)])
            sent.append(self._send_made(entry.id, store.get(key) or b""))
        return _sum(sent)

    def _encode(self, blocks: Sequence[FreshBlock]) -> Iterator[EncodedBlock]:
        wanted = [block.id for block in blocks]
        bases = [block.base for block in blocks if block.base is not None]
        both = list(dict.fromkeys([*wanted, *bases]))
        raws = dict(zip(both, self._reader.read(both), strict=True))
        for block in blocks:
            raw = raws[block.id]
            base = None if block.base is None else raws[block.base]
            # Block by block, so that it depends on nothing but the block: packs come out the same.
            samples = samples_of(raw, base)
            codec = choose(self._effort, block.dtype, samples, self._workspace)
            leaning = (block.base, base) if block.base and base and codec.needs_base else None
            yield encode_block(block.id, raw, block.dtype, codec, leaning, self._workspace)

    def _send_made(self, pack: PackId, data: Buffer) -> Sent:
        if self._target.size(pack_key(pack)) == len(data):
            return Sent(0, 0)
        writer = self._target.create()
        try:
            writer.write(data)
            self._target.publish([(writer, pack_key(pack))])
        except BaseException:
            writer.abort()
            raise
        return Sent(1, len(data))


class _Order:
    """Lets a group's last pack wait until groups that it leans on are there."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._done: set[int] = set()
        self._failed: set[int] = set()

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """The work on one group."""
        try:
            yield
        except BaseException:
            self._note(number, self._failed)
            raise
        self._note(number, self._done)

    def wait(self, numbers: frozenset[int]) -> None:
        """Return once these groups are there. Raises _Abandoned if one of them failed."""
        with self._changed:
            self._changed.wait_for(lambda: numbers <= self._done | self._failed)
            if numbers & self._failed:
                raise _Abandoned

    def _note(self, number: int, where: set[int]) -> None:
        with self._changed:
            where.add(number)
            self._changed.notify_all()


class _Abandoned(Exception):
    """An earlier group failed, and its error is the one that is told."""


def _sum(sent: Iterable[Sent]) -> Sent:
    packs = bytes_ = 0
    for each in sent:
        packs += each.packs
        bytes_ += each.bytes
    return Sent(packs, bytes_)


def _pieces(blocks: Sequence[FreshBlock]) -> Iterator[Sequence[FreshBlock]]:
    piece: list[FreshBlock] = []
    size = 0
    for block in blocks:
        piece.append(block)
        size += block.length
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
