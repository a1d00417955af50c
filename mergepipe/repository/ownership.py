"""Whose a repository is, and whether this process may write to it without being told so.

Who works as root, or is found a repository in a parent directory (CVE-2022-24765 in git), may not
know whose it is: what they write would be theirs, and its owner's commands would fail on it.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from mergepipe.errors import UnsafeRepository
from mergepipe.names import quoted

SAFE = "MP_SAFE_DIRECTORY"


def safe_places(environment: Mapping[str, str]) -> list[str]:
    """What the user said is safe: in the environment, and in the file `safe` of their settings."""
    places = environment.get(SAFE, "").split(os.pathsep)
    with suppress(OSError):
        text = (settings_home(environment) / "safe").read_text(errors="replace")
        places += text.splitlines()
    return places


def settings_home(environment: Mapping[str, str]) -> Path:
    """The directory of the user's own settings."""
    named = environment.get("XDG_CONFIG_HOME") or ""
    home = Path(named) if named else Path(environment.get("HOME", "/")) / ".config"
    return home / "mergepipe"


def check_user(directory: Path, environment: Mapping[str, str]) -> None:
    """`check_owner` by what the environment of this user says. Raises UnsafeRepository."""
    check_owner(directory, safe_places(environment), environment.get("SUDO_UID", ""))


def check_owner(directory: Path, safe: Iterable[str], sudo_user: str = "") -> None:
    """Raise UnsafeRepository unless a `.mergepipe` is this user's, or for this user to write to.

    That is: their own; shared with a group of theirs (not for root, who is in none by being asked);
    or in `safe`: directories that hold a repository, or `*`. `sudo_user`: the number of the user
    whom root acts for, if any.
    """
    status = os.lstat(directory)
    user = os.geteuid()
    if status.st_uid == user or (user == 0 and sudo_user == str(status.st_uid)):
        return
    shared = status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IWGRP
    if user != 0 and shared and status.st_gid in {os.getegid(), *os.getgroups()}:
        return
    place = os.path.realpath(directory.parent)
    if any(word == "*" or (word and os.path.realpath(word) == place) for word in safe):
        return
    raise UnsafeRepository(
        f"{quoted(str(directory))} belongs to another user (number {status.st_uid}): "
        "it is read, and not written",
        f"if you know whose it is: {SAFE}={place}, or that line in ~/.config/mergepipe/safe",
    )
