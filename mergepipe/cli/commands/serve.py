"""`mp serve`: offer repositories to other machines, over http or to one ssh client."""

import getpass
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.panels import SHARING
from mergepipe.cli.session import Session
from mergepipe.cli.text import count
from mergepipe.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from mergepipe.api import Repository
    from mergepipe.hub.repositories import Repositories
    from mergepipe.transfer.serving.tokens import Tokens

_TOKENS = "MP_SERVE_TOKENS"
_MOST_BYTES = 1 << 20


class ServeDocument(msgspec.Struct, frozen=True):
    """`mp serve --json`, once it takes connections. `tokens`: whether clients need one.

    `names`: what the hub's clients call the repositories that there are now.
    """

    url: str
    directory: str
    read_only: bool
    tokens: bool
    names: list[str]


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(
        app,
        "serve",
        SHARING,
        examples="mp serve\nmp serve --port 8417 --read-only /srv/models\n"
        "mp serve --host 0.0.0.0 --token-file ~/.config/mergepipe/serve-tokens",
    )(serve)


def serve(
    session: Session,
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR",
            help="The repository; the one around here if not given.",
            show_default=False,
        ),
    ] = None,
    stdio: Annotated[
        bool,
        typer.Option(
            "--stdio",
            help="Serve one client over stdin and stdout: what ssh:// remotes run.",
            show_default=False,
        ),
    ] = False,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="The address to listen on; others than loopback need tokens."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            metavar="PORT", min=0, max=65535, help="The port to listen on; 0 takes a free one."
        ),
    ] = 8417,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Lines of `read TOKEN` and `write NAME TOKEN`; {_TOKENS} holds them too.",
            show_default=False,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="DIR",
            help="Serve every repository that lies in DIR, each under its name.",
            show_default=False,
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Take nothing.", show_default=False)
    ] = False,
    access_log: Annotated[
        str | None,
        typer.Option(
            "--access-log",
            metavar="FILE|-",
            help="Write a line of JSON for every request; - is standard output.",
            show_default=False,
        ),
    ] = None,
    open_metrics: Annotated[
        bool,
        typer.Option("--open-metrics", help="/metrics needs no token to read.", show_default=False),
    ] = False,
) -> None:
    """Let other machines push to this repository, fetch from it, and load its models.

    Over http it is a hub too: HF_ENDPOINT set to its address, `hf download NAME/BRANCH` and
    `from_pretrained` get a branch's model (docs/hub.md).

    A browser shows models with their files and costs, history, merges and differences.

    GET /healthz says that it runs, /metrics what it does (Prometheus), to whoever may read.

    Listens on this machine alone unless told otherwise. Put a proxy that speaks TLS before it to
    serve a network. Ctrl-C or SIGTERM stops it, once requests under way are done.
    """
    if root is not None and (stdio or directory is not None):
        raise UsageError(
            "--root serves all repositories of a directory, over http", "give it alone"
        )
    if stdio:
        _serve_stdio(session, directory, read_only)
    else:
        tokens = _tokens(session, token_file)
        watching = access_log, open_metrics
        _serve_http(session, directory, root, host, port, tokens, read_only, watching)


def _serve_stdio(session: Session, directory: Path | None, read_only: bool) -> None:
    from mergepipe.repository.push_log import PushLog
    from mergepipe.transfer.receiving import ReceivingStore
    from mergepipe.transfer.serving.recording import Caller
    from mergepipe.transfer.serving.stdio import serve_stdio

    # Whatever else prints to stdout must not end up between frames.
    frames = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with _repository(session, directory) as repository, ReceivingStore(repository) as store, frames:
        # sshd says where the client is; that it is let in, and as whom, was for sshd to say.
        address = session.environment.get("SSH_CONNECTION", "").partition(" ")[0]
        serve_stdio(
            store,
            sys.stdin.buffer,
            frames,
            read_only=read_only,
            log=PushLog(repository.directory, repository.author_of),
            caller=Caller(f"ssh:{getpass.getuser()}", address),
        )


def _serve_http(
    session: Session,
    directory: Path | None,
    root: Path | None,
    host: str,
    port: int,
    tokens: "Tokens | None",
    read_only: bool,
    watching: tuple[str | None, bool],
) -> None:
    try:
        from mergepipe.hub.site import Site
        from mergepipe.transfer.serving.gate import Gate
        from mergepipe.transfer.serving.listening import bind, listen, url_of
        from mergepipe.transfer.serving.watching import AccessLog, Watch
    except ModuleNotFoundError as error:
        raise UsageError(
            f"serving over http needs {error.name}, which is not installed",
            "pip install 'mergepipe[http]'",
        ) from error

    with (
        _repositories(session, directory, root) as (repositories, place),
        Site(repositories, tokens, read_only=read_only) as site,
        bind(host, port, guarded=tokens is not None) as listening,
    ):
        file, open_metrics = watching
        log = None if file is None else AccessLog(None if file == "-" else Path(file))
        watch = Watch(Gate(tokens), repositories.places, log, open_metrics=open_metrics)
        url = url_of(listening)
        document = ServeDocument(
            url, str(place), read_only, tokens is not None, repositories.names()
        )
        how = " (read-only)" if read_only else ""
        text = f"Serving {place} at {url}{how}"

        def ready() -> None:
            session.emit(document, text)
            sys.stdout.flush()
            session.say("Ctrl-C stops it")

        left = listen(watch.over(site), listening, ready)
        if left:
            session.say(f"stopped; {count(left, 'call')} cut off, nothing is half done")
            sys.stdout.flush()
            # Threads still work on what must not be closed under them; a crash is what the store
            # is made for.
            os._exit(0)


@contextmanager
def _repositories(
    session: Session, directory: Path | None, root: Path | None
) -> "Iterator[tuple[Repositories, Path]]":
    """What is to be served, and where that is."""
    from mergepipe.hub.repositories import Repositories

    if root is not None:
        if not root.is_dir():
            raise UsageError(f"{root} is no directory", "name one that repositories lie in")
        with Repositories(lambda place: _open(session, place), root=root) as repositories:
            yield repositories, root.resolve()
        return
    with (
        _repository(session, directory) as repository,
        Repositories(lambda place: _open(session, place)) as repositories,
    ):
        repositories.add(repository)
        yield repositories, repository.directory


@contextmanager
def _repository(session: Session, directory: Path | None) -> "Iterator[Repository]":
    if directory is None:
        with session.repository() as repository:
            yield repository
        return
    from mergepipe.transfer.connect import repository_at

    with _open(session, repository_at(directory)) as repository:
        yield repository


def _open(session: Session, directory: Path) -> "Repository":
    from mergepipe.api import Repository
    from mergepipe.api.identity import identity

    return Repository(directory, who=identity(session.environment), credentials=session.credentials)


def _tokens(session: Session, file: Path | None) -> "Tokens | None":
    """The tokens of the file, or of the environment; None if neither is given."""
    from mergepipe.transfer.serving.tokens import Tokens

    if file is not None:
        mode = file.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"others can read {file}", f"chmod 600 {file}")
        with file.open(encoding="utf-8", errors="replace") as lines:
            return Tokens.parse(lines.read(_MOST_BYTES).splitlines(), str(file))
    listed = session.environment.get(_TOKENS)
    if listed is None:
        return None
    return Tokens.parse(re.split(r"[,\n]", listed), _TOKENS)
