"""A byte store on a machine that ssh leads to: `mp serve --stdio` runs there, as git does it."""

import contextlib
import os
import re
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Sequence

from mergepipe.bytestore.pace import IDLE_S
from mergepipe.bytestore.retries import Retries
from mergepipe.bytestore.stdio import StdioByteStore
from mergepipe.errors import (
    AuthenticationError,
    MergepipeError,
    RemoteRefused,
    RemoteUnreachable,
    UsageError,
)
from mergepipe.names import escape_for_terminal

_PATIENCE_S = 120.0  # somebody may be typing a passphrase
_ENDING_S = 2.0
_KEPT_WORDS = 4096
_UNREACHABLE = 255
_NO_COMMAND = (126, 127)
# ssh itself asks on the terminal, never on stdin. Connections that die are noticed after 30 s.
_OPTIONS = ("ConnectTimeout=30", "ServerAliveInterval=10", "ServerAliveCountMax=3")
_DENIED = re.compile(r"permission denied|host key verification failed|too many authentication")


def ssh_command(
    host: str,
    path: str,
    *,
    user: str = "",
    port: int | None = None,
    command: str = "ssh",
    program: str = "mp",
    read_only: bool = False,
) -> list[str]:
    """The arguments that run the server for `path` on `host`.

    `command` is how ssh is run here, `program` how mp is run there; both may hold options, written
    as for a shell. Raises UsageError for a host, user or path that ssh would take for an option.
    """
    for what, value in (("host", host), ("user", user), ("path", path)):
        if value.startswith("-") or any(ord(letter) < 32 for letter in value):
            raise UsageError(f"a {what} that ssh or a shell would take for something else")
    if not host or not path or "@" in user:
        raise UsageError("ssh needs a host and a path")
    try:
        local, remote = shlex.split(command), shlex.split(program)
    except ValueError as error:
        raise UsageError(f"a command that no shell could read: {error}") from error
    if not local or not remote:
        raise UsageError("the command for ssh, or for mp on the other side, is empty")
    options = [word for option in _OPTIONS for word in ("-o", option)]
    if port is not None:
        options += ["-p", str(port)]
    serve = [*remote, "serve", "--stdio", *(["--read-only"] if read_only else []), "--", path]
    where = f"{user}@{host}" if user else host
    # sshd hands all words to a shell as one text: each is quoted for it.
    return [*local, "-T", *options, "--", where, shlex.join(serve)]


def ssh_store(
    host: str,
    path: str,
    *,
    user: str = "",
    port: int | None = None,
    command: str = "ssh",
    program: str = "mp",
    read_only: bool = False,
    idle_s: float = IDLE_S,
    patience_s: float = _PATIENCE_S,
    retries: Retries | None = None,
) -> StdioByteStore:
    """The repository at `path` on `host`. The connection is opened when it is needed.

    The words are those of `ssh_command`, and raise as there.
    """
    words = ssh_command(
        host, path, user=user, port=port, command=command, program=program, read_only=read_only
    )
    return StdioByteStore(
        lambda: Process(words, host, program),
        escape_for_terminal(host),
        idle_s=idle_s,
        patience_s=max(idle_s, patience_s),
        retries=retries,
    )


class Process:
    """A running client: the `Peer` of a line."""

    def __init__(self, words: Sequence[str], host: str, program: str) -> None:
        self._host = host
        self._program = program
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except OSError as error:
            raise UsageError(
                f"cannot run {escape_for_terminal(words[0])}: {error.strerror}",
                "install OpenSSH, or name another command in MP_SSH",
            ) from error
        self._words: deque[str] = deque(maxlen=50)
        self._listener = threading.Thread(target=self._listen, name="ssh", daemon=True)
        self._listener.start()

    @property
    def reading(self) -> int:
        """What comes from the server."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def writing(self) -> int:
        """What goes to the server."""
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def end(self) -> MergepipeError | None:
        """Close the line; a client that had failed says why."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        code: int | None = None
        try:
            code = process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_ENDING_S)
            process.kill()
            process.wait()
        process.stdout.close()
        self._listener.join(_ENDING_S)  # a connection that others share may keep it open
        return self._explain(code) if code else None

    def _listen(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        with stderr:
            while piece := os.read(stderr.fileno(), _KEPT_WORDS):
                self._words.append(piece.decode(errors="replace"))

    def _explain(self, code: int) -> MergepipeError:
        said = "".join(self._words).strip()[-_KEPT_WORDS:]
        hint = "\n".join(escape_for_terminal(line.rstrip("\r")) for line in said.split("\n")[-8:])
        host = escape_for_terminal(self._host)
        if code == _UNREACHABLE and _DENIED.search(said.lower()):
            return AuthenticationError(f"{host} does not let us in", hint)
        if code == _UNREACHABLE or code < 0:
            return RemoteUnreachable(f"cannot reach {host} with ssh", hint)
        if code in _NO_COMMAND:
            return RemoteRefused(
                f"{host} cannot run {escape_for_terminal(self._program)}",
                f"install mergepipe there, or say where it is\n{hint}".strip(),
            )
        return RemoteRefused(f"{host} did not serve (exit code {code})", hint)
