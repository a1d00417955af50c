"""How kernels are written, compiled once, and called without the compiler.

Who lives here: `signatures` (the types that kernels take and return), `declared` (`kernel`, the
decorator, and what a call does), `primitives` (what numba has no words for), `compiling` (from a
function to `object_code`), `cache` (where that is kept, and whether all of it is there), `loading`
(from object code to a function of C).

What comes in: Python functions that numba understands. What goes out: functions of C.

What never happens here: a process whose kernels are all kept loads llvmlite, and not numba; only
`compiling` and `instructions` import that.
"""
