"""Take away each fsync, hash comparison, limit and link check in turn; does its test miss it?

    python -m tests.mutations [KIND | FILE | NAME ...]
    python -m tests.mutations --list
    python -m tests.mutations --find PATH ...

Asks the test that docs/mutations.md names, prints a line for each, and exits with 1 if any
SURVIVED. `--find` runs tests once to see which checks each comes by, and asks those tests, the most
particular first, about all checks that the page has no test for; it prints lines for the page.
Each is done in a process forked from this one, in which the modules are loaded.
"""

import importlib
import os
import pkgutil
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from .listed import listed, row
from .sites import Site, sites

ROOT = Path(__file__).parents[2]
HOOK = Path(__file__).parent / "hook"
_LONGEST_S = int(os.environ.get("MUTATION_S", "300"))
_ASKED_S = 30
_FEW = 3
_OPTIONS = ("-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-rfE", "-m", "")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", re.MULTILINE)
_TOOK = re.compile(r"^([\d.]+)s (?:setup|call|teardown) +(tests/.+)$", re.MULTILINE)
SURVIVED = "SURVIVED"


def main(wanted: Sequence[str]) -> int:
    """Go through those that are wanted, or all; the exit code."""
    known = listed()
    chosen = [site for site in sites() if not wanted or _is_wanted(site, wanted)]
    _prepare(load=len(chosen) > _FEW)
    survived = 0
    for site in chosen:
        begun = time.monotonic()
        test = known[site.name][1] if site.name in known else ""
        verdict = missed_by(site, (test,)) if test else "open"
        survived += verdict in (SURVIVED, "open")
        seconds = time.monotonic() - begun
        print(
            f"{site.kind:6} {site.name} `{site.text[:50]}`: {verdict}, {seconds:.0f} s", flush=True
        )
    print(f"mutations: {len(chosen)}, of which nobody misses {survived}")
    return 1 if survived else 0


def find(paths: Sequence[str]) -> int:
    """Look among some tests for those that miss what is not listed yet."""
    _prepare(load=True)
    known = listed()
    asked = reaching(paths)
    for site in sites():
        if site.name not in asked or (site.name in known and known[site.name][1]):
            continue
        verdict = missed_by(site, asked[site.name])
        print(row(site.kind, site.name, verdict), flush=True)
    return 0


def reaching(paths: Sequence[str]) -> dict[str, list[str]]:
    """Tests that come by each check, those first that come by few others; half a minute of them."""
    with tempfile.NamedTemporaryFile("r") as reached:
        os.environ["MERGEPIPE_REACHED"] = reached.name
        options = ("--durations=0", "--durations-min=0")
        code, output = _forked([*options, *(each for each in _OPTIONS if each != "-x"), *paths])
        del os.environ["MERGEPIPE_REACHED"]
        lines = [line.rstrip("\n").split("\t") for line in reached]
    took: defaultdict[str, float] = defaultdict(float)
    for each, test in _TOOK.findall(output):
        took[test] += float(each)
    print(f"exit code {code}: {len(took)} tests", flush=True)
    passes: defaultdict[str, int] = defaultdict(int)
    for test, _ in lines:
        passes[test] += 1
    some: defaultdict[str, list[str]] = defaultdict(list)
    seconds: defaultdict[str, float] = defaultdict(float)
    for test, name in sorted(lines, key=lambda line: passes[line[0]]):
        seconds[name] += took[test]
        if seconds[name] < _ASKED_S or not some[name]:
            some[name].append(test)
    return some


def missed_by(site: Site, tests: Sequence[str]) -> str:
    """The one of these tests that fails without it, that it takes too long, or SURVIVED."""
    if site.at_import:  # and the modules are loaded here
        command = [sys.executable, "-m", "pytest", *_OPTIONS, *tests]
        environment = os.environ | {"MERGEPIPE_MUTATION": site.name}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        code, output = done.returncode, done.stdout
    else:
        code, output = _forked([*_OPTIONS, *tests], site.name)
    if code == 0:
        return SURVIVED
    if code == -signal.SIGKILL:
        return f"nothing within {_LONGEST_S} s"
    failed = _FAILED.search(output)
    return failed[1] if failed else f"exit code {code}: {output[-300:]!r}"


def _is_wanted(site: Site, wanted: Sequence[str]) -> bool:
    return any(each in (site.kind, site.name) or site.file.startswith(each) for each in wanted)


def _prepare(*, load: bool) -> None:
    """Have modules of mergepipe ask what they lack when they are loaded, which may be now."""
    assert "mergepipe" not in sys.modules
    path = [str(HOOK), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {"MERGEPIPE_MUTATION": "*", "PYTHONPATH": os.pathsep.join(path)}
    runpy.run_path(str(HOOK / "sitecustomize.py"), run_name="sitecustomize")
    if not load:
        return
    package = importlib.import_module("mergepipe")
    for module in pkgutil.walk_packages(package.__path__, "mergepipe."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _forked(options: Sequence[str], name: str = "*") -> tuple[int, str]:
    """Run pytest in a process of its own; the exit code, and what it said."""
    with tempfile.NamedTemporaryFile("r") as said, tempfile.TemporaryDirectory() as folder:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            # What is left there is left by a process that ends at once, or is killed.
            os.environ |= {"MERGEPIPE_MUTATION": name, "TMPDIR": folder}
            tempfile.tempdir = None
            _run_tests(options, said.name)
        if name != "*":
            signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
            signal.alarm(_LONGEST_S)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        signal.alarm(0)
        return code, said.read()


def _run_tests(options: Sequence[str], output: str) -> None:
    os.setpgid(0, 0)
    descriptor = os.open(output, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = pytest.main(list(options))
    sys.stdout.flush()
    os._exit(int(code))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments == ["--list"]:
        for each in sites():
            print(f"{each.kind:6} {each.name} line {each.line} {each.text}")
        sys.exit(0)
    sys.exit(find(arguments[1:]) if arguments[:1] == ["--find"] else main(arguments))
