"""One operation of the Python API in a process of its own, timed without the process's start.

python benchmarks/api_process.py commit|checkout REPOSITORY PATH BRANCH

Prints `seconds X`: what the call alone took.
"""

import sys
import time
from pathlib import Path

from mergepipe.api import Repository


def main() -> None:
    what, repository, path, branch = sys.argv[1:]
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
