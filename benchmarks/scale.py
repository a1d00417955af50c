"""What grows with a repository: blocks, files, branches, models. Ratios to half of it, and memory.

Repositories of very many tiny blocks are made through the public writer: what is measured is the
bookkeeping, which is the same for blocks of 64 bytes and of 1 MiB.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from measure import Row, Sample, print_table, run

from mergepipe.api import Repository, remotes
from mergepipe.checkpoints.publication import publish_commit
from mergepipe.codecs.registry import codec_named
from mergepipe.dtypes import U8
from mergepipe.ids import BlockId, ObjectId, digest
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Blob, Commit, FileEntry, Snapshot, Tensor
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.transaction import Transaction
from mergepipe.repository.reflog import Signature
from mergepipe.repository.refnames import HEADS

WHO = Signature("A U Thor <a@example.org>", 1_700_000_000, 0)
_BLOCK_BYTES = 64
_TENSOR_BLOCKS = 10_000
_MIB = 1 << 20


def mp(repository: Path, *arguments: str) -> Sample:
    """One command, as a process of its own."""
    return run([sys.executable, "-m", "mergepipe", "-C", repository, *arguments])


def many_blocks(root: Path, count: int, dead: float = 0.5) -> None:
    """A repository with `count` blocks, of which `dead` are of a branch that is gone.

    Both lie mixed in the same packs, so that gc has to copy what lives.
    """
    Repository.init(root, who=WHO).close()
    tensors = max(2, count // _TENSOR_BLOCKS)
    with Repository.open(root, who=WHO) as repo, repo.writing():
        lost = round(tensors * dead)
        models = {"kept": [n for n in range(tensors) if n >= lost], "lost": list(range(lost))}
        with Transaction(repo.storage, pack_bytes=16 * _MIB) as transaction:
            written = {
                number: _tensor(transaction, number)
                for number in sorted(range(tensors), key=lambda n: random.Random(n).random())
            }
            for branch, numbers in models.items():
                files = tuple(_file(number, written[number]) for number in numbers)
                ordered = tuple(sorted(files, key=lambda file: file.path.encode()))
                snapshot = transaction.add_object(encode(Snapshot(ordered)))
                _publish(transaction, repo, branch, snapshot)
                if branch == "kept":
                    transaction = Transaction(repo.storage)
        if dead:
            repo.delete_branch("lost", force=True)


def _publish(transaction: Transaction, repo: Repository, branch: str, snapshot: ObjectId) -> None:
    commit = Commit(snapshot, (), None, WHO.author, WHO.time, WHO.utc_offset, branch)
    publish_commit(
        transaction, repo.refs, HEADS + branch, lambda tip: commit, who=WHO, why="commit"
    )


def _tensor(transaction: Transaction, number: int) -> ObjectId:
    """A tensor of new blocks."""
    raw = codec_named("raw")
    data = random.Random(number).randbytes(_BLOCK_BYTES * _TENSOR_BLOCKS)
    ids = bytearray()
    for at in range(0, len(data), _BLOCK_BYTES):
        block = data[at : at + _BLOCK_BYTES]
        identity = BlockId(digest(block))
        transaction.add_block(encode_block(identity, block, U8, raw))
        ids += identity
    return transaction.add_object(encode(Tensor("U8", (len(data),), _BLOCK_BYTES, bytes(ids))))


def _file(number: int, tensor: ObjectId) -> FileEntry:
    size = _BLOCK_BYTES * _TENSOR_BLOCKS
    return FileEntry(f"part-{number:05d}.bin", False, size, Blob(tensor))


@contextmanager
def workplace(directory: Path | None) -> Iterator[Path]:
    """A folder that is removed in the end."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="scale-") as folder:
        yield Path(folder)


