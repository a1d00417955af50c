"""Paths that a snapshot may hold, and names that a terminal may show."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergepipe.errors import UnsafePath
from mergepipe.names import escape_for_terminal, quoted
from mergepipe.objects.paths import MAX_DEPTH, check_path, check_paths

SAFE = [
    "config.json", "a/b/c.safetensors", ".gitattributes", ".gitignore", ".mpignore", "a b", "...",
    "modèle/é.json", "重み.bin", "ab:c", "~", "-x", "x" * 255, "git~x", "x.mergepipe",
    ".mergepipes",
    "\U0001f469\u200d\U0001f4bb.txt",
]  # fmt: skip
UNSAFE = [
    "", "/", "/etc/passwd", "..", "../x", "a/..", "a/../b", ".", "./a", "a/.", "a//b", "a/", "a\\b",
    "a\0b", "a\nb", "a\x1b[0m", "a\x7f", "a\x85b", "a\u2028b", "C:", "c:/x", "C:x", "x" * 256,
    "é" * 128, "/".join(["x" * 200] * 21), "/".join(["x"] * (MAX_DEPTH + 1)),
    ".mergepipe", ".mergepipe/HEAD", "a/.mergepipe/x", ".MergePipe/x", ".mergepipe.", ".mergepipe ",
    ".mergepipe . ./x", ".merge\u200bpipe/x", "\uff0emergepipe", "MERGEP~1/x", ".mergepipe::$DATA",
    ".git/hooks/post-checkout", ".GIT/config", ".g\u200cit", "git~1", ".git", "\udcff", "a/\udc80",
]  # fmt: skip


@pytest.mark.parametrize("path", SAFE)
def test_safe(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize("path", UNSAFE)
def test_unsafe(path: str) -> None:
    with pytest.raises(UnsafePath) as caught:
        check_path(path)
    assert caught.value.message.isprintable()
    caught.value.message.encode("utf-8")


@pytest.mark.parametrize(
    "paths",
    [
        ["a", "A"],
        ["a/x", "A/y"],
        ["é", unicodedata.normalize("NFD", "é")],
        ["É/x", unicodedata.normalize("NFD", "é") + "/y"],
        ["straße", "STRASSE"],
        ["\u03c2", "\u03c3"],
        ["a", "a"],
        ["a", "a/b"],
        ["a/b", "a"],
        ["a/b/c", "a/b"],
        ["A", "a/b"],
        ["ok", "../x"],
    ],
)
def test_collisions(paths: list[str]) -> None:
    with pytest.raises(UnsafePath):
        check_paths(paths)


def test_no_collisions() -> None:
    check_paths(["a/b/c", "a/b/d", "a/e", "b", "a.b", "ab", "a-/b", "é", "e"])


@given(st.lists(st.sampled_from(["a", "b", "A", "é", "e\u0301", "a/b", "a/B", "b/a", "a/b/c"])))
def test_collisions_do_not_depend_on_order(paths: list[str]) -> None:
    def refused(order: list[str]) -> bool:
        try:
            check_paths(order)
        except UnsafePath:
            return True
        return False

    assert refused(paths) == refused(paths[::-1]) == refused(sorted(paths))


@given(st.text(st.characters(), max_size=8), st.text(st.characters(), max_size=8))
def test_escaping_is_printable_and_keeps_names_apart(one: str, other: str) -> None:
    shown = escape_for_terminal(one)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert (shown == escape_for_terminal(other)) == (one == other)


def test_escaping() -> None:
    assert escape_for_terminal("model.layers.0/é") == "model.layers.0/é"
    assert escape_for_terminal("a\n\x1b[31m\u202ex\0\\") == r"a\n\x1b[31m\u202ex\x00\\"
    assert escape_for_terminal("x" * 9, limit=4) == "xxxx..."
    assert quoted("a\tb") == r"'a\tb'"
