"""What a path of a request is about: which model, what of it, at which revision."""

import re
from urllib.parse import unquote

from msgspec import Struct

from mergepipe.hub.errors import HubError, no_repository

# The client's own rule for names (huggingface_hub, validate_repo_id), of each of their two parts.
_PART = re.compile(r"(?!\.)(?!-)[A-Za-z0-9_.-]{1,96}(?<![.-])")
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]|-(?=-)|\.(?=\.)")
ACTIONS = frozenset(
    [
        "revision",
        "tree",
        "paths-info",
        "refs",
        "commits",
        "preupload",
        "commit",
        "branch",
        "tag",
        "settings",
        "discussions",
        "xet-read-token",
        "xet-write-token",
        "auth-check",
        "lfs-files",
    ]
)
"""What may follow a model's name below `/api/models/`."""
FILES = frozenset(("resolve", "raw"))
"""What may follow it elsewhere."""
_ALONE = frozenset(("refs", "discussions", "auth-check"))


class Address(Struct, frozen=True):
    """A model's name, what is asked of it, and what else the path says, unquoted.

    `rest` keeps what stood between slashes apart: a revision may hold some itself.
    """

    model: str
    action: str
    rest: tuple[str, ...] = ()

    @property
    def revision(self) -> str:
        """The revision, `main` if none is given."""
        return self.rest[0] if self.rest else "main"

    @property
    def path(self) -> str:
        """The file or folder after the revision."""
        return "/".join(self.rest[1:])


def split(raw_path: bytes) -> tuple[str, ...]:
    """The parts of a request's path, each unquoted. Raises HubError for what is no text."""
    try:
        parts = tuple(
            unquote(each, errors="strict") for each in raw_path.decode("ascii").split("/")[1:]
        )
    except UnicodeDecodeError:
        raise HubError(400, "the address is not UTF-8") from None
    if any("\0" in part for part in parts):
        raise HubError(400, "the address holds a NUL")
    return parts


def api_address(parts: tuple[str, ...]) -> Address:
    """What follows `/api/models/`. Raises HubError."""
    return _address(parts, ACTIONS)


def file_address(parts: tuple[str, ...]) -> Address:
    """The address of a file: `ID/resolve/REV/FILE`. Raises HubError."""
    return _address(parts, FILES)


def object_address(parts: tuple[str, ...]) -> Address | None:
    """The address of a step of git-lfs: `ID.git/info/lfs/objects/WHAT`; None for another.

    Raises HubError.
    """
    name, tail = parts[:-4], parts[-4:]
    if tail[:3] != ("info", "lfs", "objects") or not 1 <= len(name) <= 2:
        return None
    model = "/".join(name)
    if not model.endswith(".git"):
        return None
    return Address(check_model(model.removesuffix(".git")), "objects", tail[3:])


def _address(parts: tuple[str, ...], actions: frozenset[str]) -> Address:
    for at in (1, 2):
        if len(parts) > at and parts[at] in actions and _asks(parts[at:]):
            return Address(check_model("/".join(parts[:at])), parts[at], parts[at + 1 :])
    if len(parts) <= 2:
        return Address(check_model("/".join(parts)), "")
    raise HubError(404, "there is nothing at this address")


def _asks(parts: tuple[str, ...]) -> bool:
    """Whether an action has what it needs; else the word is a branch's name."""
    return len(parts) > 1 or parts[0] in _ALONE


def check_model(name: str) -> str:
    """Return a name that a model can have. Raises HubError (404) for any other."""
    parts = name.split("/")
    if len(parts) > 2 or not all(is_fit(part) for part in parts):
        raise no_repository(name)
    return name


def is_fit(part: str) -> bool:
    """Whether a client takes this as a part of a model's name."""
    return (
        _PART.fullmatch(part) is not None
        and "--" not in part
        and ".." not in part
        and not part.endswith(".git")
    )


def fit_name(name: str) -> str:
    """What a repository in a directory of this name is called."""
    fit = _UNFIT.sub("-", name)
    fit = re.sub(r"-{2,}", "-", fit).strip("-.").removesuffix(".git")[:96].strip("-.")
    return fit if is_fit(fit) else "models"
