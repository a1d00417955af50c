"""Embeddings laid anew in a real store, against the same done with numpy."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mergepipe.checkpoints.derived import Storing
from mergepipe.dtypes import DTYPES
from mergepipe.errors import MergeInputError
from mergepipe.packs.transaction import Transaction
from mergepipe.values import decode
from mergepipe.vocabularies.embeddings import LaidOut, lay_out
from mergepipe.vocabularies.gathering import rounded
from mergepipe.vocabularies.row_maps import own_rows, row_map
from tests.vocabularies.shelf import shelf, to_raw


def stored(store, values, dtypes):
    """Store one tensor for each array; returns their ids and exact values."""
    ids, exact = [], []
    for array, dtype in zip(values, dtypes, strict=True):
        ids.append(store.put(array, dtype))
        exact.append(decode(DTYPES[dtype], to_raw(array, dtype)).reshape(array.shape))
    return ids, exact


def laid(store, maps, ids, base=None, **storing):
    with Transaction(store.storage) as transaction:
        found = lay_out(
            "embed",
            maps,
            ids,
            base,
            objects=store.objects,
            reader=store.blocks,
            sink=transaction,
            storing=Storing(**storing),
        )
        transaction.publish()
    return found


def expected(sources, own, exact, dtypes, padding=0):
    """The rows as bytes: means in float32, rounded once."""
    dtype = DTYPES[dtypes[own]]
    wide = np.float64 if dtype.name == "F64" else np.float32
    rows = []
    for source in sources:
        if source is None:
            rows.append(np.zeros(exact[own].shape[1:], wide))
        elif isinstance(source[0], tuple):
            total = np.zeros(exact[own].shape[1:], wide)
            for number, row in source:
                total = total + exact[number][row].astype(wide)
            rows.append(total / wide(len(source)))
        else:
            rows.append(exact[source[0]][source[1]])
    raw = rounded(dtype, np.array(rows)).tobytes()
    if padding:
        values = decode(dtype, raw).reshape(len(rows), -1).astype(np.float64)
        raw += (
            rounded(dtype, np.array([math.fsum(c) for c in values.T]) / len(rows)).tobytes()
            * padding
        )
    return raw


def values_of(rng, rows, columns):
    return rng.normal(0, 1, (rows, columns))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_rows_of_any_models(tmp_path_factory, data):
    """Random maps, dtypes, block sizes and pieces: rows longer than blocks among them."""
    root = tmp_path_factory.mktemp("rows")
    columns = data.draw(st.sampled_from([1, 3, 64, 700]))
    count = data.draw(st.integers(1, 3))
    kinds = st.sampled_from(["BF16", "F16", "F32", "F64"])
    dtypes = data.draw(
        st.one_of(
            st.lists(kinds, min_size=count, max_size=count),
            kinds.map(lambda kind: [kind] * count),
        )
    )
    sizes = [data.draw(st.integers(1, 90)) for _ in range(count)]
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    arrays = [values_of(rng, size, columns) for size in sizes]
    cells = [(number, row) for number, size in enumerate(sizes) for row in range(size)]
    one = st.sampled_from(cells)
    row = st.one_of(one, st.none(), st.lists(one, min_size=2, max_size=4).map(tuple), one, one, one)
    padding = data.draw(st.sampled_from([0, 0, 3]))
    sources = []
    for number, size in enumerate(sizes):
        start = [(number, at) for at in range(data.draw(st.integers(0, size)))]
        sources.append(start + data.draw(st.lists(row, min_size=1, max_size=20)))
    block_size = data.draw(st.sampled_from([1024, 4096]))
    with shelf(root / "store", block_size=block_size) as store:
        ids, exact = stored(store, arrays, dtypes)
        found = laid(
            store,
            [row_map(each, padding) for each in sources],
            ids,
            data.draw(st.sampled_from([None, 0])),
            piece_bytes=data.draw(st.sampled_from([1, 3000, 1 << 20])),
            threads=data.draw(st.sampled_from([1, 2])),
        )
        for number, each in enumerate(sources):
            tensor, raw = store.get(found.tensors[number])
            assert tensor.shape == (len(each) + padding, columns)
            assert tensor.dtype == dtypes[number]
            due = expected(each, number, exact, dtypes, padding)
            tokens = len(due) // tensor.shape[0] * len(each)
            assert raw[:tokens] == due[:tokens]
            # A mean over all rows may differ in the last place of the float64 sum.
            pads, wanted = (decode(DTYPES[dtypes[number]], data[tokens:]) for data in (raw, due))
            np.testing.assert_allclose(pads, wanted, rtol=2**-7, atol=1e-12)


def test_a_tensor_that_stays_is_not_read(tmp_path):
    rng = np.random.default_rng(0)
    with shelf(tmp_path / "store") as store:
        ids, _ = stored(store, [values_of(rng, 50, 64)] * 2, ["BF16"] * 2)
        found = laid(store, [own_rows(0, 50), None], ids, 0)
        assert found == LaidOut((ids[0], None), 0, 0)


def test_blocks_that_come_out_as_they_are_stored_are_taken_over(tmp_path):
    """Rows cut off at the end, as of embeddings that were padded: one block is read and made."""
    rng = np.random.default_rng(0)
    with shelf(tmp_path / "store", block_size=4096) as store:
        ids, exact = stored(store, [values_of(rng, 400, 64)], ["BF16"])  # 32 rows in a block
        sources = [(0, row) for row in range(390)]
        found = laid(store, [row_map(sources)], ids, 0)
        assert found.new_blocks == 1 and found.read_bytes < 2 * 4096
        assert store.get(found.tensors[0])[1] == expected(sources, 0, exact, ["BF16"])


def test_what_is_read_is_counted_and_every_block_is_read_once(tmp_path):
    rng = np.random.default_rng(0)
    with shelf(tmp_path / "store", block_size=4096) as store:
        ids, exact = stored(store, [values_of(rng, 320, 64)], ["F32"])
        sources = [(0, row) for row in rng.permutation(320).tolist()]
        found = laid(store, [row_map(sources)], ids)
        assert 320 * 256 <= found.read_bytes < 320 * 256 + 20 * 200
        assert store.get(found.tensors[0])[1] == expected(sources, 0, exact, ["F32"])


def test_new_blocks_lean_on_the_new_base(tmp_path):
    """Near the base, a model laid anew takes as little room as it took before."""
    rng = np.random.default_rng(0)
    base = rng.normal(0, 0.1, (600, 64))
    near = base + rng.normal(0, 0.001, base.shape) * (rng.random(base.shape) < 0.3)
    order = rng.permutation(600).tolist()
    with shelf(tmp_path / "store", block_size=16384) as store:
        ids, _ = stored(store, [base, near], ["BF16"] * 2)
        sources = [[(number, row) for row in order] for number in range(2)]
        with_base = laid(store, [row_map(each) for each in sources], ids, 0)
        for number in range(2):
            blocks = store.get(with_base.tensors[number])[0].block_ids()
            chains = store.blocks.chains(blocks)
            assert all(len(chain) == 1 + number for chain in chains)
        leaning = store.blocks.resolve(store.get(with_base.tensors[1])[0].block_ids())
        size = sum(e.layers[0].stored_bytes for e in leaning.values() if e.base is not None)
        assert size < 0.5 * near.size * 2


def test_a_base_that_stays_is_leaned_on_too(tmp_path):
    rng = np.random.default_rng(0)
    base = rng.normal(0, 0.1, (600, 64))
    near = base + rng.normal(0, 0.001, base.shape) * (rng.random(base.shape) < 0.3)
    order = rng.permutation(600)
    with shelf(tmp_path / "store", block_size=16384) as store:
        ids, exact = stored(store, [base, near[order]], ["BF16"] * 2)
        back = [(1, row) for row in np.argsort(order).tolist()]
        found = laid(store, [own_rows(0, 600), row_map(back)], ids, 0)
        tensor, raw = store.get(found.tensors[1])
        assert raw == expected(back, 1, exact, ["BF16"] * 2)
        assert all(len(chain) == 2 for chain in store.blocks.chains(tensor.block_ids()))


def test_a_bias_has_rows_of_one_number(tmp_path):
    with shelf(tmp_path / "store") as store:
        values = [np.arange(10.0).reshape(10), np.arange(20.0, 40.0)]
        ids, _ = stored(store, values, ["F32"] * 2)
        maps = [row_map([(0, 9), ((0, 1), (1, 1)), None, (1, 19)], 1), None]
        found = laid(store, maps, ids)
        tensor, raw = store.get(found.tensors[0])
        assert tensor.shape == (5,)
        assert np.frombuffer(raw, "<f4").tolist() == [9, 11, 0, 39, 59 / 4]


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        ([row_map([(0, 10)]), None], "10 rows"),
        ([row_map([(2, 0)]), None], "without it"),
        ([None, None, own_rows(2, 3)], "no tensor 'embed'"),
        ([row_map([(1, 0)]), None], "rows of shape"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(tmp_path, maps, words):
    rng = np.random.default_rng(0)
    with shelf(tmp_path / "store") as store:
        ids, _ = stored(store, [values_of(rng, 10, 4), values_of(rng, 10, 5)], ["F32"] * 2)
        with pytest.raises(MergeInputError, match=words):
            laid(store, maps, [*ids, None])


def test_bfloat16_is_rounded_as_torch_rounds():
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    special = [0x7F800001, 0xFF800000, 0x7F7FFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x3F808000, 0x3F818000]
    values = np.concatenate([bits, np.array(special, np.uint32)]).view(np.float32)
    ours = rounded(DTYPES["BF16"], values).view(np.uint16)
    theirs = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    nan = np.isnan(values)
    assert (ours[~nan] == theirs[~nan]).all()
    assert np.isnan(decode(DTYPES["BF16"], ours[nan].tobytes())).all()
