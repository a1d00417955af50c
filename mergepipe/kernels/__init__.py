"""How kernels are written, compiled once, and called without the compiler.

A kernel is a Python function that numba understands. It is compiled to object code, which is kept
on disk and called through C: a process whose kernels are all kept loads llvmlite, and not numba.

`signatures`    the types that kernels take and return
`declared`      `kernel`, the decorator, and what a call does
`instructions`  what numba has no words for (imports numba: named by `deferred` only)
`compiling`     from a function to object code (imports numba)
`cache`         where object code is kept, and whether all of it is there
`loading`       from object code to a function of C
"""
