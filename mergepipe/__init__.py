"""mergepipe: model weights as data, with git-like history and budget-aware merging.

The public API is small and lazy: importing this package loads neither torch nor numba.
"""

__version__ = "0.1.0"
