"""`mp doctor`: what of this machine, installation and repository a report of a fault should say."""

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

import mergepipe
from mergepipe.cli.command import command
from mergepipe.cli.panels import UPKEEP
from mergepipe.cli.session import Session
from mergepipe.cli.text import table
from mergepipe.errors import MergepipeError, NoRepository, NotMounted
from mergepipe.names import escape_for_terminal
from mergepipe.repository.durations import format_duration
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.repository.health import Health

_PACKAGES = ("numpy", "numba", "llvmlite", "torch", "safetensors", "blake3", "zstandard", "lmdb")
_EXTRAS = {"starlette": "http", "obstore": "cloud", "huggingface_hub": "hub"}
_FEATURES = ("avx2", "fma", "f16c", "bmi2", "avx512f", "avx512bw", "neon", "sve")
_LITTLE_ROOM_BYTES = 1 << 30
_FEW_FILES = 10_000
_CLOCK_S = 60


class KernelsDocument(msgspec.Struct, frozen=True):
    """The kernel cache. `complete`: every kernel is compiled for this machine."""

    directory: str | None
    writable: bool
    complete: bool


class LockDocument(msgspec.Struct, frozen=True):
    """A lock that is held; `process` is null where the holder did not say.

    `command`: what it runs, as far as this machine tells; `age_s`: for how long.
    """

    name: str
    process: int | None
    command: str
    age_s: float | None


class WorkDocument(msgspec.Struct, frozen=True):
    """Somebody who works here just now. `since`: Unix seconds."""

    command: str
    process: int
    host: str
    since: int


class IndexDocument(msgspec.Struct, frozen=True):
    """Limits of LMDB: bytes used of those mapped (they grow), slots of readers taken."""

    used_bytes: int
    map_bytes: int
    readers: int
    most_readers: int


class RepositoryDocument(msgspec.Struct, frozen=True):
    """The repository here. `unwritable`: what this user may not write to.

    `network`: it lies on a file system of a network; `locks_work`: flock works there; `index`: null
    where it is damaged; `clock_ahead_s`: how far its newest file lies in the future. `packs`,
    `indexes`: directories of other disks where they are. `free_bytes` is where packs are.
    """

    directory: str
    free_bytes: int
    free_files: int
    unwritable: tuple[str, ...]
    locks: tuple[LockDocument, ...]
    file_system: str
    network: bool
    locks_work: bool
    working: tuple[WorkDocument, ...]
    index: IndexDocument | None
    clock_ahead_s: float
    packs: str | None = None
    indexes: str | None = None


class DoctorDocument(msgspec.Struct, frozen=True):
    """`mp doctor --json`. A package that is not installed is null."""

    version: str
    python: str
    platform: str
    packages: dict[str, str | None]
    cores: int
    cpu_features: tuple[str, ...]
    kernels: KernelsDocument
    repository: RepositoryDocument | None
    advice: tuple[str, ...]


def add(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "doctor", UPKEEP, examples="mp doctor\nmp doctor --compile")(doctor)


