"""A server that answers as the Hugging Face hub does, as far as our requests go. Keeps models."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = 512
"""Files from this size on go as large files, which a request of their own carries."""


@dataclass
class Model:
    """One model: its files by branch, and the message of each version."""

    private: bool
    files: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    messages: list[str] = field(default_factory=list)

    def sha(self, branch: str) -> str:
        content = b"".join(
            name.encode() + data for name, data in sorted(self.files[branch].items())
        )
        return hashlib.sha1(content).hexdigest()


class FakeHub:
    """Models by name, and every request line in order."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.agents: set[str] = set()
        self.token = ""
        self.endpoint = ""


@contextlib.contextmanager
def running() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FakeHub

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append(f"{self.command} {path}")
        self.state.agents.add(self.headers.get("User-Agent", ""))
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.state.token and given != self.state.token and not path.startswith("/large/"):
            self._reply(401, {"error": "no"}, {"X-Error-Code": "Unauthorized"})
            return
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._model("/".join(parts[2:4]), parts[4:], body)
        elif parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            private = asked.get("private") or asked.get("visibility") == "private"
            self.state.models.setdefault(name, Model(bool(private)))
            self._reply(200, {"url": f"{self.state.endpoint}/{name}", "id": name, "name": name})
        elif parts[0] == "large":
            self.state.large[parts[1]] = body
            self._reply(200, b"")
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._reply(404, {"error": path})

    def _model(self, name: str, rest: list[str], body: bytes) -> None:
        model = self.state.models.get(name)
        if model is None:
            self._reply(404, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})
            return
        what, version = [*rest, "main"][:2] if rest else ("info", "main")
        if what == "branch":
            if version in model.files:
                self._reply(409, {"error": "there is one"})
            else:
                model.files[version] = dict(model.files["main"])
                self._reply(200, {})
            return
        branch = version if version in model.files else self._branch(model, version)
        if branch is None:
            self._reply(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
        elif what in ("info", "revision"):
            siblings = [{"rfilename": each} for each in model.files[branch]]
            self._reply(200, {"id": name, "sha": model.sha(branch), "siblings": siblings})
        elif what == "tree":
            self._reply(200, [_entry(*each) for each in sorted(model.files[branch].items())])
        elif what == "preupload":
            files = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["size"] >= LARGE else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for each in json.loads(body)["files"]
            ]
            self._reply(200, {"files": files, "commitOid": model.sha(branch)})
        elif what == "commit":
            self._commit(name, model, branch, [json.loads(line) for line in body.splitlines()])
        else:
            self._reply(404, {"error": what})

    def _commit(self, name: str, model: Model, branch: str, lines: list[dict]) -> None:
        files = model.files[branch]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                model.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.state.large[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"], None)
        sha = model.sha(branch)
        url = f"{self.state.endpoint}/{name}/commit/{sha}"
        self._reply(200, {"success": True, "commitUrl": url, "commitOid": sha, "hookOutput": ""})

    def _batch(self, asked: dict) -> None:
        objects = [
            {
                "oid": each["oid"],
                "size": each["size"],
                "actions": {"upload": {"href": f"{self.state.endpoint}/large/{each['oid']}"}},
            }
            for each in asked["objects"]
        ]
        self._reply(200, {"transfer": "basic", "objects": objects})

    def _file(self, name: str, version: str, path: str) -> None:
        model = self.state.models[name]
        branch = version if version in model.files else self._branch(model, version)
        if branch is None or path not in model.files[branch]:
            self._reply(404, {"error": path}, {"X-Error-Code": "EntryNotFound"})
            return
        data = model.files[branch][path]
        tag = hashlib.sha256(data).hexdigest()
        self._reply(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": model.sha(branch)})

    def _branch(self, model: Model, sha: str) -> str | None:
        return next((branch for branch in model.files if model.sha(branch) == sha), None)

    def _reply(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _entry(path: str, data: bytes) -> dict[str, object]:
    return {
        "type": "file",
        "path": path,
        "size": len(data),
        "oid": hashlib.sha1(data).hexdigest(),
    }
