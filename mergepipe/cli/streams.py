"""The three standard streams, also where whoever started us closed some of them."""

import os
import sys
from contextlib import suppress

_STREAMS = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w"))


def complete_streams() -> None:
    """Open /dev/null in the place of each stream that is closed (`mp commit >&-`).

    Python has None for such a stream, and the next file that is opened, perhaps a pack, gets its
    number, which libraries and hooks go on writing to. Who closes a stream wants not to hear.
    """
    for number, (name, flags, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is not None:
            continue
        descriptor = os.open(os.devnull, flags)
        if descriptor != number and not _is_open(number):
            os.dup2(descriptor, number)
            os.close(descriptor)
            descriptor = number
        if descriptor == number:
            os.set_inheritable(number, True)  # as a standard stream is: hooks and ssh get it
        setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def _is_open(number: int) -> bool:
    with suppress(OSError):
        os.fstat(number)
        return True
    return False
