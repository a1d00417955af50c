"""What somebody may have put into a repository where a file or a folder belongs."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from mergepipe.repository.layout import DIRECTORY

Make = Callable[[Path], object]


def places(folder: Path) -> Iterator[str]:
    """Every path of a repository that is there, and those that a command may make."""
    root = folder / DIRECTORY
    for here, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield (Path(here) / name).relative_to(root).as_posix()
    yield from ("swap.lock", "tokens", "promised", "remotes", "quarantine", "refs/remotes")
    yield from ("logs/refs/tags", "refs/heads/other", "worktree", "what ever")


def put(place: Path, make: Make) -> Callable[[], None]:
    """Make something at a place; returns what puts back what was there."""
    root = next(folder for folder in place.parents if folder.name == DIRECTORY)
    aside = root.parent.with_name("aside")
    there = os.path.lexists(place)
    if there:
        place.rename(aside)
    missing = not place.parent.is_dir()
    place.parent.mkdir(parents=True, exist_ok=True)
    make(place)

    def undo() -> None:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()
        if missing:
            place.parent.rmdir()
        if there:
            aside.rename(place)

    return undo
