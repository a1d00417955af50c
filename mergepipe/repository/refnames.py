"""What a ref may be called: git's rules (git-check-ref-format(1)), and no leading `-`."""

import re
import unicodedata

from mergepipe.errors import InvalidRefName
from mergepipe.names import quoted

HEADS = "refs/heads/"
TAGS = "refs/tags/"
REMOTES = "refs/remotes/"
IMPORTS = "refs/imports/"

# Control characters, space and the characters that revisions and globs are written with.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]")
# File systems take 255 bytes a name; temporary names beside it need a little room.
_COMPONENT_BYTES = 240
# Names with which nothing can be wrong but their length.
_PLAIN = re.compile(r"refs(?:/[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?=[A-Za-z0-9_-]))*){2,}")
_NAME_BYTES = 1024
BEFORE = "-"
"""git's name for the branch that was left last; none here."""
WAS_BEFORE = "`mp reflog HEAD` says where it was before: name that branch"


def check_ref_name(name: str) -> str:
    """Return `name` if it is a full ref name (`refs/<kind>/<name>`). Raises InvalidRefName."""
    reason = _problem(name)
    if reason:
        raise InvalidRefName(
            f"not a valid ref name: {name!r} ({reason})",
            WAS_BEFORE
            if name == f"{HEADS}{BEFORE}"
            else "letters, digits, '-', '_', '.' and '/' between parts are always fine",
        )
    return name


def branch_ref(branch: str) -> str:
    """The full ref name of a branch, given short or in full. Raises InvalidRefName."""
    return _full(branch, HEADS, "branch")


def tag_ref(tag: str) -> str:
    """The full ref name of a tag, given short or in full. Raises InvalidRefName."""
    return _full(tag, TAGS, "tag")


def short_name(ref: str) -> str:
    """`refs/heads/main` as people write it: `main`; likewise tags, remotes and imports."""
    for prefix in (HEADS, TAGS, REMOTES):
        if ref.startswith(prefix):
            return ref.removeprefix(prefix)
    return ref.removeprefix("refs/")


def title(name: str) -> str:
    """What messages call a ref: `branch 'main'`."""
    for prefix, kind in ((HEADS, "branch"), (TAGS, "tag")):
        if name.startswith(prefix):
            return f"{kind} {quoted(name.removeprefix(prefix))}"
    return name


def folded(name: str) -> str:
    """Equal for two names that some file system takes for one (case, Unicode composition)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _full(name: str, prefix: str, what: str) -> str:
    short = name.removeprefix(prefix)
    if short in ("HEAD", "@"):
        raise InvalidRefName(f"a {what} cannot be called {short!r}, which stands for HEAD")
    return check_ref_name(prefix + short)


def _problem(name: str) -> str:
    if len(name) <= _COMPONENT_BYTES and ".lock" not in name and _PLAIN.fullmatch(name):
        return ""  # nearly always, and a large hub has a million
    parts = name.split("/")
    checks = (
        (parts[0] != "refs" or len(parts) < 3, "it does not begin with refs/<kind>/"),
        (not all(parts), "a part between '/' is empty"),
        (_FORBIDDEN.search(name), "it holds a space, a control character or one of ~^:?*[\\"),
        (".." in name, "it holds '..'"),
        ("@{" in name, "it holds '@{'"),
        (name.endswith("."), "it ends with '.'"),
        (any(part.startswith(".") for part in parts), "a part begins with '.'"),
        (any(part.endswith(".lock") for part in parts), "a part ends with '.lock'"),
        (len(parts) > 2 and parts[2].startswith("-"), "it begins with '-'"),
        (not _is_utf8(name), "it is not valid Unicode"),
    )
    for broken, reason in checks:
        if broken:
            return reason
    if len(name.encode()) > _NAME_BYTES or max(len(p.encode()) for p in parts) > _COMPONENT_BYTES:
        return f"it is longer than {_COMPONENT_BYTES} bytes a part or {_NAME_BYTES} in all"
    return ""


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_shared_ref(key: str) -> bool:
    """Whether `key` is a branch or a tag, by git's rules for names."""
    if not key.startswith((HEADS, TAGS)):
        return False
    try:
        check_ref_name(key)
    except InvalidRefName:
        return False
    return True
