"""Errors as the hub's clients understand them: a status, a code, and words for people."""

from collections.abc import Mapping

from starlette.responses import JSONResponse

from mergepipe.errors import (
    AmbiguousRevision,
    AuthenticationError,
    Corruption,
    IncompleteCheckpoint,
    InvalidRefName,
    Locked,
    MalformedFile,
    MergepipeError,
    NoSpace,
    NothingToCommit,
    RefMoved,
    RemoteUnreachable,
    RevisionNotFound,
    UnsafePath,
    UsageError,
)
from mergepipe.names import escape_for_terminal
from mergepipe.transfer.serving.gate import NotAllowed
from mergepipe.transfer.serving.offer import ReadOnly, TooLarge

REPO, REVISION, ENTRY = "RepoNotFound", "RevisionNotFound", "EntryNotFound"
# The very words by which the client tells a wrong token from a model that is not shown to it.
_BAD_TOKEN = "Invalid credentials in Authorization header"
_SHOWN = 400


class HubError(MergepipeError):
    """What a request is answered with instead. `code`: the hub's name for it, if it has one."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


def no_repository(name: str) -> HubError:
    """There is no model of this name."""
    return HubError(404, f"there is no model {escape_for_terminal(name, 200)}", REPO)


def no_revision(revision: str, error: MergepipeError | None = None) -> HubError:
    """A model has no such revision."""
    shown = escape_for_terminal(revision, 200)
    return HubError(404, str(error) if error else f"there is no revision {shown}", REVISION)


def no_entry(path: str, revision: str, commit: str = "") -> HubError:
    """A revision, whose commit may be named (40 hex digits), has no such file."""
    headers = {"X-Repo-Commit": commit} if commit else None
    shown = escape_for_terminal(path, 200)
    return HubError(404, f"{escape_for_terminal(revision, 200)} has no {shown}", ENTRY, headers)


def response(error: BaseException, *, hang_up: bool = False) -> JSONResponse:
    """The answer that tells of an error."""
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, HubError):
        status, code = error.status, error.code
        headers.update(error.headers)
    else:
        status, code = status_of(error), ""
    words = str(error) if isinstance(error, MergepipeError) else "the server failed"
    if isinstance(error, TimeoutError):
        words = str(error) or "nothing, or next to nothing, came for too long"
    told = words
    if type(error) is AuthenticationError:
        headers["WWW-Authenticate"] = "Bearer"
        if "not known" in error.message:
            told = _BAD_TOKEN
    if code:
        headers["X-Error-Code"] = code
    # Headers are one line of ASCII.
    line = escape_for_terminal(" ".join(told.split()), _SHOWN)
    headers["X-Error-Message"] = line.encode("ascii", "replace").decode()
    if hang_up:
        headers["Connection"] = "close"
    return JSONResponse({"error": words}, status, headers=headers)


def status_of(error: BaseException) -> int:
    """The status that tells of an error, but for a HubError, which has one."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


_STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (NotAllowed, 403),
    (ReadOnly, 403),
    (AuthenticationError, 401),
    (TooLarge, 413),
    (RevisionNotFound, 404),
    (AmbiguousRevision, 404),
    (InvalidRefName, 400),
    (UsageError, 400),
    (UnsafePath, 400),
    (MalformedFile, 400),
    (IncompleteCheckpoint, 400),
    (NothingToCommit, 400),
    (NoSpace, 507),
    (RefMoved, 412),
    (Locked, 409),
    (RemoteUnreachable, 503),
    (Corruption, 500),
    (MergepipeError, 500),
    (TimeoutError, 408),
)
