"""`mp config`: read and change settings."""

from pathlib import Path
from typing import Annotated

import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import UPKEEP
from mergepipe.cli.session import Session
from mergepipe.cli.text import table
from mergepipe.errors import UsageError
from mergepipe.names import escape_for_terminal
from mergepipe.repository.relocation import SETTINGS


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp config                                  all settings
        mp config user.author "Ada <ada@example.org>"
        mp config --unset user.author              back to the default
        mp config store.packs /big/models          packs are moved there
    """
    command(app, "config", UPKEEP, examples=examples)(config)


def config(
    session: Session,
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", autocompletion=completion.config_keys)
    ] = None,
    value: Annotated[str | None, typer.Argument(metavar="VALUE")] = None,
    unset: Annotated[
        bool, typer.Option("--unset", help="Back to the default.", show_default=False)
    ] = False,
) -> None:
    """List settings, print one, or change one.

    With --json: an object of keys and values. `store.packs` and `store.index` name a directory, on
    another disk say, to which packs or index are moved.
    """
    if unset and (key is None or value is not None):
        raise UsageError("--unset takes one key, and no value", "mp config --unset KEY")
    if key in SETTINGS and (unset or value is not None):
        _relocate(session, key, value)
        return
    with session.repository() as repository:
        places = repository.elsewhere()
        if key is not None and (unset or value is not None):
            repository.configure(key, value)
            if value is not None and key.startswith("remote.") and key.endswith(".url"):
                from mergepipe.transfer.remotes import check_remote_url

                session.remember(check_remote_url(value, repository.directory.parent))
            changed = {name: found for name, found in repository.config.items() if name == key}
            session.emit(changed, "")
            session.note(f"{key} = {changed.get(key, '(not set)')}")
            return
        if key is not None:
            only = places[key] if key in SETTINGS else repository.config.get(key)
            session.emit({key: only}, _shown(only))
            return
        settings = {**dict(repository.config.items()), **places}
    rows = [(name, _shown(setting)) for name, setting in settings.items()]
    session.emit(settings, table(rows))


def _relocate(session: Session, key: str, value: str | None) -> None:
    """Move packs or index: of a repository that cannot be opened, too, as its disk is gone."""
    from mergepipe.api import Repository
    from mergepipe.repository.layout import find

    directory = session.repository_directory()
    if directory is None:
        directory = find(Path())
        session.check_owner(directory)
    target = None if value is None else Path(value)
    with session.progress(kernels=False) as progress:
        Repository.relocate(directory, key, target, progress=progress)
    with session.repository() as repository:
        where = repository.elsewhere()[key]
    session.emit({key: where}, "")
    session.note(f"{key} = {where or '(not set)'}")


def _shown(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return escape_for_terminal(str(value))