def doctor(
    session: Session,
    compile_now: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile every kernel now, as when an image is built.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Say what is installed, where kernels are kept, and how the repository here is.

    MP_KERNEL_CACHE names another folder for the kernels, which later may be read-only.
    """
    from mergepipe.cli.kernels import compile_all
    from mergepipe.kernels import cache as kernel_cache

    if compile_now and not kernel_cache.complete():
        compile_all(session)
    folder = kernel_cache.directory()
    kernels = KernelsDocument(
        None if folder is None else str(folder), kernel_cache.writable(), kernel_cache.complete()
    )
    missing: list[str] = []
    try:
        repository = _repository(session)
    except NotMounted as error:
        repository, missing = None, [error.message, error.hint]
    packages = {name: _version(name) for name in (*_PACKAGES, *_EXTRAS)}
    document = DoctorDocument(
        version=mergepipe.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=packages,
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        cpu_features=_cpu_features(),
        kernels=kernels,
        repository=repository,
        advice=(*_advice(packages, kernels, repository), *missing),
    )
    session.emit(document, _text(document))


def _repository(session: Session) -> RepositoryDocument | None:
    from mergepipe.repository.health import examine

    room = None
    try:
        with session.repository() as repository:
            health: Health = examine(repository.directory)
            with suppress(MergepipeError):
                used = repository.storage.index.room()
                room = IndexDocument(
                    used.used_bytes, used.map_bytes, used.readers, used.most_readers
                )
    except NoRepository:
        return None
    return RepositoryDocument(
        directory=str(health.directory),
        free_bytes=health.free_bytes,
        free_files=health.free_files,
        unwritable=health.unwritable,
        locks=tuple(
            LockDocument(each.name, each.process, each.command, each.age_s) for each in health.locks
        ),
        file_system=health.file_system,
        network=health.network,
        locks_work=health.locks_work,
        working=tuple(
            WorkDocument(each.command, each.pid, each.host, each.since) for each in health.working
        ),
        index=room,
        clock_ahead_s=health.clock_ahead_s,
        packs=_named(health.elsewhere.packs),
        indexes=_named(health.elsewhere.index),
    )


def _named(place: Path | None) -> str | None:
    return None if place is None else str(place)


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # 25 ms, for this command alone

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_features() -> tuple[str, ...]:
    """Those of the processor that make kernels faster."""
    from llvmlite import binding  # type: ignore[import-untyped, unused-ignore]

    present = binding.get_host_cpu_features()
    return tuple(name for name in _FEATURES if present.get(name))


def _advice(
    packages: dict[str, str | None], kernels: KernelsDocument, here: RepositoryDocument | None
) -> list[str]:
    advice = []
    if packages["torch"] is None:
        advice.append("torch is missing, which some merge methods need: pip install torch")
    if kernels.directory is None or not (kernels.complete or kernels.writable):
        advice.append(
            "kernels cannot be kept, and are compiled by every command: set MP_KERNEL_CACHE"
        )
    elif not kernels.complete:
        advice.append("the first commit or merge compiles kernels: mp doctor --compile does it now")
    if here is not None and here.free_bytes < _LITTLE_ROOM_BYTES:
        advice.append(f"{format_size(here.free_bytes)} are free: mp gc, mp du")
    if here is not None and 0 < here.free_files < _FEW_FILES:
        advice.append(f"only {here.free_files:,} more files fit on its file system")
    if here is not None and not here.locks_work:
        advice.append(
            f"file locks do not work on {here.file_system}: it can be read there, not written"
        )
    elif here is not None and here.network:
        advice.append(
            f"it lies on {here.file_system}: that is slower, and locks are as good as its server's"
        )
    if here is not None and here.clock_ahead_s > _CLOCK_S:
        ahead = format_duration(here.clock_ahead_s)
        advice.append(f"files here are {ahead} in the future: this clock, or another's, is wrong")
    if here is not None and here.index is None:
        advice.append("the index is damaged: mp fsck --repair makes it again")
    elif here is not None and here.index and here.index.readers >= here.index.most_readers:
        advice.append("every slot of a reader of the index is taken: end processes that read here")
    if here is not None and here.unwritable:
        advice.append(f"you may only read this repository: {', '.join(here.unwritable)}")
    return advice


def _text(document: DoctorDocument) -> str:
    kernels, here = document.kernels, document.repository
    said = [f"{name} {package}" for name, package in document.packages.items() if package]
    extras = [f"mergepipe[{_EXTRAS[name]}]" for name in _EXTRAS if not document.packages[name]]
    rows = [
        ("mergepipe", f"{document.version}, Python {document.python}, {document.platform}"),
        ("packages", ", ".join(said)),
        *([("not installed", ", ".join(extras))] if extras else []),
        ("processor", f"{document.cores} cores; {', '.join(document.cpu_features) or 'no SIMD'}"),
        (
            "kernels",
            f"{'compiled' if kernels.complete else 'not compiled yet'}, "
            + (escape_for_terminal(kernels.directory) if kernels.directory else "kept nowhere"),
        ),
    ]
    if here is not None:
        locks = [f"{each.name} ({_process(each)})" for each in here.locks]
        working = [
            f"{escape_for_terminal(each.command)} (process {each.process} on "
            f"{escape_for_terminal(each.host)})"
            for each in here.working
        ]
        rows += [
            (
                "repository",
                f"{escape_for_terminal(here.directory)}, {format_size(here.free_bytes)} free, "
                f"{here.file_system or 'an unknown file system'}",
            ),
            *([("packs", escape_for_terminal(here.packs))] if here.packs else []),
            *([("indexes", escape_for_terminal(here.indexes))] if here.indexes else []),
            *([("index", _index_text(here.index))] if here.index else []),
            ("locks", ", ".join(locks) or "none is held"),
            *([("at work", ", ".join(working))] if working else []),
        ]
    lines = [table(rows)]
    if document.advice:
        lines += ["", *document.advice]
    return "\n".join(lines)


def _process(lock: LockDocument) -> str:
    if lock.process is None:
        return "its holder is not named"
    age = "" if lock.age_s is None else f", for {format_duration(lock.age_s)}"
    return f"process {lock.process}" + (f": {lock.command}{age}" if lock.command else "")


def _index_text(index: IndexDocument) -> str:
    return (
        f"{format_size(index.used_bytes)} of {format_size(index.map_bytes)} mapped, "
        f"{index.readers} of {index.most_readers} readers"
    )
