"""Models in memory with the records and profiles they would have, for planning tests.

Objects, profiles and encodings are the real ones; only where they come from is a dict, so that a
7B-sized catalog needs no 7B of weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mergepipe.catalog.view import SAMPLES
from mergepipe.dtypes import DTYPES
from mergepipe.ids import NO_ID, BlockId, ObjectId, PackId, block_id, digest, object_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.grid import block_bytes, spans
from mergepipe.objects.merging import LinePlan, Profile, TensorProfile
from mergepipe.objects.records import (
    Blob,
    FileEntry,
    Record,
    Safetensors,
    Snapshot,
    Tensor,
    TensorEntry,
)
from mergepipe.objects.store import Tensors
from mergepipe.packs.choice import Options
from mergepipe.packs.format import RecordHeader, RecordKind
from mergepipe.packs.id_arrays import Ids, whole
from mergepipe.packs.only_ways import OnlyWays
from mergepipe.packs.records import Encoding, Location, encodings
from mergepipe.planner.budget import Budget
from mergepipe.planner.build import PlannedMerge, build_plan
from mergepipe.planner.inputs import expand
from mergepipe.planner.recipe import Recipe
from mergepipe.plans.costs import Depths
from mergepipe.plans.measured import Measure
from mergepipe.plans.profile_views import Cited, Profiles

COARSE_SHARE = 0.35
_PACK = PackId(digest(b"pack"))
Weights = Mapping[str, npt.NDArray[np.float32]]


@dataclass
class Shelf:
    """Objects and block records by id."""

    limit: int = 4096
    objects: dict[ObjectId, Record] = field(default_factory=dict)
    locations: dict[BlockId, list[Location]] = field(default_factory=dict)
    end: int = 0
    looked_up: int = 0
    tells_of_many: bool = True

    def put(self, record: Record) -> ObjectId:
        identity = object_id(encode(record))
        self.objects[identity] = record
        return identity

    def snapshot(self, identity: ObjectId, /) -> Snapshot:
        found = self.objects[identity]
        assert isinstance(found, Snapshot)
        return found

    def tensor(self, identity: ObjectId, /) -> Tensor:
        found = self.objects[identity]
        assert isinstance(found, Tensor)
        return found

    def encodings(self, blocks: Iterable[BlockId]) -> Options:
        found: dict[BlockId, list[Encoding]] = {}
        todo = list(blocks)
        while todo:
            block = todo.pop()
            if block not in found:
                self.looked_up += 1
                found[block] = encodings(self.locations.get(block, ()))
                todo += [way.base for way in found[block] if way.base is not None]
        return found

    def only_ways(self, ids: Ids) -> OnlyWays:
        ways = OnlyWays.none(len(ids))
        for row, block in enumerate(map(whole, ids)):
            known = self.locations.get(block, ())
            for way in encodings(known):
                if self.tells_of_many and len(way.layers) == len(known):
                    ways.single[row] = True
                    ways.bases[row] = way.base or b""
                    ways.layers[row] = len(way.layers)
                    ways.stored_bytes[row] = way.stored_bytes
                    ways.first_bytes[row] = way.layers[0].stored_bytes
        return ways

    def record(
        self,
        block: BlockId,
        raw_length: int,
        layers: Sequence[int],
        base: BlockId | None = None,
        codec: int = 0,
    ) -> None:
        """One more encoding of a block, with layers of these encoded lengths."""
        for layer, length in enumerate(layers):
            header = RecordHeader(
                RecordKind.BLOCK, codec, 1, layer, len(layers), raw_length, length, block,
                base or NO_ID,
            )  # fmt: skip
            at = Location(header, _PACK, self.end)
            self.end += at.stored_bytes
            self.locations.setdefault(block, []).append(at)


def float_bytes(values: npt.NDArray[np.float32], dtype: str) -> bytes:
    """Values as BF16 (cut off, not rounded), F16 or F32."""
    if dtype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype("<f2" if dtype == "F16" else "<f4").tobytes()


def as_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What is left of them as BF16."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def add_tensor(
    shelf: Shelf,
    raw: bytes,
    dtype: str,
    shape: tuple[int, ...],
    base: Tensor | None = None,
    limit: int | None = None,
) -> ObjectId:
    """A tensor and the records of its blocks: layers of 8% and 25% over its base, else raw."""
    length = block_bytes(DTYPES[dtype], shape, limit or shelf.limit)
    under = base.block_ids() if base is not None and base.block_bytes == length else None
    ids = []
    for index, (begin, end) in enumerate(spans(len(raw), length)):
        piece = raw[begin:end]
        block = block_id(piece)
        ids.append(block)
        if block in shelf.locations:
            continue
        if under is None:
            shelf.record(block, len(piece), [len(piece)])
        else:
            layers = [len(piece) * 8 // 100, len(piece) * 25 // 100]
            shelf.record(block, len(piece), layers, under[index], 3)
    return shelf.put(Tensor(dtype, shape, length, b"".join(ids)))


def plan_recipe(
    recipe: Recipe,
    budget: Budget,
    shelf: Shelf,
    profiles: Sequence[Cited] = (),
    measure: Measure | None = None,
) -> PlannedMerge:
    """The plan of a recipe; profiles by expert, against the base."""
    merge = expand(recipe, Tensors(shelf), shelf)
    return build_plan(merge, budget, shelf, shelf, by_pair(profiles), measure)


def by_pair(profiles: Sequence[Cited]) -> Profiles:
    """Profiles of experts as those of (model, base): a recipe's base is its last model."""
    return {(row, len(profiles)): cited for row, cited in enumerate(profiles)}


