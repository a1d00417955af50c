"""The commands of `mp`, one file each or a tight family together.

A module here loads nothing that is slow: what a command works with is imported when it runs.
"""

import typer

from mergepipe.cli.commands import (
    branch,
    checkout,
    commit,
    config,
    diff,
    du,
    fsck,
    gc,
    init,
    log,
    reflog,
    reset,
    show,
    status,
    switch,
    tag,
)

# In the order that `mp` lists them in, within their panels.
_COMMANDS = (
    init,
    commit,
    status,
    checkout,
    switch,
    reset,
    log,
    show,
    diff,
    branch,
    tag,
    reflog,
    du,
    gc,
    fsck,
    config,
)


def register(app: typer.Typer) -> None:
    """Add every command to `mp`."""
    for module in _COMMANDS:
        module.add(app)
