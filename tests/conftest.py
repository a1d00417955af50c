"""What holds for every test: no result depends on how fast the machine is, and nothing is left."""

import os
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.temporary import RunDirectory, within_a_run

# Hundreds of processes that tests start would each compile all of our source again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Nor does any depend on how many cores there are: models of tests are too small to share out.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Who waits for another process waits until it is done, which takes a busy machine more than 10 s.
os.environ["MP_LOCK_TIMEOUT"] = "900"

settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

DIRECTORY = pytest.StashKey[RunDirectory]()
MOST_WORKERS = 8
"""Each takes up to a gigabyte of memory."""


def pytest_configure(config: pytest.Config) -> None:
    if not within_a_run():  # as xdist's workers are, and runs that a test starts
        config.stash[DIRECTORY] = RunDirectory()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` is: a process for each core that we may use."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return min(cores or 1, MOST_WORKERS)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if directory := session.config.stash.get(DIRECTORY, None):
        directory.keep = session.exitstatus != pytest.ExitCode.OK


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    directory = config.stash.get(DIRECTORY, None)
    if directory and (left := directory.left()):
        terminalreporter.section("left among temporary files")
        terminalreporter.write_line(f"A test, or what it started, did not tidy up: {left}")
        for path in directory.within(left):
            terminalreporter.write_line(f"  {path}")


def pytest_unconfigure(config: pytest.Config) -> None:
    if directory := config.stash.get(DIRECTORY, None):
        directory.remove()
