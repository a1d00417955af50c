"""What `mp commit` and `mp push` do with hf:// URLs."""

import os
import re
import sys
import time
from pathlib import Path

import msgspec

from mergepipe.cli.session import Session
from mergepipe.cli.text import count, duration, short
from mergepipe.errors import MergepipeError, UsageError
from mergepipe.names import escape_for_terminal, quoted
from mergepipe.sizes import format_size
from mergepipe.transfer.urls import model_of_page

_MANGLED = "hf:/"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*")


class HubPushDocument(msgspec.Struct, frozen=True):
    """`mp push hf://... --json`. `hub_commit` is the hub's id of the new version.

    `created`: whether the model was made there (it is private then).
    """

    remote: str
    url: str
    commit: str
    hub_commit: str
    page: str
    created: bool
    files: int
    raw_bytes: int
    seconds: float


def hub_url(path: Path | None) -> str | None:
    """The hf:// URL that was typed where a path may stand, or None.

    The parser makes a path of it, and a path has no double slashes.
    """
    text = "" if path is None else str(path)
    if not text.startswith(_MANGLED):
        return None
    return f"hf://{text.removeprefix(_MANGLED)}"


def check_no_hub_name(path: Path | None) -> None:
    """Raise MergepipeError for a page of the hub, and for `org/name` that is no file here."""
    text = "" if path is None else str(path)
    model = model_of_page(text)
    if model is not None:
        raise MergepipeError(
            f"{quoted(text)} is a page of the Hugging Face hub, and no file",
            f"its model is hf://{model}",
        )
    if path is not None and _HUB_NAME.fullmatch(text) and not os.path.lexists(path):
        raise MergepipeError(
            f"there is no {quoted(text)}", f"one of the Hugging Face hub is hf://{text}"
        )


def quiet_hub(session: Session) -> bool:
    """Whether the hub's own progress bars stay away: they are for people."""
    return session.quiet or session.as_json or not sys.stderr.isatty()


def push_to_hub(
    session: Session,
    url: str,
    revisions: list[str],
    *,
    exact: bool,
    others: bool,
    verify: bool = True,
) -> None:
    """Upload one revision. `exact`: --force was given; `others`: an option that makes no sense."""
    from mergepipe.api import hub

    if others or len(revisions) > 1 or any(":" in each for each in revisions):
        raise UsageError(
            "the hub takes the files of one revision: it has no history of ours",
            "mp push hf://org/name[@branch] [REV] [--force]",
        )
    began = time.monotonic()
    with session.repository() as repository, session.progress() as progress:
        made = hub.push(
            repository,
            url,
            *revisions,
            exact=exact,
            verify=verify,
            quiet=quiet_hub(session),
            progress=progress,
        )
    seconds = time.monotonic() - began
    document = HubPushDocument(
        remote=made.url.shown,
        url=made.url.shown,
        commit=made.commit.hex(),
        hub_commit=made.upload.commit,
        page=made.upload.page,
        created=made.upload.created,
        files=made.files,
        raw_bytes=made.raw_bytes,
        seconds=round(seconds, 3),
    )
    text = (
        f"To {escape_for_terminal(made.url.shown)}\n"
        f"  {short(made.commit)}: {count(made.files, 'file')}, {format_size(made.raw_bytes)}, "
        f"{duration(seconds)}\n"
        f"  {escape_for_terminal(made.upload.page)}"
    )
    session.emit(document, "" if session.quiet else text)
    if made.upload.created:
        session.say("the model is new there, and private: its settings on the hub change that")
