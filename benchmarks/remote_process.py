"""One transfer in a process of its own, timed without the process's start.

python benchmarks/remote_process.py push REPOSITORY URL
python benchmarks/remote_process.py clone URL DIRECTORY
python benchmarks/remote_process.py verify|idle REPOSITORY

`push` sends every branch; `clone` writes no files; `verify` decodes and hashes every block that
history needs, `idle` does nothing. Prints `seconds X`: what the call alone took, kernels loaded
before.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

from mergepipe.api import Repository
from mergepipe.api.cloning import clone
from mergepipe.objects.grid import blocks_of
from mergepipe.objects.records import Tensor
from mergepipe.parallel import Scratch, ordered_map
from mergepipe.transfer.new_commits import commits_between, objects_of
from mergepipe.transfer.push_refs import PushOptions

_PIECE_BLOCKS = 4


def verify(repository: Repository) -> None:
    """Decode and hash every block of every branch, on all cores: what nobody can do without."""
    objects = repository.objects
    tips = list(repository.refs.list().values())
    blocks = list(
        dict.fromkeys(
            use.id
            for each in objects_of(objects, commits_between(objects, tips, []).commits, {})
            if isinstance(each.record, Tensor)
            for use in blocks_of(each.record, each.id.hex())
        )
    )
    pieces = [blocks[at : at + _PIECE_BLOCKS] for at in range(0, len(blocks), _PIECE_BLOCKS)]
    scratch = Scratch()
    with ThreadPoolExecutor(repository.threads) as pool:
        for _ in ordered_map(
            pool,
            lambda piece: len(repository.blocks.read(piece, scratch)),
            pieces,
            2 * repository.threads,
        ):
            pass


def main() -> None:
    what, first, *rest = sys.argv[1:]
    for module in ("codecs.residual", "codecs.split", "catalog.facts"):
        import_module(f"mergepipe.{module}")
    if what == "clone":
        begin = time.perf_counter()
        clone(first, Path(rest[0]), checkout=False)
        seconds = time.perf_counter() - begin
    else:
        with Repository.open(first) as opened:
            begin = time.perf_counter()
            if what == "push":
                opened.push(rest[0], PushOptions(all_branches=True))
            elif what == "verify":
                verify(opened)
            seconds = time.perf_counter() - begin
    print(f"seconds {seconds:.4f}")


if __name__ == "__main__":
    main()
