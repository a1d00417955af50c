"""The JSON of a safetensors header, read by a grammar that knows nothing else.

A general JSON parser accepts what a header may not hold (duplicate keys, `NaN`, `1.0` for `1`) and
builds whatever a hostile file describes before it can be judged. This one walks the bytes once, by
possessive patterns that never backtrack: time is linear, memory is that of the entries.
"""

import json
import re
from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct

from mergepipe.names import quoted

MAX_DIMENSIONS = 64  # what numpy and torch can hold
MAX_TENSORS = 1_000_000  # a header of 100 MB could name twice as many; the largest models 100k
MAX_NUMBER = 2**64 - 1  # safetensors' usize

_WS = rb"[ \t\n\r]*+"
_STRING = rb'"([^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+)"'
_NUMBER = rb"(?:0|[1-9][0-9]{0,19}+)"
_NUMBERS = rb"\[(" + _WS + rb"(?:" + _NUMBER + _WS + rb"(?:," + _WS + _NUMBER + _WS + rb")*+)?+)\]"
_OPEN = re.compile(_WS + rb"\{" + _WS)
_KEY = re.compile(_WS + _STRING + _WS + rb":" + _WS)
_FIELD = re.compile(
    _WS + _STRING + _WS + rb":" + _WS + rb"(?:" + _STRING + rb"|" + _NUMBERS + rb")" + _WS
    + rb"([,}])"
)  # fmt: skip
_PAIR = re.compile(_WS + _STRING + _WS + rb":" + _WS + _STRING + _WS + rb"([,}])")
_NEXT = re.compile(_WS + rb"([,}])")
_CLOSE = re.compile(_WS + rb"\}")
_END = re.compile(_WS + rb"\Z")

METADATA = "__metadata__"
_DTYPE, _SHAPE, _OFFSETS = "dtype", "shape", "data_offsets"


