"""Decoded blocks for many readers at once: each decoded once, in a cache of bounded memory."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future

from msgspec import Struct

from mergepipe.checkpoints.assembly import Part
from mergepipe.errors import Corruption
from mergepipe.ids import BlockId
from mergepipe.packs.blocks import BlockReader
from mergepipe.parallel import Scratch

CACHE_BYTES = 64 << 20


class _Run(Struct):
    """Blocks that were decoded together: they share a buffer, and leave the cache together."""

    data: bytes
    blocks: list[BlockId]


class DecodedBlocks:
    """Reads blocks through a cache that all repositories share: a block's id is its content.

    Who asks for a block that another thread is decoding waits for that one.
    """

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._most = cache_bytes
        self._lock = threading.Lock()
        self._scratch = Scratch()
        self._runs: OrderedDict[int, _Run] = OrderedDict()
        self._kept = 0
        self._next = 0
        self._places: dict[BlockId, tuple[int, memoryview]] = {}
        self._coming: dict[BlockId, Future[memoryview]] = {}
        self.decoded = 0
        """Blocks that were decoded, not found."""

    def read(self, reader: BlockReader, parts: Sequence[Part]) -> list[memoryview]:
        """The raw bytes of blocks, in order, verified. Raises Corruption, MissingObject.

        Memory: those that were not in the cache, at once.
        """
        raws: dict[BlockId, memoryview] = {}
        awaited: dict[BlockId, Future[memoryview]] = {}
        claimed: dict[BlockId, Future[memoryview]] = {}
        with self._lock:
            for part in parts:
                block = part.block
                if block in raws or block in awaited or block in claimed:
                    continue
                if (place := self._places.get(block)) is not None:
                    self._runs.move_to_end(place[0])
                    raws[block] = place[1]
                elif (coming := self._coming.get(block)) is not None:
                    awaited[block] = coming
                else:
                    claimed[block] = self._coming[block] = Future()
        if claimed:
            raws.update(self._decode(reader, claimed))
        # What others decode is being decoded: nobody waits before its own blocks are done.
        raws.update({block: future.result() for block, future in awaited.items()})
        for part in parts:
            if len(raws[part.block]) != part.length:
                raise Corruption(
                    f"block {part.block.hex()[:12]} has {len(raws[part.block])} bytes, "
                    f"not the {part.length} its tensor needs"
                )
        return [raws[part.block] for part in parts]

    def _decode(
        self, reader: BlockReader, claimed: dict[BlockId, Future[memoryview]]
    ) -> dict[BlockId, memoryview]:
        blocks = list(claimed)
        try:
            raws = reader.read(blocks, self._scratch)
            data = b"".join(raws)
        except BaseException as error:
            with self._lock:
                for block, future in claimed.items():
                    del self._coming[block]
                    future.set_exception(error)
            raise
        whole, at = memoryview(data), 0
        decoded: dict[BlockId, memoryview] = {}
        for block, raw in zip(blocks, raws, strict=True):
            decoded[block] = whole[at : at + len(raw)]
            at += len(raw)
        with self._lock:
            self.decoded += len(blocks)
            self._keep(_Run(data, blocks), decoded)
            for block, future in claimed.items():
                del self._coming[block]
                future.set_result(decoded[block])
        return decoded

    def _keep(self, run: _Run, found: dict[BlockId, memoryview]) -> None:
        self._runs[self._next] = run
        self._places.update({block: (self._next, found[block]) for block in run.blocks})
        self._next += 1
        self._kept += len(run.data)
        while self._kept > self._most and self._runs:
            _, oldest = self._runs.popitem(last=False)
            self._kept -= len(oldest.data)
            for block in oldest.blocks:
                del self._places[block]
