"""What the hub's clients are told of models, as JSON values."""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from mergepipe.hub.errors import no_entry
from mergepipe.hub.files import Files, known_sha256
from mergepipe.hub.models import Model, commit_of, hub_id, spelled
from mergepipe.ids import ObjectId
from mergepipe.objects.records import Commit, FileEntry
from mergepipe.repository.refnames import HEADS, TAGS
from mergepipe.transfer.serving.tokens import Scope

Document = dict[str, Any]
_POINTER_BYTES = 134
"""About the size of a git-lfs pointer; clients want a number."""


def summary(model: Model, identity: ObjectId, commit: Commit, *, private: bool) -> Document:
    """What a list of models says of one."""
    return {
        "_id": hub_id(identity),
        "id": model.id,
        "modelId": model.id,
        "author": model.id.partition("/")[0],
        "sha": hub_id(identity),
        "lastModified": _date(commit),
        "createdAt": _date(commit),
        "private": private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    }


def info(
    files: Files, model: Model, revision: str, *, private: bool, blobs: bool = False
) -> Document:
    """What is to say of a model at a revision; with `blobs`, ids of files. Raises HubError.

    Ids of small files take reading them: a model has many, and most who ask want names.
    """
    if model.is_empty:
        return {"id": model.id, "modelId": model.id, "private": private, "siblings": [], "tags": []}
    identity, commit = commit_of(model, revision)
    entries = files.of_snapshot(model.repository, commit.snapshot).values()
    return summary(model, identity, commit, private=private) | {
        "siblings": [_sibling(files, model, entry, blobs=blobs) for entry in entries],
        "usedStorage": sum(entry.size for entry in entries),
        "spaces": [],
    }


def tree(
    files: Files, model: Model, revision: str, folder: str, *, recursive: bool
) -> tuple[list[FileEntry | str], str]:
    """Files (as entries) and folders (as paths) below a folder, sorted, and the commit's id.

    Raises HubError.
    """
    if model.is_empty:
        return [], ""
    identity, commit = commit_of(model, revision)
    entries = files.of_snapshot(model.repository, commit.snapshot)
    inside = folder.strip("/")
    entries_below = list(
        _below(entries.values(), f"{inside}/" if inside else "", recursive=recursive)
    )
    if inside and not entries_below and inside not in entries:
        raise no_entry(folder, revision, hub_id(identity))
    return entries_below, hub_id(identity)


def _below(
    entries: Iterable[FileEntry], prefix: str, *, recursive: bool
) -> Iterator[FileEntry | str]:
    folders: set[str] = set()
    for entry in entries:
        if not entry.path.startswith(prefix):
            continue
        parents = entry.path[len(prefix) :].split("/")[:-1]
        for depth in (
            range(1, len(parents) + 1) if recursive else range(1, min(2, len(parents) + 1))
        ):
            above = prefix + "/".join(parents[:depth])
            if above not in folders:
                folders.add(above)
                yield above
        if recursive or not parents:
            yield entry


def shown(
    files: Files,
    model: Model,
    items: Iterable[FileEntry | str],
    commit: tuple[ObjectId, Commit] | None = None,
) -> list[Document]:
    """Files and folders as listings show them; with `commit` as the one that they are from."""
    last = {} if commit is None else {"lastCommit": _last(*commit)}
    listed: list[Document] = []
    for item in items:
        if isinstance(item, str):
            entry: Document = {
                "type": "directory",
                "oid": _folder_id(item),
                "size": 0,
                "path": item,
            }
        else:
            facts = files.facts(model.repository, item)
            entry = {"type": "file", "oid": facts.oid, "size": facts.size, "path": facts.path}
            if facts.sha256 is not None:
                entry["lfs"] = _lfs("oid", facts.sha256, facts.size)
        listed.append(entry | last)
    return listed


def paths_info(files: Files, model: Model, revision: str, paths: Sequence[str]) -> list[Document]:
    """What a listing would say of these paths; those that are not there are left out."""
    if model.is_empty:
        return []
    _, commit = commit_of(model, revision)
    entries = files.of_snapshot(model.repository, commit.snapshot)
    items: list[FileEntry | str] = []
    for path in dict.fromkeys(each.strip("/") for each in paths):
        if path in entries:
            items.append(entries[path])
        elif any(each.startswith(f"{path}/") for each in entries):
            items.append(path)
    return shown(files, model, items)


def refs(model: Model) -> Document:
    """Branches and tags. Of a branch: itself, as `main`, and the tags."""
    repository = model.repository
    branches = (
        {name: repository.refs.read(HEADS + name) for name in repository.branches()}
        if model.branch is None
        else {"main": repository.refs.read(HEADS + model.branch)}
    )
    return {
        "branches": [_ref(name, HEADS, tip) for name, tip in branches.items() if tip],
        "tags": [_ref(name, TAGS, tip) for name, tip in repository.tags().items()],
        "converts": [],
        "pullRequests": [],
    }


def commits(model: Model, revision: str, first: int, count: int) -> list[Document]:
    """Commits from a revision back, newest first: `count` of them after `first`.

    Raises HubError.
    """
    commit_of(model, revision)
    return [
        {
            "id": hub_id(identity),
            "title": commit.message.partition("\n")[0],
            "message": commit.message.partition("\n")[2].strip("\n"),
            "authors": [{"user": commit.author}],
            "date": _date(commit),
        }
        for identity, commit in islice(
            model.repository.log(spelled(model, revision)), first, first + count
        )
    ]


def whoami(name: str, scope: Scope) -> Document:
    """Who a token stands for: this server knows what it may do, and no people."""
    role = "write" if scope is Scope.WRITE else "read"
    return {
        "type": "user",
        "id": name,
        "name": name,
        "fullname": name,
        "isPro": False,
        "orgs": [],
        "auth": {"type": "access_token", "accessToken": {"displayName": "mp serve", "role": role}},
    }


def _sibling(files: Files, model: Model, entry: FileEntry, *, blobs: bool) -> Document:
    document: Document = {"rfilename": entry.path, "size": entry.size}
    if blobs:
        document["blobId"] = files.oid(model.repository, entry)
    sha256 = known_sha256(model.repository, entry)
    if sha256 is not None:
        document["lfs"] = _lfs("sha256", sha256, entry.size)
    return document


def _lfs(name: str, sha256: str, size: int) -> Document:
    return {name: sha256, "size": size, "pointerSize": _POINTER_BYTES}


def _ref(name: str, folder: str, tip: ObjectId) -> Document:
    return {"name": name, "ref": folder + name, "targetCommit": hub_id(tip)}


def _last(identity: ObjectId, commit: Commit) -> Document:
    return {
        "id": hub_id(identity),
        "title": commit.message.partition("\n")[0],
        "date": _date(commit),
    }


def _date(commit: Commit) -> str:
    try:
        time = datetime.datetime.fromtimestamp(commit.time, datetime.UTC)
    except (OverflowError, ValueError, OSError):  # a damaged clock's
        time = datetime.datetime.fromtimestamp(0, datetime.UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _folder_id(path: str) -> str:
    """Forty digits, which clients want of a folder too."""
    from mergepipe.ids import digest

    return digest(path.encode()).hex()[:40]
