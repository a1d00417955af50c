"""URLs of remotes: parsed once, into a frozen value that cannot hurt whoever uses it.

What ends up as an argument of another program (host, user, path) never begins with `-`, nothing
holds a control character, and a URL with a password is refused: it would be stored and printed.
"""

import re
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from msgspec import Struct

from mergepipe.errors import UsageError
from mergepipe.names import quoted

_LONGEST = 4096


class Scheme(StrEnum):
    """What kind of place a URL names."""

    FILE = "file"
    SSH = "ssh"
    HTTP = "http"
    HTTPS = "https"
    S3 = "s3"
    GS = "gs"
    AZ = "az"
    HUB = "hf"


CLOUD = frozenset((Scheme.S3, Scheme.GS, Scheme.AZ))
WEB = frozenset((Scheme.HTTP, Scheme.HTTPS))

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FILE = re.compile(r"file:(?!//)", re.IGNORECASE)
_SCP = re.compile(r"(?:(?P<user>[^@/:\[\]]*)@)?(?P<host>\[[^\]/]*\]|[^/:\[\]@]+):(?P<path>.*)")
_AUTHORITY = re.compile(
    r"(?:(?P<user>[^@]*)@)?(?P<host>\[[^\]]*\]|[^:@\[\]]*)(?::(?P<port>[0-9]*))?"
)
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\]")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+\\-]{0,127}")
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; gs:// allows `_`.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}[A-Za-z0-9]")
# https://huggingface.co/docs/huggingface_hub: names of at most 96 characters.
# One slash where a path was made of it.
_HUB_PAGE = re.compile(
    r"https?:/{1,2}(?:www\.)?(?:huggingface\.co|hf\.co)(?::[0-9]*)?(?:/+(?P<model>[^/]+/[^/]+).*|/.*)?",
    re.IGNORECASE,
)
_HUB_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_HUB_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,254}")


class RemoteUrl(Struct, frozen=True):
    """Where a remote is.

    `host`: of ssh and http(s), a bare name or address (IPv6 without brackets); of buckets, the
    bucket or container; empty otherwise. `path`: an absolute path (file), a path on the other
    machine (ssh: relative ones begin at the home directory), that of the URL without a slash at
    the end (http), a prefix without slashes at its ends (buckets), or `org/name` (hub).
    `revision` is the hub's. `shown` is what may be stored, printed and parsed again.
    """

    scheme: Scheme
    host: str
    path: str
    shown: str
    user: str = ""
    port: int | None = None
    revision: str = ""

    def __str__(self) -> str:
        return self.shown

    @property
    def local(self) -> Path:
        """The path of a file URL."""
        assert self.scheme is Scheme.FILE
        return Path(self.path)

    @property
    def origin(self) -> str:
        """`https://host:port` of a web URL, which is what a token is for."""
        port = self.port or (443 if self.scheme is Scheme.HTTPS else 80)
        return f"{self.scheme}://{_bracketed(self.host).lower()}:{port}"


def is_hub(text: str) -> bool:
    """Whether `text` is meant for the Hugging Face hub: `hf://...`."""
    return text[:5].lower() == "hf://"


def model_of_page(text: str) -> str | None:
    """What a page of the Hugging Face hub is about, as `org/name`; None for any other text."""
    page = _HUB_PAGE.fullmatch(text)
    return None if page is None else page["model"] or "org/name"


def parse_url(text: str, here: Path | None = None) -> RemoteUrl:
    """The place that `text` names; relative paths begin at `here` (default: where we are).

    Raises UsageError for what is no URL, and for one that must not be used.
    """
    if not text or len(text) > _LONGEST:
        raise _refused(text, "it is empty" if not text else "it is too long")
    if _unprintable(text):
        raise _refused(text, "it holds a control character")
    match = _SCHEME.match(text)
    if match is not None:
        rest = text[match.end() :]
        try:
            scheme = Scheme(match[1].lower())
        except ValueError:
            raise UsageError(
                f"no transport for {quoted(match[1] + '://')}",
                "there are paths, file, ssh, http, https, s3, gs, az; and hf for commit and push",
            ) from None
        return _PARSERS[scheme](scheme, rest, text)
    if _FILE.match(text):
        return _file(Scheme.FILE, text[5:], text)
    scp = _SCP.fullmatch(text)
    if scp is not None:
        return _ssh_path(scp["user"], scp["host"], None, scp["path"], text)
    if text.startswith("-"):
        raise _refused(text, "it begins with '-'", f"a path is written ./{text}")
    return _local(Path(text), here)


def _local(path: Path, here: Path | None = None) -> RemoteUrl:
    absolute = (here or Path()).absolute() / path
    # A link stays one, so that its owner may move it; `..` means what it means to the system.
    if ".." in absolute.parts:
        absolute = absolute.resolve()
    return RemoteUrl(scheme=Scheme.FILE, host="", path=str(absolute), shown=str(absolute))


def _file(scheme: Scheme, rest: str, text: str) -> RemoteUrl:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise _refused(text, "it names no absolute path", "file:///srv/models, or just the path")
    return _local(Path(_decoded("/" + path, text)))


def _ssh(scheme: Scheme, rest: str, text: str) -> RemoteUrl:
    authority, _, path = rest.partition("/")
    user, host, port = _authority(authority, text)
    path = _decoded(path, text)
    # As in git: ssh://host/~/x is below the home directory, all else is absolute.
    return _ssh_path(user, host, port, path if path.startswith("~") else f"/{path}", text)


