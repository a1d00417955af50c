"""Take away each fsync, hash comparison, limit and link check in turn; which test misses it?

    python -m tests.mutations [KIND | FILE | FILE:NUMBER ...] [--list]

Prints a line for each: the test that failed, or SURVIVED, and exits with 1 if any did. Each is done
in a process forked from this one, in which nothing of mergepipe is loaded but all that it needs.
"""

import importlib
import os
import re
import runpy
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

from .asked import asked_of
from .sites import Site, sites

ROOT = Path(__file__).parents[2]
HOOK = Path(__file__).parent / "hook"
_LONGEST_S = int(os.environ.get("MUTATION_S", "300"))
_HEAVY = (
    "numpy",
    "torch",
    "lmdb",
    "msgspec",
    "blake3",
    "zstandard",
    "numba",
    "hypothesis",
    "typer.main",
    "rich.console",
    "starlette.applications",
    "uvicorn",
    "tomlkit",
    "yaml",
)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def main(wanted: list[str]) -> int:
    """Go through those that are wanted, or all; the exit code."""
    chosen = [site for site in sites() if not wanted or _is_wanted(site, wanted)]
    for name in _HEAVY:
        importlib.import_module(name)
    survived = 0
    for site in chosen:
        begun = time.monotonic()
        verdict = missed_by(site)
        survived += verdict == "SURVIVED"
        seconds = time.monotonic() - begun
        print(
            f"{site.kind:6} {site.file}:{site.line} `{site.text[:70]}`: {verdict}, {seconds:.0f} s"
        )
        sys.stdout.flush()
    print(f"mutations: {len(chosen)}, of which nobody misses {survived}")
    return 1 if survived else 0


def _is_wanted(site: Site, wanted: list[str]) -> bool:
    return any(each in (site.kind, site.name) or site.file.startswith(each) for each in wanted)


def missed_by(site: Site) -> str:
    """The test that fails without it, `hangs`, or SURVIVED."""
    with tempfile.NamedTemporaryFile("r") as said:
        child = os.fork()
        if child == 0:
            _run_tests(site, said.name)
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
        signal.alarm(_LONGEST_S)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        signal.alarm(0)
        output = said.read()
    if code == 0:
        return "SURVIVED"
    if code == -signal.SIGKILL:
        return f"nothing within {_LONGEST_S} s"
    failed = _FAILED.search(output)
    return failed[1] if failed else f"exit code {code}: {output[-300:]!r}"


def _run_tests(site: Site, output: str) -> None:
    os.setpgid(0, 0)
    descriptor = os.open(output, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    path = [str(HOOK), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {"MERGEPIPE_MUTATION": site.name, "PYTHONPATH": os.pathsep.join(path)}
    runpy.run_path(str(HOOK / "sitecustomize.py"))
    options = ["-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-rfE"]
    code = pytest.main([*options, *asked_of(site)])
    sys.stdout.flush()
    os._exit(int(code))


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        for each in sites():
            print(f"{each.kind:6} {each.name} line {each.line} {each.text}")
        sys.exit(0)
    sys.exit(main(sys.argv[1:]))