class GrammarError(Exception):
    """What is wrong, and of which tensor; the file is named by who catches it."""

    def __init__(self, problem: str, tensor: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.tensor = tensor


class Entry(Struct, frozen=True):
    """One tensor as the header declares it; `begin` and `end` count from the first data byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Metadata(Struct, frozen=True):
    """The free-form texts of `__metadata__`."""

    texts: dict[str, str]


Member: TypeAlias = Entry | Metadata


def read_members(text: bytes, at: int = 0) -> Iterator[Member]:
    """The members of the JSON object at `at`, in the order they stand in. Raises GrammarError."""
    start = _OPEN.match(text, at)
    if start is None:
        raise GrammarError("the header is not a JSON object")
    at = start.end()
    closing = _CLOSE.match(text, at)
    if closing is not None:
        _check_end(text, closing.end())
        return
    seen: set[str] = set()
    while True:
        key = _KEY.match(text, at)
        if key is None:
            raise GrammarError(f"the header is not valid JSON {_place(text, at)}")
        name = _decode(key[1])
        if name in seen:
            raise GrammarError(
                f"the header has two {METADATA} keys" if name == METADATA else "is declared twice",
                None if name == METADATA else name,
            )
        seen.add(name)
        if len(seen) > MAX_TENSORS:
            raise GrammarError(f"the header names more than {MAX_TENSORS} tensors")
        if name == METADATA:
            texts, at = _read_metadata(text, key.end())
            yield Metadata(texts)
        else:
            entry, at = _read_entry(text, key.end(), name)
            yield entry
        follow = _NEXT.match(text, at)
        if follow is None:
            raise GrammarError(f"the header is not valid JSON {_place(text, at)}")
        at = follow.end()
        if follow[1] == b"}":
            _check_end(text, at)
            return


def _check_end(text: bytes, at: int) -> None:
    if _END.match(text, at) is None:
        raise GrammarError(
            f"something other than spaces follows the header's JSON {_place(text, at)}"
        )


def _read_metadata(text: bytes, at: int) -> tuple[dict[str, str], int]:
    if text.startswith(b"null", at):  # safetensors reads an optional map
        return {}, at + 4
    start = _OPEN.match(text, at)
    if start is None:
        raise GrammarError(f"{METADATA} is not an object {_place(text, at)}")
    at = start.end()
    closing = _CLOSE.match(text, at)
    if closing is not None:
        return {}, closing.end()
    texts: dict[str, str] = {}
    while True:
        pair = _PAIR.match(text, at)
        if pair is None:
            raise GrammarError(f"{METADATA} must map strings to strings {_place(text, at)}")
        key = _decode(pair[1])
        if key in texts:
            raise GrammarError(f"{METADATA} has the key {quoted(key)} twice")
        texts[key] = _decode(pair[2])
        at = pair.end()
        if pair[3] == b"}":
            return texts, at


def _read_entry(text: bytes, at: int, name: str) -> tuple[Entry, int]:
    if text[at : at + 1] != b"{":
        raise GrammarError(f"is not described by an object {_place(text, at)}", name)
    at += 1
    strings: dict[str, str] = {}
    lists: dict[str, tuple[int, ...]] = {}
    follow = b","
    while follow == b",":
        field = _FIELD.match(text, at)
        if field is None:
            raise GrammarError(_field_problem(text, at), name)
        raw_key, string, numbers, follow = field.groups()
        key = _decode(raw_key, name)
        if key in strings or key in lists:
            raise GrammarError(f"has {key} twice", name)
        if key == _DTYPE and string is not None:
            strings[key] = _decode(string, name)
        elif key in (_SHAPE, _OFFSETS) and numbers is not None:
            lists[key] = _numbers(numbers, key, name)
        else:
            raise GrammarError(_field_problem(text, at), name)
        at = field.end()
    for key in (_DTYPE, _SHAPE, _OFFSETS):
        if key not in strings and key not in lists:
            raise GrammarError(f"has no {key}", name)
    offsets = lists[_OFFSETS]
    if len(offsets) != 2:
        raise GrammarError(f"has {len(offsets)} numbers in {_OFFSETS} instead of 2", name)
    return Entry(name, strings[_DTYPE], lists[_SHAPE], offsets[0], offsets[1]), at


def _numbers(text: bytes, key: str, name: str) -> tuple[int, ...]:
    if not text or text.isspace():
        return ()
    count = text.count(b",") + 1
    if count > MAX_DIMENSIONS:
        raise GrammarError(
            f"has {count} numbers in {key}; at most {MAX_DIMENSIONS} make sense", name
        )
    numbers = tuple(map(int, text.split(b",")))
    if max(numbers) > MAX_NUMBER:
        raise GrammarError(f"has a number in {key} that is beyond 64 bits", name)
    return numbers


def _decode(raw: bytes, tensor: str | None = None) -> str:
    """A JSON string between its quotes. Raises GrammarError if it is not Unicode text."""
    try:
        text = raw.decode("utf-8")
        if "\\" in text:
            text = json.loads(f'"{text}"')
            text.encode("utf-8")  # half of a surrogate pair is no text
    except UnicodeError:
        raise GrammarError("a name or text in the header is not UTF-8", tensor) from None
    except json.JSONDecodeError as error:
        raise GrammarError(f"the header is not valid JSON: {error.msg}", tensor) from None
    return text


def _field_problem(text: bytes, at: int) -> str:
    """Why the field of an entry that stands at `at` cannot be read."""
    key = _KEY.match(text, at)
    if key is None:
        return f"has a description that is not valid JSON {_place(text, at)}"
    field = _decode(key[1])
    if field in (_SHAPE, _OFFSETS):
        return (
            f"has a {field} that is not a list of integers of 0 or more {_place(text, key.end())}"
        )
    if field == _DTYPE:
        return f"has a dtype that is not a string {_place(text, key.end())}"
    return f"has the unknown key {quoted(field)}"


def _place(text: bytes, at: int) -> str:
    """Where in the header, and what stands there."""
    there = text[at : at + 24].decode("utf-8", "replace")
    return f"(header byte {at}: {quoted(there)})" if there else f"(header byte {at}: its end)"
