"""Records that are copied as they stand: what their bytes are is looked at once more."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from mergepipe.codecs.registry import codec_named
from mergepipe.dtypes import U8
from mergepipe.errors import Corruption
from mergepipe.ids import block_id
from mergepipe.packs.blocks import BlockReader
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.format import RECORD_HEADER_BYTES
from mergepipe.packs.reader import pack_key, read_footer
from mergepipe.packs.records import Location
from mergepipe.packs.storage import Storage
from mergepipe.packs.transaction import Transaction
from mergepipe.progress import SILENT
from mergepipe.transfer.healing import _Copy
from mergepipe.transfer.uploading import Uploader
from mergepipe.transfer.verification import BadBlock, plant, verify
from mergepipe.transfer.wire_packs import Copied, StoredRecords
from tests.packs.delta_codec import flip, open_storage, pack_path, packs, raw_block, store_blocks

RAWS = [bytes([number]) * 5000 for number in range(2)]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = open_storage(tmp_path)
    store_blocks(opened, *map(raw_block, RAWS))
    yield opened
    opened.close()


@pytest.fixture
def record(storage: Storage) -> Location:
    [pack] = packs(storage)
    header, offset = read_footer(storage.store, pack)[1][1]
    return Location(header, pack, offset)


@pytest.mark.parametrize("where", [20, RECORD_HEADER_BYTES + 9])
def test_what_goes_out_is_what_the_footer_vouches_for(
    storage: Storage, record: Location, tmp_path: Path, where: int
) -> None:
    data = storage.store.get(pack_key(record.pack)) or b""
    sealed = data[record.offset : record.offset + RECORD_HEADER_BYTES]
    span = [Copied(sealed, record.pack, record.offset, record.stored_bytes)]
    uploader = Uploader(storage, BlockReader(storage), storage.store, alone=True, effort="raw")
    assert len(uploader._read(span, check=True)) == record.stored_bytes
    flip(pack_path(tmp_path, record.pack), record.offset + where)
    with pytest.raises(Corruption, match="damaged"):
        uploader._read(span, check=True)


def test_another_record_than_the_index_says_does_not_go_out(
    storage: Storage, record: Location
) -> None:
    other, _ = read_footer(storage.store, record.pack)[1][0]
    records = StoredRecords(storage)
    assert records._sealed(record)
    with pytest.raises(Corruption, match="not the one indexed"):
        records._sealed(Location(other, record.pack, record.offset))


@pytest.mark.parametrize("content", RAWS, ids=["right", "wrong"])
def test_a_block_that_comes_is_what_its_id_says(tmp_path: Path, content: bytes) -> None:
    """Where nothing looked at it before: its record is whole."""
    storage, name = open_storage(tmp_path / "there"), block_id(RAWS[0])
    store_blocks(storage, encode_block(name, content, U8, codec_named("raw")))
    forest = plant(storage, {name: len(content)}, lambda bases: [True] * len(bases))
    expected: AbstractContextManager[object]
    expected = nullcontext() if content == RAWS[0] else pytest.raises(BadBlock)
    with expected:
        verify(forest, storage.store, BlockReader(storage), 1, SILENT)
    storage.close()


def test_what_heals_is_whole_itself(storage: Storage, record: Location, tmp_path: Path) -> None:
    with Transaction(storage) as transaction:
        copy = _Copy(storage, storage, transaction)
        assert copy._record(record).header == record.header
        flip(pack_path(tmp_path, record.pack), record.offset + RECORD_HEADER_BYTES + 9)
        with pytest.raises(Corruption, match="checksum"):
            copy._record(record)
