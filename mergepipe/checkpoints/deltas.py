"""Encoding against a base: hash, encode and statistics in one pass, with the base block in hand."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergepipe.catalog.pairs import Pair
from mergepipe.checkpoints.layout import Layout, Span
from mergepipe.checkpoints.outcome import BlockOutcome
from mergepipe.codecs.chooser import choose, samples_of
from mergepipe.codecs.protocol import Codec, MeasuringCodec
from mergepipe.codecs.registry import codec_named
from mergepipe.codecs.workspace import Workspace
from mergepipe.errors import Corruption
from mergepipe.ids import BlockId
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.encoded_blocks import EncodedBlock, encode_block, seal_payloads
from mergepipe.packs.presence import Presence
from mergepipe.parallel import Scratch

if TYPE_CHECKING:  # numpy and numba: loaded only where a block is new and has a base
    from mergepipe.catalog.builder import ProfileBuilder
    from mergepipe.catalog.facts import BlockFacts


@dataclass(frozen=True, slots=True)
class _Base:
    """The base block of the profile, and the one the encoding leans on: usually the same."""

    declared: memoryview
    stored: BlockId
    raw: memoryview


class DeltaEncoder:
    """Encodes the blocks of one ingest against `pairs` of a base, and collects their profile.

    `pair_up` is asked once, with the layout, for the pair of each tensor (None: no base). `encode`
    runs on worker threads, the rest on one.
    """

    def __init__(
        self,
        reader: BlockReader,
        presence: Presence,
        *,
        effort: str,
        max_chain: int,
        pair_up: Callable[[Layout], Sequence[Pair | None]],
    ) -> None:
        self._reader = reader
        self._presence = presence
        self._effort = effort
        self._max_chain = max_chain
        self._pair_up = pair_up
        self._layout = Layout((), ())
        self._pairs: Sequence[Pair | None] = ()
        self._codecs: dict[tuple[int, bool], Codec] = {}
        self._choosing = threading.Lock()
        self._scratch = Scratch()
        self._workspace = Workspace()
        self._profile: ProfileBuilder | None = None
        # Blocks without facts: whether they have a base block. Kept until a profile is wanted.
        self._noted: list[tuple[int, int, bool]] = []

    def begin(self, layout: Layout) -> None:
        """Learn which tensors will come, and pair them with the base's."""
        self._layout = layout
        self._pairs = self._pair_up(layout)

    @property
    def profile(self) -> "ProfileBuilder":
        """What is known of the pairs so far. The first use loads what computes with arrays."""
        if self._profile is None:
            from mergepipe.catalog.builder import ProfileBuilder

            self._profile = ProfileBuilder()
            for number, pair in enumerate(self._pairs):
                if pair is not None and pair.has_profile():
                    self._profile.begin(number, pair)
        for tensor, index, has_base in self._noted:
            if has_base:
                self._profile.add(tensor, index, None)
            else:
                self._profile.add_unpaired(tensor, index)
        self._noted.clear()
        return self._profile

    def encode(
        self, spans: Sequence[Span], identities: Sequence[BlockId], raws: Sequence[memoryview]
    ) -> list[BlockOutcome]:
        """The outcomes of neighbouring blocks; `raws` may be reused once they are in a pack."""
        known = self._presence.blocks(identities)
        unders = [
            None if have else self._base_block(span, identity)
            for span, identity, have in zip(spans, identities, known, strict=True)
        ]
        bases = self._read_bases([under for under in unders if under is not None])
        return [
            BlockOutcome(identity, None)
            if have
            else self._encode(span, identity, raw, None if under is None else bases.get(under))
            for span, identity, raw, have, under in zip(
                spans, identities, raws, known, unders, strict=True
            )
        ]

    def collect(self, spans: Sequence[Span], outcomes: Sequence[BlockOutcome]) -> None:
        """Put what is known of each block into the profile."""
        for span, outcome in zip(spans, outcomes, strict=True):
            pair = self._pairs[span.tensor]
            if pair is None:
                continue
            base = pair.base_block(span.index)
            if base is None or base == outcome.id:
                self._noted.append((span.tensor, span.index, base is not None))
            elif outcome.facts is not None:
                self.profile.add(span.tensor, span.index, outcome.facts)

    def _base_block(self, span: Span, identity: BlockId) -> BlockId | None:
        pair = self._pairs[span.tensor]
        if pair is None or self._effort == "raw":
            return None
        base = pair.base_block(span.index)
        return None if base == identity else base

    def _read_bases(self, wanted: Sequence[BlockId]) -> dict[BlockId, _Base]:
        """Base blocks, and for those at the end of a long chain the ancestor to lean on.

        Those that are damaged or missing are left out: what is new then leans on nothing.
        """
        try:
            return self._read_whole_bases(wanted)
        except Corruption:
            whole = self._presence.blocks(wanted)
            return self._read_whole_bases(
                [block for block, have in zip(wanted, whole, strict=True) if have]
            )

    def _read_whole_bases(self, wanted: Sequence[BlockId]) -> dict[BlockId, _Base]:
        # A chain of n blocks is n - 1 deltas deep; ours adds one.
        stored = {
            block: chain[max(0, len(chain) - self._max_chain)]
            for block, chain in zip(wanted, self._reader.chains(wanted), strict=True)
        }
        blocks = list(dict.fromkeys([*wanted, *stored.values()]))
        raws = dict(zip(blocks, self._reader.read(blocks, self._scratch), strict=True))
        return {block: _Base(raws[block], stored[block], raws[stored[block]]) for block in wanted}

    def _encode(
        self, span: Span, identity: BlockId, raw: memoryview, base: _Base | None
    ) -> BlockOutcome:
        dtype = self._layout.tensors[span.tensor].dtype
        if base is not None and base.stored == identity:
            base = None  # a block never leans on itself
        codec = self._codec(span, raw, base)
        encoded: EncodedBlock
        facts: BlockFacts | None = None
        pair = self._pairs[span.tensor]
        wants_facts = base is not None and pair is not None and pair.has_profile()
        if base is not None and isinstance(codec, MeasuringCodec):
            from mergepipe.catalog.facts import facts_of

            payloads, statistics = codec.encode_with_statistics(
                raw, base.raw, dtype, self._workspace
            )
            encoded = seal_payloads(identity, len(raw), codec, base.stored, payloads)
            if encoded.stored_bytes >= len(raw):
                encoded = encode_block(identity, raw, dtype, codec_named("raw"))
            if wants_facts and pair is not None and base.declared is base.raw:
                facts = facts_of(statistics, dtype, pair.samples(span.index))
                wants_facts = False
        else:
            leaning = (base.stored, base.raw) if base is not None and codec.needs_base else None
            encoded = encode_block(identity, raw, dtype, codec, leaning, self._workspace)
        if wants_facts and pair is not None and base is not None:
            from mergepipe.catalog.facts import measure

            facts = measure(raw, base.declared, dtype, pair.samples(span.index), self._workspace)
        return BlockOutcome(identity, encoded, facts)

    def _codec(self, span: Span, raw: memoryview, base: _Base | None) -> Codec:
        """The codec of a block's tensor, chosen on the first block that asks."""
        key = (span.tensor, base is not None)
        with self._choosing:
            codec = self._codecs.get(key)
            if codec is None:
                dtype = self._layout.tensors[span.tensor].dtype
                samples = samples_of(raw, None if base is None else base.raw)
                codec = self._codecs[key] = choose(self._effort, dtype, samples, self._workspace)
        return codec
