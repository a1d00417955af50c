"""Hooks: the user's programs that run before and after what changes a repository.

What each is told is in docs/cli.md, "Hooks". They are code: only the user's own run, in their own
repository, and no clone, fetch or push ever brings one.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from msgspec import Struct

from mergepipe.bytestore.untrusted import beneath, plain_status
from mergepipe.errors import HookFailed
from mergepipe.names import escape_for_terminal
from mergepipe.repository.layout import HOOKS

PRE_COMMIT = "pre-commit"
PRE_MERGE = "pre-merge"
POST_MERGE = "post-merge"
PRE_PUSH = "pre-push"
PRE_RECEIVE = "pre-receive"
_STDERR = 2
_MOST_WORDS = 2000
_CHUNK = 1 << 16


class Hooks(Struct, frozen=True):
    """The hooks of a repository (`directory`: its `.mergepipe`), in the environment they get."""

    directory: Path
    enabled: bool
    environment: Mapping[str, str]

    def has(self, name: str) -> bool:
        """Whether one will be run, or complained of."""
        return self.enabled and os.path.lexists(self.directory / HOOKS / name)

    def run(self, name: str, variables: Mapping[str, str], lines: Sequence[str] = ()) -> bool:
        """Run one, if it is there and hooks are on; see `run_hook`."""
        if not self.enabled:
            return False
        return run_hook(self.directory, name, variables, self.environment, lines)


def run_hook(
    directory: Path,
    name: str,
    variables: Mapping[str, str],
    environment: Mapping[str, str],
    lines: Sequence[str] = (),
) -> bool:
    """Run the hook `name` of the repository `directory` (its `.mergepipe`), if there is one.

    It inherits `environment`, plus `variables`, MP_DIR and MP_HOOK, and runs where `.mergepipe`
    is, with `lines` as its input. What it prints goes to this process's stderr. Returns whether
    there was one. Raises HookFailed, with its last words, if it cannot run, is another user's (or
    lies in another's repository), or exits with an error.
    """
    program = directory / HOOKS / name
    try:
        owners = {
            plain_status(beneath(directory, f"{HOOKS}/{name}")).st_uid,
            directory.stat().st_uid,
        }
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not os.access(program, os.X_OK):
        raise HookFailed(
            f"the hook {program} is not executable",
            f"`chmod +x` it, or rename it to {name}.sample to switch it off",
        )
    # A repository found in a parent directory may be somebody else's: CVE-2022-24765 in git.
    if not owners <= {0, os.geteuid()}:
        raise HookFailed(
            f"the hook {program} belongs to another user, or its repository does, so it is not run",
            "make both your own, or turn hooks off: `mp config hooks.enabled false`",
        )
    told = {**environment, **variables, "MP_DIR": str(directory), "MP_HOOK": name}
    with tempfile.TemporaryFile() as given:
        given.write("".join(f"{line}\n" for line in lines).encode())
        given.seek(0)
        try:
            # What it prints is no part of the result of the command that the hook is part of.
            running = subprocess.Popen(
                [program],
                cwd=directory.parent,
                env=told,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise HookFailed(
                f"the hook {program} cannot run: {error.strerror}",
                "a script needs a first line such as #!/bin/sh",
            ) from error
        assert running.stdout is not None
        with running, running.stdout as printed:
            words = _pass_on(printed)
    status = running.returncode
    if status:
        how = f"exit code {status}" if status > 0 else f"killed by signal {-status}"
        said = f": {escape_for_terminal(words)}" if words else ""
        raise HookFailed(f"the hook {name} failed ({how}){said}", f"what it checks is in {program}")
    return True


def _pass_on(printed: IO[bytes]) -> str:
    """Show what a hook prints while it prints it; returns its last line with something in it."""
    sys.stderr.flush()
    last = b""
    while piece := os.read(printed.fileno(), _CHUNK):
        os.write(_STDERR, piece)
        last = (last + piece)[-_MOST_WORDS:]
    lines = [line.strip() for line in last.decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")
