"""YAML as somebody else wrote it: values as PyYAML has them, or one error with its place."""

import pytest
import yaml

from mergepipe.errors import UsageError
from mergepipe.planner.mergekit.document import MAX_BYTES, Mapping, plain, read_documents

BOMB = "a: &a [x, x, x, x]\n" + "\n".join(
    f"{one}: &{one} [*{two}, *{two}, *{two}, *{two}]"
    for two, one in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {k: [" + "1," * 999 + "]}\n" + "\n".join(f"b{n}: {{<<: *a}}" for n in range(99))
DEEP = "a0: &a0 [1]\n" + "\n".join(f"a{n + 1}: &a{n + 1} [*a{n}]" for n in range(40))

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "alias bomb": (BOMB, r"r\.yml, line 8, column \d+: the document has too many values"),
    "merge bomb": (MERGE_BOMB, r"has too many values"),
    "deep aliases": (DEEP, r"nests deeper than 32"),
    "alias in itself": ("a: &a [1, *a]", r"line 1, column 11: '\*a' stands inside of itself"),
    "alias of another document": ("a: &b 1\n---\na: *b", r"line 3, column 4: nothing before"),
    "tag": ("a: !!python/object/apply:os.system [x]", r"line 1, column 4: the tag"),
    "own tag": ("a: !x 1", r"line 1, column 4: the tag"),
    "same key twice": ("a: 1\nb: 2\na: 3", r"line 3, column 1: 'a' stands here twice"),
    "merge of no mapping": ("a: {<<: [1]}", r"line 1, column 10: a merge key .* takes over"),
    "key is a list": ("? [a]\n: b", r"line 1, column 3: this key is not text"),
    "deep": ("[" * 2000, r"line 1, column 34: the document nests deeper than 32"),
    "many": ("[" + "1," * 150_000 + "]", r"has too many values"),
    "large": ("a: 1\n" * MAX_BYTES, r"r\.yml has 5242880 bytes"),
    "unclosed": ("a: [1, 2", r"r\.yml, line"),
    "tab": ("a:\n\tb: 1", r"r\.yml, line 2, column 1"),
    "nul": ("a: \x00", r"r\.yml"),
    "surrogate": ("a: \ud800", r"r\.yml"),
    "latin-1": ("a: \xe9".encode("latin-1"), r"r\.yml is not UTF-8 \(byte 3\)"),
    "undefined alias": ("a: *b", r"line 1, column 4: nothing before it has the anchor '&b'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    text, message = REFUSED[case]
    with pytest.raises(UsageError, match=message) as caught:
        read_documents(text, "r.yml")
    assert len(caught.value.message) < 300


VALUES = """
number: [1, -2, 0x1F, 1_000, 0.5, 1.0e+3, .inf, 1:30]
text: ["1", 'yes', 1e-4, 2024-01-01, model+lora, |]
truth: [yes, no, True, off]
nothing: [~, null, ]
empty: {}
block: |
  line one
  line two
1: key
"""


def test_values_are_those_of_the_safe_loader() -> None:
    text = VALUES.replace(", |]", "]")
    ours = [plain(node) for node in read_documents(text)]
    theirs = yaml.safe_load(
        text.replace("2024-01-01", "'2024-01-01'").replace("1: key", "'1': key")
    )
    assert ours == [theirs]
    assert ours[0]["text"][2] == "1e-4"  # type: ignore[index, call-overload]


def test_numbers_that_python_would_choke_on_stay_text() -> None:
    long = "9" * 5000
    assert plain(read_documents(f"a: {long}")[0]) == {"a": long}


def test_documents_and_places() -> None:
    first, second = read_documents(b"\xef\xbb\xbf---\na: 1\n---\n# nothing\n---\n  b:\n    - c\n")
    assert (plain(first), plain(second)) == ({"a": 1}, {"b": ["c"]})
    assert isinstance(second, Mapping)
    assert str(second.entries[0].place) == "line 6, column 3"
    assert str(second.entries[0].value.place) == "line 7, column 5"
    assert read_documents("# only a comment\n") == ()


ALIASES = """
one: &one {a: 1, b: [2, 3]}
two: &two {b: 4, c: 5}
list: &list [x, *one]
again: *list
merged: {<<: *one, b: 9}
both:
  d: 6
  <<: [*one, *two]
quoted: {"<<": 7}
&key name: *key
"""


def test_aliases_and_merge_keys_are_those_of_the_safe_loader() -> None:
    (ours,) = read_documents(ALIASES)
    assert plain(ours) == yaml.safe_load(ALIASES)
    (second,) = read_documents("a: &a 1\nb: &a 2\nc: *a\n")
    assert plain(second) == {"a": 1, "b": 2, "c": 2}


def test_keys_know_whether_they_hold_an_anchor() -> None:
    (node,) = read_documents("a: [{b: &x 1}]\nc: *x\nd: 2\n")
    assert isinstance(node, Mapping)
    assert [entry.anchored for entry in node.entries] == [True, False, False]
