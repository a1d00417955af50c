"""`mp report`: one page to look at, of a merge, a plan, a difference or the whole repository."""

import webbrowser
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mergepipe.cli import completion
from mergepipe.cli.command import command
from mergepipe.cli.panels import MERGING
from mergepipe.cli.session import Session
from mergepipe.errors import UsageError
from mergepipe.names import escape_for_terminal, quoted
from mergepipe.sizes import format_size

_DEFAULT = Path("report.html")


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp report merged --open                   a merge, in the browser
        mp report 3fa9c2 --out plan.html          a plan that mp plan stored
        mp report merged --metrics losses.json    with held-out losses, {"merged": {"loss": 2.1}}
        mp report main~1..main                    what changed between two revisions
        mp report --json | jq .storage            the whole repository, as data
    """
    command(app, "report", MERGING, examples=examples)(report)


def report(
    session: Session,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="REV|PLAN|A..B",
            help="A merge, a stored plan or a difference; the whole repository if none is given.",
            autocompletion=completion.revisions,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.html", help="Where to write the page.")
    ] = _DEFAULT,
    metrics: Annotated[
        Path | None,
        typer.Option(
            "--metrics",
            metavar="FILE",
            help="What was measured of revisions, like losses: JSON or CSV.",
            show_default=False,
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--open", help="Show it in the browser.", show_default=False)
    ] = False,
) -> None:
    """Write a page of pictures and tables: one file, without network or scripts.

    Of a merge or plan: what a budget buys, where experts changed, what was read and kept of each.
    Needs `pip install 'mergepipe[report]'`; with --json, the data alone, without it.
    """
    from mergepipe.report.gathering import report_of
    from mergepipe.report.metrics import read_metrics

    if out.is_dir():
        raise UsageError(f"{quoted(str(out))} is a directory", "name a file: --out report.html")
    if not session.as_json and not out.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {quoted(str(out.parent))}", "make it first")
    with session.repository() as repository, session.progress():
        document = report_of(repository, what, () if metrics is None else read_metrics(metrics))
    if session.as_json:
        session.emit(document, "")
        return
    try:
        from mergepipe.report.page import page
    except ImportError as error:
        raise UsageError(
            f"pictures need {error.name}", "pip install 'mergepipe[report]', or mp report --json"
        ) from error
    text = page(document)
    out.write_text(text, encoding="utf-8")
    size = format_size(len(text.encode()))
    session.emit(
        msgspec.UNSET,
        f"{escape_for_terminal(str(out))}: {escape_for_terminal(document.title)}, {size}",
    )
    if show:
        webbrowser.open(out.resolve().as_uri())
