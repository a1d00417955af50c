"""Pages by request: which one, for whom, and on which threads."""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from mergepipe.errors import AuthenticationError, MergepipeError
from mergepipe.hub.errors import HubError, status_of
from mergepipe.hub.files import Files
from mergepipe.hub.pages.addresses import ROOT, Place, page, place_of
from mergepipe.hub.repositories import Repositories
from mergepipe.hub.work import Work
from mergepipe.transfer.serving.gate import Gate, NotAllowed

_THREADS = {"look": 4, "count": 2, "compute": 2}
"""Threads that make pages, by what these take: few, so that cores are left to downloads."""
_TAKES = {"model": "count", "storage": "count", "merge": "compute", "diff": "compute"}
_WAITING = 32
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_CHALLENGE = 'Basic realm="mergepipe", charset="UTF-8"'

_log = logging.getLogger("mergepipe.serve")


class Pages:
    """The pages of repositories. They are only read."""

    def __init__(self, repositories: Repositories, gate: Gate, files: Files, work: Work) -> None:
        self._repositories = repositories
        self._gate = gate
        self._files = files
        self._work = work
        self._threads = {
            takes: ThreadPoolExecutor(number, thread_name_prefix=f"hub-pages-{takes}")
            for takes, number in _THREADS.items()
        }
        self._slots = asyncio.Semaphore(_WAITING)
        self._views: Any = None

    @staticmethod
    def are_asked_for(request: Request, parts: tuple[str, ...]) -> bool:
        """Whether a request is one for a page, and not one that the hub's clients make."""
        if request.method not in ("GET", "HEAD"):
            return False
        if parts[0] == ROOT:
            return True
        by_browser = "text/html" in request.headers.get("accept", "")
        return by_browser and len(parts) <= 2 and parts[0] != "api"

    async def answer(self, request: Request, parts: tuple[str, ...], base_url: str) -> Response:
        """The page at an address, or one that says why there is none."""
        try:
            from mergepipe.hub.pages import rendering
        except ModuleNotFoundError as error:
            text = (
                f"pages need {error.name}, which is not installed: pip install 'mergepipe[http]'\n"
            )
            return PlainTextResponse(text, HTTPStatus.NOT_IMPLEMENTED, _HEADERS)
        try:
            self._gate.check_browser(request.headers)
            if parts[0] != ROOT and parts != ("",):
                # As the hub's own pages are called: /NAME/BRANCH.
                return RedirectResponse(
                    page(parts[0], *_model(parts[1:])), HTTPStatus.SEE_OTHER, _HEADERS
                )
            place = place_of(parts, request.query_params)
            if self._slots.locked():
                raise HubError(
                    503,
                    "too many pages are asked for at once: try again in a moment",
                    headers={"Retry-After": "5"},
                )
            async with self._slots:
                threads = self._threads[_TAKES.get(place.kind, "look")]
                text = await self._work.calls.run(
                    threads, self._write, place, dict(request.query_params), base_url
                )
            status, headers = 200, _HEADERS
        except (MergepipeError, OSError) as error:
            status, headers, text = self._refusal(request, error)
        headers = headers | {"Content-Security-Policy": rendering.policy()}
        return HTMLResponse(text, status, headers)

    def _refusal(self, request: Request, error: BaseException) -> tuple[int, dict[str, str], str]:
        from mergepipe.hub.pages.rendering import render

        status = error.status if isinstance(error, HubError) else status_of(error)
        headers = _HEADERS | (dict(error.headers) if isinstance(error, HubError) else {})
        if not isinstance(error, MergepipeError):
            _log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
        if isinstance(error, AuthenticationError) and not isinstance(error, NotAllowed):
            headers["WWW-Authenticate"] = _CHALLENGE
            what, hint = "A token is needed", "Any name, and a token that may read as the password."
        elif isinstance(error, MergepipeError):
            # An error that was passed on as one of the hub's has its hint in its words.
            what, _, hint = str(error).partition("\nhint: ")
            what = what[:1].upper() + what[1:]
        else:
            what, hint = "The server failed", "What went wrong stands in its log."
        title = f"{status} {HTTPStatus(status).phrase}"
        return status, headers, render("error.html", title=title, what=what, hint=hint)

    def _write(self, place: Place, query: Mapping[str, str], base_url: str) -> str:
        """The page of a place, on a thread: it reads disks."""
        from mergepipe.hub.pages.rendering import render
        from mergepipe.hub.pages.views import Views

        if self._views is None:
            self._views = Views(self._repositories, self._files)
        template, values = self._views.of(place, query, base_url)
        return render(template, place=place, **values)


def _model(parts: tuple[str, ...]) -> tuple[str, ...]:
    return ("model", parts[0]) if parts and parts[0] else ()
