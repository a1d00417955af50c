"""Reading blocks: resolve, sort, join neighbours, decode through bases, compare the hash."""

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mergepipe.bytestore.protocol import ByteStore, expect
from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import CodecError, Corruption, MergepipeError, MissingObject
from mergepipe.ids import BlockId, block_id
from mergepipe.packs.choice import Options, choose, stored_encodings
from mergepipe.packs.condemned import HEALING
from mergepipe.packs.decoding import decode_block, memory_for
from mergepipe.packs.format import RecordHeader, verify_payload
from mergepipe.packs.made_blocks import MadeBlocks
from mergepipe.packs.reader import pack_key
from mergepipe.packs.records import Encoding, Location, Place
from mergepipe.packs.runs import record_in, runs
from mergepipe.packs.storage import Storage
from mergepipe.parallel import Scratch

# gc may replace packs under a reader; more often than this within one read is no coincidence.
_MOST_REFRESHES = 4


class BlockReader:
    """Reads whole blocks, verified. May be used from any thread.

    A record that turns out damaged is avoided where the store has another copy or encoding of the
    block; an index that turns out wrong is rebuilt; packs that gc replaced are found again.
    """

    def __init__(
        self,
        storage: Storage,
        explain: Callable[[MissingObject], MergepipeError] = lambda error: error,
    ) -> None:
        """`explain`: what to raise for a block that is nowhere; a remote may know more of it."""
        self._storage = storage
        self._explain = explain
        self._workspace = Workspace()
        self.made: MadeBlocks | None = None
        """What was just made, while somebody is `remembering` it: not decoded again."""

    @contextlib.contextmanager
    def remembering(self, room_bytes: int) -> Iterator[None]:
        """Take blocks that are made inside of this from memory, up to so many bytes of them."""
        self.made = MadeBlocks(room_bytes)
        try:
            yield
        finally:
            self.made = None

    def resolve(self, blocks: Iterable[BlockId]) -> dict[BlockId, Encoding]:
        """The encoding to read for each block, and for every base they lean on.

        Raises MissingObject naming the first block that is in no pack.
        """
        return choose(self._storage, blocks)

    def options(self, blocks: Iterable[BlockId]) -> Options:
        """Every complete encoding of the blocks, and of all that they may lean on."""
        return stored_encodings(self._storage, blocks)

    def chain(self, block: BlockId) -> list[BlockId]:
        """The blocks that decoding `block` needs: itself, its base, its base's base..."""
        return self.chains([block])[0]

    def chains(self, blocks: Sequence[BlockId]) -> list[list[BlockId]]:
        """`chain` of every block, looked up together."""
        chosen = self.resolve(blocks)
        chains = []
        for block in blocks:
            links = [block]
            while (base := chosen[links[-1]].base) is not None:
                links.append(base)
            chains.append(links)
        return chains

    def read(self, blocks: Sequence[BlockId], scratch: Scratch | None = None) -> list[memoryview]:
        """The raw bytes of each block, in order, each compared with its id.

        Memory: the encoded and raw bytes of all of them and of their bases; callers read a few
        MiB at a time. In `scratch`, which is reset first, it is used again by the thread's next
        read. Raises MissingObject and Corruption naming the block.
        """
        if self.made is None:
            return self._read(blocks, scratch)
        at_hand = self.made.of(blocks)
        stored = [block for block in blocks if block not in at_hand]
        raws = dict(zip(stored, self._read(stored, scratch), strict=True)) if stored else {}
        return [at_hand[block] if block in at_hand else raws[block] for block in blocks]

    def _read(self, blocks: Sequence[BlockId], scratch: Scratch | None) -> list[memoryview]:
        avoid: set[Place] = set()
        damage: Corruption | None = None
        refreshes, rebuilt = 0, False
        while True:
            try:
                chosen = choose(self._storage, blocks, avoid)
            except Corruption as error:
                self._storage.note_lacking(True)
                if damage is None and isinstance(error, MissingObject):
                    raise self._explain(error) from None
                raise damage or error from None
            try:
                return _Reading(self._storage.store, chosen, scratch, self._workspace).run(blocks)
            except _PackGone as gone:
                refreshes += 1
                if refreshes > _MOST_REFRESHES:
                    raise gone.error from None
                self._storage.refresh()
            except _BadRecord as bad:
                if not rebuilt and not self._storage.holds(bad.at):
                    # The index led here, not the pack: it is the index that is damaged.
                    rebuilt = True
                    self._storage.rebuild()
                    continue
                damage = damage or bad.error
                avoid.add(bad.at.place)
                if not self._storage.is_whole(bad.at):
                    self._storage.condemn([bad.at])

    def verify(self, encodings: Mapping[BlockId, Encoding]) -> None:
        """Decode blocks by exactly these encodings, over bases read as ever; compare their hashes.

        For records that go where nobody decodes them before they are believed. Memory as `read`.
        Raises Corruption naming the block, MissingObject for a base.
        """
        bases = list(dict.fromkeys(way.base for way in encodings.values() if way.base is not None))
        unders = dict(zip(bases, self.read(bases), strict=True))
        try:
            _Reading(self._storage.store, dict(encodings), None, self._workspace).check(unders)
        except _PackGone as gone:
            raise gone.error from None
        except _BadRecord as bad:
            raise bad.error from None


