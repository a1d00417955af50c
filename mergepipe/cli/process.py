"""The process `mp`: how it starts and how it ends. What it does between is `main`."""

import gc

# Before anything of ours is loaded, as loading a command allocates the most: objects by the million
# that are in no cycle. At the default threshold the collector took 6% of a commit's time, and a
# fifth of what loading took.
gc.set_threshold(50_000, 20, 20)

import atexit  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402

from mergepipe.cli.main import main  # noqa: E402


def run() -> int:
    """Run `mp` with the arguments of the process and end it; returns if Python has to do that."""
    code = main()
    leave(code)
    return code


def leave(code: int) -> None:
    """End the process, without taking apart what the system takes back at once.

    Python ends by freeing modules and objects one by one, and looks for cycles between them: 0.05 s
    of processor time after `mp log`, 0.15 s after a merge. What other code asked to be run at the
    end is run, and streams are flushed. Returns instead where a thread still works, a stream does
    not take its last words, or a profiler or debugger looks on: Python knows what to do then.
    """
    if sys.gettrace() is not None or sys.getprofile() is not None:
        return
    mine = threading.current_thread()
    if any(each is not mine and not each.daemon for each in threading.enumerate()):
        return
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(code)
