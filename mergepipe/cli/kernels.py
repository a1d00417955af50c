"""The step before the first long work of an installation: compile every kernel, and say so."""

import pkgutil
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from mergepipe.kernels import cache as kernel_cache
from mergepipe.kernels.declared import declared_kernels

if TYPE_CHECKING:
    from mergepipe.cli.session import Session

_PACKAGES = ("mergepipe.codecs", "mergepipe.methods.fused")
STEP = "compiling kernels, once, about 30 s"


def prepare(session: "Session") -> None:
    """Compile what is not there yet. Where it could not be kept, kernels compile as they come."""
    if not kernel_cache.complete() and kernel_cache.writable():
        compile_all(session)


def compile_all(session: "Session") -> int:
    """Compile every kernel whose code is not kept; returns how many there are."""
    drawn = sys.stderr.isatty() and not (session.quiet or session.as_json)
    if not drawn:
        session.say(STEP)
    for name in _modules():
        import_module(name)
    kernels = declared_kernels()
    try:
        for number, kernel in enumerate(kernels):
            if drawn:
                print(f"\r{STEP}: {number} of {len(kernels)} ", end="", file=sys.stderr, flush=True)
            kernel.prepare()
    finally:
        if drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    kernel_cache.mark_complete()
    return len(kernels)


def _modules() -> Iterator[str]:
    for package in _PACKAGES:
        for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
            if not module.name.endswith(".lane_code"):  # numba's own: kernels load it
                yield module.name
