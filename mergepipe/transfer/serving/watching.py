"""What a server tells of itself: an access log, `/healthz`, and `/metrics` for Prometheus.

It stands before whatever answers (ASGI), and knows of requests what can be seen from outside.
"""

import logging
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct, field
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mergepipe.bytestore.elsewhere import located
from mergepipe.bytestore.whole_calls import write_all
from mergepipe.errors import AuthenticationError
from mergepipe.transfer.serving.gate import Gate, NotAllowed
from mergepipe.transfer.serving.listening import Serving
from mergepipe.transfer.serving.tokens import Scope as Allowed

HEALTH, METRICS = "/healthz", "/metrics"
# Of requests, in seconds: a small value, a range of a pack, a push that is decoded.
_BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
_ROUTE = re.compile(
    r"(?:^|/)v1/(?P<route>value|values|keys|swap|swaps|holds|pick|locate|footers|purge)(?:/|$)"
)
_FOLDERS = ("packs", "incoming", "quarantine", "promised")

_log = logging.getLogger("mergepipe.serve")


def route_of(path: str) -> str:
    """What a path asks for, as metrics count it; `hub` for what is no question of a remote."""
    match = _ROUTE.search(path)
    return "hub" if match is None else match["route"]


class Access(msgspec.Struct, frozen=True):
    """A line of the access log: `bytes_in`, `bytes_out` of bodies; `token` by its name.

    `status` 0: the client went away before there was one.
    """

    time: float
    address: str
    token: str
    method: str
    path: str
    status: int
    bytes_in: int
    bytes_out: int
    seconds: float


class AccessLog:
    """Lines of JSON at the end of a file, which is opened for each: it may be moved away.

    None: standard output.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def append(self, entry: Access) -> None:
        """Add a line. Raises OSError."""
        line = msgspec.json.encode(entry) + b"\n"
        if self._path is None:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o640)
        try:
            write_all(descriptor, line)  # one call: lines of several processes stay whole
        finally:
            os.close(descriptor)


class _Seen(Struct):
    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    within: Counter[float] = field(default_factory=Counter)
    seconds: float = 0.0
    count: int = 0


class Watch:
    """Counts what passes. May be used from any thread.

    `repositories` gives those that are served, by name, when metrics are asked for. With
    `open_metrics` these need no token; else one that may read.
    """

    def __init__(
        self,
        gate: Gate,
        repositories: Callable[[], Mapping[str, Path]],
        log: AccessLog | None = None,
        *,
        open_metrics: bool = False,
    ) -> None:
        self._gate = gate
        self._repositories = repositories
        self._access = log
        self._open_metrics = open_metrics
        self._lock = threading.Lock()
        self._seen = _Seen()

    def over(self, service: Serving) -> Serving:
        """The same service, watched."""
        return _Watched(self, service)

    def note(self, entry: Access) -> None:
        """Count a request, and write it down."""
        route = route_of(entry.path)
        with self._lock:
            seen = self._seen
            seen.requests[entry.method, route, entry.status] += 1
            seen.bytes["in"] += entry.bytes_in
            seen.bytes["out"] += entry.bytes_out
            seen.seconds += entry.seconds
            seen.count += 1
            for limit in _BUCKETS:
                seen.within[limit] += entry.seconds <= limit
        if self._access is not None:
            try:
                self._access.append(entry)
            except OSError as error:  # a full disk is no reason to serve nobody
                _log.error("cannot write to the access log: %s", error)

    def token(self, headers: Mapping[str, str]) -> str:
        """What the access log calls the token of a request."""
        return self._gate.name(headers)

    def refusal(self, headers: Mapping[str, str]) -> AuthenticationError | None:
        """Why a request may not have the metrics; None: it may."""
        if self._open_metrics:
            return None
        try:
            self._gate.check(headers, Allowed.READ)
        except AuthenticationError as error:
            return error
        return None

    def metrics(self, busy: int) -> str:
        """All counters, in Prometheus' text format 0.0.4."""
        with self._lock:
            seen = self._seen
            requests = sorted(seen.requests.items())
            errors = sum(count for (_, _, status), count in requests if status >= 500)
            lines = [*_head("requests_total", "counter", "Requests answered.")]
            lines += [
                f'mergepipe_requests_total{{method="{method}",route="{route}",status="{status}"}} '
                f"{count}"
                for (method, route, status), count in requests
            ]
            lines += [*_head("errors_total", "counter", "Requests that failed here (5xx).")]
            lines += [f"mergepipe_errors_total {errors}"]
            lines += [*_head("bytes_total", "counter", "Bytes of bodies, in and out.")]
            lines += [
                f'mergepipe_bytes_total{{direction="{way}"}} {seen.bytes[way]}'
                for way in ("in", "out")
            ]
            lines += [*_head("request_seconds", "histogram", "How long requests took.")]
            lines += [
                f'mergepipe_request_seconds_bucket{{le="{limit:g}"}} {seen.within[limit]}'
                for limit in _BUCKETS
            ]
            lines += [
                f'mergepipe_request_seconds_bucket{{le="+Inf"}} {seen.count}',
                f"mergepipe_request_seconds_sum {seen.seconds:.6f}",
                f"mergepipe_request_seconds_count {seen.count}",
            ]
        lines += [*_head("calls_under_way", "gauge", "Calls of stores under way.")]
        lines += [f"mergepipe_calls_under_way {busy}"]
        lines += [*_head("repository_bytes", "gauge", "Bytes of files of a repository, by folder.")]
        sizes = {name: _sizes(place) for name, place in sorted(self._repositories().items())}
        for name, folders in sizes.items():
            lines += [
                f'mergepipe_repository_bytes{{repository="{_label(name)}",folder="{folder}"}} '
                f"{size}"
                for folder, (size, _) in folders.items()
            ]
        lines += [*_head("repository_packs", "gauge", "Packs of a repository.")]
        lines += [
            f'mergepipe_repository_packs{{repository="{_label(name)}"}} {folders["packs"][1]}'
            for name, folders in sizes.items()
        ]
        return "\n".join(lines) + "\n"


