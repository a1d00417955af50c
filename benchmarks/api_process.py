"""One operation of the Python API in a process of its own, timed without the process's start.

python benchmarks/api_process.py commit|checkout REPOSITORY PATH BRANCH [warm]

Prints `seconds X`: what the call alone took. With `warm`, the compiled kernels (numba, and what its
cache holds of ours) are loaded before, as they are in a process that works for longer.
"""

import sys
import time
from importlib import import_module
from pathlib import Path

from mergepipe.api import Repository


def main() -> None:
    what, repository, path, branch = sys.argv[1:5]
    if sys.argv[5:] == ["warm"]:
        import_module("mergepipe.codecs.residual")
        import_module("mergepipe.codecs.split")
        import_module("mergepipe.catalog.facts")
    with Repository.open(Path(repository)) as opened:
        begin = time.perf_counter()
        if what == "commit":
            opened.commit(path, branch=branch)
        else:
            opened.checkout(branch, to=path)
        seconds = time.perf_counter() - begin
    print(f"seconds {seconds:.4f}")


if __name__ == "__main__":
    main()
