"""The commands of `mp`, one file each or a tight family together.

A module here loads nothing that is slow: what a command works with is imported when it runs.
"""

import typer

from mergepipe.cli.commands import (
    analyze,
    branch,
    check,
    checkout,
    clone,
    commit,
    config,
    descendants,
    diff,
    doctor,
    du,
    explain,
    fetch,
    fsck,
    gc,
    imports,
    init,
    log,
    ls,
    merge,
    note,
    plan,
    prune,
    pull,
    purge,
    push,
    reflog,
    remote,
    replay,
    report,
    reset,
    revert,
    rollback,
    serve,
    show,
    status,
    switch,
    tag,
    undo,
    verify,
)

# In the order that `mp` lists them in, within their panels.
_COMMANDS = (
    init,
    commit,
    imports,
    status,
    checkout,
    switch,
    reset,
    revert,
    rollback,
    undo,
    log,
    descendants,
    show,
    ls,
    diff,
    check,
    verify,
    branch,
    tag,
    note,
    reflog,
    plan,
    merge,
    explain,
    report,
    replay,
    analyze,
    remote,
    clone,
    fetch,
    pull,
    push,
    serve,
    du,
    prune,
    purge,
    gc,
    fsck,
    doctor,
    config,
)


def register(app: typer.Typer) -> None:
    """Add every command to `mp`."""
    for module in _COMMANDS:
        module.add(app)