def add_snapshot(
    shelf: Shelf, tensors: Mapping[str, ObjectId], path: str = "model.safetensors"
) -> ObjectId:
    header = shelf.put(Tensor("U8", (8,), 4096, digest(path.encode())))
    config = shelf.put(Tensor("U8", (2,), 4096, digest(b"{}")))
    entries = tuple(TensorEntry(name, tensor) for name, tensor in tensors.items())
    return shelf.put(
        Snapshot(
            (
                FileEntry("config.json", False, 2, Blob(config)),
                FileEntry(path, False, 8, Safetensors(header, entries)),
            )
        )
    )


def add_model(
    shelf: Shelf, weights: Weights, base: ObjectId | None = None, dtype: str = "BF16"
) -> ObjectId:
    """A model's snapshot, stored against a base's."""
    under = {} if base is None else named(shelf, base)
    return add_snapshot(
        shelf,
        {
            name: add_tensor(
                shelf,
                float_bytes(values, dtype),
                dtype,
                values.shape,
                shelf.tensor(under[name]) if name in under else None,
            )
            for name, values in weights.items()
        },
    )


def named(shelf: Shelf, snapshot: ObjectId) -> dict[str, ObjectId]:
    return {
        entry.name: entry.tensor
        for file in shelf.snapshot(snapshot).files
        if isinstance(file.content, Safetensors)
        for entry in file.content.tensors
    }


def profile_of(
    shelf: Shelf, snapshot: ObjectId, base: ObjectId, weights: Weights, base_weights: Weights
) -> Cited:
    """The profile of a pair, computed the obvious way; the weights as stored."""
    mine, theirs = named(shelf, snapshot), named(shelf, base)
    tensors = []
    for name in sorted(set(mine) & set(theirs), key=str.encode):
        if mine[name] != theirs[name]:
            d = (weights[name] - base_weights[name]).reshape(-1)
            tensors.append(tensor_profile(shelf, name, mine[name], theirs[name], d))
    profile = Profile(snapshot, base, tuple(tensors))
    return shelf.put(profile), profile


