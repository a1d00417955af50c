"""What kernels may call beside numpy: `instructions`, named without loading numba."""

from mergepipe.kernels.declared import deferred

_INSTRUCTIONS = "mergepipe.kernels.instructions"

as_bits = deferred(_INSTRUCTIONS, "as_bits")
as_double = deferred(_INSTRUCTIONS, "as_double")
as_float = deferred(_INSTRUCTIONS, "as_float")
carray = deferred(_INSTRUCTIONS, "carray")
on_stack = deferred(_INSTRUCTIONS, "on_stack")
pointer = deferred(_INSTRUCTIONS, "pointer")
store_unaligned = deferred(_INSTRUCTIONS, "store_unaligned")
