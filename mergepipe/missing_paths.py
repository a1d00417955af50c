"""What to say of a path that is not there: the name beside it that was likely meant."""

from difflib import get_close_matches
from pathlib import Path

from mergepipe.names import quoted

_ALIKE = 0.75  # difflib's own 0.6 takes 'nowhere' for 'other'


def nearest_path(missing: Path, otherwise: str) -> str:
    """A hint for a path that is not there: the name beside it that was likely meant.

    Else how far the path is right, and `otherwise`: what to do.
    """
    there = missing.absolute().parent
    name = missing.name
    while not there.is_dir() and there != there.parent:
        there, name = there.parent, there.name
    try:
        names = [entry.name for entry in there.iterdir() if entry.name != ".mergepipe"]
    except OSError:
        names = []
    near = get_close_matches(name, names, 1, _ALIKE)
    shown = quoted(str(there))
    if near and name == missing.name:
        return f"did you mean {quoted(str(missing.with_name(near[0])))}?"
    if near:
        return f"{shown} has {quoted(near[0])}, and no {quoted(name)}"
    return f"{shown} is there, and has no {quoted(name)}: {otherwise}"
