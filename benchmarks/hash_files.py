"""The plain tool that a commit is compared with: read files and hash them, on all cores.

python benchmarks/hash_files.py chunks|mmap DIRECTORY

`chunks`: BLAKE3 of every MiB, in a pool of threads. `mmap`: blake3's own multithreaded hashing of
whole files (`update_mmap`). Prints `seconds X`, without the interpreter's start.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blake3 import blake3

CHUNK_BYTES = 1 << 20
PIECE_CHUNKS = 4


def hash_chunks(files: list[Path]) -> int:
    """Number of chunks hashed. Threads take 4 MiB at a time, into a buffer of their own."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    descriptors = [os.open(path, os.O_RDONLY) for path in files]
    step = PIECE_CHUNKS * CHUNK_BYTES
    pieces = [
        (descriptor, start)
        for descriptor in descriptors
        for start in range(0, os.fstat(descriptor).st_size, step)
    ]

    def work(share: list[tuple[int, int]]) -> int:
        buffer = memoryview(bytearray(step))
        done = 0
        for descriptor, start in share:
            count = os.preadv(descriptor, [buffer], start)
            for at in range(0, count, CHUNK_BYTES):
                blake3(buffer[at : min(at + CHUNK_BYTES, count)]).digest()
                done += 1
        return done

    with ThreadPoolExecutor(cores) as pool:
        shares = [pieces[number :: cores or 1] for number in range(cores or 1)]
        return sum(pool.map(work, shares))


def hash_mapped(files: list[Path]) -> int:
    """Number of files hashed."""
    for path in files:
        hasher = blake3(max_threads=blake3.AUTO)
        hasher.update_mmap(path)
        hasher.digest()
    return len(files)


def main() -> None:
    how, directory = sys.argv[1:]
    begin = time.perf_counter()
    files = [path for path in sorted(Path(directory).rglob("*")) if path.is_file()]
    (hash_chunks if how == "chunks" else hash_mapped)(files)
    print(f"seconds {time.perf_counter() - begin:.4f}")


if __name__ == "__main__":
    main()