def _ssh_path(user: str | None, host: str, port: int | None, path: str, text: str) -> RemoteUrl:
    _check_host(host, text)
    if user is not None and not _USER.fullmatch(user):
        raise _refused(text, f"{quoted(user)} is no user name")
    relative = not path.startswith("/")
    if path.startswith("~"):
        home, _, path = path.partition("/")
        if home != "~":
            raise _refused(text, f"{quoted(home)} is not expanded", "write the path in full")
    if path.startswith("-"):
        raise _refused(text, "its path begins with '-'", "write ./ before it")
    path = path.rstrip("/") or ("." if relative else "")
    if not path:
        raise _refused(text, "it names no path")
    who = f"{user}@" if user else ""
    where = who + host + (f":{port}" if port is not None else "")
    below = f"/~/{quote(path)}" if relative else quote(path)
    return RemoteUrl(
        scheme=Scheme.SSH,
        host=host.strip("[]"),
        path=path,
        shown=f"ssh://{where}{below}",
        user=user or "",
        port=port,
    )


def _web(scheme: Scheme, rest: str, text: str) -> RemoteUrl:
    authority, _, path = rest.partition("/")
    user, host, port = _authority(authority, text)
    if user is not None:
        raise _refused(text, "it holds a name or token", _TOKENS)
    _check_host(host, text)
    if "?" in rest or "#" in rest:
        raise _refused(text, "it has a query or fragment")
    parts = [part for part in _decoded(path, text).split("/") if part]
    if "." in parts or ".." in parts:
        raise _refused(text, "its path holds '.' or '..'")
    model = model_of_page(text)
    if model is not None:
        raise UsageError(
            f"{quoted(text)} is a page of the Hugging Face hub, which keeps no history of ours",
            f"mp commit hf://{model} takes the model in; mp push hf://{model} sends one there",
        )
    path = "".join("/" + quote(part, safe="~!$&'()*+,;=:@") for part in parts)
    where = host + (f":{port}" if port is not None else "")
    return RemoteUrl(
        scheme=scheme,
        host=host.strip("[]"),
        path=path,
        shown=f"{scheme}://{where}{path}",
        port=port,
    )


def _bucket(scheme: Scheme, rest: str, text: str) -> RemoteUrl:
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket or ":" in bucket:
        raise _refused(text, "it holds credentials", "they come from the environment or a profile")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise _refused(text, f"{quoted(bucket)} is no name for a bucket")
    prefix = prefix.strip("/")
    if prefix and any(part in ("", ".", "..") for part in prefix.split("/")):
        raise _refused(text, "a part of its prefix is empty, '.' or '..'")
    if any(letter in "?#\\" for letter in prefix):
        raise _refused(text, "its prefix holds '?', '#' or a backslash")
    shown = f"{scheme}://{bucket}" + (f"/{prefix}" if prefix else "")
    return RemoteUrl(scheme=scheme, host=bucket, path=prefix, shown=shown)


def _hub(scheme: Scheme, rest: str, text: str) -> RemoteUrl:
    name, at, revision = rest.partition("@")
    parts = name.split("/")
    fine = len(parts) <= 2 and all(_HUB_PART.fullmatch(part) for part in parts)
    if not fine or ".." in name or "--" in name:
        raise _refused(text, "it names no model", "a model is hf://org/name or hf://org/name@rev")
    if at and (not _HUB_REVISION.fullmatch(revision) or ".." in revision):
        raise _refused(text, f"{quoted(revision)} is no revision")
    return RemoteUrl(
        scheme=scheme, host="", path=name, shown=f"hf://{name}{at}{revision}", revision=revision
    )


def _authority(authority: str, text: str) -> tuple[str | None, str, int | None]:
    """User, host and port. A password is refused here, and not repeated in the message."""
    if ":" in authority.rpartition("@")[0]:
        raise UsageError("the URL holds a password: it would be stored and printed", _TOKENS)
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise _refused(text, f"{quoted(authority)} is no host")
    port = int(match["port"]) if match["port"] and len(match["port"]) < 6 else None
    if match["port"] is not None and (port is None or not 0 < port < 65536):
        raise _refused(text, f"{quoted(match['port'])} is no port")
    return match["user"], match["host"], port


def _check_host(host: str, text: str) -> None:
    if not _HOST.fullmatch(host):
        raise _refused(text, f"{quoted(host)} is no host")


def _decoded(path: str, text: str) -> str:
    """`%20` and the like resolved, as git does in URLs."""
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise _refused(text, "its path is not UTF-8") from None
    if _unprintable(decoded):
        raise _refused(text, "its path holds a control character")
    return decoded


def _unprintable(text: str) -> bool:
    return any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in text) or any(
        0xD800 <= ord(letter) < 0xE000 for letter in text
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _refused(text: str, why: str, hint: str = "") -> UsageError:
    return UsageError(f"not a URL for a remote: {quoted(_without_secret(text))}: {why}", hint)


def _without_secret(text: str) -> str:
    """A URL as a message may show it: without whatever stands before an `@` after `://`."""
    return re.sub(r"://[^/]*@", "://***@", text)


_TOKENS = "tokens come from MP_TOKEN, or a file that only you can read: docs/remotes.md"
_PARSERS = {
    Scheme.FILE: _file,
    Scheme.SSH: _ssh,
    Scheme.HTTP: _web,
    Scheme.HTTPS: _web,
    Scheme.S3: _bucket,
    Scheme.GS: _bucket,
    Scheme.AZ: _bucket,
    Scheme.HUB: _hub,
}
