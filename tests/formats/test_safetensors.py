"""Headers that we parse and build are those that the safetensors library reads and writes."""

# ruff: noqa: UP031 - JSON full of braces is readable only with %s

import ctypes
import json
import math
import struct

import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.dtypes import DTYPES, byte_length
from mergepipe.formats.safetensors import build_header
from tests.formats.safetensors_files import GOOD, file_of, library, ours, parse

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda name: name != "__metadata__"
)


shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


WHOLE = {dtype: math.lcm(dtype.bits, 8) // dtype.bits for dtype in DTYPES.values()}


@st.composite
def tensor_sets(draw: st.DrawFn) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Tensors of every dtype; of sub-byte ones, shapes that fill whole bytes."""
    tensors = {}
    for name in draw(st.lists(names, unique=True, max_size=6)):
        dtype = draw(st.sampled_from(list(DTYPES.values())))
        shape = draw(shapes)
        if WHOLE[dtype] > 1:
            shape = (*shape, WHOLE[dtype])
        size = byte_length(dtype, shape)
        tensors[name] = (dtype.name, shape, draw(st.randoms(use_true_random=False)).randbytes(size))
    return tensors


metadata_texts = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@settings(max_examples=150, deadline=None)
@given(tensor_sets(), metadata_texts, st.randoms(), st.integers(0, 9), st.booleans())
def test_parses_what_the_library_reads(tensors, metadata, random, padding, pretty):
    order = list(tensors)
    random.shuffle(order)
    members: list[tuple[str, object]] = []
    data = b""
    for name in order:
        dtype, shape, raw = tensors[name]
        fields = [
            ("dtype", dtype),
            ("shape", list(shape)),
            ("data_offsets", [len(data), len(data) + len(raw)]),
        ]
        random.shuffle(fields)
        members.append((name, dict(fields)))
        data += raw
    if metadata:
        members.append(("__metadata__", metadata))
    random.shuffle(members)
    text = json.dumps(
        dict(members), ensure_ascii=random.random() < 0.5, indent=2 if pretty else None
    )
    raw = text.encode() + b" " * padding
    file = struct.pack("<Q", len(raw)) + raw + data

    header = parse(file)

    assert ours(file) == library(file)
    assert header.raw == file[: len(file) - len(data)]
    assert header.metadata == metadata
    assert [t.start for t in header.tensors] == sorted(t.start for t in header.tensors)
    empties = [t.name for t in header.tensors if t.start == t.end]
    assert sorted(empties) == sorted(n for n in order if not tensors[n][2])


def test_ties_of_empty_tensors_keep_the_order_of_the_header() -> None:
    empty = '{"dtype":"F32","shape":[0,3],"data_offsets":[%d,%d]}'
    text = '{"z":%s,"full":%s,"b":%s,"y":%s,"a":%s}' % (
        empty % (0, 0), GOOD, empty % (4, 4), empty % (0, 0), empty % (4, 4),
    )  # fmt: skip
    assert [t.name for t in parse(file_of(text)).tensors] == ["z", "y", "full", "b", "a"]


@settings(max_examples=60, deadline=None)
@given(tensor_sets(), metadata_texts)
def test_builds_the_bytes_the_library_writes(tensors, metadata):
    writable = {n: t for n, t in tensors.items() if t[0] in LIBRARY_NAMES}
    buffers = {n: ctypes.create_string_buffer(raw, len(raw)) for n, (_, _, raw) in writable.items()}
    specs = {
        name: safetensors.TensorSpec(
            dtype=LIBRARY_NAMES[dtype],
            # torch counts pairs of F4, the header counts elements
            shape=[*shape[:-1], shape[-1] // 2] if dtype == "F4" else list(shape),
            data_ptr=ctypes.addressof(buffers[name]),
            data_len=len(raw),
        )
        for name, (dtype, shape, raw) in writable.items()
    }
    # Its order of several texts is a hash map's; `{}` it writes as JSON that it cannot read.
    file = safetensors.serialize(specs, metadata if len(metadata) == 1 else None)
    header = parse(file)
    assert ours(file) == {n: (d, list(s), raw) for n, (d, s, raw) in writable.items()}
    rebuilt = build_header([(t.name, t.dtype, t.shape) for t in header.tensors], header.metadata)
    assert rebuilt == header.raw


LIBRARY_NAMES = {
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "BOOL": "bool",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U8": "uint8", "U16": "uint16",
    "U32": "uint32", "U64": "uint64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu", "C64": "complex64", "F4": "float4_e2m1fn_x2",
}  # fmt: skip
"""The names under which `safetensors.TensorSpec` takes dtypes; the F6 kinds it cannot write."""


@settings(max_examples=50, deadline=None)
@given(tensor_sets(), metadata_texts)
def test_what_we_build_both_read(tensors, metadata):
    specs = [(name, DTYPES[dtype], shape) for name, (dtype, shape, _) in tensors.items()]
    header = build_header(specs, metadata)
    file = header + b"".join(raw for _, _, raw in tensors.values())
    assert len(header) % 8 == 0
    assert ours(file) == library(file) == {n: (d, list(s), r) for n, (d, s, r) in tensors.items()}
    assert parse(file).metadata == metadata


def test_dtypes_are_the_library_s() -> None:
    with pytest.raises(safetensors.SafetensorError) as caught:
        safetensors.deserialize(file_of('{"a":{"dtype":"X","shape":[],"data_offsets":[0,4]}}'))
    known = str(caught.value).partition("expected one of ")[2].partition(" at line")[0]
    assert [name.strip("` ") for name in known.split(",")] == list(DTYPES)
