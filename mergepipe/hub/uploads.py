"""The writing half of the hub's protocol: models made, files taken in, commits."""

import functools
import json
import re
import threading
import time
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mergepipe.api import Repository
from mergepipe.errors import RefExists
from mergepipe.hub.addresses import Address, check_model
from mergepipe.hub.commit_body import CommitReader
from mergepipe.hub.committing import Committing, stored_file
from mergepipe.hub.errors import HubError
from mergepipe.hub.files import SMALL_BYTES, Files, known_sha256
from mergepipe.hub.models import Model, commit_of, find_model, hub_id, spelled
from mergepipe.hub.passes import Passes
from mergepipe.hub.repositories import Repositories
from mergepipe.hub.staging import Staging
from mergepipe.hub.work import Work
from mergepipe.ids import ObjectId
from mergepipe.transfer.serving.http_bodies import drain, receive, whole_body
from mergepipe.transfer.serving.offer import ReadOnly

_LARGEST_REQUEST = 16 << 20
_WITH_COMMIT_BYTES = 2 << 30
_CLIENT = re.compile(r"hf_hub/(\d+)")
_LAST_TO_ASK = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LFS = "application/vnd.git-lfs+json"
_FRONT = re.compile(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", re.DOTALL)


class Uploads:
    """What is written to models. Who asks may write: that was looked at before."""

    def __init__(
        self,
        repositories: Repositories,
        files: Files,
        work: Work,
        read_only: bool,
        idle_s: float,
    ) -> None:
        self._repositories = repositories
        self._files = files
        self._work = work
        self._read_only = read_only
        self._idle_s = idle_s
        self._committing = Committing(files)
        self._passes = Passes(time.time)
        self._lock = threading.Lock()
        self._staging: dict[Repository, Staging] = {}

    async def validate_yaml(self, request: Request) -> Response:
        """Whether a card's front matter can be read."""
        content = (await self._document(request)).get("content", "")
        problem = _front_matter_problem(content) if isinstance(content, str) else "no text"
        errors = [] if problem is None else [{"message": problem}]
        return JSONResponse({"errors": errors, "warnings": []}, 400 if errors else 200)

    async def create(self, request: Request) -> Response:
        """A new model: a branch that gets its first commit later."""
        asked = await self._document(request)
        name, owner = asked.get("name"), asked.get("organization")
        if asked.get("type", "model") not in ("model", None):
            raise HubError(400, "this hub has models only")
        if not isinstance(name, str) or not isinstance(owner, str | None):
            raise HubError(400, "a new model needs a name")
        self._check_writable()
        owner = owner or self._repositories.sole
        model_id = check_model(f"{owner}/{name}" if owner else name)
        there = await self._work.call(self._create, model_id)
        url = f"{base_url(request)}/{model_id}"
        if there:
            document = {"error": "You already created this model repo", "url": url}
            return JSONResponse(document, 409)
        return JSONResponse({"url": url, "name": model_id, "id": model_id})

    def _create(self, model_id: str) -> bool:
        """Whether the model was there already."""
        owner, _, branch = model_id.partition("/")
        if self._repositories.find(owner) is None:
            self._repositories.make(owner)
        try:
            model = find_model(self._repositories, model_id)
        except HubError:
            self._repositories.announce(model_id)
            return False
        return not model.is_empty or not branch

    async def preupload(self, request: Request, address: Address) -> Response:
        """How each file is to come: with the commit, or before it."""
        asked = await self._document(request)
        listed = asked.get("files")
        if not isinstance(listed, list) or not all(_is_file(each) for each in listed):
            raise HubError(400, "`files` lists paths and sizes")
        self._check_writable()
        client = _CLIENT.search(request.headers.get("user-agent", ""))
        # Since its second version the client sends what is to come before a commit by xet alone, or
        # not at all; what comes with a commit it sends over http.
        asks = client is None or int(client[1]) <= _LAST_TO_ASK
        limit = SMALL_BYTES if asks else _WITH_COMMIT_BYTES

        def told() -> list[dict[str, Any]]:
            model = find_model(self._repositories, address.model, new=True)
            known = self._oids(model, address.revision)
            return [
                {
                    "path": each["path"],
                    "uploadMode": (mode := "lfs" if each["size"] > limit else "regular"),
                    "shouldIgnore": False,
                    "oid": known.get((each["path"], mode)),
                }
                for each in listed
            ]

        return JSONResponse({"files": await self._work.call(told)})

    def _oids(self, model: Model, revision: str) -> "_Oids":
        return _Oids(self._files, model, revision)

    async def batch(self, request: Request, address: Address) -> Response:
        """Where the objects go that are not here yet (git-lfs, docs/api/batch.md)."""
        asked = await self._document(request)
        objects = asked.get("objects")
        if not isinstance(objects, list) or not all(_is_object(each) for each in objects):
            raise HubError(422, "`objects` lists SHA-256s and sizes")
        if asked.get("operation") != "upload":
            raise HubError(422, "files are downloaded from their own addresses")
        self._check_writable()
        model = await self._work.call(find_model, self._repositories, address.model, new=True)
        place = f"{base_url(request)}/{model.id}.git/info/lfs/objects"

        def told() -> list[dict[str, Any]]:
            return [self._object(model, place, each["oid"], each["size"]) for each in objects]

        answers = await self._work.call(told)
        return JSONResponse(
            {"transfer": "basic", "objects": answers, "hash_algo": "sha256"}, media_type=_LFS
        )

    def _object(self, model: Model, place: str, sha256: str, size: int) -> dict[str, Any]:
        known: dict[str, Any] = {"oid": sha256, "size": size, "authenticated": True}
        if self._size_here(model, sha256) == size:
            return known
        allowed = self._passes.issue(model.id, sha256, str(size))
        query = urlencode({"size": size, **allowed})
        return known | {
            "actions": {
                "upload": {"href": f"{place}/{sha256}?{query}"},
                "verify": {"href": f"{place}/verify"},
            }
        }

    async def put(self, request: Request, address: Address) -> Response:
        """An object itself, at the address that `batch` gave."""
        sha256, query = address.rest[0], request.query_params
        size = query.get("size", "")
        if not self._passes.holds(query, address.model, sha256, size):
            raise HubError(403, "this address was not given out here, or too long ago")
        model = await self._work.call(find_model, self._repositories, address.model, new=True)
        staging = self._staging_of(model)
        if staging.size(sha256) == int(size):
            await drain(request, self._idle_s)
            return Response()
        upload = await self._work.call(staging.begin, int(size))
        try:
            write = functools.partial(self._work.call, upload.write)
            await receive(request, write, int(size) + 1, self._idle_s)
            file = await self._work.call(upload.finish, sha256, lasting=True)
        except BaseException:
            await self._work.call(upload.abort)
            raise
        staging.give_back(file, done=False)
        return Response()

    async def verify(self, request: Request, address: Address) -> Response:
        """Whether an object came."""
        asked = await self._document(request)
        if not _is_object(asked):
            raise HubError(422, "an object has a SHA-256 and a size")
        model = await self._work.call(find_model, self._repositories, address.model, new=True)
        if await self._work.call(self._size_here, model, asked["oid"]) != asked["size"]:
            raise HubError(404, "no such object came")
        return JSONResponse({}, media_type=_LFS)

    async def commit(self, request: Request, address: Address) -> Response:
        """A commit of what came before, and of what comes with it."""
        if request.query_params.get("create_pr"):
            raise HubError(403, "this hub takes commits, and no pull requests")
        self._check_writable()
        model = await self._work.call(find_model, self._repositories, address.model, new=True)
        staging = self._staging_of(model)
        reader = CommitReader(staging)
        # Base64 takes four bytes for three; what is not taken is read all the same, to answer.
        limit = model.repository.config.receive.limit * 3 // 2 + _LARGEST_REQUEST
        done = False
        try:
            feed = functools.partial(self._work.call, reader.feed)
            await receive(request, feed, limit, self._idle_s)
            body = await self._work.call(reader.finish)
            identity: ObjectId = await self._work.calls.run(
                self._work.committing,
                self._committing.commit,
                model,
                address.revision,
                body,
                staging,
            )
            done = True
        finally:
            await self._work.call(reader.close, done=done)
        return JSONResponse(
            {
                "success": True,
                "commitOid": hub_id(identity),
                "commitUrl": f"{base_url(request)}/{model.id}/commit/{hub_id(identity)}",
                "hookOutput": "",
            }
        )

    async def branch(self, request: Request, address: Address) -> Response:
        """A new branch of a repository."""
        asked = await self._document(request)
        start = asked.get("startingPoint") or "main"
        model = await self._writable(address, start)
        if model.branch is not None:
            owner = model.id.partition("/")[0]
            raise HubError(400, f"a model here is a branch: its branches would be {owner}'s")
        await self._make(model.repository.branch, address.revision, spelled(model, start))
        return JSONResponse({})

    async def tag(self, request: Request, address: Address) -> Response:
        """A new tag of a revision."""
        asked = await self._document(request)
        name, message = asked.get("tag"), asked.get("message") or ""
        if not isinstance(name, str) or not isinstance(message, str):
            raise HubError(400, "a tag has a name")
        model = await self._writable(address, "")
        identity, _ = await self._work.call(commit_of, model, address.revision)
        make = functools.partial(model.repository.tag, message=message)
        await self._make(make, name, identity.hex())
        return JSONResponse({})

    async def _make(self, make: Any, name: str, revision: str) -> None:
        try:
            await self._work.call(make, name, revision)
        except RefExists as error:
            raise HubError(409, error.message) from error

    async def _writable(self, address: Address, start: object) -> Model:
        if not isinstance(start, str):
            raise HubError(400, "a revision is text")
        self._check_writable()
        return await self._work.call(find_model, self._repositories, address.model)

    def _check_writable(self) -> None:
        if self._read_only:
            raise ReadOnly("this server takes nothing")

    def _size_here(self, model: Model, sha256: str) -> int | None:
        """The size of an object that was uploaded, or that the repository has."""
        size = self._staging_of(model).size(sha256)
        if size is not None:
            return size
        entry = stored_file(model.repository, sha256)
        return None if entry is None else entry.size

    def _staging_of(self, model: Model) -> Staging:
        with self._lock:
            if model.repository not in self._staging:
                self._staging[model.repository] = Staging(model.repository)
            return self._staging[model.repository]

    async def _document(self, request: Request) -> dict[str, Any]:
        body = await whole_body(request, _LARGEST_REQUEST, self._idle_s)
        try:
            document = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise HubError(400, f"a request that cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise HubError(400, "a request is an object of JSON")
        return document


class _Oids:
    """What files of a revision have for an id in each way of coming."""

    def __init__(self, files: Files, model: Model, revision: str) -> None:
        self._files = files
        self._repository = model.repository
        try:
            _, commit = commit_of(model, revision)
        except HubError:
            self._entries = {}
        else:
            self._entries = dict(files.of_snapshot(model.repository, commit.snapshot))

    def get(self, key: tuple[str, str]) -> str | None:
        """By path and mode; None where there is none, or it is not known."""
        path, mode = key
        entry = self._entries.get(path)
        if entry is None:
            return None
        if mode == "lfs":
            return known_sha256(self._repository, entry)
        return self._files.oid(self._repository, entry) if entry.size <= SMALL_BYTES else None


def base_url(request: Request) -> str:
    """Where the client finds us, as it says itself; behind a proxy that speaks TLS too."""
    scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
    return f"{'https' if scheme == 'https' else 'http'}://{request.headers['host']}"


def _is_file(listed: object) -> bool:
    return (
        isinstance(listed, dict)
        and isinstance(listed.get("path"), str)
        and isinstance(listed.get("size"), int)
    )


def _is_object(listed: object) -> bool:
    return (
        isinstance(listed, dict)
        and isinstance(listed.get("size"), int)
        and listed["size"] >= 0
        and isinstance(listed.get("oid"), str)
        and _SHA256.fullmatch(listed["oid"]) is not None
    )


def _front_matter_problem(content: str) -> str | None:
    import yaml

    match = _FRONT.match(content)
    if match is None:
        return None
    try:
        front = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return f"the card's front matter is no YAML: {error}"
    return None if isinstance(front, dict | None) else "the card's front matter is no mapping"
