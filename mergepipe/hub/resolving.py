"""Files over http: whole or by a range, decoded as they are sent."""

import re
from urllib.parse import quote

from msgspec import Struct

from mergepipe.hub.errors import HubError, no_entry
from mergepipe.hub.files import FileBytes, Files
from mergepipe.hub.models import Model, commit_of, hub_id

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))")
_TYPES = {"json": "application/json", "md": "text/plain; charset=utf-8"}


class FileReply(Struct, frozen=True):
    """What a request for a file comes to: a status, headers, and bytes `first` to `end` of it."""

    status: int
    headers: dict[str, str]
    content: FileBytes
    first: int
    end: int


def resolve(
    files: Files, model: Model, revision: str, path: str, asked: dict[str, str], *, body: bool
) -> FileReply:
    """The reply to a request for a file; `asked` are its headers, their names in lower case.

    body  what is in the file is wanted (GET), not only what is to say about it (HEAD)
    Raises HubError.
    """
    if model.is_empty:
        raise no_entry(path, revision)
    identity, commit = commit_of(model, revision)
    entry = files.of_snapshot(model.repository, commit.snapshot).get(path)
    if entry is None:
        raise no_entry(path, revision, hub_id(identity))
    etag = f'"{files.oid(model.repository, entry)}"'
    name = path.rpartition("/")[2]
    headers = {
        "ETag": etag,
        "X-Linked-ETag": etag,
        "X-Linked-Size": str(entry.size),
        "X-Repo-Commit": hub_id(identity),
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-cache",
        "Content-Type": _TYPES.get(name.rpartition(".")[2], "application/octet-stream"),
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name, safe='')};",
        # Whatever a model holds is data: no browser is to run it.
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        # Nor is another site to load it with what a browser remembers of a person.
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    plan = files.plan(model.repository, commit.snapshot, entry)
    content = FileBytes(model.repository, plan, files.decoded)
    if _matches(asked.get("if-none-match"), etag):
        return FileReply(304, headers, content, 0, 0)
    first, end, status = 0, entry.size, 200
    wanted = asked.get("range")
    if wanted is not None and body and asked.get("if-range", etag) == etag:
        span = _span(wanted, entry.size)
        if span is not None:
            first, end = span
            status = 206
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{entry.size}"
    headers["Content-Length"] = str(end - first)
    return FileReply(status, headers, content, first, end)


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    known = {each.strip().removeprefix("W/") for each in header.split(",")}
    return etag in known or "*" in known


def _span(wanted: str, size: int) -> tuple[int, int] | None:
    """The bytes that a range asks for; None for a unit that is not bytes (RFC 9110, 14.2).

    Raises HubError (416) for bytes that the file has not, for several ranges, and for no range.
    """
    if not wanted.startswith("bytes="):
        return None
    match = _RANGE.fullmatch(wanted)
    if match is not None:
        begin, last, tail = match.groups()
        first = max(0, size - int(tail)) if tail is not None else int(begin)
        end = size if last is None else min(int(last) + 1, size)
        if first < end:
            return first, end
    raise HubError(
        416,
        "only one range of bytes is served, of those that the file has",
        headers={"Content-Range": f"bytes */{size}"},
    )
