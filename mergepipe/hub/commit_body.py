"""The body of a commit, as the hub's clients send it: a line of JSON for each thing to do.

    {"key": "header", "value": {"summary": ..., "description": ..., "parentCommit": ...}}
    {"key": "file", "value": {"path": ..., "content": <base64>, "encoding": "base64"}}
    {"key": "lfsFile", "value": {"path": ..., "algo": "sha256", "oid": ..., "size": ...}}
    {"key": "deletedFile" | "deletedFolder", "value": {"path": ...}}

The content of a file, which may be all of a model, is decoded as it comes, and never held.
"""

import binascii
import json
import re
from typing import Any, TypeAlias

from msgspec import Struct, field

from mergepipe.hub.errors import HubError
from mergepipe.hub.staging import StagedFile, Staging, Upload
from mergepipe.names import escape_for_terminal

_CONTENT = re.compile(
    rb'\s*\{\s*"key"\s*:\s*"file"\s*,\s*"value"\s*:\s*\{(?:[^\n]*?[,{\s])?"content"\s*:\s*"'
)
_PREFIX_BYTES = 64 << 10
_LINE_BYTES = 1 << 20
_LINES_BYTES = 64 << 20
"""Of all lines together, less what files hold."""
_MOST_LINES = 100_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


class AddFile(Struct, frozen=True):
    """A file whose content came with the commit."""

    path: str
    file: StagedFile


class AddUploaded(Struct, frozen=True):
    """A file that was uploaded before, or is here anyway; `size` in bytes, where it is told."""

    path: str
    sha256: str
    size: int | None


class Delete(Struct, frozen=True):
    """A file, or with `folder` all below one, is to go."""

    path: str
    folder: bool


Operation: TypeAlias = AddFile | AddUploaded | Delete


class CommitBody(Struct):
    """What is to be committed. `parent`: the tip that the client saw (hex), if it says so."""

    summary: str = ""
    description: str = ""
    parent: str | None = None
    operations: list[Operation] = field(default_factory=list)

    @property
    def message(self) -> str:
        """Of the commit."""
        return f"{self.summary}\n\n{self.description}".strip()


class CommitReader:
    """Takes a body in pieces. Whoever reads one calls `close` in the end."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._line = bytearray()
        self._upload: Upload | None = None
        self._base64 = b""
        self._padded = False
        self._file: StagedFile | None = None
        self._taken: list[StagedFile] = []
        self._has_header = False
        self._read = 0
        self._lines = 0
        self.body = CommitBody()

    def feed(self, *pieces: bytes) -> None:
        """Take the next bytes. Raises HubError for what is no commit, NoSpace."""
        for piece in pieces:
            at = 0
            while at < len(piece):
                take = self._text if self._upload is None else self._content
                at = take(piece, at)

    def finish(self) -> CommitBody:
        """The whole. Raises HubError for one that was cut short."""
        if self._upload is not None:
            raise HubError(400, "the commit was cut short")
        if self._line.strip():
            self._end_line()
        if not self._has_header:
            raise HubError(400, "a commit begins with a header")
        return self.body

    def close(self, *, done: bool) -> None:
        """Let go of the files that came; `done`: they are committed."""
        if self._upload is not None:
            self._upload.abort()
            self._upload = None
        while self._taken:
            self._staging.give_back(self._taken.pop(), done=done)

    def _text(self, data: bytes, at: int) -> int:
        """Take bytes of a line until it ends or a file's content begins; returns where that is."""
        newline = data.find(b"\n", at)
        end = len(data) if newline < 0 else newline + 1
        before = len(self._line)
        self._line += data[at:end]
        if self._file is None and before < _PREFIX_BYTES:
            match = _CONTENT.match(self._line, 0, _PREFIX_BYTES)
            if match is not None:
                end = at + match.end() - before
                del self._line[match.end() :]
                self._upload = self._staging.begin(None)
                self._base64, self._padded = b"", False
                self._count(end - at)
                return end
        self._count(end - at)
        if len(self._line) > _LINE_BYTES:
            raise HubError(400, "a line of a commit is too long")
        if newline >= 0:
            self._end_line()
        return end

    def _count(self, read: int) -> None:
        self._read += read
        if self._read > _LINES_BYTES:
            raise HubError(413, "a commit that does not come to its end")

    def _content(self, data: bytes, at: int) -> int:
        """Take base64 until its end; returns where that is."""
        assert self._upload is not None
        quote = data.find(b'"', at)
        end = len(data) if quote < 0 else quote
        taken = self._base64 + data[at:end]
        whole = len(taken) if quote >= 0 else len(taken) // 4 * 4
        if taken:
            if self._padded:
                raise HubError(400, "the content of a file is not base64")
            try:
                decoded = binascii.a2b_base64(taken[:whole], strict_mode=True)
            except binascii.Error as error:
                raise HubError(400, f"the content of a file is not base64: {error}") from error
            self._padded = taken[:whole].endswith(b"=")
            self._upload.write(decoded)
        self._base64 = taken[whole:]
        if quote < 0:
            return end
        upload, self._upload = self._upload, None
        with upload:
            self._file = upload.finish()
        self._taken.append(self._file)
        return end

    def _end_line(self) -> None:
        line, file = bytes(self._line).strip(), self._file
        self._line.clear()
        self._file = None
        self._lines += 1
        if self._lines > _MOST_LINES:
            raise HubError(400, f"a commit has at most {_MOST_LINES:,} lines")
        if not line:
            return
        try:
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise HubError(400, "a line of a commit that cannot be read") from error
        if not isinstance(value, dict) or not isinstance(key, str):
            raise HubError(400, "a line of a commit that cannot be read")
        if key == "header":
            self._header(value)
        else:
            self.body.operations.append(_operation(key, value, file))

    def _header(self, value: dict[str, Any]) -> None:
        if self._has_header:
            raise HubError(400, "a commit has one header")
        self._has_header = True
        self.body.summary = _text_of(value, "summary", "")
        self.body.description = _text_of(value, "description", "")
        self.body.parent = _text_of(value, "parentCommit", "") or None


def _operation(key: str, value: dict[str, Any], file: StagedFile | None) -> Operation:
    path = _text_of(value, "path")
    if key == "file":
        if file is None or value.get("encoding", "base64") != "base64":
            raise HubError(400, f"{escape_for_terminal(path, 200)} comes without base64 content")
        return AddFile(path, file)
    if key == "lfsFile":
        oid, size = _text_of(value, "oid"), value.get("size")
        if not _SHA256.fullmatch(oid) or value.get("algo", "sha256") != "sha256":
            raise HubError(400, "large files are named by their SHA-256, 64 hex digits")
        if size is not None and (not isinstance(size, int) or size < 0):
            raise HubError(400, "the size of a file is a number of bytes")
        return AddUploaded(path, oid, size)
    if key in ("deletedFile", "deletedFolder"):
        return Delete(path.rstrip("/"), key == "deletedFolder" or path.endswith("/"))
    raise HubError(400, f"a commit cannot do {escape_for_terminal(key, 80)}")


def _text_of(value: dict[str, Any], name: str, otherwise: str | None = None) -> str:
    text = value.get(name, otherwise)
    if text is None and otherwise is not None:
        return otherwise
    if not isinstance(text, str):
        raise HubError(400, f"a commit says no {name}, or none that is text")
    return text
