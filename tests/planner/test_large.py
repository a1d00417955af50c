"""Twenty experts of a 7B model: no weights, all of their metadata. Prints how long it takes."""

import time

import numpy as np
import pytest

from mergepipe.ids import BlockId, ObjectId
from mergepipe.objects.merging import Profile, TensorProfile
from mergepipe.objects.records import Tensor
from mergepipe.planner.budget import Budget
from mergepipe.planner.recipe import Expert, Model, Recipe
from tests.planner.stored_models import Shelf, add_snapshot, plan_recipe, tensor_profile

EXPERTS = 20
# Llama 2 7B: 32 layers of 7 matrices and 2 norms, embeddings, head, last norm.
_LAYER = {
    "q": (4096, 4096), "k": (4096, 4096), "v": (4096, 4096), "o": (4096, 4096),
    "gate": (11008, 4096), "up": (11008, 4096), "down": (4096, 11008),
    "norm.0": (4096,), "norm.1": (4096,),
}  # fmt: skip
SHAPES = {
    "embed": (32000, 4096), "head": (32000, 4096), "norm": (4096,),
    **{f"{layer}.{name}": shape for layer in range(32) for name, shape in _LAYER.items()},
}  # fmt: skip
RECORDS = ((84_000, 262_000), (1 << 20,))


def grid(shape: tuple[int, ...]) -> tuple[int, int]:
    row = 2 * int(np.prod(shape[1:]))
    length = (1 << 20) // row * row
    return length, -(-row * shape[0] // length)


class Synthetic(Shelf):
    """A shelf whose records are made when asked for: the base's are raw, others' layered."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.bases: dict[BlockId, BlockId | None] = {}
        self.seconds = 0.0

    def encodings(self, blocks):
        start = time.process_time()
        found = self._made(blocks)
        self.seconds += time.process_time() - start
        return found

    def _made(self, blocks):
        for block in blocks:
            base = self.bases[block]
            self.locations.pop(block, None)
            if base is None:
                self.record(block, 1 << 20, RECORDS[1])
            else:
                self.record(block, 1 << 20, RECORDS[0], base, 3)
                if base not in self.locations:
                    self.record(base, 1 << 20, RECORDS[1])
        found = super().encodings(blocks)
        self.locations.clear()
        return found


def tensor(shelf: Synthetic, shape: tuple[int, ...], rng: np.random.Generator, base=None):
    length, count = grid(shape)
    ids = rng.bytes(32 * count)
    identity = shelf.put(Tensor("BF16", shape, length, ids))
    under = None if base is None else shelf.tensor(base).block_ids()
    for index, block in enumerate(shelf.tensor(identity).block_ids()):
        shelf.bases[block] = None if under is None else under[index]
    return identity


def template(rng: np.random.Generator) -> TensorProfile:
    """A profile with as many distinct changes as a real 7B tensor has."""
    small = Shelf(4096)
    one, other = (small.put(Tensor("BF16", (2048,), 4096, rng.bytes(32))) for _ in range(2))
    d = np.unique(rng.laplace(0, 1e-3, 1 << 15).astype(np.float32))[:2048]
    made = tensor_profile(small, "t", one, other, d)
    values = np.sort(np.abs(rng.laplace(0, 1e-3, 8000))).astype("<f4")
    bits = np.diff(values.view("<u4"), prepend=np.uint32(0)).astype("<u4")
    return replace_part(made, values=bits.tobytes(), counts=np.full(8000, 2000, "<u8").tobytes())


def replace_part(part: TensorProfile, **changes: object) -> TensorProfile:
    fields = {name: getattr(part, name) for name in part.__struct_fields__}
    return TensorProfile(**{**fields, **changes})


@pytest.mark.slow
def test_twenty_experts_of_a_7b_model_plan_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    shelf = Synthetic()
    base = {name: tensor(shelf, shape, rng) for name, shape in SHAPES.items()}
    root = add_snapshot(shelf, base)
    form = template(rng)
    experts: list[Expert] = []
    profiles: list[tuple[ObjectId, Profile]] = []
    for number in range(EXPERTS):
        own = {name: tensor(shelf, SHAPES[name], rng, base[name]) for name in SHAPES}
        snapshot = add_snapshot(shelf, own)
        parts = []
        for name, identity in own.items():
            count = grid(SHAPES[name])[1]
            energies = rng.lognormal(-1, 1, count)
            parts.append(
                replace_part(
                    form, name=name, tensor=identity, base=base[name],
                    energies=energies.astype("<f8").tobytes(),
                    changed=np.full(count, 400_000, "<u4").tobytes(),
                    largest=np.full(count, 0.01, "<f4").tobytes(),
                    thresholds=np.full(count, 1.05e-3, "<f4").tobytes(),
                    magnitudes=np.sqrt(energies * 0.8 / 183_000).astype("<f4").tobytes(),
                    kept=np.full(count, 183_000, "<u4").tobytes(),
                    coarse=bytes(32 * count),
                )
            )  # fmt: skip
        profile = Profile(snapshot, root, tuple(parts))
        profiles.append((shelf.put(profile), profile))
        experts.append(Expert(f"e{number}", snapshot))
    want = Recipe("ties", tuple(experts), Model("base", root), {"density": 0.2})
    for budget in (None, "25%", "raw:10%"):
        shelf.seconds = 0.0
        start = time.process_time()  # of other work on the machine this knows nothing
        result = plan_recipe(want, Budget.parse(budget), shelf, profiles)
        seconds = time.process_time() - start - shelf.seconds
        costs = result.costs
        with capsys.disabled():
            print(
                f"\nplanned {len(SHAPES)} tensors x {EXPERTS} experts, {costs.blocks_full} blocks, "
                f"budget {budget}: {seconds:.1f} s of processor, of raw "
                f"{costs.expert_bytes_planned / costs.expert_bytes_raw:.3f}, exact "
                f"{costs.blocks_exact}, coarse {costs.blocks_coarse}"
            )
        if costs.budget_bytes is not None:
            assert costs.expert_bytes_planned <= costs.budget_bytes
