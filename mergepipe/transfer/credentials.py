"""Who we are to a remote: tokens from the environment or from a file that only we can read.

Nothing here looks at the environment of the process: the command line passes it in.
"""

import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mergepipe.bytestore.untrusted import plain_status, status_of
from mergepipe.errors import AuthenticationError, ConfigError
from mergepipe.transfer.urls import WEB, RemoteUrl

TOKENS = "tokens"
"""The file of tokens in `.mergepipe/`."""
VARIABLE = "MP_TOKEN"

_MOST_BYTES = 1 << 20
# RFC 6750, section 2.1: what may stand after `Bearer `.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What transports may use, and never print or store.

    `environment` is that of the process, for ssh, obstore and the hub; `tokens` are by the name of
    a remote, or by origin (`https://host:443`).
    """

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    def token(self, url: RemoteUrl, name: str = "") -> str | None:
        """The bearer token for a web remote, or None.

        First MP_TOKEN_<NAME>, then MP_TOKEN, then the files: by name, then by origin. Raises
        AuthenticationError for one that no header can hold.
        """
        if url.scheme not in WEB:
            return None
        variable = f"{VARIABLE}_{re.sub('[^A-Z0-9]', '_', name.upper())}"
        found = (
            (name and self.environment.get(variable))
            or self.environment.get(VARIABLE)
            or (name and self.tokens.get(name))
            or self.tokens.get(url.origin)
        )
        if not found:
            return None
        if not _TOKEN.fullmatch(found.strip()):
            raise AuthenticationError(
                f"the token for {url} holds characters that a token cannot have",
                f"check {VARIABLE}, {variable} and the files of tokens",
            )
        return found.strip()


def gather(
    environment: Mapping[str, str], repository: Path | None = None, home: Path | None = None
) -> Credentials:
    """Credentials from an environment, the repository's file of tokens, and the user's own.

    `home` is the user's configuration directory (`~/.config/mergepipe`). In the repository's file
    keys are names of remotes or origins; in the user's only origins count, as the `origin` of
    one repository is not that of another. Raises ConfigError.
    """
    tokens: dict[str, str] = {}
    if home is not None:
        found = read_tokens(home / f"{TOKENS}.toml")
        tokens |= {key: token for key, token in found.items() if "://" in key}
    if repository is not None:
        path = repository / TOKENS
        if status_of(path) is not None:
            plain_status(path)  # the user's own file may be a link, this one not
        tokens |= read_tokens(path)
    return Credentials(environment, tokens)


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
    found = re.fullmatch(r"(https?)://([^/]+?)(:[0-9]+)?/?", key, re.IGNORECASE)
    if found is None:
        return key
    scheme, host, port = found[1].lower(), found[2].lower(), found[3]
    return f"{scheme}://{host}{port or (':443' if scheme == 'https' else ':80')}"
