"""`mp remote`: the other places where this repository is."""

from typing import Annotated

import msgspec
import typer
from msgspec.structs import replace

from mergepipe.cli.command import Json, Quiet, Verbose, command, guarded
from mergepipe.cli.panels import SHARING
from mergepipe.cli.session import Session
from mergepipe.cli.text import count, table
from mergepipe.names import escape_for_terminal


class RemoteDocument(msgspec.Struct, frozen=True):
    """A remote; `mp remote list --json` lists them."""

    name: str
    url: str
    lazy: bool


Name = Annotated[str, typer.Argument(metavar="NAME")]

_HELP = """\
Add, rename, remove or list the other places where this repository is.

A place is a path, ssh://host/path or host:path, http(s)://host, s3://bucket/prefix, gs:// or az://.
"""


def add(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(rich_markup_mode=None)

    @group.callback(invoke_without_command=True)
    def alone(
        context: typer.Context,
        as_json: Json = False,
        quiet: Quiet = False,
        verbose: Verbose = False,
    ) -> int:
        # `mp remote` and `mp remote -v` list, as git's do; what comes before a command counts too.
        given: Session = context.obj
        context.obj = replace(
            given,
            as_json=given.as_json or as_json,
            quiet=given.quiet or quiet,
            verbose=given.verbose or verbose,
        )
        if context.invoked_subcommand is not None:
            return 0
        return guarded(context.obj, lambda: listed(context.obj))

    examples = """
        mp remote add origin ssh://models.example.org/srv/llama
        mp remote add bucket s3://models/llama
        mp remote add disk /mnt/backup/llama
    """
    command(group, "add", SHARING, examples=examples)(added)
    command(group, "rm", SHARING, examples="mp remote rm origin")(removed)
    command(group, "rename", SHARING, examples="mp remote rename origin upstream")(renamed)
    command(group, "set-url", SHARING, examples="mp remote set-url origin /mnt/new")(pointed)
    command(group, "list", SHARING, examples="mp remote list -v")(listed)
    app.add_typer(group, name="remote", help=_HELP, rich_help_panel=SHARING)


def added(
    session: Session,
    name: Name,
    url: Annotated[str, typer.Argument(metavar="URL")],
) -> None:
    """Add a remote. Nothing is asked of it yet.

    Tokens never go into a URL: MP_TOKEN, MP_TOKEN_<NAME>, .mergepipe/tokens. Those of the
    environment go to servers that you name, here or in MP_TOKEN_HOST.
    """
    from mergepipe.api import remotes

    with session.repository() as repository:
        remote = remotes.add(repository, name, url)
    session.remember(remote)
    session.emit(RemoteDocument(name, remote.shown, False), "")
    session.note(f"{name} is {escape_for_terminal(remote.shown)}")


def renamed(session: Session, old: Name, new: Name) -> None:
    """Rename a remote; what is known of its branches goes along.

    Its token is looked for under the new name: MP_TOKEN_<NAME>, .mergepipe/tokens.
    """
    from mergepipe.api import remotes

    with session.repository() as repository:
        remotes.rename(repository, old, new)
        settings = repository.config.remote[new]
    session.emit(RemoteDocument(new, settings.url, settings.lazy), "")
    session.note(f"{old} is called {new} now")


def pointed(
    session: Session,
    name: Name,
    url: Annotated[str, typer.Argument(metavar="URL")],
) -> None:
    """Change where a remote is. What it last had stays known until the next fetch."""
    from mergepipe.api import remotes

    with session.repository() as repository:
        remote = remotes.set_url(repository, name, url)
        lazy = repository.config.remote[name].lazy
    session.remember(remote)
    session.emit(RemoteDocument(name, remote.shown, lazy), "")
    session.note(f"{name} is {escape_for_terminal(remote.shown)}")


def removed(session: Session, name: Name) -> None:
    """Remove a remote, and what it last had (refs/remotes/NAME/)."""
    from mergepipe.api import remotes

    with session.repository() as repository:
        before = repository.config.remote.get(name)
        refs = remotes.remove(repository, name)
    assert before is not None
    session.emit(RemoteDocument(name, before.url, before.lazy), "")
    session.note(f"removed {name} and {count(refs, 'ref')} of it")


def listed(session: Session) -> None:
    """List the remotes; with -v where they are."""
    with session.repository() as repository:
        configured = repository.config.remote
    documents = [RemoteDocument(name, each.url, each.lazy) for name, each in configured.items()]
    rows = [(each.name, _place(each)) if session.verbose else (each.name,) for each in documents]
    session.emit(documents, table(rows) if rows else "")
    if not rows:
        session.say("no remotes yet: `mp remote add origin URL` adds one")


def _place(remote: RemoteDocument) -> str:
    return escape_for_terminal(remote.url) + (" (lazy)" if remote.lazy else "")
