"""The writing half of the hub's protocol: models made, files taken in, commits."""

import functools
import re
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mergepipe.errors import RefExists
from mergepipe.hub.addresses import Address, check_model
from mergepipe.hub.arrivals import Arrivals
from mergepipe.hub.commit_body import CommitReader
from mergepipe.hub.committing import Committing
from mergepipe.hub.errors import HubError
from mergepipe.hub.files import SMALL_BYTES, Files, known_sha256
from mergepipe.hub.models import Model, commit_of, find_model, hub_id, spelled
from mergepipe.hub.objects import Objects
from mergepipe.hub.passes import Passes
from mergepipe.hub.reception import Reception
from mergepipe.hub.repositories import Repositories
from mergepipe.hub.requests import LARGEST_REQUEST, base_url
from mergepipe.hub.work import Work
from mergepipe.hub.xet.application import XetUploads
from mergepipe.ids import ObjectId
from mergepipe.names import escape_for_terminal

_NO_LIMIT = 1 << 60
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
        self._committing = Committing(files)
        self._arrivals = Arrivals(read_only=read_only)
        self._reception = Reception(
            repositories=repositories,
            arrivals=self._arrivals,
            passes=Passes(time.time),
            work=work,
            idle_s=idle_s,
        )
        self.objects = Objects(self._reception)
        self.xet = XetUploads(self._reception)

    async def validate_yaml(self, request: Request) -> Response:
        """Whether a card's front matter can be read."""
        content = (await self._reception.document(request)).get("content", "")
        problem = _front_matter_problem(content) if isinstance(content, str) else "no text"
        errors = [] if problem is None else [{"message": problem}]
        return JSONResponse({"errors": errors, "warnings": []}, 400 if errors else 200)

    async def create(self, request: Request) -> Response:
        """A new model: a branch that gets its first commit later."""
        asked = await self._reception.document(request)
        name, owner = asked.get("name"), asked.get("organization")
        if asked.get("type", "model") not in ("model", None):
            raise HubError(400, "this hub has models only")
        if not isinstance(name, str) or not isinstance(owner, str | None):
            raise HubError(400, "a new model needs a name")
        self._arrivals.check_writable()
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
        asked = await self._reception.document(request)
        listed = asked.get("files")
        if not isinstance(listed, list) or not all(_is_file(each) for each in listed):
            raise HubError(400, "`files` lists paths and sizes")
        self._arrivals.check_writable()

        def told() -> list[dict[str, Any]]:
            model = find_model(self._repositories, address.model, new=True)
            _check_sizes(listed, model.repository.config.receive.limit)
            known = self._oids(model, address.revision)
            return [
                {
                    "path": each["path"],
                    "uploadMode": (mode := "lfs" if each["size"] > SMALL_BYTES else "regular"),
                    "shouldIgnore": False,
                    "oid": known.get((each["path"], mode)),
                }
                for each in listed
            ]

        return JSONResponse({"files": await self._work.call(told)})

    def _oids(self, model: Model, revision: str) -> "_Oids":
        return _Oids(self._files, model, revision)

    async def commit(self, request: Request, address: Address) -> Response:
        """A commit of what came before, and of what comes with it."""
        if request.query_params.get("create_pr"):
            raise HubError(403, "this hub takes commits, and no pull requests")
        self._arrivals.check_writable()
        model = await self._reception.model(address)
        staging = self._reception.staging(model)
        reader = CommitReader(staging)
        # Base64 takes four bytes for three; what is not taken is read all the same, to answer.
        taken = model.repository.config.receive.limit or _NO_LIMIT
        limit = taken * 3 // 2 + LARGEST_REQUEST
        done = False
        try:
            await self._reception.receive(request, reader.feed, limit)
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
        asked = await self._reception.document(request)
        start = asked.get("startingPoint") or "main"
        model = await self._writable(address, start)
        if model.branch is not None:
            owner = model.id.partition("/")[0]
            raise HubError(400, f"a model here is a branch: its branches would be {owner}'s")
        await self._make(model.repository.branch, address.revision, spelled(model, start))
        return JSONResponse({})

    async def tag(self, request: Request, address: Address) -> Response:
        """A new tag of a revision."""
        asked = await self._reception.document(request)
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
        self._arrivals.check_writable()
        return await self._work.call(find_model, self._repositories, address.model)


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


def _check_sizes(listed: list[dict[str, Any]], limit: int) -> None:
    """Say now what a client that sends by xet would not show later. Raises HubError (413)."""
    for each in listed:
        if limit and each["size"] > limit:
            path = escape_for_terminal(each["path"], 200)
            raise HubError(
                413, f"{path} has {each['size']:,} bytes: receive.limit here is {limit:,}"
            )


def _is_file(listed: object) -> bool:
    return (
        isinstance(listed, dict)
        and isinstance(listed.get("path"), str)
        and isinstance(listed.get("size"), int)
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
