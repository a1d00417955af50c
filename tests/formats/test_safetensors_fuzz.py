"""Hostile headers: mutated, random and huge ones end in an error, and take little memory."""

import json
import re
import tracemalloc

import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.errors import MalformedFile
from mergepipe.formats.safetensors import parse_header
from tests.formats.safetensors_files import file_of, library, ours, parse

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
