"""The header parser against the safetensors library itself, and against hostile headers."""

# ruff: noqa: UP031 - JSON full of braces is readable only with %s

import ctypes
import json
import math
import os
import re
import struct
import tracemalloc
from pathlib import Path

import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.dtypes import DTYPES, byte_length
from mergepipe.errors import MalformedFile
from mergepipe.formats import header_grammar
from mergepipe.formats.safetensors import (
    MAX_HEADER_BYTES,
    Header,
    build_header,
    parse_header,
    read_header,
)

FIELDS = '"dtype":"F32","shape":[1],"data_offsets":[0,4]'
GOOD = "{" + FIELDS + "}"


def file_of(text: str | bytes, data: int = 4) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw + bytes(data)


def parse(file: bytes, name: str = "m.safetensors") -> Header:
    header = file[: 8 + struct.unpack("<Q", file[:8])[0]]
    return parse_header(header, len(file) - len(header), name=name)


def library(file: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    """What safetensors reads: name -> dtype, shape, data."""
    found = safetensors.deserialize(file)
    return {name: (t["dtype"], t["shape"], bytes(t["data"])) for name, t in found}


def ours(file: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    return {
        t.name: (t.dtype.name, list(t.shape), file[t.start : t.end]) for t in parse(file).tensors
    }


# --- what safetensors accepts -----------------------------------------------------------------

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


def entry(shape: str, offsets: str = "[0,0]", dtype: str = "F32") -> str:
    return '{"a":{"dtype":"%s","shape":%s,"data_offsets":%s},"b":%s}' % (
        dtype,
        shape,
        offsets,
        GOOD,
    )


AGREED = {
    "plain": '{"a":%s}' % GOOD,
    "space before": ' \t{"a":%s}' % GOOD,
    "space after": '{"a":%s}\n\t\r ' % GOOD,
    "junk after": '{"a":%s}x' % GOOD,
    "NUL padding": '{"a":%s}\0\0' % GOOD,
    "comma at the end": '{"a":%s,}' % GOOD,
    "comma in an entry": '{"a":{%s,}}' % FIELDS,
    "metadata null": '{"__metadata__":null,"a":%s}' % GOOD,
    "metadata empty": '{"__metadata__":{ },"a":%s}' % GOOD,
    "metadata twice": '{"__metadata__":{},"__metadata__":{},"a":%s}' % GOOD,
    "metadata of numbers": '{"__metadata__":{"a":1},"a":%s}' % GOOD,
    "metadata a list": '{"__metadata__":[],"a":%s}' % GOOD,
    "metadata nested": '{"__metadata__":{"a":{}},"a":%s}' % GOOD,
    "field twice": '{"a":{%s,"shape":[1]}}' % FIELDS,
    "no shape": '{"a":{"dtype":"F32","data_offsets":[0,4]}}',
    "no entry": '{"a":{}}',
    "entry a number": '{"a":4}',
    "escaped field": '{"a":{"d\\u0074ype":"\\u004632","shape":[1],"data_offsets":[0,4]}}',
    "half a surrogate pair": '{"\\ud800":%s}' % GOOD,
    "surrogate pair": '{"\\ud83d\\ude00":%s}' % GOOD,
    "NUL in a name": '{"\\u0000":%s}' % GOOD,
    "empty name": '{"":%s}' % GOOD,
    "a path for a name": '{"../../etc/passwd":%s}' % GOOD,
    "bare control character": '{"a\x01":%s}' % GOOD,
    "bad escape": '{"\\x":%s}' % GOOD,
    "not UTF-8": b'{"\xff":' + GOOD.encode() + b"}",
    "encoded surrogate": b'{"\xed\xa0\x80":' + GOOD.encode() + b"}",
    "byte order mark": b"\xef\xbb\xbf{}",
    "null": "null",
    "list": "[]",
    "string": '"a"',
    "nothing": "",
    "only spaces": "   ",
    "unclosed": '{"a":%s' % GOOD,
    "float in a shape": entry("[1.0]"),
    "exponent": entry("[1e0]"),
    "bool in a shape": entry("[true]"),
    "minus zero": entry("[-0]"),
    "negative": entry("[-1]"),
    "NaN": entry("[NaN]"),
    "leading zero": entry("[01]"),
    "hex": entry("[0x1]"),
    "plus": entry("[+1]"),
    "string in a shape": entry('["1"]'),
    "nested shape": entry("[[0]]"),
    "shape an object": entry("{}"),
    "null shape": entry("null"),
    "2^64": entry("[0,18446744073709551616]"),
    "2^64-1 and zero": entry("[18446744073709551615,0]"),
    "product beyond 64 bits, then zero": entry("[18446744073709551615,2,0]"),
    "zero, then product beyond 64 bits": entry("[0,18446744073709551615,2]"),
    "overflow to the right size": entry("[4611686018427387905]", "[4,8]"),
    "one offset": entry("[0]", "[0]"),
    "three offsets": entry("[0]", "[0,0,0]"),
    "begin after end": entry("[0]", "[4,0]"),
    "empty tensor inside another": entry("[0]", "[2,2]"),
    "empty tensor at the end": entry("[0]", "[4,4]"),
    "empty tensor beyond": entry("[0]", "[8,8]"),
    "overlap": entry("[1]", "[0,4]"),
    "partial overlap": entry("[1]", "[2,6]"),
    "out of range": entry("[1]", "[4,8]"),
    "hole": '{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
    "half a byte": '{"a":{"dtype":"F4","shape":[7],"data_offsets":[0,4]}}',
    "nibbles": '{"a":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}',
    "unknown dtype": '{"a":{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}}',
    "dtype in small letters": '{"a":{"dtype":"f32","shape":[1],"data_offsets":[0,4]}}',
    "dtype null": '{"a":{"dtype":null,"shape":[1],"data_offsets":[0,4]}}',
    "size and shape differ": '{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,4]}}',
    "deep nesting": '{"a":' + "[" * 100_000,
    "deep nesting of objects": '{"a":' * 100_000,
    "no tensors": "{}",
}  # fmt: skip


@pytest.mark.parametrize("case", AGREED)
@pytest.mark.parametrize("data", [0, 4, 8])
def test_agrees_with_the_library(case: str, data: int) -> None:
    file = file_of(AGREED[case], data)
    try:
        expected = library(file)
    except safetensors.SafetensorError:
        with pytest.raises(MalformedFile, match=r"m\.safetensors"):
            parse(file)
    else:
        assert ours(file) == expected


STRICTER = {
    "tensor twice": ('{"a":%s,"a":%s}' % (GOOD, GOOD), "tensor 'a' is declared twice"),
    "metadata key twice": ('{"__metadata__":{"k":"","k":""},"a":%s}' % GOOD, "'k' twice"),
    "unknown key": ('{"a":{%s,"extra":1}}' % FIELDS, "tensor 'a' has the unknown key 'extra'"),
    "entry a list": ('{"a":["F32",[1],[0,4]]}', "tensor 'a' is not described by an object"),
    "dtype an object": (
        '{"a":{"dtype":{"F32":null},"shape":[1],"data_offsets":[0,4]}}',
        "tensor 'a' has a dtype that is not a string",
    ),
    "65 dimensions": (
        '{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,4]}}' % ",".join("1" * 65),
        "tensor 'a' has 65 numbers in shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STRICTER)
def test_stricter_than_the_library(case: str) -> None:
    text, message = STRICTER[case]
    library(file_of(text))  # accepted there
    with pytest.raises(MalformedFile, match=message):
        parse(file_of(text))


# --- messages, limits -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        (entry("[0]", "[2,2]"), 4, "tensor 'a' leaves a hole|tensor 'a' overlaps"),
        (entry("[1]", "[8,12]"), 12, "tensor 'a' leaves a hole before it"),
        (entry("[1]", "[4,8]"), 4, "tensor 'a' is truncated: its data end at byte 8 of 4"),
        (entry("[1]", "[2,6]"), 6, "tensor 'a' overlaps the tensor before it"),
        ('{"a":%s}' % GOOD, 9, "5 bytes too many"),
        (entry("[-1]"), 4, "tensor 'a' has a shape that is not a list of integers of 0 or more"),
        ('{"x\\u001b[31m":{}}', 0, r"tensor 'x\\x1b\[31m' has"),
    ],
)  # fmt: skip
def test_names_file_and_tensor(text: str, data: int, message: str) -> None:
    with pytest.raises(MalformedFile, match=message) as caught:
        parse(file_of(text, data), "dir/\x1bm.safetensors")
    assert r"dir/\x1bm.safetensors" in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 12


def test_too_many_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_grammar, "MAX_TENSORS", 1000)
    empty = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    members = [f'"{i}":{empty}' for i in range(1001)]
    assert len(parse(file_of("{%s}" % ",".join(members[:1000]), 0)).tensors) == 1000
    with pytest.raises(MalformedFile, match="more than 1000 tensors"):
        parse(file_of("{%s}" % ",".join(members), 0))


@pytest.fixture
def opened(tmp_path: Path):
    """Write bytes to a file and read its header through a descriptor."""

    def read(content: bytes, size: int | None = None) -> Header:
        path = tmp_path / "m.safetensors"
        path.write_bytes(content)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return read_header(descriptor, len(content) if size is None else size, path.name)
        finally:
            os.close(descriptor)

    return read


def test_read_header(opened) -> None:
    file = file_of('{"a":%s}' % GOOD)
    assert opened(file) == parse(file)
    assert opened(file_of("{}", 0)).tensors == ()
    for cut in (0, 3, 8, 20, len(file) - 1):
        with pytest.raises(MalformedFile, match="truncated"):
            opened(file[:cut])
    with pytest.raises(MalformedFile, match="truncated"):
        opened(file[:20], size=len(file))  # it shrank since its size was taken


def test_huge_header_is_refused_before_it_is_read(opened) -> None:
    for length in (MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1):
        with pytest.raises(MalformedFile, match="100000000 are allowed"):
            opened(struct.pack("<Q", length) + b"{}")
    with pytest.raises(MalformedFile, match="truncated"):
        opened(struct.pack("<Q", MAX_HEADER_BYTES) + b"{}")


def test_git_lfs_pointer(opened) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    with pytest.raises(MalformedFile, match="git-lfs pointer") as caught:
        opened(pointer)
    assert "git lfs pull" in caught.value.hint


def test_build_header_refuses() -> None:
    with pytest.raises(MalformedFile):
        build_header([("a", DTYPES["U8"], ()), ("a", DTYPES["U8"], ())], {})
    with pytest.raises(MalformedFile):
        build_header([("__metadata__", DTYPES["U8"], ())], {})
    with pytest.raises(MalformedFile):
        build_header([("a", DTYPES["F6_E2M3"], (3,))], {})


# --- fuzz -------------------------------------------------------------------------------------

SEED = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F4", "shape": [2, 4], "data_offsets": [4, 8]},
    }
).encode()
DOCUMENTED = re.compile("twice|unknown key|by an object|not a string|numbers in shape")
FRAGMENTS = [
    b"a",
    b'"a":',
    b'"shape":[0],',
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"0",
    b"9" * 30,
    b"-",
    b"\xff",
    b" ",
]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(SEED)),
            st.integers(0, 6),
            st.sampled_from(FRAGMENTS) | st.binary(max_size=3),
        ),
        max_size=3,
    )
)
def test_mutations_agree_with_the_library_or_are_refused(edits) -> None:
    text = SEED
    for at, dropped, added in edits:
        text = text[:at] + added + text[at + dropped :]
    file = file_of(text, 8)
    try:
        expected = library(file)
    except safetensors.SafetensorError:
        with pytest.raises(MalformedFile):
            parse(file)
        return
    try:
        found = ours(file)
    except MalformedFile as error:
        assert DOCUMENTED.search(error.message)
    else:
        assert found == expected


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 100))
def test_noise_is_refused(noise: bytes, data: int) -> None:
    try:
        parse_header(noise, data, name="noise")
    except MalformedFile:
        return
    assert library(noise + bytes(data)) == ours(noise + bytes(data))


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":' + b"[" * 3_000_000,
        b'{"a":[' + b"[]," * 1_000_000,
        b'{"a":{"shape":[' + b"0," * 1_500_000 + b"0]}}",
        b'{"a":{"shape":[' + b" " * 3_000_000,
        b'{"' + b"\\" * 3_000_000,
        b'{"__metadata__":{' + b'"":"",' * 400_000,
        b" " * 3_000_000,
        b'{"a":{"dtype":"' + b"x" * 3_000_000,
        b'{"a":{"data_offsets":[' + b"9" * 3_000_000,
    ],
)
def test_memory_stays_in_proportion_to_the_header(text: bytes) -> None:
    header = file_of(text, 0)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedFile):
            parse_header(header, 4, name="hostile")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(header) + 1_000_000
