"""The index is disposable: whatever happens to it, packs and what is in them stay readable."""

import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.errors import MissingObject
from mergepipe.ids import BlockId, block_id
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.environment import Environment
from mergepipe.packs.format import Content
from mergepipe.packs.index import Index
from mergepipe.packs.reader import pack_key
from mergepipe.packs.storage import Storage

from .delta_codec import flip, open_storage, pack_path, packs, raw_block, store_blocks

RAWS = [random.Random(number).randbytes(3000) for number in range(6)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with_blocks = open_storage(tmp_path)
    store_blocks(with_blocks, *map(raw_block, RAWS), pack_bytes=7000)
    with_blocks.close()
    return tmp_path


@pytest.fixture
def storage(root: Path) -> Iterator[Storage]:
    opened = open_storage(root)
    yield opened
    opened.close()


IDS = [block_id(raw) for raw in RAWS]


def all_there(storage: Storage) -> bool:
    return [bytes(raw) for raw in BlockReader(storage).read(IDS)] == RAWS


def damage(root: Path, how: str) -> None:
    data = root / "index" / "data.mdb"
    size = data.stat().st_size
    if how == "deleted":
        shutil.rmtree(root / "index")
    elif how == "file deleted":
        data.unlink()
    elif how == "emptied":
        data.write_bytes(b"")
    elif how == "cut":
        os.truncate(data, size // 2 + 100)
    elif how == "one page":
        os.truncate(data, 4096)
    elif how == "zeroed":
        data.write_bytes(bytes(size))
    elif how == "zeroed tail":
        data.write_bytes(data.read_bytes()[:8192] + bytes(size - 8192))
    elif how == "noise":
        data.write_bytes(random.Random(1).randbytes(size))
    elif how == "a directory":
        data.unlink()
        (root / "index" / "lock.mdb").unlink()
        (root / "index").rmdir()
        (root / "index").mkdir()


@pytest.mark.parametrize(
    "how",
    [
        "deleted",
        "file deleted",
        "emptied",
        "cut",
        "one page",
        "zeroed",
        "zeroed tail",
        "noise",
        "a directory",
    ],
)
def test_a_damaged_index_is_made_again(root: Path, how: str) -> None:
    damage(root, how)
    opened = open_storage(root)
    assert all_there(opened)
    opened.close()


def test_a_stale_index_catches_up(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "index", root / "old")
    opened = open_storage(root)
    [new] = store_blocks(opened, raw_block(b"new" * 500))
    opened.store.delete(pack_key(packs(opened)[0]))
    opened.refresh()
    survivors = opened.ask(lambda view: [block for block in IDS if view.has_block(block)])
    opened.close()
    shutil.rmtree(root / "index")
    (root / "old").rename(root / "index")
    opened = open_storage(root)
    assert BlockReader(opened).read([new])[0] == b"new" * 500
    BlockReader(opened).read(survivors)
    for lost in set(IDS) - set(survivors):
        with pytest.raises(MissingObject):
            BlockReader(opened).read([lost])
    opened.close()


def test_an_index_of_another_version_is_made_again(root: Path) -> None:
    with lmdb.open(str(root / "index"), max_dbs=8) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(write=True) as transaction:
            transaction.put(b"version", b"999", db=meta)
    opened = open_storage(root)
    assert all_there(opened)
    opened.close()


def test_wrong_locations_are_found_out(root: Path) -> None:
    # Every record's place is moved to another's: nothing but the packs can tell.
    with lmdb.open(str(root / "index"), max_dbs=8) as environment:
        blocks = environment.open_db(b"blocks", dupsort=True)
        with environment.begin(write=True) as transaction:
            items = list(transaction.cursor(blocks))
            for (key, old), (_, new) in zip(items, items[1:] + items[:1], strict=True):
                transaction.delete(key, old, db=blocks)
                transaction.put(key, new, db=blocks)
    opened = open_storage(root)
    assert all_there(opened)
    opened.close()


def test_absurd_lengths_in_the_index_allocate_nothing(root: Path) -> None:
    with lmdb.open(str(root / "index"), max_dbs=8) as environment:
        blocks = environment.open_db(b"blocks", dupsort=True)
        with environment.begin(write=True) as transaction:
            for key, value in list(transaction.cursor(blocks)):
                transaction.delete(key, value, db=blocks)
                transaction.put(key, value[:12] + b"\xff" * 6 + b"\0\0" + value[20:], db=blocks)
    opened = open_storage(root)
    assert all_there(opened)
    opened.close()


def test_values_of_the_wrong_length_are_damage(root: Path) -> None:
    with lmdb.open(str(root / "index"), max_dbs=8) as environment:
        for table in (b"blocks", b"packs"):
            handle = environment.open_db(table, dupsort=table == b"blocks")
            with environment.begin(write=True) as transaction:
                for key, value in list(transaction.cursor(handle)):
                    transaction.delete(key, value, db=handle)
                    transaction.put(key, value[:-1], db=handle)
    opened = open_storage(root)
    assert all_there(opened)
    opened.close()


def test_a_pack_with_a_lost_footer_is_indexed_by_its_records(root: Path) -> None:
    opened = open_storage(root)
    for pack in packs(opened):
        path = pack_path(root, pack)
        os.truncate(path, path.stat().st_size - 30)
    opened.rebuild()
    assert all_there(opened)
    opened.close()


def test_one_damaged_record_costs_one_record(root: Path) -> None:
    opened = open_storage(root)
    victim = packs(opened)[0]
    path = pack_path(root, victim)
    flip(path, path.stat().st_size - 100)  # its footer
    flip(path, 16)  # and the magic of its first record
    opened.rebuild()
    lost = opened.ask(lambda view: [block for block in IDS if not view.block(block)])
    assert len(lost) == 1
    assert len(BlockReader(opened).read([block for block in IDS if block not in lost])) == 5
    opened.close()


def test_two_indexes_of_one_process_are_one(root: Path) -> None:
    first, second = open_storage(root), open_storage(root)
    [new] = store_blocks(first, raw_block(b"new" * 500))
    assert second.ask(lambda view: view.has_block(new))
    first.close()
    first.close()
    assert all_there(second)
    second.close()


def test_an_index_removed_while_open_is_left_behind(root: Path) -> None:
    first = open_storage(root)
    shutil.rmtree(root / "index")
    second = open_storage(root)
    assert all_there(second)
    [new] = store_blocks(first, raw_block(b"new" * 500))
    assert all_there(first)
    first.close()
    second.close()
    third = open_storage(root)
    assert third.ask(lambda view: view.has_block(new))
    third.close()


def test_numbers_of_packs_are_never_given_twice(storage: Storage) -> None:
    last = packs(storage)
    before = storage.ask(lambda view: {at.id: at.pack for at in view.blocks()})
    storage.index.drop_packs(set(last))
    store_blocks(storage, raw_block(b"new" * 500))
    storage.refresh()
    after = storage.ask(lambda view: {at.id: at.pack for at in view.blocks()})
    assert {key: after[key] for key in before} == before


def test_views_nest_and_see_one_state(storage: Storage) -> None:
    with storage.view() as outer:
        count = len(outer.packs())

        def add() -> None:
            store_blocks(storage, raw_block(b"new" * 500))

        thread = threading.Thread(target=add)
        thread.start()
        thread.join()
        with storage.view() as inner:
            assert len(inner.packs()) == count
    with storage.view() as later:
        assert len(later.packs()) == count + 1


def test_the_map_grows_between_transactions(tmp_path: Path) -> None:
    index = Index(tmp_path / "index")
    environment = index._environment
    assert environment._lmdb is not None
    environment._lmdb.set_mapsize(256 << 10)
    for number in range(40):
        index.cache([(b"b/%d" % (1000 * number + k), bytes(100)) for k in range(100)])
    with index.view() as view:
        assert view.cached(b"b/39099") == bytes(100)
    index.close()


FORKED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.packs.delta_codec import open_storage, raw_block, store_blocks
from tests.packs.test_index import all_there
storage = open_storage(Path(sys.argv[1]))
assert all_there(storage)
children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        assert all_there(storage)
        store_blocks(storage, raw_block(b"child %d" % number * 100))
        assert all_there(storage)
        storage.close()
        os._exit(0)
    children.append(child)
store_blocks(storage, raw_block(b"parent" * 100))
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
storage.refresh()
assert all_there(storage)
with storage.view() as view:
    print(len(view.packs()))
"""


def test_forked_children_read_and_write(root: Path) -> None:
    tests = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(root), tests],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 2 + 5


def test_prefixes(storage: Storage) -> None:
    with storage.view() as view:
        assert view.objects_with_prefix(b"", 10) == []
        assert view.block(BlockId(bytes(32))) == []
        assert len(view.block(IDS[0])) == 1


def test_storage_works_over_memory(tmp_path: Path) -> None:
    storage = Storage(MemoryByteStore(), Index(tmp_path / "index"))
    store_blocks(storage, *map(raw_block, RAWS))
    storage.rebuild()
    assert all_there(storage)
    with storage.view() as view:
        assert {content for _, content in view.packs().values()} == {Content.BLOCKS}
    storage.close()
    assert str(tmp_path / "index") not in Environment._registry
