"""Where compiled kernels are kept between processes, and whether all of them are there.

Nothing here loads numba: a command asks first, and says what it is about to wait for.
"""

import os
import platform
import sys
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

from mergepipe.user_cache import user_cache

VARIABLE = "MP_KERNEL_CACHE"
"""Names the folder; it may be one that is only read, as in an image."""

_PACKAGE = Path(__file__).resolve().parent
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
    own = [Path(__file__), _PACKAGE / "jit.py"]
    for path in [*own, *sorted(folder.rglob("*.py"))]:
        source = path.read_bytes()
        digest.update(f"{path.name} {len(source)} ".encode())
        digest.update(source)
    return digest.hexdigest()


def _mark() -> str:
    """The name of the file that says so: of one release, Python, compiler and processor."""
    parts = [sys.version, version("numba"), version("llvmlite"), _processor(), str(_PACKAGE)]
    parts += [sources(_PACKAGE / name) for name in _KERNELS]
    # What numba reads of the environment when it compiles for another machine.
    parts += [os.environ.get(name, "") for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")]
    return f"complete-{blake2b(repr(parts).encode(), digest_size=8).hexdigest()}"


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
