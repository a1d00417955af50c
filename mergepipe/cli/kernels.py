"""The step before the first long work of an installation: compile every kernel, and say so."""

import pkgutil
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from mergepipe import kernel_cache

if TYPE_CHECKING:
    from mergepipe.cli.session import Session

_PACKAGES = ("mergepipe.codecs", "mergepipe.methods.fused")
STEP = "compiling kernels, once, about 30 s"


def prepare(session: "Session") -> None:
    """Compile what is not there yet. Where it could not be kept, kernels compile as they come."""
    if not kernel_cache.complete() and kernel_cache.writable():
        compile_all(session)


def compile_all(session: "Session") -> int:
    """Load every module that has kernels, which compiles them; returns how many modules."""
    drawn = sys.stderr.isatty() and not (session.quiet or session.as_json)
    if not drawn:
        session.say(STEP)
    names = list(_modules())
    try:
        for number, name in enumerate(names):
            if drawn:
                print(f"\r{STEP}: {number} of {len(names)} ", end="", file=sys.stderr, flush=True)
            import_module(name)
    finally:
        if drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    kernel_cache.mark_complete()
    return len(names)


def _modules() -> Iterator[str]:
    for package in _PACKAGES:
        for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
            yield module.name
