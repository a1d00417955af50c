"""Names that a shell offers when Tab is pressed: branches and tags, from their files alone."""

import os
from pathlib import Path

from mergepipe.errors import MergepipeError

_MOST = 1000


def revisions(incomplete: str) -> list[str]:
    """Branches, tags and what a remote had, and HEAD."""
    return ["HEAD", *_names("refs/heads", "refs/tags", "refs/remotes")]


def branches(incomplete: str) -> list[str]:
    """Branches."""
    return _names("refs/heads")


def tags(incomplete: str) -> list[str]:
    """Tags."""
    return _names("refs/tags")


def remotes(incomplete: str) -> list[str]:
    """Remotes of the repository."""
    import tomllib

    from mergepipe.bytestore.untrusted import read_plain

    directory = _directory()
    try:
        data = b"" if directory is None else read_plain(directory / "config.toml")
        tables = tomllib.loads(data.decode()).get("remote", {})
    except (OSError, ValueError, MergepipeError):
        return []
    return sorted(tables) if isinstance(tables, dict) else []


def config_keys(incomplete: str) -> list[str]:
    """Every setting."""
    from mergepipe.repository.config import Config
    from mergepipe.repository.relocation import SETTINGS

    return [*(key for key, _ in Config().items()), *SETTINGS]


def methods(incomplete: str) -> list[str]:
    """Every merge method."""
    from mergepipe.methods.registry import names

    return names()


def _names(*folders: str) -> list[str]:
    directory = _directory()
    names: list[str] = []
    if directory is None:
        return names
    for folder in folders:
        root = directory / folder
        for here, _, files in os.walk(root):
            names += [(Path(here) / name).relative_to(root).as_posix() for name in files]
            if len(names) > _MOST:
                break
    return sorted(names)[:_MOST]


def _directory() -> Path | None:
    from mergepipe.bytestore.untrusted import check_tree
    from mergepipe.repository.layout import find

    try:
        named = os.environ.get("MP_DIR")
        directory = Path(named) if named else find(Path())
        check_tree(directory)
        return directory
    except MergepipeError:
        return None  # a shell that completes must not show errors