class _Watched:
    """A service behind a watch."""

    def __init__(self, watch: Watch, service: Serving) -> None:
        self._watch = watch
        self._service = service
        self._application: ASGIApp = service.application()

    @property
    def busy(self) -> int:
        """How many calls of a store are under way."""
        return self._service.busy

    def application(self) -> ASGIApp:
        """What listens calls."""
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        headers = Headers(scope=scope)
        began, at = time.time(), time.monotonic()
        status, size, taken = 0, 0, 0

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        async def receiving() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            return message

        try:
            await self._answer(scope, receiving, sending, headers)
        finally:
            client = scope.get("client")
            self._watch.note(
                Access(
                    time=round(began, 3),
                    address="" if client is None else client[0],
                    token=self._watch.token(headers),
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    bytes_in=taken,
                    bytes_out=size,
                    seconds=round(time.monotonic() - at, 6),
                )
            )

    async def _answer(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        if scope["path"] == HEALTH:
            await PlainTextResponse("ok\n")(scope, receive, send)
        elif scope["path"] == METRICS:
            refusal = self._watch.refusal(headers)
            if refusal is None:
                text = self._watch.metrics(self._service.busy)
                reply = PlainTextResponse(text, media_type="text/plain; version=0.0.4")
            else:
                code = 403 if isinstance(refusal, NotAllowed) else 401
                told = {"WWW-Authenticate": "Bearer"} if code == 401 else {}
                reply = PlainTextResponse(f"{refusal.message}\n", code, told)
            await reply(scope, receive, send)
        else:
            await self._application(scope, receive, send)


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP mergepipe_{name} {text}", f"# TYPE mergepipe_{name} {kind}"


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _sizes(directory: Path) -> dict[str, tuple[int, int]]:
    """Bytes and number of the files in the folders of a repository that hold models."""
    sizes = {}
    for folder in _FOLDERS:
        size = count = 0
        try:
            with os.scandir(located(directory, folder)) as entries:
                for each in entries:
                    if each.is_file(follow_symlinks=False):
                        size += each.stat(follow_symlinks=False).st_size
                        count += 1
        except FileNotFoundError:
            pass
        sizes[folder] = size, count
    return sizes
