"""Small models that name themselves: from a number, every byte that a commit must hold."""

import json
import os
import random
import shutil
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mergepipe.api import Repository
from mergepipe.ids import ObjectId
from mergepipe.repository import config_edits, layout
from mergepipe.repository.fsck import fsck
from mergepipe.repository.reflog import Signature
from tests.properties.trees import Tree, read_tree, write_tree

BLOCK_BYTES = 4096
WHO = Signature("A U Thor <a@example.org>", 1_700_000_000, 60)


def model(number: int, rows: int = 40) -> Tree:
    """A model unlike any other's, that shares one tensor and one file with all of them."""
    own = random.Random(number).randbytes(rows * 512)
    shared = random.Random(-1).randbytes(20 * 512)
    header = json.dumps(
        {
            "shared": {"dtype": "BF16", "shape": [20, 256], "data_offsets": [0, len(shared)]},
            "own": {
                "dtype": "BF16",
                "shape": [rows, 256],
                "data_offsets": [len(shared), len(shared) + len(own)],
            },
        }
    ).encode()
    file = struct.pack("<Q", len(header)) + header + shared + own
    return {
        "model.safetensors": (file, False),
        "config.json": (b'{"same": "everywhere"}', False),
        "nested/number.txt": (str(number).encode(), False),
        "run.sh": (b"#!/bin/sh\n", True),
    }


def new_repository(root: Path, codec: str = "raw") -> None:
    """`raw` by default: what these tests kill and break is not the codecs."""
    Repository.init(root, block_size=BLOCK_BYTES, who=WHO).close()
    path = root / ".mergepipe" / layout.CONFIG
    text = config_edits.with_value(path.read_text(), "store.codec", codec)
    # Processes that race may wait for each other as long as a machine is slow.
    path.write_text(config_edits.with_value(text, "core.lock_timeout", "600"))


def opened(root: Path) -> Repository:
    return Repository.open(root, who=WHO)


def commit_model(repo: Repository, number: int, scratch: Path, branch: str = "main") -> ObjectId:
    """Commit `model(number)`; its message is the number."""
    source = scratch / f"model-{os.getpid()}-{number}"
    write_tree(model(number), source)
    return repo.commit(source, branch=branch, message=str(number)).commit


def verify(root: Path, scratch: Path) -> dict[str, list[int]]:
    """Check out every commit that a ref reaches, compare every byte; the numbers, newest first."""
    found: dict[str, list[int]] = {}
    with opened(root) as repo:
        seen: set[ObjectId] = set()
        for ref in repo.refs.list():
            found[ref] = []
            for identity, commit in repo.log(ref):
                number = int(commit.message)
                found[ref].append(number)
                if identity in seen:
                    continue
                seen.add(identity)
                out = scratch / f"out-{os.getpid()}"
                repo.checkout(identity.hex(), to=out)
                assert read_tree(out) == model(number)
                shutil.rmtree(out)
    return found


def problems(root: Path, repair: bool = False) -> list[str]:
    """What `fsck --read-data` says, or what is left after `--repair`."""
    with opened(root) as repo:
        lock = repo.directory / layout.STORE_LOCK
        who = WHO if repair else None
        report = fsck(repo.storage, repo.objects, repo.refs, lock, read_data=True, repair=who)
        return [f"{problem.kind} {problem.id}: {problem.detail}" for problem in report.problems]


def unfinished(root: Path) -> list[str]:
    """What is in `tmp/`."""
    return sorted(entry.name for entry in (root / ".mergepipe" / "tmp").iterdir())


def in_child(work: Callable[[], None]) -> int:
    """Fork, do `work` there; the process id. The child's exit code is 0 if `work` returned."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _run_and_exit(work)
    return child


def _run_and_exit(work: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def finish(child: int) -> int:
    """Wait for a child: its exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
