"""`.mpignore`: which files of a directory are not part of the model, by gitignore's rules."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mergepipe.errors import ConfigError
from mergepipe.names import quoted

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".mpignore"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The ignore files that rule a directory, outermost first: its path, and its patterns."""

    levels: tuple[tuple[str, "GitIgnoreSpec"], ...] = ()

    def entering(self, directory: str, location: Path) -> "IgnoreRules":
        """The rules inside `directory` (`a/b/`, the root is empty), which has an ignore file.

        `location` is that file. Raises ConfigError if it cannot be read or has a bad pattern.
        """
        # Imported here: only those who have an ignore file pay for it.
        from pathspec import GitIgnoreSpec

        try:
            with location.open("rb") as file:
                raw = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"cannot read {quoted(str(location))}: {error.strerror}") from error
        if len(raw) > _MAX_BYTES:
            raise ConfigError(f"{quoted(str(location))} is larger than {_MAX_BYTES} bytes")
        try:
            spec = GitIgnoreSpec.from_lines(raw.decode("utf-8-sig").splitlines())
        except ValueError as error:  # bad patterns and bytes that are no UTF-8
            raise ConfigError(f"cannot use {quoted(str(location))}: {error}") from error
        return IgnoreRules((*self.levels, (directory, spec)))

    def ignores(self, path: str) -> bool:
        """Whether `path` (with a final slash for a directory) is left out.

        The innermost ignore file that says anything about it decides. As in git, nothing below an
        ignored directory can be taken in again: callers do not descend into one.
        """
        for directory, spec in reversed(self.levels):
            include = spec.check_file(path[len(directory) :]).include
            if include is not None:
                return include
        return False
