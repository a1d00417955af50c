"""The commands of `mp`, one file each or a tight family together.

The module of a command is loaded when that command is asked for, and no other with it: all of them
together take longer to load than most commands to run. What a command works with, and what is slow
to load, is imported when it runs.
"""

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import typer
import typer.main

# In the order that `mp` lists them in, within their panels.
_MODULES = {
    "init": "init",
    "commit": "commit",
    "import": "imports",
    "status": "status",
    "checkout": "checkout",
    "switch": "switch",
    "reset": "reset",
    "revert": "revert",
    "rollback": "rollback",
    "undo": "undo",
    "log": "log",
    "descendants": "descendants",
    "show": "show",
    "ls": "ls",
    "diff": "diff",
    "check": "check",
    "verify": "verify",
    "branch": "branch",
    "tag": "tag",
    "note": "note",
    "reflog": "reflog",
    "plan": "plan",
    "merge": "merge",
    "explain": "explain",
    "report": "report",
    "replay": "replay",
    "analyze": "analyze",
    "clone": "clone",
    "fetch": "fetch",
    "pull": "pull",
    "push": "push",
    "serve": "serve",
    "remote": "remote",
    "audit": "audit",
    "du": "du",
    "prune": "prune",
    "purge": "purge",
    "gc": "gc",
    "fsck": "fsck",
    "doctor": "doctor",
    "config": "config",
}

PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,  # plain help: rich takes longer to load than most commands to run
    "pretty_exceptions_enable": False,
}


class Commands(MutableMapping[str, Any]):
    """The parser's commands by name: all names are known, and each is loaded when it is read."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """The command. Raises KeyError if there is none of this name."""
        if name not in self._loaded:
            alone = typer.Typer(**PLAIN)
            import_module(f"{__name__}.{_MODULES[name]}").add(alone)
            self._loaded[name] = typer.main.get_group(alone).commands[name]
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name}: commands are not removed")

    def __contains__(self, name: object) -> bool:
        return name in _MODULES or name in self._loaded

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*_MODULES, *self._loaded]))

    def __len__(self) -> int:
        return sum(1 for _ in self)
