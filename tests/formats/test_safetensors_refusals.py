"""Headers that are refused: where the library does, a few more, and what the errors say."""

# ruff: noqa: UP031 - JSON full of braces is readable only with %s

import os
import struct
from pathlib import Path

import pytest
import safetensors

from mergepipe.dtypes import DTYPES
from mergepipe.errors import MalformedFile
from mergepipe.formats import header_grammar
from mergepipe.formats.safetensors import MAX_HEADER_BYTES, Header, build_header, read_header
from tests.formats.safetensors_files import FIELDS, GOOD, file_of, library, ours, parse


def entry(shape: str, offsets: str = "[0,0]", dtype: str = "F32") -> str:
    return '{"a":{"dtype":"%s","shape":%s,"data_offsets":%s},"b":%s}' % (
        dtype,
        shape,
        offsets,
        GOOD,
    )


AGREED: dict[str, str | bytes] = {
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
