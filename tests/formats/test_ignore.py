"""`.mpignore` means what `.gitignore` means, and costs no more than its bytes."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from mergepipe.formats.ignore import parse
from mergepipe.formats.tree import scan
from mergepipe.formats.wildmatch import Wildmatch


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("a", "a", "b aa a/a"),
        ("?", "a b", "aa /"),
        ("*", "a aa", "a/b"),
        ("a*c", "ac abc abbc", "a/c abcd"),
        ("*a*b*", "ab xaxbx", "ba a/b"),
        ("**", "a a/b", ""),
        ("**/a", "a b/a b/c/a", "ba b/ba a/b"),
        ("**/**/a", "a b/a b/c/a", "ba b/ba"),
        ("**/**", "a a/b", ""),
        ("a/**/b", "a/b a/x/b a/x/y/b", "ab a/xb a/b/c"),
        ("a/**/**/b", "a/b a/x/b a/x/y/b", "ab a/xb"),
        ("a/**", "a/b a/b/c", "a b/a"),
        ("a/***/b", "a/b a/x/b", "ab"),
        ("x**/b", "x/b xy/b", "xy/z/b"),
        ("a/*/b", "a/x/b", "a/b a/x/y/b"),
        ("*/b", "a/b", "b a/c/b"),
        ("**\\/b", "a/b a/c/b", "b"),
        ("[a-c]", "a b c", "d -"),
        ("[c-a]", "c", "a b -"),
        ("[!a]", "b", "a / aa"),
        ("[^a]", "b", "a"),
        ("[]a]", "] a", "b"),
        ("[!]a]", "b", "] a"),
        ("[a-]", "a -", "b"),
        ("[-a]", "a -", "b"),
        ("[a-c-e]", "b - e", "d"),
        ("[\\]]", "]", "\\"),
        ("[[:digit:]x]", "1 x", "a :"),
        ("[[:upper:]-z]", "A - z", "y"),
        ("[![:space:]]", "a", "/"),
        ("[[:]", "[ :", "]"),
        ("[[:x]", "[ : x", "]"),
        ("[[:nothing:]a]", "", "a n"),
        ("[a", "", "a [a"),
        ("a\\", "", "a a\\"),
        ("\\*", "*", "a \\*"),
        ("a[/]b", "", "a/b"),
    ],
)
def test_patterns(pattern: str, matching: str, others: str) -> None:
    compiled = Wildmatch(pattern.encode())
    assert [text for text in matching.split() if not compiled.matches(text.encode())] == []
    assert [text for text in others.split() if compiled.matches(text.encode())] == []


def test_lines() -> None:
    content = b"\xef\xbb\xbf*.bin \r\n# no\n\n\\#yes\n!keep\nspaces\\  \nnul\0rest\n\xff\n!\n/\n"
    patterns = parse(content)
    assert len(patterns) == 8

    def decided(name: bytes) -> list[int]:
        return [at for at, each in enumerate(patterns) if each.matches(name, name, False)]

    assert decided(b"a.bin") == [0]
    assert decided(b"#yes") == [1]
    assert decided(b"keep") == [2]
    assert decided(b"spaces ") == [3]
    assert decided(b"nul") == [4]
    assert decided(b"\xff") == [5]
    assert patterns[2].negated


def steps(pattern: bytes, text: bytes) -> int:
    """How many bytes of a text a match looks at."""

    class Counted(bytes):
        looked = 0

        def __iter__(self):
            for byte in bytes(self):
                Counted.looked += 1
                yield byte

    Wildmatch(pattern).matches(Counted(text))
    return Counted.looked


@pytest.mark.parametrize("pattern", [b"*a" * 100 + b"b", b"**/" * 100 + b"b", b"**/*a" * 50 + b"b"])
def test_each_byte_is_looked_at_once(pattern: bytes) -> None:
    text = b"a/" * 200 + b"a" * 200
    assert steps(pattern, text) <= len(text)


def test_patterns_longer_than_any_path_match_nothing() -> None:
    assert not Wildmatch(b"[!b]" * 5000).matches(b"a" * 5000)
    assert Wildmatch(b"*" * 100_000 + b"a").matches(b"a")


PIECES = [
    *"aab..*?/-", "**", "/**", "**/", "*/", "[ab]", "[!a]", "[b-a]", "[[:alpha:]]", "\\", "[", "]",
]  # fmt: skip
TREE = ["a", "b", "ab", "a.b", "-", "d/a", "d/b", "d/ab", "d/d/a", "d/a.d/b", "a.d/a", "a.d/b.d/a"]


def ignore_file(source: random.Random) -> str:
    """A few lines, such that about half of them match something."""
    lines = []
    for _ in range(source.randint(1, 3)):
        pieces = source.choices([*PIECES, "d", "a.d"], k=source.randint(1, 5))
        lines.append(source.choice(["", "", "!", "/"]) + "".join(pieces))
    if source.random() < 0.3:
        lines[:0] = source.choice([["*", "!*/"], ["d/**"], ["*.d"], ["/*", "!/d"], ["**/a"]])
    return "\n".join(lines) + source.choice(["", "\n", "/\n", "/\r\n", "  \n"])


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
@pytest.mark.parametrize("seed", range(3))
def test_the_same_files_as_git(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    contents = [ignore_file(source) for _ in range(60)]
    contents += ["*\n!*/\n!*.b\n", "d/**\n!d/a\n", "d/\n!d/a\n", "[[:lower:]]\n", "[b-a]\n"]
    paths = []
    for number, content in enumerate(contents):
        root = tmp_path / str(number)
        for path in TREE:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
            paths.append(f"{number}/{path}")
        for name in (".mpignore", ".gitignore"):
            (root / name).write_text(content, newline="")
        inner = ignore_file(source)
        for name in (".mpignore", ".gitignore"):
            (root / "d" / name).write_text(inner, newline="")
    settings = ["-c", "core.excludesFile=", "-c", "core.ignoreCase=false"]
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    answer = subprocess.run(
        ["git", *settings, "check-ignore", "--no-index", "--stdin", "-z"],
        cwd=tmp_path,
        input="\0".join(paths),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode in (0, 1), answer.stderr
    ignored = set(answer.stdout.split("\0"))
    for number, content in enumerate(contents):
        found = {file.path for file in scan(tmp_path / str(number))}
        ours = {path for path in TREE if path not in found}
        theirs = {path for path in TREE if f"{number}/{path}" in ignored}
        assert ours == theirs, content