def tensor_profile(
    shelf: Shelf, name: str, tensor: ObjectId, base: ObjectId, d: npt.NDArray[np.float32]
) -> TensorProfile:
    record = shelf.tensor(tensor)
    per_block = record.block_bytes * 8 // DTYPES[record.dtype].bits
    columns = []
    trits = np.zeros(len(d), np.int64)
    for begin, end in spans(len(d), per_block):
        piece = np.abs(d[begin:end])
        large = np.sort(piece)[::-1][: max(1, int(COARSE_SHARE * len(piece)))]
        threshold = max(float(large[-1]), 1e-30)
        kept = piece >= threshold
        trits[begin:end] = np.where(kept, np.where(d[begin:end] < 0, 1, 2), 0)
        mean = float(piece[kept].mean()) if kept.any() else 0.0
        columns.append(
            (
                float((piece.astype(np.float64) ** 2).sum()), int((piece > 0).sum()),
                float(piece.max()), threshold, mean, int(kept.sum()),
            )
        )  # fmt: skip
    values, counts = np.unique(np.abs(d), return_counts=True)
    bits = np.diff(values.astype("<f4").view("<u4"), prepend=np.uint32(0)).astype("<u4")
    wide = record.dtype == "F32"
    energies, changed, largest, thresholds, magnitudes, kept_counts = zip(*columns, strict=True)
    samples = min(len(d), SAMPLES)
    positions = (2 * np.arange(samples) + 1) * len(d) // (2 * samples)
    sampled = np.zeros(-(-samples // 5) * 5, np.int64)
    sampled[:samples] = trits[positions]
    packed = (sampled.reshape(-1, 5) * 3 ** np.arange(5)).sum(axis=1).astype(np.uint8)
    return TensorProfile(
        name, tensor, base,
        np.array(energies, "<f8").tobytes(), np.array(changed, "<u4").tobytes(),
        np.array(largest, "<f4").tobytes(), np.array(thresholds, "<f4").tobytes(),
        np.array(magnitudes, "<f4").tobytes(), np.array(kept_counts, "<u4").tobytes(),
        bytes(32 * len(columns)), b"" if wide else bits.tobytes(),
        b"" if wide else counts.astype("<u8").tobytes(), packed.tobytes(),
    )  # fmt: skip


@dataclass
class Family:
    """A base and fine-tunes of it, with profiles."""

    shelf: Shelf
    base: ObjectId
    experts: list[ObjectId]
    profiles: list[Cited]
    base_weights: Weights
    weights: Sequence[Weights]


SHAPES = {"embed": (64, 128), "layer.0.w": (96, 128), "layer.1.w": (33, 128), "norm": (128,)}


def family(
    count: int = 3,
    seed: int = 1,
    dtype: str = "BF16",
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    limit: int = 4096,
) -> Family:
    """Random models: changes of very different size in different tensors; some rows unchanged."""
    rng = np.random.default_rng(seed)
    cut = as_bf16 if dtype == "BF16" else (lambda values: values)
    shelf = Shelf(limit)
    base_weights = {
        name: cut(rng.normal(0, 0.05, shape).astype(np.float32)) for name, shape in shapes.items()
    }
    base = add_model(shelf, base_weights, dtype=dtype)
    experts, profiles, weights = [], [], []
    for _ in range(count):
        tuned: dict[str, np.ndarray] = {}
        for name, values in base_weights.items():
            size = 10.0 ** rng.uniform(-4, -2)
            change = rng.laplace(0, size, values.shape).astype(np.float32)
            if values.ndim == 2:
                change[: values.shape[0] // 4] = 0
                change[values.shape[0] // 2 :] *= 3
            tuned[name] = cut(values + change)
        expert = add_model(shelf, tuned, base, dtype)
        experts.append(expert)
        weights.append(tuned)
        profiles.append(profile_of(shelf, expert, base, tuned, base_weights))
    return Family(shelf, base, experts, profiles, base_weights, weights)


def depths_of(plan: LinePlan) -> Depths:
    """A planned line's depths as an array, a row per input."""
    return np.array([np.frombuffer(own, np.uint8) for own in plan.depths], np.uint8)
