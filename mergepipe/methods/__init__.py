"""Merge methods: pure functions from values to values. `protocol` is the contract.

Who lives here: one file for each method or family; `registry` names them; `terms` is what they
take, `parameters` what users say, `statistics` and `order`, `trim`, `gram`, `magnitudes` what they
need to know of whole tensors; `randomness` defines masks; `sweeps` runs an element pass: `eager/`
in torch, `fused/` in numba.

What comes in: buffers and numbers. What goes out: bytes, the same on every machine and for every
split.

What never happens here: no I/O, no clock, no global state. Importing this loads neither torch nor
numba.
"""

from mergepipe.methods.protocol import Method, Need, NeedKind, Scope
from mergepipe.methods.randomness import tensor_key
from mergepipe.methods.registry import METHODS, VARIANTS, find
from mergepipe.methods.sweeps import merge
from mergepipe.methods.terms import (
    SAME,
    Coarse,
    Delta,
    ExpertScalars,
    Full,
    Same,
    Scalars,
    Term,
    Unit,
)

__all__ = [
    "METHODS",
    "SAME",
    "VARIANTS",
    "Coarse",
    "Delta",
    "ExpertScalars",
    "Full",
    "Method",
    "Need",
    "NeedKind",
    "Same",
    "Scalars",
    "Scope",
    "Term",
    "Unit",
    "find",
    "merge",
    "tensor_key",
]
