"""LMDB's file is looked over before LMDB is: sound ones pass, and damage never ends a process."""

import contextlib
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import lmdb
import pytest

from mergepipe.packs import index_check, index_nodes, index_pages
from mergepipe.packs.index_check import DamagedPages
from mergepipe.packs.index_pages import check_pages

TABLES = {b"blocks": True, b"cache": False}
PAGE = 4096
_TRANSACTIONS = 4


def change(path: Path, seed: int) -> None:
    """Puts and deletes of all kinds: keys with many values, long values, pages given up."""
    rng = random.Random(seed)
    with lmdb.open(str(path), map_size=1 << 28, max_dbs=8) as environment:
        blocks = environment.open_db(b"blocks", dupsort=True)
        cache = environment.open_db(b"cache")
        for _ in range(_TRANSACTIONS):
            with environment.begin(write=True) as transaction:
                stored = [item for item in transaction.cursor(db=blocks) if rng.random() < 0.5]
                for key, value in stored:
                    transaction.delete(bytes(key), bytes(value), db=blocks)
                for number in range(rng.choice([5, 400])):
                    transaction.put(rng.randbytes(67), rng.randbytes(29), db=blocks)
                    transaction.put(bytes([number % 3]) * 67, rng.randbytes(29), db=blocks)
                for number in range(4):
                    size = rng.choice([1, 900, 3000, 9000])
                    transaction.put(bytes([number]), rng.randbytes(size), db=cache)


def check(path: Path) -> None:
    descriptor = os.open(path / "data.mdb", os.O_RDONLY)
    try:
        check_pages(descriptor, TABLES)
    finally:
        os.close(descriptor)


def use(path: Path, contents: Iterable[bytes]) -> None:
    """Read all of each file and write to all tables, in a child that an abort may end."""
    child = os.fork()
    if child == 0:
        os.close(2)
        for content in contents:
            (path / "data.mdb").write_bytes(content)
            with contextlib.suppress(BaseException):
                change(path, 1)
        os._exit(0)
    assert not os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("seed", range(6))
def test_sound_files_pass(tmp_path: Path, seed: int) -> None:
    for step in range(4):
        change(tmp_path, 10 * seed + step)
        check(tmp_path)


@pytest.mark.parametrize(
    ("module", "limit", "what"),
    [
        (index_nodes, "LARGEST_KEY", "absurd length"),
        (index_pages, "_DEEPEST", "absurd depth"),
        (index_pages, "_LARGEST_MAP_BYTES", "meta page"),
    ],
)
def test_more_than_an_index_has_is_refused(
    tmp_path: Path, module: ModuleType, limit: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(tmp_path, 0)
    monkeypatch.setattr(module, limit, 0)
    with pytest.raises(DamagedPages, match=what):
        check(tmp_path)


def zeros(page: memoryview, rng: random.Random) -> None:
    page[:] = bytes(len(page))


def junk_head(page: memoryview, rng: random.Random) -> None:
    page[8:24] = bytes(range(100, 116))


def bits(page: memoryview, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 6)):
        page[rng.randrange(rng.choice([24, PAGE]))] ^= 1 << rng.randrange(8)


@pytest.mark.parametrize("damage", [zeros, junk_head, bits])
def test_damage_of_any_page_is_seen_or_does_no_harm(
    tmp_path: Path, damage: Callable[[memoryview, random.Random], None]
) -> None:
    change(tmp_path, 0)
    sound = (tmp_path / "data.mdb").read_bytes()
    rng, seen, passed = random.Random(0), 0, []
    for start in range(0, len(sound), PAGE):
        data = bytearray(sound)
        damage(memoryview(data)[start : start + PAGE], rng)
        (tmp_path / "data.mdb").write_bytes(data)
        try:
            check(tmp_path)
        except DamagedPages:
            seen += 1
        else:
            passed.append(bytes(data))
    use(tmp_path, passed)
    assert seen > 10


def test_a_stamp_vouches_for_what_nobody_wrote_to(tmp_path: Path) -> None:
    change(tmp_path, 0)
    data = tmp_path / "data.mdb"
    assert not index_check.is_ours(data)
    index_check.check(data, TABLES)
    assert index_check.is_ours(data)
    sound = data.stat()
    changed = bytearray(data.read_bytes())
    changed[8:24] = bytes(16)
    while data.stat().st_ctime_ns == sound.st_ctime_ns:  # a clock may be coarse
        data.write_bytes(changed)
    os.utime(data, ns=(sound.st_atime_ns, sound.st_mtime_ns))
    with pytest.raises(DamagedPages):
        index_check.check(data, TABLES)
    assert not index_check.is_ours(data)
