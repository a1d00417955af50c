"""What the oracle makes of a config, and when a result counts as it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from tests.compat.oracle import Merged
from tests.compat.zoo_models import Model
from tests.methods import merge_reference as reference

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
# The share of weights that a threshold or a vote may leave undecided.
UNDECIDED, UNDECIDED_FLOAT32 = 0.06, 0.002


@dataclass(frozen=True)
class Expected:
    """What the oracle makes of the config; and the dtypes that it is stored in."""

    exact: Merged
    dtypes: Mapping[str, torch.dtype]

    def rounded(self, name: str) -> torch.Tensor:
        exact = torch.from_numpy(np.asarray(self.exact.model.tensors[name]))
        return exact.to(self.dtypes[name])

    def allowed(self, name: str) -> np.ndarray:
        """How far a float32 sum may be from the exact value, before it is rounded."""
        steps = (self.exact.inputs + 4) * reference.SMALL
        return steps * self.exact.magnitude[name] + self.exact.loose[name]

    def half_unit(self, name: str) -> np.ndarray:
        """Half a unit in the last place of what is stored."""
        kind = NAMES[self.dtypes[name]]
        return reference.half_unit(self.exact.model.tensors[name], kind)

    def as_stage(self) -> Model:
        """The model that a later stage takes in: another one where rounding may go either way."""
        tensors, loose = {}, {}
        for name, exact in self.exact.model.tensors.items():
            tensors[name] = self.rounded(name).double().numpy()
            to_middle = self.half_unit(name) - np.abs(tensors[name] - exact)
            either = (to_middle <= self.allowed(name)) | self.exact.doubtful[name]
            loose[name] = np.where(either, 2 * self.half_unit(name) + self.allowed(name), 0.0)
        return replace(self.exact.model, tensors=tensors, loose=loose)


def apart(tensors: Mapping[str, torch.Tensor], expected: Expected, units: int) -> list[str]:
    """Tensors that rounding does not explain. units: half units in the last place allowed."""
    found = []
    undecided = elements = 0
    for name, tensor in tensors.items():
        if name not in expected.dtypes:
            continue
        exact, merged = expected.exact.model.tensors[name], expected.exact
        if tensor.shape != exact.shape:
            found.append(f"{name}: {tuple(tensor.shape)}, not {exact.shape}")
            continue
        allowed = units * (expected.half_unit(name) * 1.001 + expected.allowed(name))
        off = np.abs(tensor.double().numpy() - exact)
        wrong = ~(off <= allowed)
        undecided += int((wrong & merged.doubtful[name]).sum())
        elements += wrong.size
        wrong &= ~merged.doubtful[name]
        if wrong.any():
            worst = float((off / allowed)[wrong].max())
            found.append(f"{name}: {wrong.sum()} of {wrong.size}, worst {worst:.3g} units")
    share = UNDECIDED_FLOAT32 if set(expected.dtypes.values()) == {torch.float32} else UNDECIDED
    if undecided > share * elements:
        found.append(f"{undecided} of {elements} undecided")
    return found
