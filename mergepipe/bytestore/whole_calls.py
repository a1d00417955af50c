"""Reads and writes of all that is asked for: one call of the system may move less.

A disk that fills up, a signal or a network file system cuts a call short without an error; the next
call goes on, or says what is wrong (https://man7.org/linux/man-pages/man2/write.2.html).
"""

import os

from mergepipe.ids import Buffer


def write_all(descriptor: int, data: Buffer) -> None:
    """Write all of `data` at the descriptor's place, as one call wherever that is enough."""
    left = memoryview(data).cast("B")
    while left:
        left = left[os.write(descriptor, left) :]


def write_all_at(descriptor: int, data: Buffer, offset: int) -> None:
    """Write all of `data` at `offset`."""
    left = memoryview(data).cast("B")
    while left:
        count = os.pwrite(descriptor, left, offset)
        left, offset = left[count:], offset + count


def fill_at(descriptor: int, out: memoryview, offset: int) -> int:
    """Fill `out` (bytes) from `offset`; how many there were: less only where the file ends."""
    done = 0
    while done < len(out):
        count = os.preadv(descriptor, [out[done:]], offset + done)
        if not count:
            break
        done += count
    return done


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """`size` bytes from `offset`, or as many as there are before the file ends."""
    out = bytearray(size)
    return bytes(out[: fill_at(descriptor, memoryview(out), offset)])
