"""Who we are to a remote: tokens from the environment or from a file that only we can read.

A token goes to the server that it was given for and to no other. What a repository's config calls
`origin` is anywhere: somebody else may have prepared it. So a variable, which names no server, is
for the servers that this user named: in MP_TOKEN_HOST, or as a URL on the command line, which the
user's own list of servers remembers.

Nothing here looks at the environment of the process: the command line passes it in.
"""

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mergepipe.bytestore.untrusted import plain_status, status_of
from mergepipe.bytestore.whole_calls import write_all
from mergepipe.errors import AuthenticationError, ConfigError
from mergepipe.names import quoted
from mergepipe.transfer.urls import WEB, RemoteUrl

TOKENS = "tokens"
"""The file of tokens in `.mergepipe/`."""
SERVERS = "servers"
"""The user's list of servers: origins that were URLs on a command line of theirs."""
VARIABLE = "MP_TOKEN"
HOSTS = "MP_TOKEN_HOST"

_MOST_BYTES = 1 << 20
_ORIGIN = re.compile(r"(https?)://([^/]+?)(:[0-9]+)?/?", re.IGNORECASE)
# RFC 6750, section 2.1: what may stand after `Bearer `.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What transports may use, and never print or store.

    `environment` is that of the process, for ssh, obstore and the hub; `tokens` are by the name of
    a remote, or by origin (`https://host:443`); `servers` are the origins that the user named.
    """

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    servers: frozenset[str] = frozenset()

    def token(self, url: RemoteUrl, name: str = "") -> str | None:
        """The bearer token for a web remote, or None; without a name, the user gave the URL.

        First MP_TOKEN_<NAME>, then MP_TOKEN, both only for a server that the user named, then the
        files: by name, then by origin. Raises AuthenticationError for one that no header can
        hold, ConfigError for an MP_TOKEN_HOST that names no servers.
        """
        if url.scheme not in WEB:
            return None
        given = self._of_environment(name) if self._is_for(url, name) else None
        found = given or (name and self.tokens.get(name)) or self.tokens.get(url.origin)
        if not found:
            return None
        if not _TOKEN.fullmatch(found.strip()):
            raise AuthenticationError(
                f"the token for {url} holds characters that a token cannot have",
                f"check {VARIABLE}, {_variable(name)} and the files of tokens",
            )
        return found.strip()

    def withheld(self, url: RemoteUrl, name: str = "") -> str:
        """Why the environment's token is not sent there, for a server that asks for one; or ""."""
        if url.scheme not in WEB or not self._of_environment(name) or self._is_for(url, name):
            return ""
        return (
            f"a token is in the environment, and was not sent: only this repository says that it "
            f"is for {url.origin}. If it is, set {HOSTS}={url.origin}"
        )

    def trusting(self, url: RemoteUrl) -> "Credentials":
        """These, where the user named the server of `url`."""
        return replace(self, servers=self.servers | {url.origin}) if url.scheme in WEB else self

    def abroad(self) -> "Credentials":
        """These, for another repository: its `origin` is not ours."""
        return replace(
            self, tokens={key: token for key, token in self.tokens.items() if "://" in key}
        )

    def _of_environment(self, name: str) -> str | None:
        # A remote called `host` has no variable: MP_TOKEN_HOST holds no token.
        variable = _variable(name)
        named = self.environment.get(variable) if name and variable != HOSTS else None
        return named or self.environment.get(VARIABLE)

    def _is_for(self, url: RemoteUrl, name: str) -> bool:
        hosts = self.environment.get(HOSTS, "")
        if hosts.strip():
            return url.origin in _named_servers(hosts)
        return not name or url.origin in self.servers


def gather(
    environment: Mapping[str, str], repository: Path | None = None, home: Path | None = None
) -> Credentials:
    """Credentials from an environment, the repository's file of tokens, and the user's own.

    `home` is the user's configuration directory (`~/.config/mergepipe`). In the repository's file
    keys are names of remotes or origins; in the user's only origins count, as the `origin` of
    one repository is not that of another. Raises ConfigError.
    """
    tokens: dict[str, str] = {}
    servers: frozenset[str] = frozenset()
    if home is not None:
        found = read_tokens(home / f"{TOKENS}.toml")
        tokens |= {key: token for key, token in found.items() if "://" in key}
        servers = read_servers(home / SERVERS)
    if repository is not None:
        path = repository / TOKENS
        if status_of(path) is not None:
            plain_status(path)  # the user's own file may be a link, this one not
        tokens |= read_tokens(path)
    return Credentials(environment, tokens, servers)


def read_servers(path: Path) -> frozenset[str]:
    """The origins in the user's list, one a line; none if there is no list that can be read."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode(errors="replace")
    except OSError:
        return frozenset()
    return frozenset(line.strip() for line in text.splitlines() if "://" in line)


def remember_server(path: Path, url: RemoteUrl) -> bool:
    """Add the server of a web URL to the user's list; whether it is there now, or need not be."""
    if url.scheme not in WEB or url.origin in read_servers(path):
        return True
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One short write at the end: two commands at once both get their line in.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            write_all(file, f"{url.origin}\n".encode())
        finally:
            os.close(file)
    except OSError:  # a home that is read-only, or none
        return False
    return True


def read_tokens(path: Path) -> dict[str, str]:
    """The tokens in a TOML file of `name = "token"` and `"https://host:port" = "token"`.

    Origins get their default port. Empty if there is no file. Raises ConfigError for one that
    others can read, or that is none.
    """
    try:
        with path.open("rb") as file:
            mode = path.stat().st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise ConfigError(f"others can read the tokens in {path}", f"chmod 600 {path}")
            text = file.read(_MOST_BYTES).decode()
        document = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # The parser's own message may quote a line, and with it a token.
        raise ConfigError(f"{path} is not valid TOML", 'a line is: origin = "token"') from None
    tokens = {}
    for key, token in document.items():
        if not isinstance(token, str):
            raise ConfigError(f"{path}: {key} is not a token", 'a line is: origin = "token"')
        tokens[_origin(key)] = token
    return tokens


def _origin(key: str) -> str:
    """An origin as `RemoteUrl.origin` writes it; a remote's name as it is."""
    match = _ORIGIN.fullmatch(key)
    if match is None:
        return key
    scheme, host, port = match[1].lower(), match[2].lower(), match[3]
    return f"{scheme}://{host}{port or (':443' if scheme == 'https' else ':80')}"


def _variable(name: str) -> str:
    return f"{VARIABLE}_{re.sub('[^A-Z0-9]', '_', name.upper())}"


def _named_servers(text: str) -> frozenset[str]:
    """The origins in MP_TOKEN_HOST; what has no scheme means https."""
    servers = set()
    for word in text.replace(",", " ").split():
        named = word if "://" in word else f"https://{word}"
        if not _ORIGIN.fullmatch(named):
            raise ConfigError(
                f"{HOSTS} names no server: {quoted(word)}", "https://host, host or host:port"
            )
        servers.add(_origin(named))
    return frozenset(servers)
