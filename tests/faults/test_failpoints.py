"""Failpoints strike where they are told to, and are nothing when they are off."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mergepipe import failpoints
from mergepipe.failpoints import Strike, Strikes, parse, reached

ROOT = Path(__file__).parents[2]


def test_what_they_are_told() -> None:
    told = "file.rename@2=kill, index.commit=ENOSPC"
    assert parse(told) == (Strike("file.rename", "kill", 2), Strike("index.commit", "ENOSPC"))
    assert parse("") == ()


@pytest.mark.parametrize("text", ["x", "x=", "=kill", "x=nonsense", "x@y=kill", "x=errorcode"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="MERGEPIPE_FAILPOINTS"):
        parse(text)


def test_an_error_at_the_right_time() -> None:
    failpoints.arm(Strikes(parse("b@2=EIO")))
    try:
        for name in ("a", "b", "c"):
            reached(name)
        with pytest.raises(OSError, match="failpoint b"):
            reached("b")
        reached("b")
    finally:
        failpoints.arm(None)
    reached("b")


def test_the_environment_arms_a_process() -> None:
    script = "from mergepipe.failpoints import reached; reached('x'); reached('x'); print('alive')"
    environment = {**os.environ, "MERGEPIPE_FAILPOINTS": "*@2=kill", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