def upkeep(folder: Path, count: int) -> list[Row]:
    """du, fsck, gc of `count` blocks, half of them dead, beside half as many."""
    rows = []
    samples: dict[int, dict[str, Sample]] = {}
    for size in (count // 2, count):
        root = folder / f"blocks-{size}"
        begun = time.perf_counter()
        # In a process of its own: the peak of a child begins at what its parent had.
        run([sys.executable, __file__, "--make", root, "--blocks", str(size)])
        print(f"made {size:,} blocks in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
        commands = {
            "du": ("du",),
            "fsck": ("fsck",),
            "gc --dry-run": ("gc", "--dry-run", "--no-reflog"),
            "gc": ("gc", "--no-reflog", "--prune=now"),
        }
        samples[size] = {name: mp(root, *command) for name, command in commands.items()}
        shutil.rmtree(root)
    for name, sample in samples[count].items():
        half = samples[count // 2][name]
        limit = 1024 if name == "gc" else 500
        peak = sample.peak_bytes / _MIB
        rows += [
            Row(f"{name}, {count:,} blocks", _s(sample), _s(half), sample.cpu_s / half.cpu_s, 2.6),
            Row(f"{name}: peak memory", f"{peak:.0f} MiB", "", peak, limit, " MiB"),
        ]
    return rows


def _s(sample: Sample) -> str:
    return f"{sample.wall_s:.1f} s ({sample.cpu_s:.1f} s cpu)"


def checkout(folder: Path, count: int) -> list[Row]:
    """A checkout of `count` small files, beside `cp -r` and `sync -f` of the same."""
    source, root = folder / "source", folder / "files"
    for number in range(count):
        path = source / f"{number % 100:02d}/{number:06d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(number).randbytes(1000))
    run(["sync", "-f", source])
    Repository.init(root, who=WHO).close()
    with Repository.open(root, who=WHO) as repo:
        repo.commit(source, message="files")
    ours, theirs = [], []
    for turn in range(3):
        theirs.append(run(["sh", "-c", f"cp -r {source} {folder}/copy && sync -f {folder}/copy"]))
        shutil.rmtree(folder / "copy")
        ours.append(mp(root, "checkout", "main", "--to", str(folder / f"out{turn}")))
        shutil.rmtree(folder / f"out{turn}")
    best, peer = (min(samples, key=lambda it: it.wall_s) for samples in (ours, theirs))
    return [Row(f"checkout of {count:,} files", _s(best), _s(peer), best.wall_s / peer.wall_s, 3.0)]


def branches(folder: Path, count: int) -> list[Row]:
    """`push --all` of `count` branches, and `du` of as many models.

    Beside half as many, and beside `cp -r` and `sync -f` of the same models as plain files.
    """
    found: dict[str, list[Sample]] = {"push --all": [], "du": []}
    plain, shared = folder / "plain", random.Random(-1).randbytes(20_000)
    for size in (count // 2, count):
        root, there = folder / f"models-{size}", folder / f"there-{size}"
        for place in (root, there):
            Repository.init(place, who=WHO).close()
        with Repository.open(root, who=WHO) as repo:
            for number in range(size):
                model = plain / f"{number:05d}"
                model.mkdir(parents=True, exist_ok=True)
                (model / "shared.bin").write_bytes(shared)
                (model / "own.bin").write_bytes(random.Random(number).randbytes(3000))
                repo.commit(model, branch=f"b/{number:05d}", message=str(number))
            remotes.add(repo, "origin", str(there))
        run(["sync", "-f", folder])
        found["push --all"].append(mp(root, "push", "--all"))
        found["du"].append(mp(root, "du"))
        shutil.rmtree(root)
        shutil.rmtree(there)
    peer = run(["sh", "-c", f"cp -r {plain} {folder}/copy && sync -f {folder}/copy"])
    rows = []
    for name, (half, whole) in found.items():
        growth, beside = whole.cpu_s / half.cpu_s, whole.wall_s / peer.wall_s
        rows += [
            Row(f"{name}, {count:,} branches", _s(whole), _s(half), growth, 2.6),
            Row(f"{name}, beside a copy", _s(whole), _s(peer), beside, 3.0),
        ]
    return rows


PARTS: dict[str, tuple[Callable[[Path, int], list[Row]], int]] = {
    "upkeep": (upkeep, 1_000_000),
    "checkout": (checkout, 20_000),
    "branches": (branches, 1_000),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table; 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--share", type=float, default=1.0, help="of the full sizes")
    parser.add_argument("--directory", type=Path, help="where to make repositories")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--blocks", type=int, help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    os.environ["MP_AUTHOR"] = WHO.author
    if told.make:
        many_blocks(told.make, told.blocks)
        return 0
    rows: list[Row] = []
    for name in told.only or PARTS:
        measure, size = PARTS[name]
        with workplace(told.directory) as folder:
            rows += measure(folder, max(2, round(size * told.share)))
    print("(the peer of what grows is half as much of it: 2x is linear)")
    return 0 if print_table(rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
