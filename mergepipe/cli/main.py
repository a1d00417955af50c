"""`mp`: the entry point, the options of every command, and the table of commands."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import mergepipe
from mergepipe.cli.command import guarded
from mergepipe.cli.commands import PLAIN, Commands
from mergepipe.cli.failures import Interrupted, report, understood, usage_error
from mergepipe.cli.habits import pointer, with_head, with_part, without_guess, without_help_command
from mergepipe.cli.panels import PANELS
from mergepipe.cli.session import Session
from mergepipe.cli.streams import complete_streams
from mergepipe.cli.text import paint_for
from mergepipe.cli.trace import open_trace
from mergepipe.errors import UsageError

# What the parser raises for a command line it does not understand. Typer has its own copy of
# Click from 0.20 on, so the class is found through the one of them that Typer exports.
_PARSER_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

_ENVIRONMENT = """\
Environment:

\b
  MP_DIR             the .mergepipe to use, instead of looking upwards (-C wins)
  MP_AUTHOR          who commits, such as "Ada Lovelace <ada@example.org>"
  MP_AUTHOR_DATE     when: seconds since 1970 or 2026-11-22T06:04:13+01:00
  SOURCE_DATE_EPOCH  when, in UTC, for reproducible commits
  MP_TRACE           1: steps, times and tracebacks on stderr; a path: appended there
  NO_COLOR           no colours

Exit codes: 0 ok, 1 error or a difference, 2 usage, 10 no repository, 11 locked, 12 corruption,
13 merge inputs do not fit, 14 ref moved, 15 no space, 16 auth, 17 over budget, 130 interrupted.
"""


class GroupedCommands(TyperGroup):
    """Commands that are loaded when asked for, and help that lists them by what they are for."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Commands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each panel."""
        shown = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        width = max(len(name) for name, _ in shown)
        for panel in PANELS:
            rows = [
                (name.ljust(width), command.get_short_help_str(formatter.width))
                for name, command in shown
                if getattr(command, "rich_help_panel", None) == panel
            ]
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)


app = typer.Typer(
    name="mp",
    cls=GroupedCommands,
    help="Model weights as data: history as in git, storage that knows what a fine-tune is.",
    epilog=_ENVIRONMENT,
    **PLAIN,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mp {mergepipe.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    directory: Annotated[
        Path | None,
        typer.Option("-C", metavar="DIR", help="Run as if started in DIR.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document.", show_default=False)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say less.", show_default=False)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more.", show_default=False)
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            is_eager=True,
            callback=_version,
            show_default=False,
        ),
    ] = False,
) -> None:
    if directory is not None:
        try:
            os.chdir(directory)
        except OSError as error:
            raise typer.BadParameter(f"{directory}: {error.strerror}", param_hint="-C") from error
    if context.invoked_subcommand is None:
        print(context.get_help())
        return
    context.obj = Session(
        located=directory is not None,
        quiet=quiet,
        verbose=verbose,
        as_json=as_json,
        trace=open_trace(os.environ),
    )
    context.obj.trace(f"mp {mergepipe.__version__} in {Path.cwd()}: {sys.argv[1:]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mp` with these arguments (those of the process by default); returns the exit code."""
    _end_as_on_ctrl_c()
    # A warning of a library is no message of ours: what is not finite is counted and told.
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    complete_streams()
    given = _counted(sys.argv[1:] if arguments is None else arguments)
    given = with_part(with_head(_with_group(without_help_command(given))))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A name that the terminal's encoding lacks is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    # The command line may be what is wrong, so this is looked for without parsing it.
    as_json = "--json" in given[: given.index("--")] if "--" in given else "--json" in given
    session = Session(as_json=as_json)
    try:
        code = app(args=given, prog_name="mp", standalone_mode=False)
    except _PARSER_ERROR as error:
        code = _usage(error, session, given)
    except KeyboardInterrupt as error:
        report(understood(error), as_json=as_json, paint=paint_for(sys.stderr, os.environ))
        code = Interrupted.exit_code
    # Help and --version print outside of `guarded`; what they print can fail to arrive too.
    told = guarded(session, lambda: None)
    return told or (code if isinstance(code, int) else 0)


def _end_as_on_ctrl_c() -> None:
    """Let SIGTERM (a job's time is up) end a command as Ctrl-C does: with its clean-up."""
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _counted(arguments: Sequence[str]) -> list[str]:
    """The arguments with `mp log -3`, which every user of git types, as `mp log -n 3`."""
    given = list(arguments)
    if "log" not in given:
        return given
    after = given.index("log") + 1
    options = given[after:]
    for at, option in enumerate(options):
        if option[:1] == "-" and option[1:].isdecimal() and options[at - 1 : at] != ["-n"]:
            options[at : at + 1] = ["-n", option[1:]]
            break
    return [*given[:after], *options]


def _with_group(arguments: list[str]) -> list[str]:
    """The arguments with `mp init --shared` as `--shared=group`: the group can be left out."""
    if "init" not in arguments:
        return arguments
    return ["--shared=group" if word == "--shared" else word for word in arguments]


def _usage(error: Exception, session: Session, given: Sequence[str]) -> int:
    context = getattr(error, "ctx", None)
    said = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    # An option that lacks its value is refused before there is a context.
    names = Commands()
    named = next((argument for argument in given if argument in names), None)
    asked = "mp" if named is None else f"mp {named}"
    if context is not None:
        asked = context.command_path

    def fail() -> int:
        if hint := pointer(said, asked):
            raise UsageError(without_guess(said).rstrip("."), hint)
        raise usage_error(said, asked)

    return guarded(session, fail)
