"""`mp show`: one commit, its files and its tensors."""

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mergepipe.cli.command import command
from mergepipe.cli.commands.log import LogEntry, log_entry
from mergepipe.cli.history_text import CommitText, decorations, said_of
from mergepipe.cli.panels import HISTORY
from mergepipe.cli.parameters import RevisionOrHead
from mergepipe.cli.session import Session
from mergepipe.cli.text import count, duration, table
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.objects.records import FileEntry
    from mergepipe.objects.store import ObjectStore


class FileDocument(msgspec.Struct, frozen=True):
    """A file of a snapshot: `kind` is safetensors or blob, `size` is in bytes.

    `sha256` only with --files.
    """

    path: str
    size: int
    kind: str
    executable: bool
    tensors: int
    sha256: str | None = None


class TensorDocument(msgspec.Struct, frozen=True):
    """A tensor: `bytes` is its raw size, `block_bytes` the size it is cut at."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    blocks: int
    block_bytes: int
    tensor: str


class ShowDocument(LogEntry, frozen=True):
    """`mp show --json`: what `mp log` says, and what is in it. `tensors` only with --tensors.

    `run`: what the merge took, as `runs/` of the repository that made it says; null elsewhere.
    """

    raw_bytes: int
    files: tuple[FileDocument, ...]
    tensors: tuple[TensorDocument, ...] | None = None
    run: dict[str, object] | None = None


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(
        app,
        "show",
        HISTORY,
        examples="mp show\nmp show code~1 --tensors\nmp show v1 --files\nmp show v1:config.json",
    )(show)


def show(
    session: Session,
    revision: RevisionOrHead = "HEAD",
    tensors: Annotated[
        bool, typer.Option("--tensors", help="List every tensor.", show_default=False)
    ] = False,
    hashes: Annotated[
        bool,
        typer.Option(
            "--files",
            "--sha256",
            help="List the SHA-256 of every file, which reads all of them.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Show a commit, its files and its tensors; of REV:PATH the bytes of one file."""
    # The colons of a moment, as in `main@{18:00}`, are the revision's own.
    if parts := re.fullmatch(r"((?:[^:{}]|\{[^{}]*\})*):(.*)", revision, re.S):
        _print_file(session, *parts.groups())
        return
    from mergepipe.engine.runs import run_of

    with session.repository() as repository:
        identity, commit = repository.model_of(revision)
        entries = repository.objects.snapshot(commit.snapshot).files
        files = tuple(
            file_document(entry, repository.contents.file_digest(entry) if hashes else None)
            for entry in entries
        )
        listed = _tensors(entries, repository.objects) if tensors else None
        said = said_of(repository.store, repository.objects)
        names = decorations(repository.refs)
        text = CommitText(session.paint, names, verbose=True, said=said)
        lines = list(text.paragraph(identity, commit))
        run = run_of(repository.directory, identity) if commit.manifest else None
    document = ShowDocument(
        **msgspec.structs.asdict(log_entry(identity, commit, said(identity, commit))),
        raw_bytes=sum(file.size for file in files),
        files=files,
        tensors=listed,
        run=None if run is None else msgspec.structs.asdict(run),
    )
    if run is not None:
        lines += [
            "",
            f"the merge read {format_size(run.expert_bytes_read)} of the experts and "
            f"{format_size(run.base_bytes_read)} of the base, in {duration(run.seconds)}",
        ]
    lines += ["", *_file_lines(document)]
    if listed:
        lines += ["", _tensor_table(listed, many=len({each.file for each in listed}) > 1)]
    session.emit(document, "\n".join(lines))


def file_document(entry: "FileEntry", sha256: str | None = None) -> FileDocument:
    """A file as JSON."""
    from mergepipe.objects.records import Safetensors

    number = len(entry.content.tensors) if isinstance(entry.content, Safetensors) else 0
    kind = "safetensors" if isinstance(entry.content, Safetensors) else "blob"
    return FileDocument(
        path=entry.path,
        size=entry.size,
        kind=kind,
        executable=entry.executable,
        tensors=number,
        sha256=sha256,
    )


def _print_file(session: Session, revision: str, path: str) -> None:
    """The bytes as they are, on stdout: they may go to a file or a program. A folder is listed."""
    with session.repository() as repository:
        contents, revision = repository.contents, revision or "HEAD"
        entry = contents.file(revision, path)
        if entry is None:
            listed = [file_document(each) for each in contents.files(revision, path)]
            session.emit(listed, "\n".join(escape_for_terminal(each.path) for each in listed))
            return
        if session.as_json:
            session.emit(file_document(entry), "")
            return
        sys.stdout.flush()
        for piece in contents.read_entry(entry):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _tensors(entries: Sequence["FileEntry"], objects: "ObjectStore") -> tuple[TensorDocument, ...]:
    from mergepipe.ids import ID_BYTES
    from mergepipe.objects.grid import tensor_bytes
    from mergepipe.objects.records import Safetensors

    documents = []
    for entry in entries:
        for named in entry.content.tensors if isinstance(entry.content, Safetensors) else ():
            tensor = objects.tensor(named.tensor)
            documents.append(
                TensorDocument(
                    name=named.name,
                    file=entry.path,
                    dtype=tensor.dtype,
                    shape=tensor.shape,
                    bytes=tensor_bytes(tensor),
                    blocks=len(tensor.blocks) // ID_BYTES,
                    block_bytes=tensor.block_bytes,
                    tensor=named.tensor.hex(),
                )
            )
    return tuple(documents)


def _file_lines(document: ShowDocument) -> list[str]:
    rows = [
        (
            f"  {escape_for_terminal(file.path)}{'*' if file.executable else ''}",
            format_size(file.size),
            count(file.tensors, "tensor") if file.kind == "safetensors" else "",
            *(() if file.sha256 is None else (file.sha256,)),
        )
        for file in document.files
    ]
    heading = f"{count(len(rows), 'file')}, {format_size(document.raw_bytes)}"
    return [heading, table(rows, right=(1, 2))] if rows else [heading]


def _tensor_table(tensors: Sequence[TensorDocument], *, many: bool) -> str:
    """The tensors; their files only if there are several."""
    heading = ("tensor", "dtype", "shape", "blocks", "size", *(("file",) if many else ()))
    rows = [
        (
            escape_for_terminal(tensor.name),
            tensor.dtype,
            "x".join(str(size) for size in tensor.shape) or "scalar",
            f"{tensor.blocks:,}",
            format_size(tensor.bytes),
            *((escape_for_terminal(tensor.file),) if many else ()),
        )
        for tensor in tensors
    ]
    return table([heading, *rows], right=(3, 4))
