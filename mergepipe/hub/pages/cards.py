"""A model's card as HTML: Markdown of anybody's, of which text, tables and links are left."""

import re
import threading
from collections.abc import Iterator, Sequence

from markupsafe import Markup
from msgspec import Struct

from mergepipe.api import Repository
from mergepipe.checkpoints.assembly import plan_file
from mergepipe.hub.decoding import DecodedBlocks
from mergepipe.hub.files import Files, Recent, content_key
from mergepipe.names import escape_for_terminal
from mergepipe.objects.records import FileEntry

CARD = "README.md"
MOST_BYTES = 64 << 10
"""A longer card is not shown: its file is there to download."""
_FRONT = re.compile(r"\A---[ \t]*\n(?P<front>.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"https?://", re.IGNORECASE)
_LOWER = 2
_CARDS = 256


class Card(Struct, frozen=True):
    """A card: what its front matter says, as it is written, and its text as HTML."""

    front: str
    body: Markup


class Cards:
    """Cards, the last ones from memory: Markdown can be written that takes seconds to read."""

    def __init__(self, files: Files) -> None:
        self._decoded = files.decoded
        self._read: Recent[bytes, Card] = Recent(_CARDS)
        self._lock = threading.Lock()

    def of(self, repository: Repository, entry: FileEntry) -> Card | None:
        """The card in a file; None where it is longer than MOST_BYTES."""
        if entry.size > MOST_BYTES:
            return None
        with self._lock:
            return self._read.get(
                content_key(entry), lambda: _card(self._decoded, repository, entry)
            )


def _card(decoded: DecodedBlocks, repository: Repository, entry: FileEntry) -> Card:
    parts = plan_file(entry, repository.objects).parts
    raw = b"".join(bytes(part) for part in decoded.read(repository.blocks, parts))
    text = raw.decode("utf-8", "replace").replace("\r\n", "\n").removeprefix("\ufeff")
    front = _FRONT.match(text)
    body = text[front.end() :] if front else text
    return Card(front["front"].rstrip() if front else "", markdown(body))


def markdown(text: str) -> Markup:
    """Markdown as HTML: markup in it is text, pictures are words, links lead to http(s) only.

    Without markdown-it-py: the text as it is.
    """
    shown = "\n".join(
        escape_for_terminal(line.replace("\t", "    ")).replace("\\\\", "\\")
        for line in text.split("\n")
    )
    try:
        from markdown_it import MarkdownIt
        from markdown_it.token import Token
    except ModuleNotFoundError:
        return Markup("<pre>{}</pre>").format(shown)

    def safe(tokens: Sequence[Token]) -> Iterator[Token]:
        """Tokens without what would be fetched, run, or be an element's own style."""
        closing: list[str] = []
        for token in tokens:
            token.attrs.pop("style", None)  # an alignment of a table; the page's policy refuses it
            if token.type in ("heading_open", "heading_close"):
                token.tag = f"h{min(6, int(token.tag[1:]) + _LOWER)}"
            elif token.type == "image":
                token = Token("text", "", 0, content=f"[picture: {token.content}]")
            elif token.type == "link_open":
                leads = _LINK.match(str(token.attrs.get("href", ""))) is not None
                closing.append("a" if leads else "span")
                token.tag = closing[-1]
                token.attrs = (
                    {"href": token.attrs["href"], "rel": "noopener noreferrer nofollow"}
                    if leads
                    else {}
                )
            elif token.type == "link_close":
                token.tag = closing.pop()
            if token.children is not None:
                token.children = list(safe(token.children))
            yield token

    reader = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    reader.disable(["html_block", "html_inline"])
    tokens = list(safe(reader.parse(shown)))
    # What the renderer writes is escaped by it: all that is text comes from tokens.
    return Markup(reader.renderer.render(tokens, reader.options, {}))
