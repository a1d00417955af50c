"""Where pages are: below `/-/`, which no model, file or remote is called."""

from collections.abc import Mapping
from urllib.parse import quote

from msgspec import Struct

from mergepipe.hub.errors import HubError
from mergepipe.hub.models import hub_id
from mergepipe.ids import ObjectId

ROOT = "-"
_REVISIONS = {"": 0, "storage": 0, "log": 1, "model": 1, "commit": 1, "merge": 1, "diff": 2}
"""How many revisions each kind of page is about."""


class Place(Struct, frozen=True):
    """A page: of which repository (none: the list of all), of what kind, about which revisions."""

    name: str = ""
    kind: str = ""
    revisions: tuple[str, ...] = ()


def place_of(parts: tuple[str, ...], query: Mapping[str, str]) -> Place:
    """The page at the parts of a path. Raises HubError (404)."""
    if parts in (("",), (ROOT,), (ROOT, "")):
        return Place()
    name, *rest = parts[1:]
    kind, *revisions = rest or [""]
    if kind == "diff" and not revisions:
        revisions = [query.get("a", ""), query.get("b", "")]
    if kind == "log" and not revisions:
        return Place(name, kind)
    if _REVISIONS.get(kind) != len(revisions) or not all(revisions):
        raise HubError(404, "there is no page at this address")
    return Place(name, kind, tuple(revisions))


def page(name: str = "", kind: str = "", *revisions: str) -> str:
    """The address of a page. A revision is one part of it, whatever it holds."""
    if not name:
        return "/"
    return "/".join(
        ["", ROOT, *(quote(each, safe="") for each in (name, kind, *revisions) if each)]
    )


def file(name: str, commit: ObjectId, path: str) -> str:
    """Where the hub has a file of a commit of a repository."""
    return f"/{quote(name, safe='')}/resolve/{hub_id(commit)}/{quote(path)}"
