"""`mp log`: history, newest first, as git shows it."""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.history_text import CommitText, Said, decorations, said_of
from mergepipe.cli.panels import HISTORY
from mergepipe.cli.parameters import RevisionOrHead
from mergepipe.cli.session import Session
from mergepipe.errors import MergepipeError, RevisionNotFound, UsageError

if TYPE_CHECKING:
    from mergepipe.api import Repository
    from mergepipe.ids import ObjectId
    from mergepipe.objects.records import Commit


class LogEntry(msgspec.Struct, frozen=True):
    """One commit of `mp log --json`. `time` in Unix seconds, `utc_offset` in minutes.

    `notes`: what is noted of it, numbers where they are; `purged`: when, by whom and why its model
    was removed, null if it was not; `absent`: commits that it names, and a shallow clone lacks.
    """

    commit: str
    parents: tuple[str, ...]
    author: str
    time: int
    message: str
    snapshot: str
    manifest: str | None
    utc_offset: int
    base: str | None
    profile: str | None
    trained_from: str | None
    notes: dict[str, float | int | str]
    purged: str | None
    absent: tuple[str, ...]


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp log --oneline -n 10
        mp log --graph code
        mp log main..code          what code has and main has not
        mp log code -- config.json
        mp log --follow model.safetensors
        mp log --json | jq '.[].message'
    """
    command(app, "log", HISTORY, examples=examples)(log)


def log(
    session: Session,
    revision: RevisionOrHead = "HEAD",
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Only commits that changed these files or folders, named as `mp ls` does.",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Of every branch, tag and remote.", show_default=False),
    ] = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="PATH under its former names too.", show_default=False),
    ] = False,
    number: Annotated[
        int | None,
        typer.Option("--number", "-n", metavar="N", min=0, help="At most N commits."),
    ] = None,
    oneline: Annotated[
        bool, typer.Option("--oneline", help="A line for each commit.", show_default=False)
    ] = False,
    graph: Annotated[
        bool, typer.Option("--graph", help="Draw how they descend.", show_default=False)
    ] = False,
    first_parent: Annotated[
        bool,
        typer.Option(
            "--first-parent",
            help="The branch's own line, without what merges took.",
            show_default=False,
        ),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help='As yesterday, "2 weeks ago", 2026-11-22.'),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="Not later than this.")
    ] = None,
    author: Annotated[
        str | None, typer.Option("--author", metavar="TEXT", help="By whoever has this in a name.")
    ] = None,
    contains: Annotated[
        str | None,
        typer.Option("--contains", metavar="REV", help="That came from REV, and REV itself."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="KEY", help="A column of this note; again for more."),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort", metavar="KEY|-KEY", help="By this note, smallest (-KEY: largest) first."
        ),
    ] = None,
) -> None:
    """List commits, newest first, back from a revision; A..B: those of B that A has not."""
    from mergepipe.repository.dates import parse_moment
    from mergepipe.repository.log_filter import LogFilter

    if everything and first_parent:
        raise UsageError("--first-parent follows one branch, --all lists every one")
    if everything and revision != "HEAD":
        raise UsageError(f"--all lists every branch, and {revision} too: give one of both")
    with session.repository() as repository:
        if revision and not everything and _is_file(repository, revision):
            revision, paths = "HEAD", [revision, *(paths or ())]
        if follow and not paths:
            raise UsageError("--follow is of a file", "name it: mp log --follow PATH")
        start = None if everything else revision
        commits = repository.log(start, topological=graph, first_parent=first_parent)
        clock = repository.clock()
        chosen = LogFilter(
            None if since is None else parse_moment(since, clock),
            None if until is None else parse_moment(until, clock),
            author,
            None if contains is None else repository.containing(contains),
            repository.contents.changes_to(paths, follow=follow) if paths else None,
        )
        said = said_of(repository.store, repository.objects)
        if sort is not None:
            if graph:
                raise UsageError("--graph draws history in its own order: leave --sort out")
            selected = iter(_sorted(chosen.select(commits), said, sort))
            metrics = metrics or [sort.removeprefix("-")]
        else:
            selected = chosen.select(commits)
        most = None if number is None else min(number, sys.maxsize)
        listed = itertools.islice(selected, most)
        if session.as_json:
            session.emit([log_entry(*each, said(*each)) for each in listed], "")
            return
        text = CommitText(
            session.paint,
            decorations(repository.refs),
            session.verbose,
            said=said,
            metrics=metrics or (),
        )
        oneline = oneline or bool(metrics)
        lines = _drawn(listed, text, oneline) if graph else _listed(listed, text, oneline)
        for line in lines:
            print(line)


def _is_file(repository: "Repository", text: str) -> bool:
    """Whether `mp log config.json` means a file: HEAD has it, and no revision is called that."""
    try:
        repository.log(text)
    except RevisionNotFound:
        try:
            return bool(repository.contents.files("HEAD", text))
        except MergepipeError:
            return False
    return False


def _sorted(
    commits: Iterable[tuple["ObjectId", "Commit"]],
    said: "Callable[[ObjectId, Commit], Said]",
    key: str,
) -> list[tuple["ObjectId", "Commit"]]:
    """Those of which `key` is noted, by it: numbers in their order, other text behind them."""
    name, largest_first = key.removeprefix("-"), key.startswith("-")
    noted = []
    for each in commits:
        remark = said(*each).notes.get(name)
        if remark is not None:
            number = remark.number
            text = remark.value if number is None else ""
            noted.append(((number is None, number or 0.0, text), each))
    numbers = sorted((one for one in noted if not one[0][0]), key=_first, reverse=largest_first)
    texts = sorted((one for one in noted if one[0][0]), key=_first, reverse=largest_first)
    return [each for _, each in (*numbers, *texts)]


def _first(pair: tuple[tuple[bool, float, str], object]) -> tuple[bool, float, str]:
    return pair[0]


def log_entry(identity: "ObjectId", commit: "Commit", said: Said) -> LogEntry:
    """A commit as JSON."""
    return LogEntry(
        commit=identity.hex(),
        parents=tuple(parent.hex() for parent in commit.parents),
        author=commit.author,
        time=commit.time,
        message=commit.message,
        snapshot=commit.snapshot.hex(),
        manifest=None if commit.manifest is None else commit.manifest.hex(),
        utc_offset=commit.utc_offset,
        base=None if commit.leans_on is None else commit.leans_on.hex(),
        profile=None if commit.profile is None else commit.profile.hex(),
        trained_from=None if commit.trained_from is None else commit.trained_from.hex(),
        notes={key: each.shown for key, each in said.notes.items()},
        purged=None if said.stone is None else str(said.stone),
        absent=tuple(each.hex() for each in said.absent),
    )


def _listed(
    commits: Iterable[tuple["ObjectId", "Commit"]], text: CommitText, oneline: bool
) -> Iterator[str]:
    for number, (identity, commit) in enumerate(commits):
        if oneline:
            yield text.line(identity, commit)
            continue
        if number:
            yield ""
        yield from text.paragraph(identity, commit)


def _drawn(
    commits: Iterable[tuple["ObjectId", "Commit"]], text: CommitText, oneline: bool
) -> Iterator[str]:
    from mergepipe.repository.graph import draw

    kept: dict[ObjectId, Commit] = {}

    def edges() -> Iterator[tuple["ObjectId", tuple["ObjectId", ...]]]:
        for identity, commit in commits:
            kept[identity] = commit
            yield identity, commit.parents

    for drawing in draw(edges()):
        commit = kept.pop(drawing.commit)
        words = (
            [text.line(drawing.commit, commit)]
            if oneline
            else [*text.paragraph(drawing.commit, commit), ""]
        )
        yield from drawing.before
        edges_below = [drawing.node, *drawing.after]
        height = max(len(edges_below), len(words))
        edges_below += [drawing.padding] * (height - len(edges_below))
        words += [""] * (height - len(words))
        width = max(len(row) for row in edges_below)
        for row, word in zip(edges_below, words, strict=True):
            yield f"{row.ljust(width)} {word}".rstrip()
