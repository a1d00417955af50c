"""Hooks: the user's programs that run before a commit and after a merge."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mergepipe.bytestore.untrusted import beneath, plain_status
from mergepipe.errors import HookFailed
from mergepipe.repository.layout import HOOKS

PRE_COMMIT = "pre-commit"
POST_MERGE = "post-merge"
_STDERR = 2


def run_hook(
    directory: Path, name: str, variables: Mapping[str, str], environment: Mapping[str, str]
) -> bool:
    """Run the hook `name` of the repository `directory` (its `.mergepipe`), if there is one.

    It inherits `environment`, plus `variables`, MP_DIR and MP_HOOK, and runs where `.mergepipe`
    is. What it prints goes to this process's stderr. Returns whether there was one.
    Raises HookFailed if it cannot run, is another user's, or exits with an error.
    """
    program = directory / HOOKS / name
    try:
        owner = plain_status(beneath(directory, f"{HOOKS}/{name}")).st_uid
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not os.access(program, os.X_OK):
        raise HookFailed(
            f"the hook {program} is not executable",
            f"`chmod +x` it, or rename it to {name}.sample to switch it off",
        )
    # A repository found in a parent directory may be somebody else's: CVE-2022-24765 in git.
    if owner not in (0, os.geteuid()):
        raise HookFailed(
            f"the hook {program} belongs to another user, so it is not run",
            "make it your own file, or turn hooks off: `mp config hooks.enabled false`",
        )
    told = {**environment, **variables, "MP_DIR": str(directory), "MP_HOOK": name}
    try:
        # stdout is for the result of the command that the hook is part of.
        status = subprocess.run(
            [program],
            cwd=directory.parent,
            env=told,
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,
            check=False,
        ).returncode
    except OSError as error:
        raise HookFailed(
            f"the hook {program} cannot run: {error.strerror}",
            "a script needs a first line such as #!/bin/sh",
        ) from error
    if status:
        how = f"exit code {status}" if status > 0 else f"killed by signal {-status}"
        raise HookFailed(f"the hook {name} failed ({how})", f"what it checks is in {program}")
    return True