def read_chosen(
    store: ByteStore,
    chosen: Mapping[BlockId, Encoding],
    blocks: Sequence[BlockId],
    workspace: Workspace,
) -> list[memoryview]:
    """Raw bytes of blocks by encodings that were chosen elsewhere, each compared with its id.

    `chosen` also has every base that they lean on. Memory as `BlockReader.read`. Raises Corruption
    (MissingObject for a pack that is gone): only who has an index knows another way.
    """
    try:
        return _Reading(store, chosen, None, workspace).run(blocks)
    except _PackGone as gone:
        raise gone.error from None
    except _BadRecord as bad:
        raise bad.error from None


class _BadRecord(Exception):
    """A record cannot be used; `error` says why, for the case that there is no other."""

    def __init__(self, at: Location, error: Corruption) -> None:
        self.at = at
        self.error = error


class _PackGone(Exception):
    def __init__(self, error: MissingObject) -> None:
        self.error = error


class _Reading:
    """One attempt to read blocks by their chosen encodings."""

    def __init__(
        self,
        store: ByteStore,
        chosen: Mapping[BlockId, Encoding],
        scratch: Scratch | None,
        workspace: Workspace,
    ) -> None:
        self._store = store
        self._workspace = workspace
        if scratch is not None:
            scratch.reset()
        self._memory = memory_for(scratch)
        self._chosen = chosen
        self._records: dict[Place, tuple[RecordHeader, memoryview]] = {}
        self._raws: dict[BlockId, memoryview] = {}

    def run(self, blocks: Sequence[BlockId]) -> list[memoryview]:
        self._fetch()
        for block in dict.fromkeys(blocks):
            if block_id(self._raw(block)) != block:
                raise self._blame(block)
        return [self._raws[block] for block in blocks]

    def check(self, bases: Mapping[BlockId, memoryview]) -> None:
        """Decode every block over these bases; none is kept."""
        self._fetch()
        for block, encoding in self._chosen.items():
            base = None if encoding.base is None else bases[encoding.base]
            if block_id(self._decode(block, base)) != block:
                first = encoding.layers[0]
                raise _BadRecord(
                    first,
                    Corruption(
                        f"block {block.hex()} in {pack_key(first.pack)} is damaged: "
                        "its bytes hash differently"
                    ),
                )

    def _fetch(self) -> None:
        """Every record that is needed, read with few large calls."""
        places = {at.place: at for encoding in self._chosen.values() for at in encoding.exact}
        for at in places.values():
            if not at.is_plausible:
                raise _BadRecord(at, Corruption(f"block {at.id.hex()}: a record of absurd length"))
        joined = list(runs(places[place] for place in sorted(places)))
        expect(
            self._store,
            [(pack_key(run[0].pack), run[0].offset, run[-1].end - run[0].offset) for run in joined],
        )
        for run in joined:
            self._read_run(run)

    def _read_run(self, run: Sequence[Location]) -> None:
        start = run[0].offset
        key = pack_key(run[0].pack)
        span = self._memory(run[-1].end - start)
        try:
            count = self._store.read_into(key, start, span)
        except FileNotFoundError:
            raise _PackGone(
                MissingObject(
                    f"{key} is gone",
                    HEALING,
                )
            ) from None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise _BadRecord(run[0], Corruption(f"{key} cannot be read: {error}")) from error
        for at in run:
            try:
                self._records[at.place] = record_in(span[:count], at, start)
            except Corruption as error:
                raise _BadRecord(at, error) from error

    def _raw(self, block: BlockId) -> memoryview:
        """The decoded bytes of a block, its bases first; none of them verified yet."""
        chain = [block]
        while self._chosen[chain[-1]].base is not None and chain[-1] not in self._raws:
            base = self._chosen[chain[-1]].base
            assert base is not None
            chain.append(base)
        for link in reversed(chain):
            if link not in self._raws:
                base = self._chosen[link].base
                self._raws[link] = self._decode(link, None if base is None else self._raws[base])
        return self._raws[block]

    def _decode(self, block: BlockId, base: memoryview | None) -> memoryview:
        encoding = self._chosen[block]
        layers = [self._records[at.place][1] for at in encoding.exact]
        try:
            return decode_block(encoding.header, layers, base, self._memory, self._workspace)
        except CodecError as error:
            guilty, _ = self._damaged_record(block)
            raise _BadRecord(guilty or encoding.layers[0], error) from error
        except Corruption as error:
            raise _BadRecord(encoding.layers[0], error) from error

    def _blame(self, block: BlockId) -> _BadRecord:
        """What to avoid after a block came out wrong: of its chain, the record that is damaged."""
        at, guilty = self._damaged_record(block)
        if at is None:  # every checksum holds: the encoding itself says something else
            at = self._chosen[guilty].layers[0]
        return _BadRecord(
            at,
            Corruption(
                f"block {guilty.hex()} in {pack_key(at.pack)} is damaged: "
                "its bytes hash differently",
                HEALING,
            ),
        )

    def _damaged_record(self, block: BlockId) -> tuple[Location | None, BlockId]:
        """The first record along a block's chain that fails its checksum, and whose it is.

        Without one: None, and the deepest block of the chain that hashes differently.
        """
        wrong = block
        link: BlockId | None = block
        while link is not None and link in self._chosen:
            for at in self._chosen[link].exact:
                header, payload = self._records[at.place]
                try:
                    verify_payload(header, payload, pack_key(at.pack))
                except Corruption:
                    return at, link
            if link in self._raws and block_id(self._raws[link]) != link:
                wrong = link
            link = self._chosen[link].base
        return None, wrong
