"""`mp doctor`: what of this machine, installation and repository a report of a fault should say."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

import mergepipe
from mergepipe.cli.command import command
from mergepipe.cli.panels import UPKEEP
from mergepipe.cli.session import Session
from mergepipe.cli.text import table
from mergepipe.errors import NoRepository
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.repository.health import Health

_PACKAGES = ("numpy", "numba", "llvmlite", "torch", "safetensors", "blake3", "zstandard", "lmdb")
_EXTRAS = {"starlette": "http", "obstore": "cloud", "huggingface_hub": "hub"}
_FEATURES = ("avx2", "fma", "f16c", "bmi2", "avx512f", "avx512bw", "neon", "sve")
_LITTLE_ROOM_BYTES = 1 << 30


class KernelsDocument(msgspec.Struct, frozen=True):
    """The kernel cache. `complete`: every kernel is compiled for this machine."""

    directory: str | None
    writable: bool
    complete: bool


class LockDocument(msgspec.Struct, frozen=True):
    """A lock that is held; `process` is null where the holder did not say."""

    name: str
    process: int | None


class RepositoryDocument(msgspec.Struct, frozen=True):
    """The repository here. `unwritable`: what this user may not write to."""

    directory: str
    free_bytes: int
    unwritable: tuple[str, ...]
    locks: tuple[LockDocument, ...]


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
    repository = _repository(session)
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
        advice=tuple(_advice(packages, kernels, repository)),
    )
    session.emit(document, _text(document))


def _repository(session: Session) -> RepositoryDocument | None:
    from mergepipe.repository.health import examine

    try:
        with session.repository() as repository:
            health: Health = examine(repository.directory)
    except NoRepository:
        return None
    return RepositoryDocument(
        str(health.directory),
        health.free_bytes,
        health.unwritable,
        tuple(LockDocument(each.name, each.process) for each in health.locks),
    )


def _version(package: str) -> str | None:
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
        rows += [
            (
                "repository",
                f"{escape_for_terminal(here.directory)}, {format_size(here.free_bytes)} free",
            ),
            ("locks", ", ".join(locks) or "none is held"),
        ]
    lines = [table(rows)]
    if document.advice:
        lines += ["", *document.advice]
    return "\n".join(lines)


def _process(lock: LockDocument) -> str:
    return "its holder is not named" if lock.process is None else f"process {lock.process}"
