"""What a new model leans on: the tensors that its own pair up with, of which model, and by name."""

from collections.abc import Iterable, Mapping, Sequence

from mergepipe.catalog.pairing import BaseTensors
from mergepipe.catalog.pairs import Pair
from mergepipe.checkpoints.layout import Layout
from mergepipe.errors import Corruption
from mergepipe.formats.tree import open_stable
from mergepipe.ids import ObjectId
from mergepipe.objects.grid import spans
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.repository.refnames import IMPORTS, REMOTES, short_name
from mergepipe.repository.refs import RefStore

# A fine-tune differs from its base in about a quarter of its bits at most; strangers in 40%.
_SIMILAR_BITS = 0.33
_SAME_TENSORS = 0.5
_NEAR = 1.1
_SAMPLED_BLOCKS = 4
_SAMPLED_BYTES = 128 << 10  # of each: a million bits tell fine-tunes from strangers
_MOST_CANDIDATES = 32


def pair_all(layout: Layout, base: BaseTensors) -> list[Pair | None]:
    """The pair that each tensor of a layout makes with the base's, or None."""
    return [
        None
        if tensor.name is None
        else base.pair(
            layout.files[tensor.file].source.path,
            tensor.name,
            tensor.dtype.name,
            tensor.shape,
            tensor.block_bytes,
        )
        for tensor in layout.tensors
    ]


def best_match(
    layout: Layout,
    candidates: Iterable[tuple[ObjectId, ObjectId]],
    objects: ObjectStore,
    reader: BlockReader,
) -> ObjectId | None:
    """Of (commit, snapshot) candidates, the commit whose snapshot the files are most like.

    Most like: half of the bytes are in tensors that pair up, and the fewest bits differ in a few
    sampled blocks. None if no candidate is like them at all.
    """
    shares: dict[ObjectId, float] = {}
    for commit, snapshot in list(candidates)[:_MOST_CANDIDATES]:
        try:
            pairs = pair_all(layout, BaseTensors(objects.snapshot(snapshot), objects))
            share = _differing_bits(layout, pairs, reader)
        except Corruption:  # a model that was let go of, or is damaged: nothing leans on it
            continue
        if share is not None and share < _SIMILAR_BITS:
            shares[commit] = share
    if not shares:
        return None
    # A sibling may be as near as the base they share; the one that leans on nothing is the base.
    near = [commit for commit, share in shares.items() if share <= _NEAR * min(shares.values())]
    return min(
        near, key=lambda commit: (objects.commit(commit).leans_on is not None, shares[commit])
    )


def named_here(name: str, refs: RefStore, objects: ObjectStore) -> ObjectId | None:
    """The commit that a model card's `org/model` stands for: a ref of that name, or of its end.

    Case does not count. None if no ref is called so, or refs that hold different models are.
    """
    wanted = {name.casefold(), name.rpartition("/")[2].casefold()}
    commits: dict[ObjectId, ObjectId] = {}
    for ref, tip in refs.list().items():
        called = short_name(ref)
        if ref.startswith(IMPORTS):
            called = called.rpartition("-")[0].removeprefix("imports/")  # a digest ends them
        elif ref.startswith(REMOTES):
            called = called.partition("/")[2]
        if called.casefold() in wanted:
            commits.setdefault(objects.commit(tip).snapshot, tip)
    return next(iter(commits.values())) if len(commits) == 1 else None


def _differing_bits(
    layout: Layout, pairs: Sequence[Pair | None], reader: BlockReader
) -> float | None:
    """Share of bits that differ in sampled blocks; None if too few tensors pair up."""
    sizes = {
        number: tensor.end - tensor.start
        for number, tensor in enumerate(layout.tensors)
        if tensor.name is not None and tensor.end > tensor.start
    }
    paired = {number: size for number, size in sizes.items() if pairs[number] is not None}
    if not paired or sum(paired.values()) < _SAME_TENSORS * sum(sizes.values()):
        return None
    differing = total = 0
    for number in _spread(paired):
        pair, tensor = pairs[number], layout.tensors[number]
        assert pair is not None
        grid = list(spans(tensor.end - tensor.start, tensor.block_bytes))
        index = len(grid) // 2
        begin, end = grid[index]
        block = pair.base_block(index)
        if block is None:
            continue
        ours = bytearray(min(_SAMPLED_BYTES, end - begin))
        with open_stable(layout.files[tensor.file].source) as source:
            source.read_into(tensor.start + begin, memoryview(ours))
        try:
            theirs = reader.read([block])[0]
        except Corruption:
            continue  # a base that is damaged there says nothing
        bits = int.from_bytes(ours, "little") ^ int.from_bytes(theirs[: len(ours)], "little")
        differing += bits.bit_count()
        total += 8 * len(ours)
    return differing / total if total else None


def _spread(paired: Mapping[int, int]) -> list[int]:
    """A few tensors, from the large ones, spread over the file."""
    large = sorted(paired, key=lambda number: (-paired[number], number))
    pool = sorted(large[: max(_SAMPLED_BLOCKS, len(large) // 4)])
    step = max(1, len(pool) // _SAMPLED_BLOCKS)
    return pool[::step][:_SAMPLED_BLOCKS]
