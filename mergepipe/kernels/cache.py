"""Where compiled kernels are kept between processes, and whether all of them are there.

One file a kernel: its object code behind a line of JSON (symbol, needs) and a checksum of both. Its
name has a digest of all that the code depends on, so a file is never out of date, only unused.

Nothing here loads numba: a command asks first, and says what it is about to wait for.
"""

import json
import os
import platform
import sys
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from mergepipe.kernels.object_code import ObjectCode
from mergepipe.user_cache import user_cache

if TYPE_CHECKING:
    from mergepipe.kernels.declared import Kernel

VARIABLE = "MP_KERNEL_CACHE"
"""Names the folder; it may be one that is only read, as in an image."""

_PACKAGE = Path(__file__).resolve().parent.parent
_CHECKSUM_BYTES = 32
_KERNELS = ("codecs", "methods")
_CPU_BYTES = 8192  # of /proc/cpuinfo: the first processor


@cache
def directory() -> Path | None:
    """The folder of this process, or None where nothing can be kept.

    What `MP_KERNEL_CACHE` (or numba's own `NUMBA_CACHE_DIR`) names, writable or not; in a checkout
    a folder of the checkout; else the user's own cache. The installation is never written to:
    uninstalling would leave those files behind.
    """
    # The environment is read here, below the CLI: kernels load for whoever imports them, and
    # their place is a matter of the process, not of a repository.
    for variable in (VARIABLE, "NUMBA_CACHE_DIR"):
        if named := os.environ.get(variable):
            return Path(named).absolute()
    candidates = []
    if (_PACKAGE.parent / "pyproject.toml").is_file():
        candidates.append(_PACKAGE / "__pycache__" / "kernels")
    if (cache_folder := user_cache()) is not None:
        candidates.append(cache_folder / "kernels")
    return next((folder for folder in candidates if _writable(folder)), None)


def complete() -> bool:
    """Whether every kernel of this release was compiled for this machine already."""
    folder = directory()
    return folder is not None and (folder / _mark()).is_file()


def mark_complete() -> None:
    """Note that every kernel is there. Where nothing can be written, nothing is noted."""
    folder = directory()
    if folder is not None:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _mark()).touch()


def writable() -> bool:
    """Whether what is compiled now can be kept."""
    folder = directory()
    return folder is not None and _writable(folder)


@cache
def sources(folder: Path) -> str:
    """A digest of every Python source under a folder, and of those that compile and keep it.

    A kernel has the code of those it calls, and values of constants, compiled in.
    """
    digest = blake2b(digest_size=16)
    compiler = sorted((_PACKAGE / "kernels").glob("*.py"))
    for path in [*compiler, *sorted(folder.rglob("*.py"))]:
        source = path.read_bytes()
        digest.update(f"{path.name} {len(source)} ".encode())
        digest.update(source)
    return digest.hexdigest()


def load(kernel: "Kernel") -> ObjectCode | None:
    """The kept object code of a kernel, or None: there is none, or it is damaged."""
    folder = directory()
    if folder is None:
        return None
    try:
        kept = (folder / _file(kernel)).read_bytes()
    except OSError:  # none, or not ours to read
        return None
    checksum, content = kept[:_CHECKSUM_BYTES], kept[_CHECKSUM_BYTES:]
    if blake2b(content, digest_size=_CHECKSUM_BYTES).digest() != checksum:
        return None
    head, _, code = content.partition(b"\n")
    symbol, needs = json.loads(head)
    return ObjectCode(symbol, needs, code)


def save(kernel: "Kernel", code: ObjectCode) -> None:
    """Keep object code for later processes; a full or read-only disk is no reason to fail."""
    folder = directory()
    if folder is None:
        return
    content = json.dumps([code.symbol, code.needs]).encode() + b"\n" + code.code
    path = folder / _file(kernel)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, prefix=".new-", delete=False) as file:
            try:
                file.write(blake2b(content, digest_size=_CHECKSUM_BYTES).digest() + content)
                file.close()
                Path(file.name).chmod(0o644)
                Path(file.name).replace(path)
            except OSError:
                Path(file.name).unlink(missing_ok=True)


def processor_options() -> tuple[str | None, str | None]:
    """The processor and features that numba's variables name; None: those of this one."""
    return os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")


def _file(kernel: "Kernel") -> str:
    """The name of a kernel's file: of its sources, signature, Python, compiler and processor."""
    sources_of_kernel = sources(_package_of(Path(kernel.function.__code__.co_filename).resolve()))
    parts = [*_environment(), sources_of_kernel, repr(kernel.signature)]
    return f"{kernel.name}-{blake2b(repr(parts).encode(), digest_size=8).hexdigest()}.o"


def _package_of(file: Path) -> Path:
    """The folder right below ours that a file is in; its own one elsewhere."""
    if not file.is_relative_to(_PACKAGE):
        return file.parent
    return _PACKAGE / file.relative_to(_PACKAGE).parts[0]


def _mark() -> str:
    """The name of the file that says so: of one release, Python, compiler and processor."""
    parts = [*_environment(), *(sources(_PACKAGE / name) for name in _KERNELS)]
    return f"complete-{blake2b(repr(parts).encode(), digest_size=8).hexdigest()}"


@cache
def _environment() -> tuple[str, ...]:
    """All that object code depends on but its source."""
    options = [option or "" for option in processor_options()]
    return (sys.version, _release("numba"), _release("llvmlite"), _processor(), *options)


def _release(package: str) -> str:
    """Which release of a package this is, without loading it: what its `_version.py` says.

    Asking its metadata would take longer than all else that a warm command does for its kernels.
    """
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        with suppress(OSError):
            return (Path(spec.origin).parent / "_version.py").read_text()
    from importlib.metadata import version

    return version(package)


def _processor() -> str:
    """The model and features of the processor, as far as the system tells."""
    with suppress(OSError), Path("/proc/cpuinfo").open("rb") as file:
        lines = file.read(_CPU_BYTES).decode(errors="replace").splitlines()
        told = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
        return "\n".join(told[:2])
    return platform.platform()


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder that is there or could be made."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False
