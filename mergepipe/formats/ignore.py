"""`.mpignore`: which files of a directory are not part of the model, by gitignore's rules.

As in git (gitignore(5), `dir.c`): the last pattern that matches decides, the innermost file first;
`!` takes in again; a final slash means directories; a pattern with another slash is for the whole
path from its file's directory, one without for names anywhere below.
"""

import os
from pathlib import Path

from msgspec import Struct

from mergepipe.errors import ConfigError
from mergepipe.formats.wildmatch import Wildmatch, literal_start
from mergepipe.names import quoted

IGNORE_FILE = ".mpignore"
_MAX_BYTES = 1 << 20


class Pattern:
    """One line of an ignore file. `negated`: what it matches is taken in."""

    __slots__ = ("_anchored", "_directories", "_ending", "_glob", "_literal", "_rest", "negated")

    def __init__(self, line: bytes) -> None:
        self.negated = line.startswith(b"!")
        text = line[1:] if self.negated else line
        self._directories = text.endswith(b"/")
        if self._directories:
            text = text[:-1]
        self._anchored = b"/" in text
        if text.startswith(b"/"):
            text = text[1:]
        start = literal_start(text)
        # git compares what comes before the first special byte, then matches the rest alone.
        self._literal = text[:start]
        self._rest = text[start:]
        ending = text[1:]
        plain = (
            not self._anchored and text.startswith(b"*") and literal_start(ending) == len(ending)
        )
        self._ending = ending if plain else None  # the common `*.bin`
        self._glob: Wildmatch | None = None

    def matches(self, path: bytes, name: bytes, directory: bool) -> bool:
        """Whether it means the file or directory at `path`, whose last component is `name`."""
        if self._directories and not directory:
            return False
        text = path if self._anchored else name
        if not self._rest:
            return text == self._literal
        if self._ending is not None:
            return text.endswith(self._ending)
        if not text.startswith(self._literal):
            return False
        if self._glob is None:
            self._glob = Wildmatch(self._rest)
        return self._glob.matches(text[len(self._literal) :])


def parse(content: bytes) -> tuple[Pattern, ...]:
    """The patterns of an ignore file; every file means something, as in git."""
    patterns = []
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        text = line.removesuffix(b"\r").partition(b"\0")[0]
        if text and not text.startswith(b"#"):
            patterns.append(Pattern(_without_final_spaces(text)))
    return tuple(patterns)


class IgnoreRules(Struct, frozen=True):
    """The ignore files that rule a directory, outermost first: its path, and its patterns."""

    levels: tuple[tuple[bytes, tuple[Pattern, ...]], ...] = ()

    def entering(self, directory: str, location: Path) -> "IgnoreRules":
        """The rules inside `directory` (`a/b/`, the root is empty), which has an ignore file.

        `location` is that file. Raises ConfigError if it cannot be read or is too large.
        """
        try:
            with location.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"cannot read {quoted(str(location))}: {error.strerror}") from error
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"{quoted(str(location))} is larger than {_MAX_BYTES} bytes")
        return IgnoreRules((*self.levels, (os.fsencode(directory), parse(content))))

    def ignores(self, path: str) -> bool:
        """Whether `path` (with a final slash for a directory) is left out.

        The innermost ignore file that says anything about it decides. As in git, nothing below an
        ignored directory can be taken in again: callers do not descend into one.
        """
        if not self.levels:
            return False
        whole = os.fsencode(path.removesuffix("/"))
        name = whole.rpartition(b"/")[2]
        for directory, patterns in reversed(self.levels):
            below = whole[len(directory) :]
            for pattern in reversed(patterns):
                if pattern.matches(below, name, path.endswith("/")):
                    return not pattern.negated
        return False


def _without_final_spaces(text: bytes) -> bytes:
    """A line without the spaces at its end; one after a backslash is part of the pattern."""
    end = len(text)
    while end and text[end - 1] == ord(" "):
        end -= 1
    backslashes = end - len(text[:end].rstrip(b"\\"))
    return text[: end + (backslashes % 2 and end < len(text))]
