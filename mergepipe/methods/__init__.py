"""Merge methods: pure functions from values to values. `protocol` is the contract.

Importing this package loads neither torch nor numba.
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
