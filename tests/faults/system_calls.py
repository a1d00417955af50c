"""System calls that fail, or that move less than they were asked to, under one command.

Failures are made by strace, in calls of the real kernel: a file whose sectors are gone stays
unreadable for as long as the command runs. What moves less is done by asking the kernel for less.
"""

import os
import random
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.torture.models import finish, in_child

from . import ground as world
from .striking import Ready

_READS = "read,readv,pread64,preadv,preadv2"
_PATH = re.compile(r"^\d+ +\w+\(\d+<([^>]*)>")


@contextmanager
def _traced(work: Callable[[], int], options: Sequence[str]) -> Iterator[int]:
    """A child that does `work` once strace follows it; the exit code of the child."""
    reader, writer = os.pipe()

    def wait_and_work() -> None:
        os.close(writer)
        os.read(reader, 1)
        os._exit(work())

    child = in_child(wait_and_work)
    os.close(reader)
    command = ["strace", "-f", *options, "-p", str(child)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        said = strace.stderr.readline()
        assert "attached" in said, said
        os.close(writer)
        code = finish(child)
        strace.stderr.read()
    yield code


def files_read(ready: Ready, log: Path) -> list[Path]:
    """The files of the ground that are there before the command, and that it reads."""
    ready.fresh()
    work = partial(_silent, ready.argv)
    with _traced(work, ["-y", "-e", f"trace={_READS}", "-o", str(log)]) as code:
        assert code == 0, ready.argv
    found = {Path(hit[1]) for line in log.read_text().splitlines() if (hit := _PATH.match(line))}
    return sorted(
        path
        for path in found
        if path.is_relative_to(ready.place)
        and (ready.kept / path.relative_to(ready.place)).is_file()
    )


def unreadable(ready: Ready, path: Path, when: str) -> int:
    """Run the command while reads of a file give EIO, those of each thread that `when` counts."""
    ready.fresh()
    inject = f"inject={_READS}:error=EIO:when={when}"
    options = ["-P", str(path), "-e", f"trace={_READS}", "-e", inject, "-o", os.devnull]
    with _traced(partial(_silent, ready.argv), options) as code:
        return code


def _silent(argv: Sequence[str]) -> int:
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        if "FAULTS_LOUD" not in os.environ:
            os.dup2(nowhere.fileno(), 2)
    return world.mp(*argv)


def in_small_pieces(ready: Ready, seed: int) -> int:
    """Run the command while each call moves a part of what it was asked to; the exit code."""

    def work() -> int:
        _shorten(random.Random(seed))
        return world.mp(*ready.argv)

    ready.fresh()
    return world.quietly(work)


def _shorten(rng: random.Random) -> None:
    """In this process, from now on: the kernel may do so with any of these calls."""

    def part(size: int) -> int:
        return size if size <= 1 or rng.random() < 0.3 else rng.randint(1, size - 1)

    def cut(buffers: Sequence[Any]) -> list[memoryview]:
        first = next((view for each in buffers if len(view := memoryview(each).cast("B"))), None)
        return [] if first is None else [first[: part(len(first))]]

    read, pread, write, pwrite = os.read, os.pread, os.write, os.pwrite
    readv, preadv, writev = os.readv, os.preadv, os.writev
    replaced: dict[str, Callable[..., Any]] = {
        "read": lambda at, size: read(at, part(size)),
        "pread": lambda at, size, offset: pread(at, part(size), offset),
        "write": lambda at, data: write(at, memoryview(data).cast("B")[: part(len(data))]),
        "pwrite": lambda at, data, offset: pwrite(
            at, memoryview(data).cast("B")[: part(len(data))], offset
        ),
        "readv": lambda at, buffers: readv(at, cut(buffers)),
        "preadv": lambda at, buffers, offset: preadv(at, cut(buffers), offset),
        "writev": lambda at, buffers: writev(at, cut(buffers)),
    }
    for name, call in replaced.items():
        setattr(os, name, call)
