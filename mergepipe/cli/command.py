"""How a function becomes a command: it gets a `Session`, and its errors become exit codes."""

import inspect
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, Concatenate, ParamSpec

import typer
from msgspec.structs import replace

from mergepipe.cli.failures import report, understood
from mergepipe.cli.session import Session
from mergepipe.cli.text import paint_for

Parameters = ParamSpec("Parameters")

BROKEN_PIPE = 141
"""128 + SIGPIPE, what a shell shows for a program that wrote to `head` for too long."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say less.", show_default=False)]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.", show_default=False)]
_SHARED = {"as_json": Json, "quiet": Quiet, "verbose": Verbose}


def command(
    app: typer.Typer, name: str, panel: str, *, examples: str = ""
) -> Callable[
    [Callable[Concatenate[Session, Parameters], int | None]],
    Callable[Concatenate[Session, Parameters], int | None],
]:
    """Make `mp NAME` of a function whose first parameter is the session.

    Its other parameters become arguments and options, beside those that every command takes. It
    returns an exit code, or None for 0.
    """

    def decorate(
        function: Callable[Concatenate[Session, Parameters], int | None],
    ) -> Callable[Concatenate[Session, Parameters], int | None]:
        def run(
            context: typer.Context, *, as_json: bool, quiet: bool, verbose: bool, **rest: Any
        ) -> int:
            session: Session = context.obj
            session = replace(
                session,
                as_json=session.as_json or as_json,
                quiet=session.quiet or quiet,
                verbose=session.verbose or verbose,
                command=name,
            )
            # Parameters can be of any type: what Typer parsed is what the signature says.
            code = guarded(session, lambda: function(session, **rest))  # type: ignore[call-arg]
            session.trace(f"exit {code}")
            return code

        # Typer reads the signature: ours without the session, with the shared options behind.
        own = list(inspect.signature(function).parameters.values())[1:]
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
            for name, kind in _SHARED.items()
        ]
        first = inspect.Parameter(
            "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
        )
        parameters = [first, *own, *shared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        app.command(
            name,
            help=inspect.getdoc(function),
            rich_help_panel=panel,
            epilog=f"Examples:\n\n\b\n{inspect.cleandoc(examples)}" if examples else None,
        )(run)
        return function

    return decorate


def guarded(session: Session, work: Callable[[], int | None]) -> int:
    """Do the work of a command; returns the exit code, with any error told to the user."""
    try:
        code = work() or 0
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:  # the last place that can turn it into words
        session.trace.error(error)
        understandable = understood(error)
        code = understandable.exit_code
        paint = paint_for(sys.stderr, session.environment)
        try:
            report(understandable, as_json=session.as_json, paint=paint)
            sys.stdout.flush()
        except OSError:
            _abandon_stdout()  # stdout may be what failed, as on a full disk
    return code


def _abandon_stdout() -> None:
    """Send what is left in the buffer nowhere: Python would fail on it again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.stdout.flush()
