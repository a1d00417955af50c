"""Templates, filled: whatever they are given is text, made fit to be seen."""

import base64
import datetime
import hashlib
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

import mergepipe
from mergepipe.hub.pages import addresses
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size

_WHOLE_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def render(template: str, **values: Any) -> str:
    """The page of a template."""
    return _environment().get_template(template).render(**values)


@cache
def policy() -> str:
    """The Content-Security-Policy of every page: its own style, and nothing else of anywhere."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


@cache
def _style() -> str:
    place = resources.files("mergepipe.hub.pages").joinpath("templates", "style.css")
    return place.read_text("utf-8")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mergepipe.hub.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_fit,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "size": format_size,
        "when": when,
        "day": lambda seconds: when(seconds).partition(" ")[0],
        "clock": lambda seconds: when(seconds).partition(" ")[2],
        "lines": lines,
        "share": share,
        "brief": brief,
    }
    environment.filters |= filters
    environment.globals |= {
        "page": addresses.page,
        "file": addresses.file,
        "style": Markup(_style()),
        "version": mergepipe.__version__,
    }
    return environment


def _fit(value: Any) -> Any:
    """What an expression of a template gives, without what would turn the text around it."""
    return escape_for_terminal(value) if type(value) is str else value


def lines(text: str, *, spelled: bool = True) -> Markup:
    """Text of several lines, for an element that keeps them; not `spelled`: of our own making."""
    fit = escape_for_terminal if spelled else str
    return Markup("\n").join(escape(fit(line)) for line in text.split("\n"))


def when(seconds: int) -> str:
    """A moment (Unix seconds) to the minute, in UTC."""
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, ValueError, OSError):  # a damaged clock's
        return f"@{seconds}"
    return moment.strftime("%Y-%m-%d %H:%M")


def brief(revision: str) -> str:
    """A revision as headings show it: of a whole id its first digits."""
    return revision[:12] if _WHOLE_ID.fullmatch(revision) else revision


def share(part: float | None) -> str:
    """A share (0 to 1) in per cent; nothing of what is not known."""
    return "" if part is None else f"{part:.1%}"
